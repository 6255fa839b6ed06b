//! The end of a chunked body (RFC 9112 7.1), found byte by byte. Pure.

use super::head::is_token_byte;

/// The longest line with a chunk's size, extensions included. They mean nothing here.
const MAX_SIZE_LINE: usize = 256;
/// The most bytes of trailers. They mean nothing here either.
const MAX_TRAILERS: usize = 4096;

/// Reads a body that may come in pieces.
#[derive(Debug)]
pub(super) struct Reader {
    expected: Expected,
    size: u64,
    digits: usize,
    line: usize,
    trailers: usize,
}

/// What the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Size,
    /// White space that must be followed by an extension.
    Space,
    Extension,
    SizeLf,
    Data(u64),
    DataCr,
    DataLf,
    /// The first byte of a trailer, or the end.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Nothing,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self { expected: Expected::Size, size: 0, digits: 0, line: 0, trailers: 0 }
    }

    /// Whether the body is complete.
    pub(super) fn is_done(&self) -> bool {
        self.expected == Expected::Nothing
    }

    /// How many of the bytes belong to this body. None when they cannot be a chunked body.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            if let Expected::Data(left) = self.expected {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                at += here;
                let left = left - here as u64;
                self.expected = if left == 0 { Expected::DataCr } else { Expected::Data(left) };
            } else {
                self.byte(bytes[at])?;
                at += 1;
            }
        }
        Some(at)
    }

    fn byte(&mut self, byte: u8) -> Option<()> {
        use Expected as E;
        let value = |c| !matches!(c, 0..=8 | 10..=31 | 127);
        self.expected = match (self.expected, byte) {
            (E::Size, c) if c.is_ascii_hexdigit() => {
                self.digits += 1;
                // 15 digits cannot overflow, and are more than any body has.
                if self.digits > 15 {
                    return None;
                }
                self.size = self.size << 4 | u64::from(char::from(c).to_digit(16)?);
                E::Size
            }
            (E::Size, b'\r') if self.digits > 0 => E::SizeLf,
            (E::Size, b' ' | b'\t') if self.digits > 0 => E::Space,
            (E::Space, b' ' | b'\t') => E::Space,
            (E::Size, b';') if self.digits > 0 => E::Extension,
            (E::Space, b';') => E::Extension,
            (E::Extension, b'\r') => E::SizeLf,
            (E::Extension, c) if value(c) => E::Extension,
            (E::SizeLf, b'\n') => {
                let size = std::mem::take(&mut self.size);
                (self.digits, self.line) = (0, 0);
                if size == 0 { E::Trailer } else { E::Data(size) }
            }
            (E::DataCr, b'\r') => E::DataLf,
            (E::DataLf, b'\n') => E::Size,
            (E::Trailer, b'\r') => E::EndLf,
            (E::Trailer | E::TrailerName, c) if is_token_byte(c) => E::TrailerName,
            (E::TrailerName, b':') => E::TrailerValue,
            (E::TrailerValue, b'\r') => E::TrailerLf,
            (E::TrailerValue, c) if value(c) => E::TrailerValue,
            (E::TrailerLf, b'\n') => E::Trailer,
            (E::EndLf, b'\n') => E::Nothing,
            _ => return None,
        };
        match self.expected {
            E::Size | E::Space | E::Extension => self.line += 1,
            E::TrailerName | E::TrailerValue => self.trailers += 1,
            _ => {}
        }
        (self.line <= MAX_SIZE_LINE && self.trailers <= MAX_TRAILERS).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the body, and whether it is complete; none when it is none.
    fn read(text: &[u8]) -> Option<(usize, bool)> {
        let mut reader = Reader::new();
        let whole = reader.read(text).map(|size| (size, reader.is_done()));
        // In single bytes it is the same.
        let mut reader = Reader::new();
        let mut size = Some(0);
        for byte in text {
            size = size.and_then(|size| reader.read(&[*byte]).map(|more| size + more));
        }
        assert_eq!(size.map(|size| (size, reader.is_done())), whole, "{}", text.escape_ascii());
        whole
    }

    #[test]
    fn bodies_end_where_they_end() {
        let extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(200));
        for text in [
            "0\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            "00a\r\n0123456789\r\n0\r\n\r\n",
            "A;name=value;\"x\"\r\n\r\n0\r\n\r\n012\r\n0\r\n\r\n",
            "1 ;x\r\ny\r\n0\r\nx: y\r\nAuthorization: z\r\n\r\n",
            &extension,
        ] {
            assert_eq!(read(text.as_bytes()), Some((text.len(), true)), "{text:?}");
            assert_eq!(read(format!("{text}GET / HTTP/1.1").as_bytes()), Some((text.len(), true)), "{text:?}");
            assert_eq!(read(&text.as_bytes()[..text.len() - 1]), Some((text.len() - 1, false)), "{text:?}");
        }
    }

    #[test]
    fn what_could_end_in_two_places_is_none() {
        let extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(300));
        let trailers = format!("0\r\n{}\r\n", "x: y\r\n".repeat(2000));
        for text in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            "1_0\r\n",
            " 1\r\n",
            "1 \r\nx\r\n",
            "1\nx\n0\n\n",
            "1\r\nx\n0\r\n\r\n",
            "1\r\nxy\r\n",
            "1\rx\r\n",
            "1;a\nb\r\nx\r\n",
            "1;\0\r\nx\r\n",
            "fffffffffffffffff\r\n",
            "0\r\n x: y\r\n\r\n",
            "0\r\nx y: z\r\n\r\n",
            "0\r\nx\r\n\r\n",
            "0\r\nx: y\n\r\n",
            "0\r\n\n",
            &extension,
            &trailers,
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            read(&bytes);
        }

        #[test]
        fn whatever_is_sent_in_chunks_is_found(
            chunks in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 1..50), 0..5),
            next in "[A-Z0-9\r\n]{0,20}",
        ) {
            let mut text = Vec::new();
            for chunk in &chunks {
                text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            let size = text.len();
            text.extend_from_slice(next.as_bytes());
            proptest::prop_assert_eq!(read(&text), Some((size, true)));
        }
    }
}
