//! The text, and that what is in it is bounded and documented.

use std::collections::BTreeSet;

use super::*;

fn all_said() -> (Metrics, String) {
    let metrics = Metrics::default();
    let took = Duration::from_millis(3);
    metrics.request("/v1/tenants", "GET", Some(200), took);
    metrics.request("/v1/tenants", "GET", None, took);
    metrics.operation_ended(OperationKind::Provision, None, took);
    metrics.operation_ended(OperationKind::Update, Some(ErrorCode::ServiceExited), took);
    metrics.step(OperationKind::Provision, "apply", took);
    metrics.recovered(true);
    metrics.engine_call("ping", Some("timeout"), took);
    metrics.pull(None, took);
    metrics.pulled_bytes(12);
    metrics.restart_loop();
    let mut present = Present::default();
    present.say_cpu(Some(1.5));
    present.say(Fact::Cores, Some(2.0));
    present.say(Fact::EventLag, Some(0.003));
    present.say(Fact::Memory, None);
    present.say_of(Fact::Tenants, &[("state", "running")], Some(3.0));
    let text = metrics.text(&present);
    (metrics, text)
}

#[test]
fn the_text_has_what_was_counted_and_no_series_for_what_is_not_known() {
    let (metrics, text) = all_said();
    for line in [
        "q8_agent_http_requests_total{route=\"/v1/tenants\",method=\"GET\",status=\"2xx\"} 1",
        "q8_agent_http_requests_total{route=\"/v1/tenants\",method=\"GET\",status=\"none\"} 1",
        "q8_agent_http_request_duration_seconds_count{route=\"/v1/tenants\",method=\"GET\"} 1",
        "q8_agent_operations_total{kind=\"update\",outcome=\"SERVICE_EXITED\"} 1",
        "q8_agent_operation_duration_seconds_count{kind=\"update\",outcome=\"failed\"} 1",
        "q8_agent_engine_call_errors_total{call=\"ping\",reason=\"timeout\"} 1",
        "q8_agent_image_pull_bytes_total 12",
        "q8_agent_event_lag_seconds 0.003",
        "process_cpu_seconds_total 1.5",
        "q8_agent_host_cpu_cores 2.0",
        "q8_agent_tenants{state=\"running\"} 3.0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains("q8_agent_host_memory_bytes"), "{text}");
    // What was said once is not said for ever.
    let later = metrics.text(&Present::default());
    assert!(!later.contains("q8_agent_host_cpu_cores") && later.contains("q8_agent_operations_total"), "{later}");
}

#[test]
fn what_is_going_on_is_given_back() {
    let metrics = Metrics::default();
    let running = (metrics.operation(), metrics.connection(), metrics.log_stream());
    let text = metrics.text(&Present::default());
    assert!(text.contains("q8_agent_operations_running 1\n") && text.contains("q8_agent_log_streams 1\n"), "{text}");
    drop(running);
    let text = metrics.text(&Present::default());
    assert!(text.contains("q8_agent_http_connections 0\n") && text.contains("q8_agent_log_streams 0\n"), "{text}");
}

#[test]
fn families_are_named_as_prometheus_wants_them() {
    let (metrics, text) = all_said();
    let names: BTreeSet<&str> = metrics.families().iter().map(|family| family.name.as_str()).collect();
    assert_eq!(names.len(), metrics.families().len(), "two families have one name");
    for family in metrics.families() {
        let Family { name, kind, help } = family;
        assert!(name.starts_with("q8_agent_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_'), "{name}");
        assert_eq!(*kind == FamilyKind::Counter, name.ends_with("_total"), "{name}");
        assert!(*kind != FamilyKind::Histogram || name.ends_with("_seconds"), "{name}");
        assert!(!help.is_empty() && !help.ends_with('.'), "{name}");
    }
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap_or_default();
        assert!(names.contains(name), "{name} is in the text and not in the list");
    }
}
