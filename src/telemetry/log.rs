//! Sets up the log: one line per event, JSON unless asked otherwise, never with terminal colours.

use std::sync::Arc;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, Registry, fmt};

use super::Metrics;

/// Which events are logged: levels by the beginning of their target.
#[derive(Debug, Clone, PartialEq)]
pub struct LogFilter(Targets);

impl LogFilter {
    /// Accepts a filter such as `info` or `warn,q8_agent=debug`: a level, and levels of single targets. Without the former
    /// it is `info`.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(|asked| Self::of(&asked))
    }

    fn of(asked: &Targets) -> Self {
        let default = asked.default_level().unwrap_or(LevelFilter::INFO);
        let talkative = TALKATIVE.iter().map(|source| ((*source).to_owned(), default));
        let each = talkative.chain(asked.iter().map(|(target, level)| (target.to_owned(), level)));
        let discreet = each.map(|(target, level)| {
            let quiet = TALKATIVE.iter().any(|source| target.starts_with(source));
            (target, if quiet { level.min(LevelFilter::INFO) } else { level })
        });
        Self(Targets::new().with_default(default).with_targets(discreet))
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self::of(&Targets::new())
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Below `info`, crates with such a name print requests and headers as they are, tokens and registry passwords among them.
const TALKATIVE: &[&str] = &["hyper", "bollard"];

/// Installs the log for the whole process. Fails when there is one already.
pub fn init(filter: &LogFilter, format: LogFormat) -> Result<(), TryInitError> {
    let layer = fmt::layer::<Registry>().with_writer(std::io::stderr).with_ansi(false);
    let layer = match format {
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
        LogFormat::Text => layer.boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter.0.clone())).try_init()
}

/// Sends panics to the log instead of printing them, and counts them. A formatted message may hold any value of the program, so only
/// messages that are constants of the source are shown; the place is enough to find the others.
pub fn log_panics(metrics: Arc<Metrics>) {
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panicked();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(not shown)");
        tracing::error!(place, what, "a panic: this is a bug");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for (text, good) in
            [("info", true), ("warn,q8_agent=debug", true), ("q8_agent=loud", false), ("a=b=c", false), ("off", true)]
        {
            assert_eq!(LogFilter::parse(text).is_some(), good, "{text}");
        }
    }

    #[test]
    fn what_prints_secrets_stays_at_info_and_the_rest_is_as_asked() {
        use tracing::Level;
        for (text, target, most) in [
            ("trace", "q8_agent::api", Some(Level::TRACE)),
            ("trace", "hyper::proto", Some(Level::INFO)),
            ("trace,hyper_util::client=trace", "hyper_util::client", Some(Level::INFO)),
            ("trace,bollard=debug", "bollard::docker", Some(Level::INFO)),
            ("bollard=error", "bollard::docker", Some(Level::ERROR)),
            ("warn", "bollard", Some(Level::WARN)),
            ("warn,q8_agent=debug", "q8_agent::api", Some(Level::DEBUG)),
            ("warn,q8_agent=debug", "rustls", Some(Level::WARN)),
            ("q8_agent=debug", "rustls", Some(Level::INFO)),
            ("off", "hyper", None),
        ] {
            let filter = LogFilter::parse(text).unwrap();
            let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
            let seen = levels.into_iter().filter(|level| filter.0.would_enable(target, level)).max();
            assert_eq!(seen, most, "{target} under {text}");
        }
        assert_eq!(Some(LogFilter::default()), LogFilter::parse("info"));
    }
}
