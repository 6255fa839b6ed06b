//! A JSON file that knows whether it is whole: `{"content":…,"sha256":"…"}`.
//!
//! Renames keep a crash from leaving half a file; the checksum finds what they cannot: a bad disk, a hand edit.
//! It is taken over the bytes of `content` as they stand, so there is no question of canonical JSON.

use std::fmt::Write as _;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

const BEFORE: &[u8] = b"{\"content\":";
const BETWEEN: &[u8] = b",\"sha256\":\"";
const AFTER: &[u8] = b"\"}\n";
const HASH_LENGTH: usize = 64;

/// The file is not what [`seal`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged;

/// The bytes of the file that holds `value`.
pub(super) fn seal(value: &impl Serialize) -> Vec<u8> {
    let content = serde_json::to_vec(value).expect("what is stored has string keys and no failing serializer");
    [BEFORE, &content, BETWEEN, checksum(&content).as_bytes(), AFTER].concat()
}

/// The content's bytes, once the checksum has been compared.
pub(super) fn open_seal(file: &[u8]) -> Result<&[u8], Damaged> {
    let rest = file.strip_prefix(BEFORE).and_then(|rest| rest.strip_suffix(AFTER)).ok_or(Damaged)?;
    let (rest, hash) = rest.split_at_checked(rest.len().wrapping_sub(HASH_LENGTH)).ok_or(Damaged)?;
    let content = rest.strip_suffix(BETWEEN).ok_or(Damaged)?;
    if checksum(content).as_bytes() == hash { Ok(content) } else { Err(Damaged) }
}

/// The value in a sealed file.
pub(super) fn unseal<T: DeserializeOwned>(file: &[u8]) -> Result<T, Damaged> {
    serde_json::from_slice(open_seal(file)?).map_err(|_| Damaged)
}

fn checksum(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_or_missing_byte_is_found() {
        let whole = seal(&serde_json::json!({"a": "b", "n": [1, 2]}));
        assert_eq!(unseal::<serde_json::Value>(&whole).unwrap()["a"], "b");
        assert!(
            serde_json::from_slice::<serde_json::Value>(&whole).is_ok(),
            "an operator can read it with any JSON tool"
        );
        for at in 0..whole.len() {
            assert!(open_seal(&whole[..at]).is_err(), "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert!(open_seal(&flipped).is_err(), "flipped at {at}");
        }
        assert!(open_seal(b"").is_err());
    }
}
