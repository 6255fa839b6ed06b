//! Query parameters: decoded, each known by name, at most once unless it may repeat.

use super::error::ApiError;
use super::json::quoted;
use crate::backend::{LogCursor, LogQuery, Tail};
use crate::domain::{Generation, ServiceName, Subdomain};

/// The default of `tail`: reading a whole log costs the engine seconds per 100 MB.
const DEFAULT_TAIL: u32 = 100;
/// The largest `tail`.
const MAX_TAIL: u32 = 100_000;
const MAX_SERVICES: usize = 200;
/// How many operations a list has, unless it is asked for more, and the most.
const DEFAULT_OPERATIONS: usize = 100;
const MAX_OPERATIONS: usize = 1000;

/// The decoded parameters of a request, in the order written.
struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes the query and refuses every name that is not in `known`.
    fn parse(raw: Option<&str>, known: &[&str]) -> Result<Self, ApiError> {
        let mut pairs = Vec::new();
        for (name, value) in form_urlencoded::parse(raw.unwrap_or_default().as_bytes()) {
            if !known.contains(&name.as_ref()) {
                let message = match known {
                    [] => "this path has no query parameters".to_owned(),
                    known => format!("is not a query parameter here; there are {}", known.join(", ")),
                };
                return Err(ApiError::invalid(message).at_field(shown(&name)));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter that may be there once.
    fn one<T>(
        &self,
        name: &'static str,
        allowed: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => match parse(value) {
                Some(value) => Ok(Some(value)),
                None => Err(ApiError::invalid(format!("must be {allowed}")).at_field(name)),
            },
            (Some(_), Some(_)) => Err(ApiError::invalid("is there twice").at_field(name)),
        }
    }

    fn flag(&self, name: &'static str) -> Result<bool, ApiError> {
        let value = self.one(name, "true or false", |text| match text {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })?;
        Ok(value.unwrap_or(false))
    }
}

fn shown(name: &str) -> String {
    let plain = (1..=40).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    if plain { name.to_owned() } else { quoted(name) }
}

const SERVICE: &str = "a service's name: 1 to 128 of letters, digits and . _ -";

/// For paths without parameters.
pub(super) fn none(raw: Option<&str>) -> Result<(), ApiError> {
    Query::parse(raw, &[]).map(drop)
}

/// `service` of restart, stop and start.
pub(super) fn service(raw: Option<&str>) -> Result<Option<ServiceName>, ApiError> {
    Query::parse(raw, &["service"])?.one("service", SERVICE, |text| ServiceName::parse(text).ok())
}

/// `from` of rollback.
pub(super) fn from(raw: Option<&str>) -> Result<Option<Generation>, ApiError> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    Query::parse(raw, &["from"])?.one("from", "a generation, a number from 1", |text| {
        text.parse().ok().filter(|&number: &u64| number > 0 && digits(text)).map(Generation)
    })
}

/// `purge` of teardown.
pub(super) fn purge(raw: Option<&str>) -> Result<bool, ApiError> {
    Query::parse(raw, &["purge"])?.flag("purge")
}

/// The parameters of the list of operations: of which tenant, and how many.
pub(super) fn operations(raw: Option<&str>) -> Result<(Option<Subdomain>, usize), ApiError> {
    const TENANT: &str = "a tenant's subdomain";
    let query = Query::parse(raw, &["subdomain", "limit"])?;
    let tenant = query.one("subdomain", TENANT, |text| Subdomain::parse(text).ok())?;
    let limit = query.one("limit", "a number from 1 to 1000", |text| {
        let digits = text.bytes().all(|c| c.is_ascii_digit());
        text.parse().ok().filter(|limit| digits && (1..=MAX_OPERATIONS).contains(limit))
    })?;
    Ok((tenant, limit.unwrap_or(DEFAULT_OPERATIONS)))
}

/// How a status is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    /// The backend is to be asked now.
    pub(super) fresh: bool,
    /// As docker compose prints it.
    pub(super) compose_lines: Option<Lines>,
}

/// What of it docker compose is to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lines {
    /// Containers that do not run too.
    pub(super) all: bool,
}

/// The parameters of status.
pub(super) fn status(raw: Option<&str>) -> Result<Status, ApiError> {
    let query = Query::parse(raw, &["fresh", "format", "all"])?;
    let compose = query.one("format", "json or compose", |text| match text {
        "json" => Some(false),
        "compose" => Some(true),
        _ => None,
    })?;
    let (fresh, all, compose) = (query.flag("fresh")?, query.flag("all")?, compose.unwrap_or(false));
    if all && !compose {
        return Err(ApiError::invalid("is there for format=compose only").at_field("all"));
    }
    Ok(Status { fresh, compose_lines: compose.then_some(Lines { all }) })
}

/// The longest cursor of the change feed that is read: longer than any that is given out.
const MAX_CURSOR: usize = 128;

/// The parameters of the change feed: where to go on, and of which tenant.
pub(super) fn events(raw: Option<&str>) -> Result<(Option<String>, Option<Subdomain>), ApiError> {
    let query = Query::parse(raw, &["cursor", "subdomain"])?;
    let cursor =
        query.one("cursor", "a cursor of this stream", |text| (text.len() <= MAX_CURSOR).then(|| text.to_owned()))?;
    let tenant = query.one("subdomain", "a subdomain", |text| Subdomain::parse(text).ok())?;
    Ok((cursor.filter(|cursor| !cursor.is_empty()), tenant))
}

/// The parameters of logs: what to read, and whether each line shows its time.
pub(super) fn logs(raw: Option<&str>, now: jiff::Timestamp, tenant: &Subdomain) -> Result<(LogQuery, bool), ApiError> {
    const CURSOR: &str = "a cursor that a line of this tenant's log has come with";
    const TIME: &str =
        "a time such as 2026-11-21T08:00:00Z (write + as %2B), seconds since 1970, or how long ago, such as 10m";
    let query = Query::parse(raw, &["service", "tail", "follow", "since", "until", "timestamps", "cursor"])?;
    let mut services = Vec::new();
    for (_, text) in query.0.iter().filter(|(name, _)| name == "service") {
        let invalid = || ApiError::invalid(format!("must be {SERVICE}")).at_field("service");
        let service = ServiceName::parse(text).map_err(|_| invalid())?;
        if !services.contains(&service) {
            services.push(service);
        }
    }
    if services.len() > MAX_SERVICES {
        return Err(ApiError::invalid("is there more than 200 times").at_field("service"));
    }
    let since = query.one("since", TIME, |text| time(text, now))?;
    let until = query.one("until", TIME, |text| time(text, now))?;
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(ApiError::invalid("must not be earlier than since").at_field("until"));
    }
    let cursor = query.one("cursor", CURSOR, |text| LogCursor::parse(text, tenant).ok())?;
    if cursor.is_some() {
        // It says where to begin, and so do they.
        for name in ["tail", "since"] {
            if query.0.iter().any(|(key, _)| key == name) {
                return Err(ApiError::invalid("must not be there beside a cursor").at_field(name));
            }
        }
    }
    let tail = query.one("tail", "all or a number from 0 to 100000", tail)?.unwrap_or(Tail::Lines(DEFAULT_TAIL));
    let timestamps = query.flag("timestamps")?;
    Ok((LogQuery { services, tail, follow: query.flag("follow")?, since, until, cursor }, timestamps))
}

fn tail(text: &str) -> Option<Tail> {
    if text == "all" {
        return Some(Tail::All);
    }
    let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|&lines: &u32| digits && lines <= MAX_TAIL).map(Tail::Lines)
}

/// A moment (RFC 3339, or seconds since 1970 as docker takes them), or how long ago it was.
fn time(text: &str, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
    if let Ok(moment) = text.parse() {
        return Some(moment);
    }
    if text.starts_with(|first: char| first.is_ascii_digit()) && text.bytes().all(|c| c.is_ascii_digit() || c == b'.') {
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let plain = (1..=9).contains(&fraction.len()) && !fraction.contains('.');
        let nanoseconds = format!("{fraction:0<9}").parse().ok().filter(|_| plain)?;
        return jiff::Timestamp::new(seconds.parse().ok()?, nanoseconds).ok();
    }
    let ago = humantime::parse_duration(text).ok()?;
    now.checked_sub(jiff::SignedDuration::try_from(ago).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_operations() {
        assert_eq!(operations(None).unwrap(), (None, DEFAULT_OPERATIONS));
        let (tenant, limit) = operations(Some("limit=7&subdomain=acme")).unwrap();
        assert_eq!((tenant.unwrap().as_str(), limit), ("acme", 7));
        for (bad, field) in
            [("limit=0", "limit"), ("limit=1001", "limit"), ("limit=+1", "limit"), ("subdomain=A", "subdomain")]
        {
            assert_eq!(operations(Some(bad)).unwrap_err().field.as_deref(), Some(field), "{bad}");
        }
    }

    fn now() -> jiff::Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn acme() -> Subdomain {
        Subdomain::parse("acme").unwrap()
    }

    #[test]
    fn log_parameters() {
        let (query, timestamps) = logs(None, now(), &acme()).unwrap();
        assert_eq!((query.tail, query.follow, timestamps), (Tail::Lines(100), false, false));
        assert!(query.services.is_empty() && query.since.is_none());

        let raw = "service=web&service=d%62&service=web&tail=all&follow=true&timestamps=1&since=10m\
                   &until=2026-11-21T13:00:00%2B01:00";
        let (query, timestamps) = logs(Some(raw), now(), &acme()).unwrap();
        assert_eq!(query.services.iter().map(ServiceName::as_str).collect::<Vec<_>>(), ["web", "db"]);
        assert_eq!((query.tail, query.follow, timestamps), (Tail::All, true, true));
        assert_eq!(query.since.unwrap().to_string(), "2026-11-21T11:50:00Z");
        assert_eq!(query.until.unwrap(), now());
        let since = |text: &str| logs(Some(text), now(), &acme()).unwrap().0.since.unwrap().to_string();
        assert_eq!(since("since=1.5h"), "2026-11-21T10:30:00Z");
        assert_eq!(since("since=1h30m"), "2026-11-21T10:30:00Z");
        assert_eq!(since("since=1795262400"), "2026-11-21T12:00:00Z");
        assert_eq!(since("since=1795262400.25"), "2026-11-21T12:00:00.25Z");

        let cursor = LogCursor::default().text(&acme()).unwrap();
        let (query, _) = logs(Some(&format!("cursor={cursor}&follow=1")), now(), &acme()).unwrap();
        assert_eq!(query.cursor, Some(LogCursor::default()));
        for (with, field) in [("tail=5", "tail"), ("since=1m", "since"), ("cursor=x", "cursor")] {
            let refusal = logs(Some(&format!("cursor={cursor}&{with}")), now(), &acme()).unwrap_err();
            assert_eq!(refusal.field.as_deref(), Some(field));
        }
        let other = LogCursor::default().text(&Subdomain::parse("other").unwrap()).unwrap();
        assert!(logs(Some(&format!("cursor={other}")), now(), &acme()).is_err());
    }

    #[test]
    fn refusals_name_the_parameter() {
        for (raw, field) in [
            ("tail=-1", "tail"),
            ("tail=", "tail"),
            ("tail=100001", "tail"),
            ("tail=%2B5", "tail"),
            ("tail=5&tail=6", "tail"),
            ("follow=yes", "follow"),
            ("follow", "follow"),
            ("since=yesterday", "since"),
            ("since=2026-11-21T13:00:00+01:00", "since"),
            ("since=1m&until=2m", "until"),
            ("since=1.2.3", "since"),
            ("since=1.", "since"),
            ("since=99999999999999999999", "since"),
            ("cursor=", "cursor"),
            ("cursor=AAAA", "cursor"),
            ("service=", "service"),
            ("service=a/../b", "service"),
            ("cursor=x", "cursor"),
            ("%00=1", "\"\\u0000\""),
            ("Tail=5", "Tail"),
        ] {
            assert_eq!(logs(Some(raw), now(), &acme()).unwrap_err().field.as_deref(), Some(field), "{raw}");
        }
        assert_eq!(none(Some("format=compose")).unwrap_err().field.as_deref(), Some("format"));
        assert!(none(Some("")).is_ok() && none(None).is_ok());
    }

    proptest::proptest! {
        /// Nothing panics, and a refusal says where without repeating a value.
        #[test]
        fn any_query_is_read_or_refused(
            raw in proptest::prop_oneof![
                "\\PC{0,60}",
                "((service|tail|follow|since|until|timestamps|cursor|from|purge|x)(=[a-z0-9%+:.-]{0,12})?&?){0,5}",
            ],
        ) {
            let raw = Some(raw.as_str());
            let refusals =
                [logs(raw, now(), &acme()).err(), none(raw).err(), service(raw).err(), from(raw).err(), purge(raw).err()];
            for refusal in refusals.into_iter().flatten() {
                proptest::prop_assert_eq!(refusal.code, crate::domain::ErrorCode::InvalidRequest);
                proptest::prop_assert!(refusal.field.is_some() || refusal.message.len() < 200);
            }
        }
    }

    #[test]
    fn status_and_events() {
        let plain = Status { fresh: false, compose_lines: None };
        assert_eq!(status(None).unwrap(), plain);
        assert_eq!(status(Some("fresh=1&format=json")).unwrap(), Status { fresh: true, ..plain });
        let lines = |all| Status { compose_lines: Some(Lines { all }), ..plain };
        assert_eq!(status(Some("format=compose")).unwrap(), lines(false));
        assert_eq!(status(Some("format=compose&all=true")).unwrap(), lines(true));
        for (raw, field) in [("fresh=yes", "fresh"), ("format=xml", "format"), ("all=1", "all"), ("cursor=1", "cursor")]
        {
            assert_eq!(status(Some(raw)).unwrap_err().field.as_deref(), Some(field), "{raw}");
        }
        assert_eq!(events(None).unwrap(), (None, None));
        let (cursor, tenant) = events(Some("cursor=ab-7&subdomain=acme")).unwrap();
        assert_eq!((cursor.as_deref(), tenant.as_ref().map(Subdomain::as_str)), (Some("ab-7"), Some("acme")));
        let long = format!("cursor={}", "1".repeat(MAX_CURSOR + 1));
        for (raw, field) in [(long.as_str(), "cursor"), ("subdomain=A", "subdomain"), ("tenant=a", "tenant")] {
            assert_eq!(events(Some(raw)).unwrap_err().field.as_deref(), Some(field), "{raw}");
        }
    }

    #[test]
    fn the_others() {
        assert_eq!(service(Some("service=web")).unwrap().unwrap().as_str(), "web");
        assert!(service(None).unwrap().is_none());
        assert!(service(Some("service=a&service=b")).is_err());
        assert_eq!(from(Some("from=7")).unwrap(), Some(Generation(7)));
        for bad in ["from=", "from=0", "from=x", "from=+1", "from=-1", "generation=1", "from=99999999999999999999"] {
            assert!(from(Some(bad)).is_err(), "{bad}");
        }
        for (raw, wanted) in [
            (None, Some(false)),
            (Some("purge=true"), Some(true)),
            (Some("purge=false"), Some(false)),
            (Some("purge"), None),
            (Some("purge=TRUE"), None),
        ] {
            assert_eq!(purge(raw).ok(), wanted, "{raw:?}");
        }
    }
}
