//! Dates and times that YAML 1.1 knows as such (`!!timestamp`): docker compose reads a plain `2001-01-01` as a point in
//! time, and prints it as Go does where a string is wanted.

use jiff::civil::DateTime;

/// A date, or a date and a time of day, with the distance from UTC.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Time {
    at: DateTime,
    /// East of UTC, in minutes.
    offset: i16,
}

/// Reads `YYYY-M-D`, `YYYY-M-D H:M:S[.F]` and `YYYY-M-DTH:M:S[.F](Z|±HH:MM)`; none for anything else.
pub(super) fn read(text: &str) -> Option<Time> {
    let (year, rest) = text.split_once('-').filter(|(year, _)| year.len() == 4)?;
    let (month, rest) = rest.split_once('-')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (day, rest) = rest.split_at(end);
    let date = jiff::civil::Date::new(number(year, 4)?, number(month, 2)?, number(day, 2)?).ok()?;
    let (clock, offset) = match rest.as_bytes().first() {
        None => return Some(Time { at: date.at(0, 0, 0, 0), offset: 0 }),
        Some(b' ') => (&rest[1..], 0),
        Some(b'T' | b't') => {
            let end = rest.find(['Z', '+']).or_else(|| rest.rfind('-'))?;
            (&rest[1..end], zone(&rest[end..])?)
        }
        Some(_) => return None,
    };
    let (clock, fraction) = clock.split_once('.').map_or((clock, ""), |(clock, fraction)| (clock, fraction));
    let mut parts = clock.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || fraction.len() > 9 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    let time = jiff::civil::Time::new(number(hour, 2)?, number(minute, 2)?, number(second, 2)?, nanos).ok()?;
    Some(Time { at: date.to_datetime(time), offset })
}

/// So many digits at most, and at least one.
fn number<T: std::str::FromStr>(text: &str, digits: usize) -> Option<T> {
    let good = (1..=digits).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit());
    good.then(|| text.parse().ok())?
}

/// `Z` or `±HH:MM`, in minutes.
fn zone(text: &str) -> Option<i16> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, clock) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = clock.split_once(':').filter(|(hours, minutes)| hours.len() == 2 && minutes.len() == 2)?;
    let (hours, minutes): (i16, i16) = (number(hours, 2)?, number(minutes, 2)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

impl Time {
    /// As Go's `%v` prints it: `2001-12-14 21:59:43.1 -0500 -0500`.
    pub(super) fn as_go_text(self) -> String {
        let zone = self.zone("");
        let name = if self.offset == 0 { "UTC" } else { &zone };
        format!("{} {}{} {zone} {name}", self.at.date(), self.clock(), self.fraction())
    }

    /// As RFC 3339 has it, and Go's JSON.
    pub(super) fn as_rfc3339(self) -> String {
        let zone = if self.offset == 0 { "Z".to_owned() } else { self.zone(":") };
        format!("{}T{}{}{zone}", self.at.date(), self.clock(), self.fraction())
    }

    fn clock(self) -> String {
        format!("{:02}:{:02}:{:02}", self.at.hour(), self.at.minute(), self.at.second())
    }

    fn fraction(self) -> String {
        match self.at.subsec_nanosecond() {
            0 => String::new(),
            nanos => format!(".{nanos:09}").trim_end_matches('0').to_owned(),
        }
    }

    fn zone(self, separator: &str) -> String {
        let sign = if self.offset < 0 { '-' } else { '+' };
        let minutes = self.offset.abs();
        format!("{sign}{:02}{separator}{:02}", minutes / 60, minutes % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_compose_takes_for_a_time_and_how_it_prints_it() {
        for (text, go, rfc3339) in [
            ("2001-1-2", "2001-01-02 00:00:00 +0000 UTC", "2001-01-02T00:00:00Z"),
            ("2001-12-14t21:59:43.10-05:00", "2001-12-14 21:59:43.1 -0500 -0500", "2001-12-14T21:59:43.1-05:00"),
            ("2001-12-14 21:59:43.10", "2001-12-14 21:59:43.1 +0000 UTC", "2001-12-14T21:59:43.1Z"),
            ("2001-12-14T21:59:43Z", "2001-12-14 21:59:43 +0000 UTC", "2001-12-14T21:59:43Z"),
            ("2001-12-14T1:2:3Z", "2001-12-14 01:02:03 +0000 UTC", "2001-12-14T01:02:03Z"),
            (
                "2001-12-14T21:59:43.123456789+00:00",
                "2001-12-14 21:59:43.123456789 +0000 UTC",
                "2001-12-14T21:59:43.123456789Z",
            ),
            ("2001-01-01T00:00:00+05:30", "2001-01-01 00:00:00 +0530 +0530", "2001-01-01T00:00:00+05:30"),
        ] {
            let time = read(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((time.as_go_text().as_str(), time.as_rfc3339().as_str()), (go, rfc3339), "{text}");
        }
    }

    #[test]
    fn everything_else_is_text() {
        for text in [
            "2001-13-01",
            "1999-02-30",
            "2001-12-14 21:59:43.10 -5",
            "2001-12",
            "201-01-01",
            "2001-01-01x",
            "2001-01-01 1:2",
            "2001-01-01T1:2:3",
            "2001-01-01T1:2:3+5:00",
            "2001-01-01 1:2:3.0123456789",
            "-2001-01-01",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
