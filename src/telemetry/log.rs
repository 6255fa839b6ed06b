//! Sets up the log: one line per event, JSON unless asked otherwise, never with terminal colours.

use tracing_subscriber::filter::{EnvFilter, FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, Registry, fmt};

/// A filter in the syntax of `tracing-subscriber`'s `EnvFilter`, known to be valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// Accepts a filter such as `info` or `warn,q8_agent=debug`.
    pub fn parse(text: &str) -> Option<Self> {
        EnvFilter::builder().parse(text).ok().map(|_| Self(text.to_owned()))
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
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

/// Below `info`, these crates print requests and headers as they are, tokens and registry passwords among them.
const TALKATIVE: &[&str] = &["hyper", "hyper_util", "bollard"];

/// Installs the log for the whole process. Fails when there is one already.
pub fn init(filter: &LogFilter, format: LogFormat) -> Result<(), TryInitError> {
    let wanted = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse_lossy(&filter.0);
    let discreet = filter_fn(|event| {
        let source = event.target().split("::").next().unwrap_or_default();
        *event.level() <= tracing::Level::INFO || !TALKATIVE.contains(&source)
    });
    let layer = fmt::layer::<Registry>().with_writer(std::io::stderr).with_ansi(false);
    let layer = match format {
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
        LogFormat::Text => layer.boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(wanted.and(discreet))).try_init()
}

/// Sends panics to the log instead of printing them. A formatted message may hold any value of the program, so only
/// messages that are constants of the source are shown; the place is enough to find the others.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
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
}
