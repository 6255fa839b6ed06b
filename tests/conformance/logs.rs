//! Log lines: whose, which, when.

use std::time::Duration;

use futures::StreamExt as _;
use q8_agent::backend::{Backend, LogLine, LogQuery, LogStreamKind, Tail};
use tokio::time::timeout;

use super::{Tenant, World, eventually, service, stack};

/// Every line there is, and no more.
const ALL: LogQuery = LogQuery { services: Vec::new(), tail: Tail::All, follow: false, since: None, until: None };

async fn read(tenant: &Tenant<'_>, query: &LogQuery) -> Vec<LogLine> {
    let stream = tenant.backend.logs(&tenant.owner, query).await.expect("logs");
    stream.map(|line| line.expect("a line")).collect().await
}

fn text(line: &LogLine) -> String {
    String::from_utf8(line.line.to_vec()).expect("these lines are UTF-8")
}

/// A service that writes these shell commands' output and then sleeps.
fn says(commands: &str) -> String {
    format!(r#"command: ["sh", "-c", "{commands}; sleep 3600"]"#)
}

async fn has_lines(tenant: &Tenant<'_>, count: usize) {
    eventually("all lines are written", async || read(tenant, &ALL).await.len() >= count).await;
}

pub(crate) async fn streams_are_told_apart(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "streams");
    tenant.up(&stack(&[("web", &[&says("echo out; sleep 0.1; echo err >&2")])], "")).await.expect("it comes up");
    has_lines(&tenant, 2).await;
    let lines = read(&tenant, &ALL).await;
    let told: Vec<(String, LogStreamKind)> = lines.iter().map(|line| (text(line), line.stream)).collect();
    let errors = if backend.capabilities().split_streams { LogStreamKind::Stderr } else { LogStreamKind::Stdout };
    assert_eq!(told, [(String::from("out"), LogStreamKind::Stdout), (String::from("err"), errors)]);
    for line in &lines {
        assert_eq!((line.service.as_str(), line.number, line.partial), ("web", 1, false));
        assert_eq!(line.container.as_str(), format!("{}-web-1", tenant.owner.project()));
        assert!(line.time.is_some());
    }
    tenant.purge().await;
}

pub(crate) async fn services_are_chosen(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "chosen");
    // The pauses keep the three apart, so that the order by time is certain.
    let text_ = stack(
        &[
            ("a", &[&says("sleep 0.9; echo from a")]),
            ("b", &[&says("echo from b")]),
            ("c", &[&says("sleep 1.8; echo from c")]),
        ],
        "",
    );
    tenant.up(&text_).await.expect("it comes up");
    has_lines(&tenant, 3).await;
    for (services, wanted) in [
        (&[][..], &["from b", "from a", "from c"][..]),
        (&["a"], &["from a"]),
        (&["c", "b"], &["from b", "from c"]),
        (&["nobody"], &[]),
    ] {
        let query = LogQuery { services: services.iter().map(|name| service(name)).collect(), ..ALL };
        let lines: Vec<String> = read(&tenant, &query).await.iter().map(text).collect();
        assert_eq!(lines, wanted, "{services:?}");
    }
    tenant.purge().await;
}

pub(crate) async fn the_tail_is_the_end(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "tail");
    let says = says("for n in 1 2 3 4 5; do echo line $$n; done");
    tenant.up(&stack(&[("web", &[&says])], "")).await.expect("it comes up");
    has_lines(&tenant, 5).await;
    for (tail, wanted) in [
        (Tail::All, &["line 1", "line 2", "line 3", "line 4", "line 5"][..]),
        (Tail::Lines(2), &["line 4", "line 5"]),
        (Tail::Lines(9), &["line 1", "line 2", "line 3", "line 4", "line 5"]),
        (Tail::Lines(0), &[]),
    ] {
        let lines: Vec<String> = read(&tenant, &LogQuery { tail, ..ALL }).await.iter().map(text).collect();
        assert_eq!(lines, wanted, "{tail:?}");
    }
    tenant.purge().await;
}

pub(crate) async fn followers_see_new_lines_at_once(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "follow-log");
    let ticks = r#"command: ["sh", "-c", "while true; do echo tick; sleep 0.3; done"]"#;
    tenant.up(&stack(&[("a", &[ticks]), ("b", &[ticks])], "")).await.expect("it comes up");
    let query = LogQuery { tail: Tail::Lines(0), follow: true, ..ALL };
    let mut stream = backend.logs(&tenant.owner, &query).await.expect("logs");
    let (mut of_a, mut of_b) = (0, 0);
    while of_a < 3 || of_b < 3 {
        let line = timeout(Duration::from_secs(10), stream.next()).await.expect("in time");
        let line = line.expect("it goes on").expect("a line");
        let age = jiff::Timestamp::now().duration_since(line.time.expect("a time"));
        assert!(age.as_millis() < 1000, "{age:?} old");
        assert_eq!(text(&line), "tick");
        *(if line.service.as_str() == "a" { &mut of_a } else { &mut of_b }) += 1;
    }
    drop(stream);
    tenant.purge().await;
}

pub(crate) async fn times_limit_the_lines(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "times");
    tenant
        .up(&stack(&[("web", &[&says("echo one; sleep 1.2; echo two; sleep 1.2; echo three")])], ""))
        .await
        .expect("it comes up");
    has_lines(&tenant, 3).await;
    let all = read(&tenant, &ALL).await;
    let second = all[1].time.expect("a time");
    let half = Duration::from_millis(500);
    for (since, until, wanted) in [
        (Some(second - half), None, &["two", "three"][..]),
        (None, Some(second + half), &["one", "two"]),
        (Some(second - half), Some(second + half), &["two"]),
    ] {
        let lines: Vec<String> = read(&tenant, &LogQuery { since, until, ..ALL }).await.iter().map(text).collect();
        assert_eq!(lines, wanted, "{since:?} {until:?}");
    }
    tenant.purge().await;
}

pub(crate) async fn followers_end_with_the_tenant(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "end");
    tenant.up(&stack(&[("web", &[&says("echo first")])], "")).await.expect("it comes up");
    let stream = backend.logs(&tenant.owner, &LogQuery { follow: true, ..ALL }).await.expect("logs");
    has_lines(&tenant, 1).await;
    tenant.purge().await;
    let lines: Vec<_> = timeout(Duration::from_secs(10), stream.collect()).await.expect("the stream ends");
    assert_eq!(lines.first().and_then(|line| line.as_ref().ok()).map(text).as_deref(), Some("first"));
}
