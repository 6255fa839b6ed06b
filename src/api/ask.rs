//! How a mutation is asked for: `Prefer` (RFC 7240) and `Idempotency-Key`.

use hyper::header::HeaderMap;

use super::error::ApiError;

/// The longest `Idempotency-Key`.
const MAX_KEY: usize = 255;

/// Whether `Prefer: respond-async` is among the preferences. Others are ignored, as the RFC wants it.
pub(super) fn prefers_async(headers: &HeaderMap) -> bool {
    headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|preference| {
            let name = preference.split([';', '=']).next().unwrap_or_default();
            name.trim().eq_ignore_ascii_case("respond-async")
        })
    })
}

/// The `Idempotency-Key`, if there is one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    const NAME: &str = "Idempotency-Key";
    let mut given = headers.get_all(NAME).iter();
    let (Some(value), more) = (given.next(), given.next()) else { return Ok(None) };
    if more.is_some() {
        return Err(ApiError::invalid("is there twice").at_field(NAME));
    }
    let good = |text: &&str| (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic());
    match value.to_str().ok().filter(good) {
        Some(key) => Ok(Some(key)),
        None => Err(ApiError::invalid("must be 1 to 255 visible ASCII characters").at_field(NAME)),
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn preferences() {
        for (values, preferred) in [
            (&["respond-async"][..], true),
            (&["wait=10, Respond-Async"], true),
            (&["return=minimal", "respond-async; wait=5"], true),
            (&["respond-asynchronously"], false),
            (&["wait=10"], false),
            (&[], false),
        ] {
            assert_eq!(prefers_async(&headers("prefer", values)), preferred, "{values:?}");
        }
    }

    #[test]
    fn keys() {
        let key = |values: &[&str]| {
            let headers = headers("idempotency-key", values);
            idempotency_key(&headers).map(|key| key.map(str::to_owned)).map_err(|error| error.field)
        };
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&["\"8e03978e\""]), Ok(Some("\"8e03978e\"".to_owned())));
        assert_eq!(key(&["x".repeat(255).as_str()]).unwrap().unwrap().len(), 255);
        let refused = Err(Some("Idempotency-Key".to_owned()));
        for bad in [&[""][..], &["a b"], &["\u{e4}"], &["a", "a"], &["x".repeat(256).as_str()]] {
            assert_eq!(key(bad), refused, "{bad:?}");
        }
    }
}
