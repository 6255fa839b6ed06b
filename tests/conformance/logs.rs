//! Log lines: whose, which, when, and how reading goes on after any of them.

use std::time::Duration;

use futures::StreamExt as _;
use q8_agent::backend::{
    Backend, GapReason, LogCursor, LogEvent, LogGap, LogLine, LogQuery, LogStream, LogStreamKind, Tail,
};
use tokio::time::timeout;

use super::{Tenant, World, eventually, service, stack};

/// Every line there is, and no more.
const ALL: LogQuery =
    LogQuery { services: Vec::new(), tail: Tail::All, follow: false, since: None, until: None, cursor: None };

/// A stream as a client takes it: line by line, keeping the cursor.
struct Client {
    stream: LogStream,
    waiting: std::vec::IntoIter<LogEvent>,
    cursor: LogCursor,
    gaps: Vec<LogGap>,
    /// The cursor that comes with each gap.
    at_gaps: Vec<LogCursor>,
}

impl Client {
    async fn of(tenant: &Tenant<'_>, query: &LogQuery) -> Self {
        let stream = tenant.backend.logs(&tenant.owner, query).await.expect("logs");
        let cursor = query.cursor.clone().unwrap_or_default();
        Self { stream, waiting: Vec::new().into_iter(), cursor, gaps: Vec::new(), at_gaps: Vec::new() }
    }

    /// The next line; none at the end.
    async fn next(&mut self) -> Option<LogLine> {
        loop {
            let Some(event) = self.waiting.next() else {
                let events = timeout(Duration::from_secs(20), self.stream.next()).await.expect("in time")?;
                self.waiting = events.expect("no failure").into_iter();
                continue;
            };
            match event {
                LogEvent::Joined(mark) => self.cursor.join(mark),
                LogEvent::Left(source) => self.cursor.leave(source),
                LogEvent::Gap(gap) => {
                    self.gaps.push(gap);
                    self.at_gaps.push(self.cursor.clone());
                }
                LogEvent::Line(line) => {
                    self.cursor.told(&line);
                    return Some(line);
                }
            }
        }
    }

    /// The next line's text.
    async fn text(&mut self) -> String {
        text(&self.next().await.expect("it goes on"))
    }
}

async fn read(tenant: &Tenant<'_>, query: &LogQuery) -> Vec<LogLine> {
    let (mut client, mut lines) = (Client::of(tenant, query).await, Vec::new());
    while let Some(line) = client.next().await {
        lines.push(line);
    }
    lines
}

/// What comes after a cursor that a client has given back as text.
fn after(tenant: &Tenant<'_>, cursor: &LogCursor) -> LogQuery {
    let text = cursor.text(&tenant.owner.subdomain).expect("it is short");
    LogQuery { cursor: Some(LogCursor::parse(&text, &tenant.owner.subdomain).expect("its own text")), ..ALL }
}

fn text(line: &LogLine) -> String {
    String::from_utf8(line.line.to_vec()).expect("these lines are UTF-8")
}

/// A service that writes these shell commands' output and then sleeps.
fn says(commands: &str) -> String {
    format!(r#"entrypoint: ["sh", "-c", "{commands}; sleep 3600"]"#)
}

async fn has_lines(tenant: &Tenant<'_>, count: usize) {
    eventually("all lines are written", async || read(tenant, &ALL).await.len() >= count).await;
}

pub(crate) async fn streams_are_told_apart(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "streams");
    tenant.up(&stack(&[("web", &[&says("echo out; echo err >&2")])], "")).await.expect("it comes up");
    has_lines(&tenant, 2).await;
    let lines = read(&tenant, &ALL).await;
    // Two streams are read side by side: which of two lines has the earlier time is chance.
    let mut told: Vec<(String, LogStreamKind)> = lines.iter().map(|line| (text(line), line.stream)).collect();
    told.sort_by(|one, other| other.0.cmp(&one.0));
    let errors = if backend.capabilities().split_streams { LogStreamKind::Stderr } else { LogStreamKind::Stdout };
    assert_eq!(told, [(String::from("out"), LogStreamKind::Stdout), (String::from("err"), errors)]);
    for line in &lines {
        assert_eq!((line.origin.service.as_str(), line.origin.number, line.partial), ("web", 1, false));
        assert_eq!(line.origin.container.as_str(), tenant.container_name("web"));
        assert!(line.time.is_some());
    }
    tenant.purge().await;
}

pub(crate) async fn services_are_chosen(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "chosen");
    // The pauses keep the three apart, however late a busy engine starts one of them, so that the order by time is certain.
    let text_ = stack(
        &[
            ("a", &[&says("sleep 3; echo from a")]),
            ("b", &[&says("echo from b")]),
            ("c", &[&says("sleep 6; echo from c")]),
        ],
        "",
    );
    tenant.up(&text_).await.expect("it comes up");
    has_lines(&tenant, 3).await;
    for (services, wanted) in [
        (&[][..], &["from b", "from a", "from c"][..]),
        (&["a"], &["from a"]),
        (&["c", "b"], &["from b", "from c"]),
        (&["nobody"], &[]),
    ] {
        let query = LogQuery { services: services.iter().map(|name| service(name)).collect(), ..ALL };
        let lines: Vec<String> = read(&tenant, &query).await.iter().map(text).collect();
        assert_eq!(lines, wanted, "{services:?}");
    }
    tenant.purge().await;
}

pub(crate) async fn the_tail_is_the_end(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "tail");
    let says = says("echo line 1; echo line 2; echo line 3; echo line 4; echo line 5");
    tenant.up(&stack(&[("web", &[&says])], "")).await.expect("it comes up");
    has_lines(&tenant, 5).await;
    for (tail, wanted) in [
        (Tail::All, &["line 1", "line 2", "line 3", "line 4", "line 5"][..]),
        (Tail::Lines(2), &["line 4", "line 5"]),
        (Tail::Lines(9), &["line 1", "line 2", "line 3", "line 4", "line 5"]),
        (Tail::Lines(0), &[]),
    ] {
        let lines: Vec<String> = read(&tenant, &LogQuery { tail, ..ALL }).await.iter().map(text).collect();
        assert_eq!(lines, wanted, "{tail:?}");
    }
    tenant.purge().await;
}

pub(crate) async fn followers_see_new_lines_at_once(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "follow-log");
    let ticks = says(&["echo tick"; 200].join("; sleep 0.3; "));
    tenant.up(&stack(&[("a", &[&ticks]), ("b", &[&ticks])], "")).await.expect("it comes up");
    let query = LogQuery { tail: Tail::Lines(0), follow: true, ..ALL };
    let mut client = Client::of(&tenant, &query).await;
    // Three of each in a row: one alone would be young with a look now and then, too. A machine may halt once in a while.
    let (mut of_a, mut of_b) = (0, 0);
    for _ in 0..200 {
        let line = client.next().await.expect("it goes on");
        assert_eq!(text(&line), "tick");
        let age = jiff::Timestamp::now().duration_since(line.time.expect("a time"));
        let in_a_row = if line.origin.service.as_str() == "a" { &mut of_a } else { &mut of_b };
        *in_a_row = if age.as_millis() < 1000 || *in_a_row >= 3 { *in_a_row + 1 } else { 0 };
        if of_a >= 3 && of_b >= 3 {
            break;
        }
    }
    assert!(of_a >= 3 && of_b >= 3, "lines come late: {of_a}, {of_b}");
    drop(client);
    tenant.purge().await;
}

pub(crate) async fn times_limit_the_lines(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "times");
    tenant
        .up(&stack(&[("web", &[&says("echo one; sleep 1.2; echo two; sleep 1.2; echo three")])], ""))
        .await
        .expect("it comes up");
    has_lines(&tenant, 3).await;
    let all = read(&tenant, &ALL).await;
    let second = all[1].time.expect("a time");
    let half = Duration::from_millis(500);
    for (since, until, wanted) in [
        (Some(second - half), None, &["two", "three"][..]),
        (None, Some(second + half), &["one", "two"]),
        (Some(second - half), Some(second + half), &["two"]),
    ] {
        let lines: Vec<String> = read(&tenant, &LogQuery { since, until, ..ALL }).await.iter().map(text).collect();
        assert_eq!(lines, wanted, "{since:?} {until:?}");
    }
    tenant.purge().await;
}

pub(crate) async fn followers_end_with_the_tenant(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "end");
    tenant.up(&stack(&[("web", &[&says("echo first")])], "")).await.expect("it comes up");
    let mut client = Client::of(&tenant, &LogQuery { follow: true, ..ALL }).await;
    assert_eq!(client.text().await, "first");
    tenant.purge().await;
    assert!(client.next().await.is_none(), "the stream ends");
}

/// Services that write at the same time, to both streams, and lines that are cut into pieces of one time.
fn talks() -> String {
    let long = "x".repeat(40_000);
    let words = "echo 1; echo e1 >&2; echo 2; echo e2 >&2; echo 3; echo e3 >&2";
    let words = format!("{words}; echo {long}; echo {long}; echo same; echo same");
    stack(&[("a", &[&says(&words)]), ("b", &[&says(&words)]), ("c", &[&says("echo only")])], "")
}

pub(crate) async fn a_cursor_resumes_at_every_line(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "cursors");
    tenant.up(&talks()).await.expect("it comes up");
    // Twice six lines, two of three pieces, and two more; and one.
    has_lines(&tenant, 29).await;
    for query in [ALL, LogQuery { tail: Tail::Lines(5), ..ALL }, LogQuery { services: vec![service("b")], ..ALL }] {
        let whole: Vec<String> = read(&tenant, &query).await.iter().map(shown).collect();
        let mut client = Client::of(&tenant, &query).await;
        for told in 1..=whole.len() {
            client.next().await.expect("a line");
            let resumed = LogQuery { services: query.services.clone(), ..after(&tenant, &client.cursor) };
            let mut rest = Client::of(&tenant, &resumed).await;
            let mut lines = whole[..told].to_vec();
            while let Some(line) = rest.next().await {
                lines.push(shown(&line));
            }
            assert_eq!(lines, whole, "after {told} lines of {query:?}");
            assert_eq!(rest.gaps, [], "after {told} lines of {query:?}");
        }
    }
    tenant.purge().await;
}

/// A line in short.
fn shown(line: &LogLine) -> String {
    let (text, time, more) = (text(line), line.time.expect("a time"), if line.partial { "…" } else { "" });
    format!("{time} {}-{} {:?} {} {:.6}{more}", line.origin.service, line.origin.number, line.stream, text.len(), text)
}

pub(crate) async fn a_cursor_without_lines_begins_where_it_was_given(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "before");
    let waits = says("echo old; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo new");
    tenant.up(&stack(&[("web", &[&waits]), ("quiet", &[&says("echo old")])], "")).await.expect("it comes up");
    has_lines(&tenant, 2).await;
    let mut client = Client::of(&tenant, &LogQuery { tail: Tail::Lines(0), ..ALL }).await;
    assert!(client.next().await.is_none());
    assert_eq!(client.cursor.marks().len(), 2);
    assert_eq!(read(&tenant, &after(&tenant, &client.cursor)).await, []);
    tenant.purge().await;
}

pub(crate) async fn followers_see_what_joins(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "joins");
    tenant.up(&stack(&[("web", &[&says("echo one")]), ("db", &[&says("echo db")])], "")).await.expect("it comes up");
    has_lines(&tenant, 2).await;
    let mut client = Client::of(&tenant, &LogQuery { follow: true, ..ALL }).await;
    let mut first = [client.text().await, client.text().await];
    first.sort();
    assert_eq!(first, ["db", "one"]);
    let text = stack(&[("web", &[&says("echo two"), "scale: 2"]), ("db", &[&says("echo db")])], "");
    tenant.up(&text).await.expect("it is updated");
    assert_eq!([client.text().await, client.text().await], ["two", "two"]);
    let run = Tenant::run();
    backend.restart(tenant.deployed(), Some(&service("db")), &run).await.expect("it restarts");
    assert_eq!(client.text().await, "db");
    assert_eq!(client.gaps, []);
    // What was removed is in no cursor in the end: all of it had been told.
    while client.cursor.marks().len() > 3 {
        match client.waiting.next() {
            Some(LogEvent::Left(source)) => client.cursor.leave(source),
            Some(LogEvent::Line(line)) => panic!("told twice: {line:?}"),
            Some(_) => {}
            None => {
                let events = timeout(Duration::from_secs(20), client.stream.next()).await.expect("in time");
                client.waiting = events.expect("it goes on").expect("no failure").into_iter();
            }
        }
    }
    let resumed = Client::of(&tenant, &after(&tenant, &client.cursor)).await;
    assert_eq!(resumed.gaps, []);
    tenant.purge().await;
    assert!(client.next().await.is_none(), "the stream ends");
}

pub(crate) async fn what_went_with_its_container_is_a_gap(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "gap");
    let quiet = says("echo quiet");
    tenant.up(&stack(&[("web", &[&says("echo one")]), ("quiet", &[&quiet])], "")).await.expect("it comes up");
    has_lines(&tenant, 2).await;
    let mut client = Client::of(&tenant, &ALL).await;
    let mut times = std::collections::BTreeMap::new();
    while let Some(line) = client.next().await {
        times.insert(line.origin.service.as_str().to_owned(), line.time);
    }
    tenant.up(&stack(&[("web", &[&says("echo two")]), ("quiet", &[&quiet])], "")).await.expect("it is updated");
    has_lines(&tenant, 2).await;
    let query = after(&tenant, &client.cursor);
    let mut resumed = Client::of(&tenant, &query).await;
    assert_eq!(resumed.text().await, "two");
    assert!(resumed.next().await.is_none());
    let (number, from, reason) = (1, times["web"], GapReason::Removed);
    let gap = LogGap { service: service("web"), number, container: None, from, to: None, reason };
    assert_eq!(resumed.gaps, [gap]);
    // It is told once, and of the services asked for only.
    let query = after(&tenant, &resumed.cursor);
    let mut again = Client::of(&tenant, &query).await;
    assert!(again.next().await.is_none() && again.gaps.is_empty());
    let mut behind = Client::of(&tenant, &after(&tenant, &resumed.at_gaps[0])).await;
    assert_eq!((behind.text().await.as_str(), behind.gaps.len()), ("two", 0));
    let query = LogQuery { services: vec![service("quiet")], ..after(&tenant, &client.cursor) };
    let mut other = Client::of(&tenant, &query).await;
    assert!(other.next().await.is_none() && other.gaps.is_empty());
    tenant.purge().await;
}
