use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::compose::node::Value;

fn read(text: &str) -> Result<Arc<Node>, ComposeError> {
    parse(text.as_bytes(), 0, "compose.yaml").map(|mut documents| documents.remove(0))
}

/// The tree as JSON-like text, scalars as they were written.
fn show(node: &Node) -> String {
    match &node.value {
        Value::Scalar(scalar) if scalar.style == Style::Quoted => format!("'{}'", scalar.text),
        Value::Scalar(scalar) => scalar.text.to_string(),
        Value::Sequence(items) => format!("[{}]", items.iter().map(|item| show(item)).collect::<Vec<_>>().join(",")),
        Value::Mapping(entries) => {
            let entries: Vec<_> = entries.iter().map(|entry| format!("{}:{}", entry.key, show(&entry.value))).collect();
            format!("{{{}}}", entries.join(","))
        }
    }
}

#[test]
fn text_becomes_a_tree() {
    for (text, tree) in [
        ("a: 1\nb: [x, 'y', \"z\"]\n", "{a:1,b:[x,'y','z']}"),
        ("{\"a\": {\"b\": null}}", "{a:{b:null}}"),
        ("\u{feff}a: b", "{a:b}"),
        ("---\na: b\n", "{a:b}"),
        ("a:\nb: ~\n", "{a:,b:~}"),
        ("a: |\n  x\n  y\n", "{a:'x\ny\n'}"),
        ("a: >\n  x\n  y\n", "{a:'x y\n'}"),
        ("'1': a\nyes: b\n", "{1:a,yes:b}"),
        ("a: !reset null\nb: !override [x]\n", "{a:null,b:[x]}"),
        ("a: !!str 5\nb: !!int '5'\nc: !!map {}\n", "{a:'5',b:5,c:{}}"),
        ("a: ! 5\n", "{a:'5'}"),
        ("a: &x {b: 1}\nc: *x\n", "{a:{b:1},c:{b:1}}"),
        ("a: &k b\n*k : c\n", "{a:b,b:c}"),
        ("a: &x 1\nb: &x 2\nc: *x\n", "{a:1,b:2,c:2}"),
        ("- a\r\n- b\r\n", "[a,b]"),
    ] {
        assert_eq!(read(text).map(|node| show(&node)).as_deref(), Ok(tree), "{text:?}");
    }
}

#[test]
fn no_place_is_behind_the_end() {
    for (text, line, column) in [
        ("? ", 1, 3),
        ("a: [b,", 1, 7),
        ("a: {b: ", 1, 8),
        ("a:\n  b: {c\n", 3, 1),
        ("a: b\r? ", 2, 3),
        ("a: b\r\n? ", 2, 3),
    ] {
        let error = read(text).map(|_| ()).expect_err(text);
        assert_eq!(error.location, Some(Location { line, column }), "{text:?}: {error}");
    }
}

#[test]
fn merge_keys_add_what_is_not_there() {
    for (text, tree) in [
        ("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n", "{a:{x:1,y:2},b:{y:3,x:1}}"),
        ("a: &a {x: 1}\nb: &b {x: 2, z: 3}\nc: {<<: [*a, *b]}\n", "{a:{x:1},b:{x:2,z:3},c:{x:1,z:3}}"),
        ("a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b}\n", "{a:{x:1},b:{y:2,x:1},c:{y:2,x:1}}"),
        ("a: {<<: {x: 1}, '<<': 2}\n", "{a:{<<:2,x:1}}"),
    ] {
        assert_eq!(read(text).map(|node| show(&node)).as_deref(), Ok(tree), "{text:?}");
    }
}

#[test]
fn refusals_say_where_and_why() {
    for (text, line, column, reason) in [
        ("", 1, 1, "empty"),
        ("# nothing\n", 1, 1, "empty"),
        ("1: a\n", 1, 1, "key must be a string, but it is a number"),
        ("{true: b}\n", 1, 2, "key must be a string, but it is a boolean"),
        ("a: &x 1\n---\nb: *x\n", 3, 4, "in another document"),
        ("a: 1\nb: 2\na: 3\n", 3, 1, "already there at line 1"),
        ("x: {a: 1, a: 2}\n", 1, 11, "already there"),
        ("a: *nope\n", 1, 4, "not defined"),
        ("a: &x [1, *x]\n", 1, 11, "inside what it names"),
        ("[a]: b\n", 1, 1, "key must be a string"),
        ("a: [b, \"x\\0y\"]\n", 1, 8, "a text cannot have a NUL in it"),
        ("\"a\\0\": b\n", 1, 1, "a text cannot have a NUL in it"),
        ("{a: b}: c\n", 1, 1, "key must be a string"),
        ("a: {<<: 5}\n", 1, 5, "mapping or a list of mappings"),
        ("a: &a {}\nb: {<<: *a, <<: *a}\n", 2, 13, "second time"),
        ("a: !custom b\n", 1, 4, "tag is not supported"),
        ("a: !!binary aGk=\n", 1, 4, "tag is not supported"),
        ("a: \u{7}\n", 1, 4, "control characters"),
        ("a: [b\n", 2, 1, "not YAML"),
        ("services:\n\ta: b\n", 2, 2, "not YAML"),
    ] {
        let error = read(text).map(|node| show(&node)).expect_err(text);
        let at = error.location.expect("located");
        assert!(error.reason.contains(reason), "{text:?}: {error}");
        assert_eq!((at.line, at.column), (line, column), "{text:?}: {error}");
    }
    let error = parse(b"a: b\nc: \xff\n", 0, "compose.yaml").err().expect("not UTF-8");
    assert_eq!(error.to_string(), "compose.yaml:2:4: the file is not UTF-8 text");
}

fn billion_laughs(levels: usize) -> String {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..levels {
        let items = vec![format!("*a{}", level - 1); 9].join(", ");
        let _ = writeln!(text, "a{level}: &a{level} [{items}]");
    }
    text
}

#[test]
fn hostile_text_is_refused_at_once() {
    let mut deep_aliases = "a0: &a0 [x]\n".to_owned();
    for level in 1..100 {
        let _ = writeln!(deep_aliases, "a{level}: &a{level} [*a{}]", level - 1);
    }
    let wide: String = (0..1000).map(|at| format!("k{at}: v, ")).collect();
    let merges: String = (0..1000).map(|at| format!("m{at}: {{<<: *w}}\n")).collect();
    let long_scalar = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), "*a,".repeat(100_000));
    for (name, text) in [
        ("billion laughs", billion_laughs(12)),
        ("laughs through merges", format!("w: &w {{{wide}}}\n{merges}")),
        ("deep aliases", deep_aliases),
        ("flow nesting", "[".repeat(200_000)),
        ("flow mappings", "{a: ".repeat(100_000)),
        ("block nesting", (0..800).map(|at| format!("{}a:\n", " ".repeat(at))).collect()),
        ("sequence nesting", "- ".repeat(100_000)),
        ("many nodes", "- a\n".repeat(250_000)),
        ("many flow nodes", format!("[{}]", "a,".repeat(500_000))),
        ("flow keys", format!("[{}", "? ".repeat(500_000))),
        ("huge file", "a".repeat(2 << 20)),
        ("long scalar many times", long_scalar),
        ("open brackets in flow", format!("{}{}", "[".repeat(60), "a,".repeat(480_000))),
    ] {
        let start = Instant::now();
        assert!(read(&text).is_err(), "{name}");
        assert!(start.elapsed() < Duration::from_secs(30), "{name}: {:?}", start.elapsed());
    }
}

#[test]
fn brackets_in_prose_are_no_nesting() {
    let text = format!("a: |\n{}", "  int f(int[] x) { if (x) { return \"[\"; } }\n".repeat(60));
    assert!(read(&text).is_ok());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in r"([\-?:,\[\]{}#&*!|>'%@`a\n \t]|<<|\PC){0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes, 0, "compose.yaml");
    }
}

#[test]
fn a_file_may_hold_several_documents() {
    let documents = parse(b"a: b\n---\nc: d\n", 0, "compose.yaml").expect("two documents");
    assert_eq!(documents.iter().map(|node| show(node)).collect::<Vec<_>>(), ["{a:b}", "{c:d}"]);
    let many = "a: b\n---\n".repeat(101);
    assert!(parse(many.as_bytes(), 0, "compose.yaml").is_err_and(|error| error.reason.contains("100 documents")));
}
