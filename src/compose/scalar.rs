//! What a plain YAML scalar means: as docker compose reads it, which is YAML 1.2 with the integers of YAML 1.1.
//!
//! `yes` and `off` are strings, `010` is eight, `1_000` is a thousand, `2001-01-01` is a date.

use std::borrow::Cow;

use super::time::{self, Time};

/// The meaning of a scalar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Resolved<'a> {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Time(Time),
    Text(&'a str),
}

impl<'a> Resolved<'a> {
    /// As text, numbers as Go prints them; none for null.
    pub(super) fn into_text(self) -> Option<Cow<'a, str>> {
        Some(match self {
            Self::Null => return None,
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
            Self::Int(number) => Cow::Owned(number.to_string()),
            Self::Float(number) => Cow::Owned(format_float(number)),
            Self::Time(time) => Cow::Owned(time.as_go_text()),
            Self::Text(text) => Cow::Borrowed(text),
        })
    }

    /// What it is, for an error.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Null => "empty",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Time(_) => "a date",
            Self::Text(_) => "a string",
        }
    }
}

/// Resolves the text of a plain scalar.
pub(super) fn resolve(text: &str) -> Resolved<'_> {
    let Some(&first) = text.as_bytes().first() else { return Resolved::Null };
    match text {
        "~" | "null" | "Null" | "NULL" => return Resolved::Null,
        "true" | "True" | "TRUE" => return Resolved::Bool(true),
        "false" | "False" | "FALSE" => return Resolved::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Resolved::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Resolved::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Resolved::Float(f64::NAN),
        _ => {}
    }
    if !matches!(first, b'0'..=b'9' | b'+' | b'-' | b'.') {
        return Resolved::Text(text);
    }
    let digits: Cow<'_, str> = if text.contains('_') { Cow::Owned(text.replace('_', "")) } else { Cow::Borrowed(text) };
    if first != b'.'
        && let Some(number) = integer(&digits)
    {
        return Resolved::Int(number);
    }
    if is_float(&digits)
        && let Ok(number) = digits.parse()
    {
        return Resolved::Float(number);
    }
    time::read(text).map_or(Resolved::Text(text), Resolved::Time)
}

/// Decimal, `0x`, `0o`, `0b` and, from YAML 1.1, octal with a leading zero; within 64 bits.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if !digits.bytes().all(|digit| digit.is_ascii_alphanumeric()) {
        return None;
    }
    let number = i128::from(u64::from_str_radix(digits, radix).ok()?);
    let number = if negative { -number } else { number };
    (number >= i128::from(i64::MIN)).then_some(number)
}

/// `[-+]? (digits [. digits] | . digits) [e [-+] digits]`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let digits = |part: &str| part.bytes().all(|digit| digit.is_ascii_digit());
    let good_mantissa = match mantissa.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction) && (!whole.is_empty() || !fraction.is_empty()),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    good_mantissa
        && exponent.is_none_or(|exponent| {
            let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
            !exponent.is_empty() && digits(exponent)
        })
}

/// The shortest text that reads back as the number, with an exponent below 1e-4 and from 1e6 as in Go's `%v`.
fn format_float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let exponent: i32 = scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    if number == 0.0 || (-4..6).contains(&exponent) {
        return format!("{number}");
    }
    let mantissa = scientific.split('e').next().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_docker_compose_reads() {
        use Resolved::{Bool, Float, Int, Null, Text};
        for (text, meaning) in [
            ("", Null),
            ("~", Null),
            ("null", Null),
            ("nULL", Text("nULL")),
            ("true", Bool(true)),
            ("FALSE", Bool(false)),
            ("yes", Text("yes")),
            ("on", Text("on")),
            ("n", Text("n")),
            ("0", Int(0)),
            ("010", Int(8)),
            ("0o17", Int(15)),
            ("0x1F", Int(31)),
            ("0b11", Int(3)),
            ("-0x10", Int(-16)),
            ("+5", Int(5)),
            ("1_000", Int(1000)),
            ("18446744073709551615", Int(18_446_744_073_709_551_615)),
            ("18446744073709551616", Float(18_446_744_073_709_551_616.0)),
            ("09", Float(9.0)),
            ("1e3", Float(1000.0)),
            ("1.", Float(1.0)),
            (".5", Float(0.5)),
            ("-.5e-1", Float(-0.05)),
            (".inf", Float(f64::INFINITY)),
            (".", Text(".")),
            ("-", Text("-")),
            ("0x", Text("0x")),
            ("1e", Text("1e")),
            ("1.2.3", Text("1.2.3")),
            ("22:22", Text("22:22")),
            ("1k", Text("1k")),
            ("0b12", Text("0b12")),
        ] {
            assert_eq!(resolve(text), meaning, "{text:?}");
        }
    }

    #[test]
    fn numbers_become_text_as_go_prints_them() {
        for (text, printed) in [
            ("010", "8"),
            ("1e3", "1000"),
            ("1.10", "1.1"),
            ("0.5", "0.5"),
            ("1e-5", "1e-05"),
            ("123456.5", "123456.5"),
            ("1e6", "1e+06"),
            ("1.5e300", "1.5e+300"),
            ("true", "true"),
            (".inf", "+Inf"),
            ("2001-01-01", "2001-01-01 00:00:00 +0000 UTC"),
        ] {
            assert_eq!(resolve(text).into_text().as_deref(), Some(printed), "{text}");
        }
        assert_eq!(resolve("~").into_text(), None);
    }
}
