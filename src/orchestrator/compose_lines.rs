//! A tenant's containers as `docker compose ps --format json` prints them (docker compose 2.26, `cmd/formatter`): an object
//! a line, for tools that read that.
//!
//! Two things are left out, because no answer of the agent has them: paths of the host (a bind is shown relative to the
//! project) and labels that are not the agent's or docker compose's own, which may hold what a variable held.

use bytes::Bytes;
use serde::Serialize;

use super::{Error, Orchestrator};
use crate::backend::Listed;
use crate::domain::{Endpoint, Health, ProjectName, Subdomain};

/// The columns to which the tool cuts commands and mounts.
const COMMAND: usize = 20;
const MOUNT: usize = 15;

/// Members in the tool's order, which is that of the alphabet.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line<'a> {
    command: String,
    created_at: String,
    exit_code: i64,
    health: &'static str,
    #[serde(rename = "ID")]
    id: &'a str,
    image: &'a str,
    labels: String,
    local_volumes: String,
    mounts: String,
    name: &'a str,
    names: &'a str,
    networks: String,
    ports: String,
    project: &'a str,
    /// docker compose writes `null` where there are none.
    publishers: Option<Vec<Publisher<'a>>>,
    running_for: String,
    service: &'a str,
    size: &'static str,
    state: &'a str,
    status: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Publisher<'a> {
    #[serde(rename = "URL")]
    url: &'a str,
    target_port: u16,
    published_port: u16,
    protocol: &'a str,
}

impl Orchestrator {
    /// The lines for a tenant's containers: those that run, as the tool shows them unless it is told `--all`.
    pub async fn compose_lines(&self, tenant: &Subdomain, all: bool) -> Result<Bytes, Error> {
        let record = self.live_record(tenant).await?;
        let mut listed = self.backend(record.backend)?.listed(&self.tenant_ref(&record)).await?;
        listed.retain(|one| all || matches!(one.container.status.state.as_str(), "running" | "paused" | "restarting"));
        listed.sort_by(|a, b| a.container.status.name.cmp(&b.container.status.name));
        let (project, now) = (ProjectName::of(tenant), jiff::Timestamp::now());
        let mut text = Vec::new();
        for one in &listed {
            serde_json::to_writer(&mut text, &line(one, &project, now)).map_err(|error| {
                tracing::error!(%error, "a line could not be written as JSON");
                Error::Internal
            })?;
            text.push(b'\n');
        }
        Ok(text.into())
    }
}

fn line<'a>(listed: &'a Listed, project: &'a ProjectName, now: jiff::Timestamp) -> Line<'a> {
    let status = &listed.container.status;
    let publishers = listed.ports.iter().map(|port| Publisher {
        url: &port.host,
        target_port: port.port,
        published_port: port.host_port,
        protocol: &port.protocol,
    });
    let labels = listed.labels.iter().map(|(name, value)| format!("{name}={value}"));
    let mounts = listed.mounts.iter().map(|mount| shortened(mount, MOUNT));
    Line {
        command: format!("{:?}", shortened(&listed.command, COMMAND)),
        created_at: format!("{} +0000 UTC", listed.created.strftime("%Y-%m-%d %H:%M:%S")),
        exit_code: status.exit_code.filter(|_| matches!(status.state.as_str(), "exited" | "dead")).unwrap_or(0),
        health: match status.health {
            Health::Starting => "starting",
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
            Health::None => "",
        },
        id: status.id.short(),
        image: &status.image,
        labels: labels.collect::<Vec<_>>().join(","),
        local_volumes: listed.local_volumes.to_string(),
        mounts: mounts.collect::<Vec<_>>().join(","),
        name: status.name.as_str(),
        names: status.name.as_str(),
        networks: listed.networks.join(","),
        ports: ports(&listed.ports),
        project: project.as_str(),
        publishers: Some(publishers.collect()).filter(|all: &Vec<_>| !all.is_empty()),
        running_for: format!("{} ago", ago(now.duration_since(listed.created).as_secs().max(0))),
        service: listed.container.service.as_str(),
        size: "0B",
        state: &status.state,
        status: &listed.status,
    }
}

/// At most so many characters, the last of them an ellipsis if there were more.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// How long ago, in the engine's words.
fn ago(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 14 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// Ports as `docker ps` shows them: those in a row together, those with another port of the host one by one at the end. A
/// port that is not published has no address and the host port 0.
fn ports(all: &[Endpoint]) -> String {
    struct Group {
        host: String,
        protocol: String,
        first: u16,
        last: u16,
    }
    impl Group {
        fn show(&self) -> String {
            let Self { host, protocol, first, last } = self;
            let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
            if host.is_empty() { format!("{range}/{protocol}") } else { format!("{host}:{range}->{range}/{protocol}") }
        }
    }
    let mut sorted: Vec<&Endpoint> = all.iter().collect();
    sorted.sort_by_key(|port| (port.port, &port.host, port.host_port, &port.protocol));
    let (mut shown, mut mapped, mut groups) = (Vec::new(), Vec::new(), Vec::<Group>::new());
    for Endpoint { port, protocol, host, host_port, .. } in sorted {
        if !host.is_empty() && host_port != port {
            mapped.push(format!("{host}:{host_port}->{port}/{protocol}"));
            continue;
        }
        match groups.iter_mut().find(|group| group.host == *host && group.protocol == *protocol) {
            Some(group) if group.last.checked_add(1) == Some(*port) => group.last = *port,
            Some(group) => {
                shown.push(group.show());
                (group.first, group.last) = (*port, *port);
            }
            None => groups.push(Group { host: host.clone(), protocol: protocol.clone(), first: *port, last: *port }),
        }
    }
    shown.extend(groups.iter().map(Group::show));
    shown.extend(mapped);
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ServiceName;

    #[test]
    fn ports_as_docker_ps_shows_them() {
        let shown = |all: &[(&str, u16, u16, &str)]| {
            let port = |&(host, host_port, port, protocol): &(&str, u16, u16, &str)| Endpoint {
                service: ServiceName::parse("web").unwrap(),
                port,
                protocol: protocol.to_owned(),
                host: host.to_owned(),
                host_port,
                address: None,
            };
            ports(&all.iter().map(port).collect::<Vec<_>>())
        };
        assert_eq!(shown(&[]), "");
        assert_eq!(shown(&[("", 0, 80, "tcp")]), "80/tcp");
        assert_eq!(shown(&[("0.0.0.0", 80, 80, "tcp"), ("", 0, 9000, "udp")]), "0.0.0.0:80->80/tcp, 9000/udp");
        assert_eq!(shown(&[("127.0.0.1", 20001, 80, "tcp"), ("", 0, 443, "tcp")]), "443/tcp, 127.0.0.1:20001->80/tcp");
        let row = [("", 0, 81, "tcp"), ("", 0, 80, "tcp"), ("", 0, 82, "tcp"), ("", 0, 90, "tcp")];
        assert_eq!(shown(&row), "80-82/tcp, 90/tcp");
    }

    #[test]
    fn times_and_lengths_as_the_tool_has_them() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (119, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86400, "2 weeks"),
            (61 * 86400, "2 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(ago(seconds), text, "{seconds} s");
        }
        assert_eq!(shortened("sleep 3600", COMMAND), "sleep 3600");
        assert_eq!(shortened("12345678901234567890x", COMMAND), "1234567890123456789…");
    }
}
