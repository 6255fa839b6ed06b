//! Durations and sizes as docker compose reads them.

use std::time::Duration;

/// What a duration looks like, for errors.
pub(super) const DURATION_RULE: &str = "a duration such as 500ms, 30s or 1m30s (units: w d h m s ms us ns)";
/// What a size looks like, for errors.
pub(super) const SIZE_RULE: &str = "a number of bytes or a size such as 512m or 1.5g (units: b k m g t p)";

/// `1h30m`, `1.5s`, `1d12h`, `0`: Go's durations and `d` and `w`. None for anything else, negative ones too.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, after) = rest.split_at(digits);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len()));
        let nanos: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            "w" => 604_800_000_000_000,
            _ => return None,
        };
        if !whole.is_empty() {
            total = total.checked_add(whole.parse::<u64>().ok().map(u128::from)?.checked_mul(nanos)?)?;
        }
        let mut scale = nanos;
        for digit in fraction.bytes() {
            scale /= 10;
            total = total.checked_add(u128::from(digit - b'0') * scale)?;
        }
        rest = after;
    }
    // The engine counts nanoseconds in 64 bits with a sign.
    let nanos = i64::try_from(total).ok()?;
    Some(Duration::from_nanos(nanos.unsigned_abs()))
}

/// `512m`, `1.5g`, `64 MB`, `2b`, `-1`: powers of 1024, in any case. None for anything else.
pub(super) fn bytes(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse::<i64>() {
        return (!text.starts_with('+')).then_some(number);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = ["k", "m", "g", "t", "p"].iter().position(|prefix| unit.starts_with(prefix)).map_or(0, |at| at + 1);
    if !matches!(&unit[usize::from(power > 0)..], "" | "i" | "b" | "ib") {
        return None;
    }
    if number.starts_with('.') || number.ends_with('.') {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    to_integer(number * 1024_f64.powi(i32::try_from(power).ok()?))
}

/// A number of CPUs in billionths.
pub(super) fn nano_cpus(cpus: f64) -> Option<i64> {
    to_integer((cpus * 1e9).round())
}

/// Cuts off the fraction; none outside the range in which every integer has its own float.
#[allow(clippy::cast_possible_truncation, reason = "the range is checked")]
fn to_integer(number: f64) -> Option<i64> {
    const LIMIT: f64 = 9_007_199_254_740_992.0 * 1024.0;
    (number.is_finite() && number.abs() < LIMIT).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, nanos) in [
            ("1.5h", Some(5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("1d12h", Some(129_600_000_000_000)),
            ("1w", Some(604_800_000_000_000)),
            ("-1s", None),
            ("90", None),
            (".s", None),
            ("s", None),
            ("300000000000w", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(duration(text), nanos.map(Duration::from_nanos), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [
            ("1gib", Some(1 << 30)),
            ("1GiB", Some(1 << 30)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-1", Some(-1)),
            ("-1m", None),
            ("1.5", Some(1)),
            ("1.5k", Some(1536)),
            (".5m", None),
            ("5.", None),
            ("1.5.5", None),
            ("1ib", Some(1)),
            ("1 ", Some(1)),
            ("1kI", Some(1024)),
            ("1eb", None),
            ("m", None),
            ("1  m", None),
            ("1bb", None),
            ("1e3m", None),
            ("999999999p", None),
        ] {
            assert_eq!(bytes(text), size, "{text}");
        }
    }
}
