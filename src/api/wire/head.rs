//! The head of one request: request line and header lines, checked as they arrive. Pure.

use hyper::StatusCode;

/// The largest head in bytes.
pub(in crate::api) const MAX_HEAD: usize = 32 * 1024;
/// More headers than any client of this API sends.
pub(in crate::api) const MAX_HEADERS: usize = 64;
/// The longest request line. RFC 9112 3 wants 8000 bytes at least.
const MAX_REQUEST_LINE: usize = 9 * 1024;

/// Why a message is not taken. The connection cannot be used after it: nobody knows where the next message begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Refusal {
    /// Against the grammar of RFC 9112 or RFC 9110.
    Malformed(&'static str),
    /// No server here does what the `Expect` header asks for.
    Expectation,
    TargetTooLong,
    HeadTooLarge,
}

impl Refusal {
    pub(in crate::api) fn status(self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }

    /// Says what was wrong and repeats nothing of it.
    pub(in crate::api) fn message(self) -> &'static str {
        match self {
            Self::Malformed(what) => what,
            Self::Expectation => "the only expectation that can be met is 100-continue",
            Self::TargetTooLong => "the request line is too long",
            Self::HeadTooLarge => "the head has more than 64 headers or 32 KiB",
        }
    }
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// A complete head: its size in bytes, and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) size: usize,
    pub(super) framing: Framing,
}

/// Reads a head that may come in pieces.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Where the line begins that is being read, and up to where it has been looked at.
    line: usize,
    looked_at: usize,
    lines: usize,
    old_version: bool,
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    began: bool,
}

use Refusal::Malformed;

impl Reader {
    /// Looks at what is new in `buffer`, which begins with this head and grows from call to call.
    pub(super) fn read(&mut self, buffer: &[u8]) -> Result<Option<Head>, Refusal> {
        loop {
            self.skip_plain(buffer);
            let at = self.looked_at;
            let Some(&byte) = buffer.get(at) else { return Ok(None) };
            if at >= MAX_HEAD {
                return Err(Refusal::HeadTooLarge);
            }
            self.looked_at += 1;
            let after_cr = at > self.line && buffer[at - 1] == b'\r';
            match byte {
                b'\n' if after_cr => {
                    let line = &buffer[self.line..at - 1];
                    self.line = at + 1;
                    if self.end_of_line(line)? {
                        let framing = self.end_of_head()?;
                        return Ok(Some(Head { size: at + 1, framing }));
                    }
                }
                b'\n' => return Err(Malformed("a line ends without CR LF")),
                _ if after_cr => return Err(Malformed("a CR stands alone")),
                b'\r' => {}
                b'\t' if self.lines > 0 => {}
                b' '..=b'~' => {}
                0x80.. if self.lines > 0 => {}
                _ => return Err(Malformed("the head has a byte in it that no head may have")),
            }
            if self.lines == 0 && at.saturating_sub(self.line) > MAX_REQUEST_LINE {
                return Err(Refusal::TargetTooLong);
            }
        }
    }

    /// Passes over what may stand anywhere in a line, up to where there would be too much of it.
    fn skip_plain(&mut self, buffer: &[u8]) {
        if self.looked_at > self.line && buffer[self.looked_at - 1] == b'\r' {
            return;
        }
        let most = if self.lines == 0 { MAX_HEAD.min(self.line + MAX_REQUEST_LINE + 1) } else { MAX_HEAD };
        let ahead = buffer.get(self.looked_at..most.min(buffer.len())).unwrap_or_default();
        self.looked_at += ahead.iter().take_while(|byte| matches!(byte, b' '..=b'~')).count();
    }

    /// Whether this was the empty line after the headers.
    fn end_of_line(&mut self, line: &[u8]) -> Result<bool, Refusal> {
        if self.lines == 0 {
            // RFC 9112 2.2: an empty line before the request line should be overlooked. One is enough.
            if line.is_empty() && !self.began {
                self.began = true;
                return Ok(false);
            }
            self.old_version = request_line(line)?;
        } else if line.is_empty() {
            return Ok(true);
        } else if self.lines > MAX_HEADERS {
            return Err(Refusal::HeadTooLarge);
        } else {
            self.header(line)?;
        }
        self.lines += 1;
        Ok(false)
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let (name, value) =
            name_and_value(line).ok_or(Malformed("a header line has no proper name before its colon"))?;
        if name.eq_ignore_ascii_case(b"content-length") {
            // Even two equal ones: who wrote the second has not seen the first.
            if self.length.replace(number(value)?).is_some() {
                return Err(Malformed("there are two Content-Length headers"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed("the only Transfer-Encoding that is read is chunked, once"));
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
            if !value.iter().all(|&c| is_host(c)) {
                return Err(Malformed("the Host header is not a host"));
            }
        } else if name.eq_ignore_ascii_case(b"expect") && !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Refusal::Expectation);
        }
        Ok(())
    }

    fn end_of_head(&self) -> Result<Framing, Refusal> {
        // RFC 9112 3.2: HTTP/1.1 needs one Host; a second one is never right.
        if self.hosts > 1 || (self.hosts == 0 && !self.old_version) {
            return Err(Malformed("there must be one Host header"));
        }
        match (self.chunked, self.length) {
            // RFC 9112 6.1 and 6.3: the first is what a smuggled request looks like, the second is faulty framing.
            (true, Some(_)) => Err(Malformed("there are both Content-Length and Transfer-Encoding")),
            (true, None) if self.old_version => Err(Malformed("HTTP/1.0 has no Transfer-Encoding")),
            (true, None) => Ok(Framing::Chunked),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

/// Checks `METHOD target HTTP/1.x`; true for HTTP/1.0.
fn request_line(line: &[u8]) -> Result<bool, Refusal> {
    let mut parts = line.split(|&c| c == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Malformed("the first line is not METHOD target HTTP/1.1"));
    };
    if !is_token(method) {
        return Err(Malformed("the method is not a word"));
    }
    // hyper would cut a fragment off; RFC 9112 3.2 has none in a target.
    if !is_simple_path(target) && !is_target(method, target) {
        return Err(Malformed("the target of the request is not one"));
    }
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        _ => Err(Malformed("only HTTP/1.1 and HTTP/1.0 are spoken here")),
    }
}

/// Nothing but what is in the paths and queries of this API: [`is_target`] holds without reading it as a URI.
fn is_simple_path(target: &[u8]) -> bool {
    target.starts_with(b"/") && target.iter().all(|&c| has(c, SIMPLE))
}

fn is_target(method: &[u8], target: &[u8]) -> bool {
    has_a_form(method, target) && !target.contains(&b'#') && hyper::Uri::try_from(target).is_ok()
}

/// RFC 9112 3.2: a path, an absolute URI (which a server must take), `*`; the target of CONNECT alone is host and port.
fn has_a_form(method: &[u8], target: &[u8]) -> bool {
    let scheme = |scheme: &str| {
        target.split_at_checked(scheme.len()).is_some_and(|(start, _)| start.eq_ignore_ascii_case(scheme.as_bytes()))
    };
    matches!(target, [b'/', ..] | b"*") || scheme("http://") || scheme("https://") || method == b"CONNECT"
}

/// RFC 9110 5.1 and 5.5: a token, a colon with no space before it, and a value without the white space around it. A line
/// that goes on from the one before (obsolete folding) begins with white space and so has no name.
pub(super) fn name_and_value(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&c| c == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    is_token(name).then(|| (name, value.trim_ascii()))
}

/// `1*DIGIT`, and not more than anybody could mean.
fn number(value: &[u8]) -> Result<u64, Refusal> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
    number.filter(|&number: &u64| i64::try_from(number).is_ok()).ok_or(Malformed("the Content-Length is not a number"))
}

/// RFC 9110 5.6.2.
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&c| is_token_byte(c))
}

pub(super) fn is_token_byte(c: u8) -> bool {
    has(c, TOKEN)
}

/// RFC 3986 3.2.2 with a port: nothing that begins a path, a query or a user's name.
fn is_host(c: u8) -> bool {
    has(c, HOST)
}

/// What a byte may be part of.
const TOKEN: u8 = 1;
const HOST: u8 = 2;
const SIMPLE: u8 = 4;

fn has(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    while byte.is_ascii() {
        if byte.is_ascii_alphanumeric() {
            classes[byte as usize] = TOKEN | HOST | SIMPLE;
        }
        byte += 1;
    }
    mark(mark(mark(classes, b"!#$%&'*+-.^_`|~", TOKEN), b"-._~%!$&'()*+,;=:[]", HOST), b"/?&=-._~%:", SIMPLE)
};

const fn mark(mut classes: [u8; 256], bytes: &[u8], class: u8) -> [u8; 256] {
    let mut at = 0;
    while at < bytes.len() {
        classes[bytes[at] as usize] |= class;
        at += 1;
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Head>, Refusal> {
        Reader::default().read(text.as_bytes())
    }

    #[test]
    fn heads_that_are_taken() {
        let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(8000));
        let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(MAX_HEADERS - 1));
        for (text, framing) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0)),
            ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0)),
            ("GET / HTTP/1.0\r\n\r\n", Framing::Length(0)),
            ("BREW /a?b=[c]|d HTTP/1.1\r\nHOST:\t[::1]:8080 \r\nx:\r\n\r\n", Framing::Length(0)),
            ("GET http://a.example/live HTTP/1.1\r\nhost: b\r\n\r\n", Framing::Length(0)),
            ("OPTIONS * HTTP/1.1\r\nhost:\r\n\r\n", Framing::Length(0)),
            ("CONNECT a.example:443 HTTP/1.1\r\nhost: a\r\n\r\n", Framing::Length(0)),
            ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 007\r\nexpect: 100-Continue\r\n\r\n", Framing::Length(7)),
            ("POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: Chunked\r\nx: \u{e4}\ty\r\n\r\n", Framing::Chunked),
            (&long, Framing::Length(0)),
            (&many, Framing::Length(0)),
        ] {
            assert_eq!(read(text), Ok(Some(Head { size: text.len(), framing })), "{text:?}");
            assert_eq!(read(&format!("{text}GET")).unwrap().unwrap().size, text.len(), "{text:?}");
        }
    }

    #[test]
    fn heads_in_pieces_are_read_once() {
        let text = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
        let mut reader = Reader::default();
        for end in 0..text.len() {
            assert_eq!(reader.read(&text[..end]), Ok(None), "{end}");
        }
        assert_eq!(reader.read(text), Ok(Some(Head { size: text.len(), framing: Framing::Length(3) })));
    }

    #[test]
    fn garbage_is_refused_before_the_head_is_complete() {
        for text in [
            "\u{16}\u{3}\u{1}",
            "GET live HTTP/1.1\r\n",
            "GET ://a/live HTTP/1.1\r\n",
            "GET ftp://a/live HTTP/1.1\r\n",
            "GET /\n",
            "GET /\r\n",
            "GET / HTTP/1.1\r\n x: y\r\n",
            "PRI * HTTP/2.0\r\n",
            "\0",
        ] {
            assert!(matches!(read(text), Err(Malformed(_))), "{text:?}");
        }
        assert_eq!(read(&"a".repeat(MAX_REQUEST_LINE + 2)), Err(Refusal::TargetTooLong));
        let large = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(MAX_HEAD));
        assert_eq!(read(&large), Err(Refusal::HeadTooLarge));
        let many = format!("GET / HTTP/1.1\r\n{}", "x: y\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(read(&many), Err(Refusal::HeadTooLarge));
    }

    proptest::proptest! {
        /// However the bytes are cut, the outcome is the same, and nothing panics.
        #[test]
        fn pieces_do_not_matter(
            text in "(GET|POST|P\\x00ST) (/[a-z%#\"]{0,8}|\\*) HTTP/1\\.[0-2]\r?\n(([A-Za-z-]{1,9}|host|content-length|transfer-encoding) ?: ?[ -~\\x7f-\\xff]{0,9}\r?\n){0,6}\r\n",
            cut in 0_usize..200,
        ) {
            let bytes = text.as_bytes();
            let mut reader = Reader::default();
            let begun = reader.read(&bytes[..cut.min(bytes.len())]);
            let outcome = if let Ok(None) = begun { reader.read(bytes) } else { begun };
            proptest::prop_assert_eq!(outcome, read(&text));
        }

        #[test]
        fn a_simple_path_is_a_target(target in "/[ -~]{0,12}") {
            let target = target.as_bytes();
            proptest::prop_assert!(!is_simple_path(target) || is_target(b"GET", target));
        }

        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = Reader::default().read(&bytes);
        }
    }
}
