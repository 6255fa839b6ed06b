//! YAML text -> [`Node`] tree under budgets, so that no text makes the agent slow or large.
//!
//! The parser's events are taken one by one: nothing here recurses. Aliases share their subtree and are charged for what
//! a reader will meet behind them. Merge keys (`<<`) are resolved as soon as their mapping ends; own keys win, then the
//! earlier of several merged mappings.

use std::collections::HashSet;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use super::error::{ComposeError, Location};
use super::node::{Entry, MergeTag, Node, Place, Size, Style};
use super::scalar::{self, Resolved};

/// Bytes of text.
const MAX_TEXT: usize = 1 << 20;
/// Levels of collections, aliases followed.
const MAX_DEPTH: usize = 64;
/// Nodes, those behind an alias counted each time.
const MAX_NODES: u32 = 200_000;
/// Bytes of scalars and keys, those behind an alias counted each time.
const MAX_EXPANDED: u32 = 16 << 20;
/// Characters that may begin a token inside `[ ]` or `{ }`: the scanner holds all tokens of a flow collection at once.
const MAX_FLOW_TOKENS: usize = 400_000;

/// Documents in one file.
const MAX_DOCUMENTS: usize = 100;

/// Why a text was refused.
struct Fault {
    location: Location,
    reason: String,
}

impl Fault {
    fn new(location: Location, reason: impl Into<String>) -> Self {
        Self { location, reason: reason.into() }
    }
}

/// Parses a file: one tree for each document in it, and at least one. `name` is what errors call the file.
pub(super) fn parse(bytes: &[u8], file: u16, name: &str) -> Result<Vec<Arc<Node>>, ComposeError> {
    trees(bytes, file).map_err(|fault| ComposeError {
        file: name.to_owned(),
        field: String::new(),
        location: Some(fault.location),
        reason: fault.reason,
    })
}

fn trees(bytes: &[u8], file: u16) -> Result<Vec<Arc<Node>>, Fault> {
    let start = Location { line: 1, column: 1 };
    if bytes.len() > MAX_TEXT {
        return Err(Fault::new(start, format!("the file is larger than {} KiB", MAX_TEXT >> 10)));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Fault::new(location_of(bytes, error.valid_up_to()), "the file is not UTF-8 text"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    survey(text)?;

    let mut builder = Builder::new(file, end_of(text));
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| scan_fault(&error, builder.end))?;
        builder.take(event, span)?;
    }
    if builder.roots.is_empty() {
        return Err(Fault::new(start, "the file is empty; a Compose file has at least `services`"));
    }
    Ok(builder.roots)
}

/// Whether a text has nothing but empty lines and comments.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).all(|line| line.is_empty() || line.starts_with(b"#"))
}

fn scan_fault(error: &ScanError, end: Location) -> Fault {
    let reason = match error.info() {
        "while parsing node, found unknown anchor" => {
            "this alias names an anchor that is not defined before it".to_owned()
        }
        other => format!("this is not YAML: {other}"),
    };
    Fault::new(location(*error.marker()).min(end), reason)
}

/// One linear look at the text before the scanner sees it: control characters, and flow collections that would make the
/// scanner hold or revisit too much. Brackets in prose count too, so the limits leave room for them.
fn survey(text: &str) -> Result<(), Fault> {
    let (mut open, mut tokens) = (0_usize, 0_usize);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            b'\t' | b'\n' | b'\r' => continue,
            0..=0x1f | 0x7f => {
                return Err(Fault::new(location_of(text.as_bytes(), at), "control characters are not allowed"));
            }
            _ => {}
        }
        if open > 0 && matches!(byte, b'[' | b'{' | b',' | b':' | b'?' | b'"' | b'\'' | b'*' | b'&' | b'!') {
            tokens += 1;
        }
        if open > MAX_DEPTH {
            return Err(Fault::new(location_of(text.as_bytes(), at), too_deep()));
        }
        if tokens > MAX_FLOW_TOKENS {
            return Err(Fault::new(location_of(text.as_bytes(), at), too_large()));
        }
    }
    Ok(())
}

fn too_deep() -> String {
    format!("nested deeper than {MAX_DEPTH} levels")
}

/// Whether a reader may walk a tree of this size.
pub(super) fn is_affordable(size: Size) -> bool {
    size.nodes <= MAX_NODES && size.bytes <= MAX_EXPANDED
}

/// Why it may not.
pub(super) fn too_large() -> String {
    format!(
        "too large: at most {MAX_NODES} nodes and {} MiB of text, what is shared counted each time",
        MAX_EXPANDED >> 20
    )
}

fn location(marker: Marker) -> Location {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Location { line: number(marker.line()).max(1), column: number(marker.col()).saturating_add(1) }
}

/// The location of a byte offset, only needed for errors.
fn location_of(bytes: &[u8], offset: usize) -> Location {
    let before = String::from_utf8_lossy(&bytes[..offset]);
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Location { line: number(line), column: number(column) }
}

/// The end of a text, with the line ends that YAML has.
fn end_of(text: &str) -> Location {
    let lone = text.bytes().filter(|&byte| byte == b'\r').count() - text.matches("\r\n").count();
    let Location { line, column: _ } = location_of(text.as_bytes(), text.len());
    let last = text.rsplit(['\n', '\r']).next().unwrap_or_default().chars().count() + 1;
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Location { line: line.saturating_add(number(lone)), column: number(last) }
}

/// What may still be read.
struct Budget {
    nodes: u32,
    bytes: u32,
}

impl Budget {
    fn new() -> Self {
        Self { nodes: MAX_NODES, bytes: MAX_EXPANDED }
    }

    fn spend(&mut self, size: Size, at: Location) -> Result<(), Fault> {
        match (self.nodes.checked_sub(size.nodes), self.bytes.checked_sub(size.bytes)) {
            (Some(nodes), Some(bytes)) => {
                *self = Self { nodes, bytes };
                Ok(())
            }
            _ => Err(Fault::new(at, too_large())),
        }
    }
}

/// A collection that has begun and not ended.
struct Frame {
    place: Place,
    anchor: usize,
    tag: Option<MergeTag>,
    items: Items,
}

enum Items {
    Sequence(Vec<Arc<Node>>),
    Mapping {
        entries: Vec<Entry>,
        /// The key that waits for its value; whether it is a merge key.
        key: Option<(Arc<str>, Place, bool)>,
        merge: Option<(Place, Arc<Node>)>,
    },
}

struct Builder {
    file: u16,
    /// Where the text ends. The scanner takes the end of a last line for a line end.
    end: Location,
    frames: Vec<Frame>,
    /// By the parser's anchor number; none while the anchored collection is still open.
    anchors: Vec<Option<Arc<Node>>>,
    roots: Vec<Arc<Node>>,
    documents: usize,
    budget: Budget,
    /// Merge keys copy entries: a second budget, so that a merged mapping is not charged twice against the first.
    merged: Budget,
}

impl Builder {
    fn new(file: u16, end: Location) -> Self {
        Self {
            file,
            end,
            frames: Vec::new(),
            anchors: Vec::new(),
            roots: Vec::new(),
            documents: 0,
            budget: Budget::new(),
            merged: Budget::new(),
        }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let place = Place { file: self.file, location: location(span.start).min(self.end) };
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > MAX_DOCUMENTS {
                    let reason = format!("a file holds {MAX_DOCUMENTS} documents at most");
                    return Err(Fault::new(place.location, reason));
                }
                // Anchors end with their document.
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let merge_tag = merge_tag(tag.as_deref());
                let tag = tag.as_deref().filter(|_| merge_tag.is_none());
                // The engine ends a text at the first, or does not start the container.
                if text.contains('\0') {
                    return Err(Fault::new(place.location, "a text cannot have a NUL in it"));
                }
                let (style, is_merge) = style_of(style, &text, tag, place.location)?;
                let node = Arc::new(Node::scalar(place, &text, style).tagged(merge_tag));
                self.budget.spend(node.size, place.location)?;
                self.define(anchor, Some(Arc::clone(&node)));
                self.attach(node, is_merge)
            }
            Event::Alias(anchor) => {
                let node = match self.anchors.get(anchor) {
                    Some(Some(node)) => Arc::clone(node),
                    _ => {
                        return Err(Fault::new(
                            place.location,
                            "an alias cannot stand inside what it names, nor in another document",
                        ));
                    }
                };
                self.budget.spend(node.size, place.location)?;
                if self.frames.len() + usize::from(node.size.height) > MAX_DEPTH {
                    return Err(Fault::new(place.location, too_deep()));
                }
                self.attach(node, false)
            }
            Event::SequenceStart(anchor, tag) => {
                let tag = collection_tag(tag.as_deref(), "seq", place.location)?;
                self.open(place, anchor, tag, Items::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                let tag = collection_tag(tag.as_deref(), "map", place.location)?;
                self.open(place, anchor, tag, Items::Mapping { entries: Vec::new(), key: None, merge: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    fn define(&mut self, anchor: usize, node: Option<Arc<Node>>) {
        if anchor > 0 {
            if self.anchors.len() <= anchor {
                self.anchors.resize(anchor + 1, None);
            }
            self.anchors[anchor] = node;
        }
    }

    fn open(&mut self, place: Place, anchor: usize, tag: Option<MergeTag>, items: Items) -> Result<(), Fault> {
        if self.frames.len() >= MAX_DEPTH {
            return Err(Fault::new(place.location, too_deep()));
        }
        if matches!(self.frames.last(), Some(Frame { items: Items::Mapping { key: None, .. }, .. })) {
            return Err(Fault::new(place.location, "a key must be a string"));
        }
        self.budget.spend(Size { nodes: 1, ..Size::default() }, place.location)?;
        self.define(anchor, None);
        self.frames.push(Frame { place, anchor, tag, items });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fault> {
        let Some(Frame { place, anchor, tag, items }) = self.frames.pop() else { return Ok(()) };
        let node = match items {
            Items::Sequence(items) => Node::sequence(place, items),
            Items::Mapping { mut entries, merge, .. } => {
                refuse_duplicates(&entries)?;
                if let Some((at, source)) = merge {
                    self.merge(&mut entries, at, &source)?;
                }
                Node::mapping(place, entries)
            }
        };
        let node = Arc::new(node.tagged(tag));
        self.define(anchor, Some(Arc::clone(&node)));
        self.attach(node, false)
    }

    /// Gives a finished node to the collection it stands in.
    fn attach(&mut self, node: Arc<Node>, is_merge: bool) -> Result<(), Fault> {
        let Some(frame) = self.frames.last_mut() else {
            self.roots.push(node);
            return Ok(());
        };
        match &mut frame.items {
            Items::Sequence(items) => items.push(node),
            Items::Mapping { entries, key, merge } => match key.take() {
                None => {
                    let super::node::Value::Scalar(scalar) = &node.value else {
                        return Err(Fault::new(node.place.location, "a key must be a string"));
                    };
                    if !matches!(scalar.resolve(), Resolved::Text(_)) {
                        let kind = scalar.resolve().kind();
                        let reason = format!("a key must be a string, but it is {kind}: put it in quotes");
                        return Err(Fault::new(node.place.location, reason));
                    }
                    *key = Some((Arc::from(&*scalar.text), node.place, is_merge));
                }
                Some((_, place, true)) => {
                    if merge.is_some() {
                        let reason = "`<<` stands here a second time; merge several mappings as a list: `<<: [*a, *b]`";
                        return Err(Fault::new(place.location, reason));
                    }
                    *merge = Some((place, node));
                }
                Some((key, place, false)) => entries.push(Entry { key, place, value: node }),
            },
        }
        Ok(())
    }

    /// YAML 1.1 merge key: adds what the mapping does not have itself.
    fn merge(&mut self, entries: &mut Vec<Entry>, at: Place, source: &Node) -> Result<(), Fault> {
        let wrong = || Fault::new(at.location, "`<<` takes a mapping or a list of mappings");
        let sources: Vec<&[Entry]> = match &source.value {
            super::node::Value::Mapping(entries) => vec![entries],
            super::node::Value::Sequence(items) => {
                items.iter().map(|item| item.entries().ok_or_else(wrong)).collect::<Result<_, _>>()?
            }
            super::node::Value::Scalar(_) if source.is_null() => return Ok(()),
            super::node::Value::Scalar(_) => return Err(wrong()),
        };
        let mut present: HashSet<Arc<str>> = entries.iter().map(|entry| Arc::clone(&entry.key)).collect();
        for entry in sources.into_iter().flatten() {
            if present.insert(Arc::clone(&entry.key)) {
                self.merged.spend(entry.value.size, at.location)?;
                entries.push(entry.clone());
            }
        }
        Ok(())
    }
}

fn refuse_duplicates(entries: &[Entry]) -> Result<(), Fault> {
    // Most mappings are small, and comparing a few keys is cheaper than hashing them.
    let duplicate = if entries.len() <= 8 {
        entries.iter().enumerate().find(|(at, entry)| entries[..*at].iter().any(|other| other.key == entry.key))
    } else {
        let mut seen = HashSet::with_capacity(entries.len());
        entries.iter().enumerate().find(|(_, entry)| !seen.insert(&*entry.key))
    };
    let Some((_, entry)) = duplicate else { return Ok(()) };
    let first = entries.iter().find(|other| other.key == entry.key).unwrap_or(entry);
    let reason = format!("`{}`: the key is already there at line {}", shorten(&entry.key), first.place.location.line);
    Err(Fault::new(entry.place.location, reason))
}

/// A key as it may stand in an error.
fn shorten(key: &str) -> String {
    if key.chars().count() <= 60 { key.to_owned() } else { key.chars().take(60).chain(['…']).collect() }
}

const CORE: &str = "tag:yaml.org,2002:";

/// How a scalar is read, and whether it is the merge key `<<` when it stands as a key.
fn style_of(style: ScalarStyle, text: &str, tag: Option<&Tag>, at: Location) -> Result<(Style, bool), Fault> {
    let plain = style == ScalarStyle::Plain;
    match tag {
        None => Ok((if plain { Style::Plain } else { Style::Quoted }, plain && text == "<<")),
        Some(tag) if tag.handle == CORE => match tag.suffix.as_str() {
            "str" => Ok((Style::Quoted, false)),
            kind @ ("int" | "float" | "bool" | "null") => {
                let fits = match scalar::resolve(text) {
                    Resolved::Null => kind == "null",
                    Resolved::Bool(_) => kind == "bool",
                    Resolved::Int(_) => kind == "int" || kind == "float",
                    Resolved::Float(_) => kind == "float",
                    Resolved::Time(_) | Resolved::Text(_) => false,
                };
                let reason = "is not what its tag says";
                if fits { Ok((Style::Plain, false)) } else { Err(Fault::new(at, reason)) }
            }
            "merge" => Ok((Style::Plain, text == "<<")),
            _ => Err(unknown_tag(at)),
        },
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Ok((Style::Quoted, false)),
        Some(_) => Err(unknown_tag(at)),
    }
}

/// `!reset` and `!override` (Compose Specification, "Merge").
fn merge_tag(tag: Option<&Tag>) -> Option<MergeTag> {
    match tag.map(|tag| (tag.handle.as_str(), tag.suffix.as_str())) {
        Some(("!", "reset")) => Some(MergeTag::Reset),
        Some(("!", "override")) => Some(MergeTag::Override),
        _ => None,
    }
}

fn collection_tag(tag: Option<&Tag>, allowed: &str, at: Location) -> Result<Option<MergeTag>, Fault> {
    match tag {
        None => Ok(None),
        Some(tag) if tag.handle == CORE && tag.suffix == allowed => Ok(None),
        Some(tag) => merge_tag(Some(tag)).map(Some).ok_or_else(|| unknown_tag(at)),
    }
}

fn unknown_tag(at: Location) -> Fault {
    Fault::new(
        at,
        "this tag is not supported; leave it out, or use !!str, !!int, !!float, !!bool, !!null, !reset or !override",
    )
}

#[cfg(test)]
mod tests;
