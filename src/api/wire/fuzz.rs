//! Fuzz targets: what clients put on the wire, cut anywhere.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head::Framing;
use super::{Exchange, Gate, MAX_HEAD, MAX_HEADERS, Refusal, chunks, head};
use crate::fuzz::{self, Bytes, Material, Outcome, Rng};

const WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    " ",
    "\t",
    ":",
    "GET ",
    "POST /v1/tenants/update ",
    "CONNECT a:1 ",
    "* ",
    "http://a/ ",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/2.0",
    "Host: a\r\n",
    "host:\r\n",
    "Content-Length: 5\r\n",
    "content-length: 0\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: 5, 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding: gzip, chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Expect: 100-continue\r\n",
    "Connection: close\r\n",
    " folded\r\n",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "0;x=y\r\n",
    "fffffffffffffff\r\n",
    "10000000000000000\r\n",
    "A: b\r\n",
    "\u{b}",
    "\u{7f}",
    "#",
    "?x",
    "//",
    "\0",
];

fn seeds() -> Vec<Vec<u8>> {
    let messages = [
        "GET /live HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "\r\nPOST /v1/tenants/update HTTP/1.1\r\nHost: [::1]:8080\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;e=1\r\nabc\r\n00a\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n",
    ];
    let pipeline = messages.concat();
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(MAX_HEADERS - 1));
    let mut seeds: Vec<Vec<u8>> = messages.iter().map(|text| text.as_bytes().to_vec()).collect();
    seeds.extend([pipeline.into_bytes(), many.into_bytes()]);
    seeds
}

/// A stream, and where it is cut.
#[derive(Debug)]
struct Input {
    bytes: Bytes,
    seed: u64,
    longest: usize,
}

fn input(rng: &mut Rng, material: &Material) -> Input {
    let longest = *rng.pick(&[1, 3, 30, 8000]);
    Input { bytes: Bytes(material.bytes(rng)), seed: rng.next(), longest }
}

/// What one head says, read line by line as RFC 9112 has it. None when it is not complete or not to be read in one way.
fn reread(bytes: &[u8]) -> Option<(usize, Framing)> {
    let mut bytes = bytes;
    let whole = bytes.len();
    bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text: String = bytes[..end].iter().copied().map(char::from).collect();
    let mut lines = text.split("\r\n");
    let first = lines.next()?;
    let [method, target, version] = first.split(' ').collect::<Vec<_>>()[..] else { return None };
    let fields: Vec<(String, String)> = lines
        .map(|line| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())))
        .collect::<Option<_>>()?;
    let all = |name: &str| {
        fields.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    let whole_text = !text.replace("\r\n", "").contains(['\r', '\n', '\0']);
    let names = fields.iter().all(|(name, _)| !name.is_empty() && !name.contains([' ', '\t', '"', '/', '@']));
    let hosts = match version {
        "HTTP/1.1" => all("host").len() == 1,
        "HTTP/1.0" => all("host").len() < 2,
        _ => false,
    };
    let framing = match (all("transfer-encoding")[..].to_vec().as_slice(), all("content-length").as_slice()) {
        ([], []) => Framing::Length(0),
        ([], [length]) if length.chars().all(|c| c.is_ascii_digit()) => Framing::Length(length.parse().ok()?),
        ([coding], []) if coding.eq_ignore_ascii_case("chunked") && version == "HTTP/1.1" => Framing::Chunked,
        _ => return None,
    };
    let good = whole_text && names && hosts && !method.is_empty() && !target.is_empty() && !target.contains('#');
    good.then_some((whole - bytes.len() + end + 4, framing))
}

#[test]
fn fuzz_heads() {
    let material = Material::new(seeds(), WORDS, 40 << 10);
    fuzz::run(
        "heads",
        |rng| input(rng, &material),
        |Input { bytes: Bytes(bytes), seed, longest }| {
            let whole = head::Reader::default().read(bytes);
            let mut reader = head::Reader::default();
            let (mut at, mut outcome) = (0, Ok(None));
            for piece in Rng::new(*seed).pieces(bytes, *longest) {
                at += piece.len();
                outcome = reader.read(&bytes[..at]);
                if outcome != Ok(None) {
                    break;
                }
            }
            assert_eq!(outcome, whole);
            match whole {
                Ok(Some(head)) => {
                    assert_eq!(reread(bytes), Some((head.size, head.framing)));
                    assert!(head.size <= MAX_HEAD);
                }
                Ok(None) => assert!(bytes.len() < MAX_HEAD),
                Err(refusal) => assert!(refusal.message().is_ascii() && refusal.status().is_client_error()),
            }
            if let Ok(Some(_)) = whole { Outcome::Accepted } else { Outcome::Refused }
        },
    );
}

/// The end of a chunked body, found chunk by chunk.
fn end_of_chunks(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let line = |at: usize| bytes[at..].windows(2).position(|two| two == b"\r\n").map(|length| &bytes[at..at + length]);
    loop {
        let size = line(at)?;
        at += size.len() + 2;
        let digits = size.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = usize::from_str_radix(std::str::from_utf8(&size[..digits]).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        at = at.checked_add(size)?;
        bytes.get(at..).filter(|rest| rest.starts_with(b"\r\n"))?;
        at += 2;
    }
    loop {
        let trailer = line(at)?;
        at += trailer.len() + 2;
        if trailer.is_empty() {
            return Some(at);
        }
    }
}

#[test]
fn fuzz_chunks() {
    let bodies = [
        "0\r\n\r\n",
        "3;e=1\r\nabc\r\n00a\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nGET / HTTP/1.1",
        "1 ;x\r\ny\r\n0\r\nx: y\r\nAuthorization: z\r\n\r\n",
        "A;name=value;\"x\"\r\n\r\n0\r\n\r\n012\r\n0\r\n\r\n",
    ];
    let material = Material::of_texts(&bodies, WORDS, 10_000);
    fuzz::run(
        "chunks",
        |rng| input(rng, &material),
        |Input { bytes: Bytes(bytes), seed, longest }| {
            let mut reader = chunks::Reader::new();
            let whole = reader.read(bytes).map(|size| (size, reader.is_done()));
            let mut reader = chunks::Reader::new();
            let mut size = Some(0);
            for piece in Rng::new(*seed).pieces(bytes, *longest) {
                size = size.and_then(|size| reader.read(piece).map(|more| size + more));
            }
            assert_eq!(size.map(|size| (size, reader.is_done())), whole);
            match whole {
                Some((size, true)) => assert_eq!(end_of_chunks(bytes), Some(size)),
                Some((size, false)) => assert_eq!((size, end_of_chunks(bytes)), (bytes.len(), None)),
                None => {}
            }
            if matches!(whole, Some((_, true))) { Outcome::Accepted } else { Outcome::Refused }
        },
    );
}

/// A client whose bytes come in pieces.
struct Client<'a>(std::vec::IntoIter<&'a [u8]>);

impl AsyncRead for Client<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(piece) = self.0.next() {
            out.put_slice(piece);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How a connection ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Closed,
    Refused(Refusal),
    NoBody,
}

/// What the gate shows of these pieces to one who reads `room` bytes at a time.
fn through_gate(pieces: Vec<&[u8]>, room: usize) -> (Vec<u8>, End) {
    let exchange = Exchange::new();
    let client = Client(pieces.into_iter());
    let mut gate = Gate::new(client, std::sync::Arc::clone(&exchange), Duration::from_secs(1));
    let mut context = Context::from_waker(std::task::Waker::noop());
    let (mut shown, mut space) = (Vec::new(), vec![0; room]);
    loop {
        let mut out = ReadBuf::new(&mut space);
        match Pin::new(&mut gate).poll_read(&mut context, &mut out) {
            Poll::Ready(Ok(())) if out.filled().is_empty() => break,
            Poll::Ready(Ok(())) => shown.extend_from_slice(out.filled()),
            Poll::Ready(Err(_)) => return (shown, End::NoBody),
            Poll::Pending => panic!("nobody is being answered, so there is nothing to wait for"),
        }
    }
    (shown, exchange.take_refusal().map_or(End::Closed, End::Refused))
}

#[test]
fn fuzz_connections() {
    let material = Material::new(seeds(), WORDS, 40 << 10);
    fuzz::run(
        "connections",
        |rng| input(rng, &material),
        |Input { bytes: Bytes(bytes), seed, longest }| {
            let mut rng = Rng::new(*seed);
            let (whole, end) = through_gate(rng.pieces(bytes, 8000), 1 << 16);
            let pieces = rng.pieces(bytes, *longest);
            let (shown, end_of_pieces) = through_gate(pieces, *rng.pick(&[1, 7, 500, 9000]));
            assert_eq!(end_of_pieces, end);
            // hyper sees the client's bytes, and after the last that is taken a request that stands for the one refused.
            let (taken, stand_in) = match whole.windows(13).rposition(|part| part == b"host: refused") {
                Some(at) if matches!(end, End::Refused(_)) => whole.split_at(at - b"GET / HTTP/1.1\r\n".len()),
                _ => (whole.as_slice(), &b""[..]),
            };
            assert!(bytes.starts_with(taken));
            assert_eq!(stand_in.is_empty(), !matches!(end, End::Refused(_)));
            if end == End::NoBody {
                // Of a body that is none, more or less has been passed on before it was found out.
                assert!(bytes.starts_with(&shown));
            } else {
                assert_eq!(shown, whole);
            }
            // Whatever is taken begins with a head that can be read in one way.
            assert!(taken.is_empty() || reread(taken).is_some());
            if taken.is_empty() { Outcome::Refused } else { Outcome::Accepted }
        },
    );
}
