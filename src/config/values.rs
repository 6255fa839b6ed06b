//! What the text of one setting may be. Pure; a value that is not allowed is `None`, the caller says what is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// A private IPv4 range from which tenants' networks get their subnets. Host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubnetPool {
    /// The first address.
    pub address: Ipv4Addr,
    /// Length of the prefix in bits, 8 to 24.
    pub prefix: u8,
}

impl fmt::Display for SubnetPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Ranges that are never routed on the internet: RFC 1918 and the shared space of RFC 6598.
const PRIVATE: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
];

fn network_bits(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

pub(super) fn subnet_pool(text: &str) -> Option<SubnetPool> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix): (Ipv4Addr, u8) = (address.parse().ok()?, digits(prefix)?);
    let within = |(range, length): (Ipv4Addr, u8)| {
        prefix >= length && address.to_bits() & network_bits(length) == range.to_bits()
    };
    let clean = address.to_bits() & !network_bits(prefix) == 0;
    ((8..=24).contains(&prefix) && clean && PRIVATE.into_iter().any(within)).then_some(SubnetPool { address, prefix })
}

/// A decimal number without sign or surrounding space.
pub(super) fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) { text.parse().ok() } else { None }
}

pub(super) fn ip(text: &str) -> Option<IpAddr> {
    text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text).parse().ok()
}

pub(super) fn port(text: &str) -> Option<u16> {
    digits(text).filter(|&port| port > 0)
}

pub(super) fn port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (port(first.trim())?, port(last.trim())?);
    (first <= last).then_some((first, last))
}

/// An absolute path other than `/`, without `.`, `..`, doubled or trailing slashes: containers get it as it is.
pub(super) fn absolute_directory(text: &str) -> Option<PathBuf> {
    let rest = text.strip_prefix('/')?;
    let clean = rest.split('/').all(|part| !matches!(part, "" | "." | ".."));
    (clean && text.len() <= 1024 && !text.chars().any(char::is_control)).then(|| PathBuf::from(text))
}

pub(super) fn unix_socket(text: &str) -> Option<PathBuf> {
    let path = text.strip_prefix("unix://")?;
    (path.starts_with('/') && path.len() > 1 && !path.chars().any(char::is_control)).then(|| PathBuf::from(path))
}

pub(super) fn duration(text: &str, least: Duration, most: Duration) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|duration| (least..=most).contains(duration))
}

pub(super) fn size(text: &str, least: u64, most: u64) -> Option<usize> {
    let size = text.parse::<bytesize::ByteSize>().ok()?.as_u64();
    if (least..=most).contains(&size) { usize::try_from(size).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnet_pools() {
        for good in ["10.213.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.4.0/24", "100.64.0.0/10"] {
            assert_eq!(subnet_pool(good).map(|pool| pool.to_string()).as_deref(), Some(good));
        }
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/7",
            "10.0.0.0/25",
            "10.0.0.1/16",
            "8.8.0.0/16",
            "172.0.0.0/8",
            "172.32.0.0/16",
            "192.168.0.0/15",
            "100.0.0.0/10",
            "100.128.0.0/16",
            "fd00::/16",
            "10.0.0.0/+16",
            "10.0.0.0/ 16",
        ] {
            assert!(subnet_pool(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn directories() {
        for good in ["/opt/tenants", "/a", "/with space/x"] {
            assert!(absolute_directory(good).is_some(), "{good}");
        }
        for bad in ["", "/", "opt", "./opt", "/opt/", "/opt//x", "/opt/../x", "/opt/./x", "/a\nb"] {
            assert!(absolute_directory(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn ports() {
        for (text, wanted) in [
            ("20000-29999", Some((20000, 29999))),
            ("1-1", Some((1, 1))),
            ("0-9", None),
            ("9-1", None),
            ("80", None),
            ("1-65536", None),
            ("+1-2", None),
            ("a-b", None),
        ] {
            assert_eq!(port_range(text), wanted, "{text}");
        }
    }

    #[test]
    fn sizes_and_durations() {
        assert_eq!(size("8MiB", 0, u64::MAX), Some(8 << 20));
        assert_eq!(size("8MiB", 0, 1024), None);
        assert_eq!(size("-1", 0, 1024), None);
        let (least, most) = (Duration::from_secs(1), Duration::from_hours(1));
        for (text, wanted) in [
            ("10m", Some(600)),
            ("1h", Some(3600)),
            ("90s", Some(90)),
            ("2h", None),
            ("1ms", None),
            ("10", None),
            ("", None),
            ("-5s", None),
        ] {
            assert_eq!(duration(text, least, most), wanted.map(Duration::from_secs), "{text}");
        }
    }
}
