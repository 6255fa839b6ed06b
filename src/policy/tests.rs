//! A table of tweaks to a harmless project, and what each profile says about them.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::compose::*;
use crate::domain::{ImageRef, ObjectKey, ObjectName, ProjectName, ServiceName};

const DIRECTORY: &str = "/opt/tenants/acme";

fn service_name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::parse(text).unwrap()
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| (text(key), text(value))).collect()
}

fn plain_service() -> Service {
    let mut service = Service::of(ImageRef::parse("nginx:1.27").unwrap());
    service.networks = BTreeMap::from([(key("default"), ServiceNetwork::default())]);
    service
}

fn plain_network(name: &str) -> Network {
    Network::of(ObjectName::parse(name).unwrap())
}

/// Project `q8-acme` with services `web` and `db`, network `default`, volume `files`, config `site`, secret `token`.
fn project() -> Project {
    let volume = Volume {
        name: ObjectName::parse("q8-acme_files").unwrap(),
        external: false,
        driver: None,
        driver_opts: BTreeMap::new(),
        labels: BTreeMap::new(),
    };
    let site = FileSource::File { path: format!("{DIRECTORY}/conf/site.conf"), bytes: Some(Vec::new()) };
    let config = FileObject::of(text("q8-acme_site"), site);
    let secret = FileObject::of(text("q8-acme_token"), FileSource::Content(text("x")));
    Project {
        name: ProjectName::parse("q8-acme").unwrap(),
        directory: text(DIRECTORY),
        services: ["web", "db"].map(|name| (service_name(name), Box::new(plain_service()))).into(),
        disabled_services: BTreeSet::new(),
        networks: BTreeMap::from([(key("default"), plain_network("q8-acme_default"))]),
        volumes: BTreeMap::from([(key("files"), volume)]),
        configs: BTreeMap::from([(key("site"), config)]),
        secrets: BTreeMap::from([(key("token"), secret)]),
        foreign: BTreeMap::new(),
        extensions: BTreeMap::new(),
    }
}

fn web(project: &mut Project) -> &mut Service {
    project.services.get_mut("web").unwrap()
}

fn network(project: &mut Project) -> &mut Network {
    project.networks.get_mut("default").unwrap()
}

fn volume(project: &mut Project) -> &mut Volume {
    project.volumes.get_mut("files").unwrap()
}

fn membership(project: &mut Project) -> &mut ServiceNetwork {
    web(project).networks.get_mut("default").unwrap()
}

fn bind_at(source: &str, read_only: Option<bool>) -> Mount {
    Mount {
        source: MountSource::Bind {
            source: text(source),
            create_host_path: true,
            propagation: None,
            selinux: None,
            recursive: None,
        },
        target: text("/mnt"),
        read_only,
        consistency: None,
        has_options: true,
    }
}

/// Adds a bind to `web`; a relative source is below the project directory.
fn bind(project: &mut Project, source: &str, read_only: Option<bool>) {
    let source = if source.starts_with('/') { text(source) } else { format!("{DIRECTORY}/{source}") };
    web(project).mounts.push(bind_at(&source, read_only));
}

fn anonymous(project: &mut Project, label: &str) {
    let mount =
        Mount { source: MountSource::Anonymous { nocopy: false, labels: map(&[(label, "x")]) }, ..bind_at("/x", None) };
    web(project).mounts.push(mount);
}

fn propagated(project: &mut Project, mode: &str) {
    bind(project, "data", None);
    if let MountSource::Bind { propagation, .. } = &mut web(project).mounts[0].source {
        *propagation = Some(text(mode));
    }
}

fn relabelled(project: &mut Project, source: &str) {
    bind(project, source, Some(true));
    if let MountSource::Bind { selinux, .. } = &mut web(project).mounts[0].source {
        *selinux = Some(text("Z"));
    }
}

fn port(project: &mut Project, host_ip: Option<&str>) {
    let host_ip = host_ip.map(|address| address.parse().unwrap());
    let published = Some((20080, 20080));
    web(project).ports.push(PortMapping { host_ip, published, ..PortMapping::of(80, Protocol::Tcp) });
}

fn extra_host(project: &mut Project, addresses: &[&str]) {
    web(project).extra_hosts.insert(text("meta"), texts(addresses));
}

fn log_to(project: &mut Project, driver: &str, options: &[(&str, &str)]) {
    web(project).logging = Some(Logging { driver: Some(text(driver)), options: map(options) });
}

fn admit_as(profile: Profile, project: Project) -> Result<Admitted, Vec<Refusal>> {
    admit_under(&profile.into(), project)
}

fn admit_under(rules: &TenantRules, project: Project) -> Result<Admitted, Vec<Refusal>> {
    let files = ["conf/site.conf", "conf/more/deep.conf", "page.html"];
    let files = files.iter().map(|path| ProjectPath::parse(path).unwrap()).collect();
    admit(
        rules,
        project,
        &Ground {
            files: &files,
            undefined: &[],
            publish_host: "10.0.0.5".parse().unwrap(),
            publish_ports: (20000, 29999),
            platform: "linux/amd64",
        },
    )
}

/// What a profile refuses, as `field rule`.
fn refused(profile: Profile, tweak: fn(&mut Project)) -> Vec<String> {
    let mut project = project();
    tweak(&mut project);
    match admit_as(profile, project) {
        Ok(_) => Vec::new(),
        Err(refusals) => refusals.iter().map(|refusal| format!("{} {}", refusal.field, refusal.rule)).collect(),
    }
}

/// Who refuses: baseline alone, or both profiles.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Baseline,
    Both,
}
use By::{Baseline, Both};

fn port_on(project: &mut Project, published: u16) {
    let published = Some((published, published));
    web(project).ports.push(PortMapping { published, ..PortMapping::of(80, Protocol::Tcp) });
}

fn ulimit(project: &mut Project, name: &str, limit: i64) {
    web(project).ulimits.insert(text(name), Ulimit { soft: limit, hard: limit, is_single: true });
}

fn expose(project: &mut Project, ports: impl Into<Option<(u16, u16)>>) {
    web(project).expose.push(Exposed { text: text("x"), ports: ports.into(), protocol: Protocol::Tcp });
}

fn weight(project: &mut Project, weight: u16) {
    web(project).blkio_config = Some(BlkioConfig { weight: Some(weight), ..BlkioConfig::default() });
}

fn recursive(project: &mut Project, mode: &str) {
    bind(project, "data", None);
    if let MountSource::Bind { recursive, .. } = &mut web(project).mounts[0].source {
        *recursive = Some(text(mode));
    }
}

/// One large file, mounted for so many owners.
fn many_references(project: &mut Project) {
    let content = FileSource::Content("x".repeat(1 << 20));
    project.secrets.get_mut("token").unwrap().source = content;
    web(project).secrets = (0..65)
        .map(|uid| FileReference {
            source: key("token"),
            target: format!("/run/secrets/{uid}"),
            written_target: None,
            uid: Some(uid),
            gid: None,
            mode: None,
        })
        .collect();
}

fn mounted_at(project: &mut Project, target: &str) {
    bind(project, "data", None);
    web(project).mounts[0].target = text(target);
}

fn tmpfs(project: &mut Project, options: &str) {
    web(project).tmpfs.push(TmpfsMount { path: text("/t"), options: text(options) });
}

fn check_every(project: &mut Project, interval: std::time::Duration) {
    web(project).healthcheck = Some(Healthcheck { interval: Some(interval), ..Healthcheck::default() });
}

fn image(project: &mut Project, reference: &str) {
    web(project).image = ImageRef::parse(reference).unwrap();
}

type Granted = (fn(&mut Project), &'static str);
type Case = (By, fn(&mut Project), &'static str);

const REFUSED: &[Case] = &[
    // The kernel.
    (Baseline, |p| web(p).privileged = true, "services.web.privileged privileged"),
    (Baseline, |p| web(p).cap_add = texts(&["CHOWN", "ALL"]), "services.web.cap_add[1] capability"),
    (Baseline, |p| web(p).cap_add = texts(&["net_raw"]), "services.web.cap_add[0] capability"),
    (Baseline, |p| web(p).cap_add = texts(&["CAP_MKNOD"]), "services.web.cap_add[0] capability"),
    (Baseline, |p| web(p).cap_add = texts(&["CAP_CAP_CHOWN"]), "services.web.cap_add[0] capability"),
    (Baseline, |p| web(p).security_opt = texts(&["apparmor:unconfined"]), "services.web.security_opt[0] security-opt"),
    (
        Baseline,
        |p| web(p).security_opt = texts(&["no-new-privileges:false"]),
        "services.web.security_opt[0] security-opt",
    ),
    (Baseline, |p| web(p).devices = texts(&["/dev/sda"]), "services.web.devices[0] device"),
    (Baseline, |p| web(p).device_cgroup_rules = texts(&["b *:* rwm"]), "services.web.device_cgroup_rules[0] device"),
    (Baseline, |p| web(p).cgroup_parent = Some(text("/")), "services.web.cgroup_parent cgroup-parent"),
    (Baseline, |p| web(p).runtime = Some(text("runc")), "services.web.runtime runtime"),
    (Baseline, |p| web(p).group_add = texts(&["docker"]), "services.web.group_add[0] group-add"),
    (Baseline, |p| web(p).annotations = map(&[("run.oci.x", "1")]), "services.web.annotations.run.oci.x annotations"),
    (Baseline, |p| web(p).platform = Some(text("linux/s390x")), "services.web.platform platform"),
    (Baseline, |p| web(p).platform = Some(text("windows/amd64")), "services.web.platform platform"),
    (Baseline, |p| web(p).platform = Some(text("../x")), "services.web.platform platform"),
    (Baseline, |p| web(p).pid = Some(NamespaceMode::Host), "services.web.pid host-namespace"),
    (Baseline, |p| web(p).pid = Some(NamespaceMode::Container(text("x"))), "services.web.pid host-namespace"),
    (Baseline, |p| web(p).pid = Some(NamespaceMode::Service(service_name("gone"))), "services.web.pid host-namespace"),
    (Baseline, |p| web(p).ipc = Some(NamespaceMode::Host), "services.web.ipc host-namespace"),
    (Baseline, |p| web(p).uts = Some(NamespaceMode::Host), "services.web.uts host-namespace"),
    (Baseline, |p| web(p).userns_mode = Some(NamespaceMode::Host), "services.web.userns_mode host-namespace"),
    (Baseline, |p| web(p).cgroup = Some(NamespaceMode::Host), "services.web.cgroup host-namespace"),
    (Baseline, |p| web(p).oom_score_adj = Some(-1), "services.web.oom_score_adj oom-score"),
    (Baseline, |p| web(p).oom_kill_disable = true, "services.web.oom_kill_disable oom-kill-disable"),
    (Baseline, |p| web(p).sysctls = map(&[("kernel.msgmax", "1")]), "services.web.sysctls.kernel.msgmax sysctl"),
    (Baseline, |p| log_to(p, "syslog", &[]), "services.web.logging.driver logging-driver"),
    (Baseline, |p| log_to(p, "local", &[("path", "/x")]), "services.web.logging.options.path logging-option"),
    (Baseline, |p| log_to(p, "json-file", &[("max-size", "-1")]), "services.web.logging.options.max-size logging-size"),
    (Baseline, |p| log_to(p, "local", &[("max-size", "1g")]), "services.web.logging.options.max-size logging-size"),
    (Baseline, |p| log_to(p, "local", &[("max-file", "21")]), "services.web.logging.options.max-file logging-size"),
    (Baseline, |p| log_to(p, "local", &[("max-size", "1")]), "services.web.logging.options.max-size logging-size"),
    (Baseline, |p| expose(p, (1, 257)), "services.web.expose expose"),
    (Both, |p| expose(p, None), "services.web.expose[0] expose-port"),
    (
        Baseline,
        |p| {
            web(p).labels.insert(text("a"), "x".repeat(70_000));
        },
        "services.web.labels labels-size",
    ),
    (Baseline, |p| web(p).dns_search = texts(&["x\nnameserver 1.2.3.4"]), "services.web.dns_search[0] hostname"),
    (Baseline, |p| web(p).dns_opt = texts(&["a b"]), "services.web.dns_opt[0] dns-option"),
    (
        Baseline,
        |p| {
            web(p).extra_hosts.insert(text("a\nb"), texts(&["10.0.0.1"]));
        },
        "services.web.extra_hosts hostname",
    ),
    (Baseline, |p| weight(p, 501), "services.web.blkio_config.weight blkio-weight"),
    (Baseline, |p| network(p).enable_ipv6 = Some(true), "networks.default.enable_ipv6 ipv6"),
    (Baseline, |p| recursive(p, "writable"), "services.web.volumes[0] bind-recursive"),
    (Baseline, |p| many_references(p), "services configs-size"),
    (Baseline, |p| log_to(p, "local", &[("max-file", "0")]), "services.web.logging.options.max-file logging-size"),
    (
        Baseline,
        |p| log_to(p, "local", &[("mode", "non-blocking"), ("max-buffer-size", "1g")]),
        "services.web.logging.options.max-buffer-size logging-size",
    ),
    (Baseline, |p| log_to(p, "local", &[("mode", "non-blockin")]), "services.web.logging.options.mode logging-mode"),
    (Baseline, |p| log_to(p, "local", &[("max-size", "+1m")]), "services.web.logging.options.max-size logging-size"),
    (Baseline, |p| log_to(p, "local", &[("max-size", "1mi")]), "services.web.logging.options.max-size logging-size"),
    (
        Baseline,
        |p| log_to(p, "json-file", &[("tag", "{{pad \"x\" 2000000000 0}}")]),
        "services.web.logging.options.tag logging-tag",
    ),
    (
        Baseline,
        |p| log_to(p, "json-file", &[("tag", "{{printf \"%1000000d\" 1}}")]),
        "services.web.logging.options.tag logging-tag",
    ),
    (
        Baseline,
        |p| log_to(p, "json-file", &[("tag", "{{define \"x\"}}{{template \"x\"}}{{end}}{{template \"x\"}}")]),
        "services.web.logging.options.tag logging-tag",
    ),
    (
        Baseline,
        |p| log_to(p, "json-file", &[("tag", "{{range .ContainerEnv}}{{.}}{{end}}")]),
        "services.web.logging.options.tag logging-tag",
    ),
    (
        Baseline,
        |p| log_to(p, "json-file", &[("tag", "{{.ContainerEnv}}")]),
        "services.web.logging.options.tag logging-tag",
    ),
    (
        Baseline,
        |p| log_to(p, "json-file", &[("tag", "{{.Name | json}}")]),
        "services.web.logging.options.tag logging-tag",
    ),
    (Baseline, |p| log_to(p, "json-file", &[("tag", "{{- .Name -}}")]), "services.web.logging.options.tag logging-tag"),
    (Baseline, |p| log_to(p, "json-file", &[("tag", "{{.Name")]), "services.web.logging.options.tag logging-tag"),
    (Baseline, |p| log_to(p, "json-file", &[("tag", "{{.Name}}}}")]), "services.web.logging.options.tag logging-tag"),
    (Baseline, |p| log_to(p, "json-file", &[("tag", "}}{{.Name}}")]), "services.web.logging.options.tag logging-tag"),
    (Baseline, |p| log_to(p, "json-file", &[("tag", "{{/* */}}")]), "services.web.logging.options.tag logging-tag"),
    (Baseline, |p| log_to(p, "json-file", &[("tag", "{{}}")]), "services.web.logging.options.tag logging-tag"),
    (Baseline, |p| log_to(p, "local", &[("tag", &"x".repeat(257))]), "services.web.logging.options.tag logging-tag"),
    (
        Baseline,
        |p| log_to(p, "local", &[("env-regex", &"x".repeat(257))]),
        "services.web.logging.options.env-regex logging-pattern",
    ),
    (
        Baseline,
        |p| log_to(p, "local", &[("labels-regex", &"x".repeat(257))]),
        "services.web.logging.options.labels-regex logging-pattern",
    ),
    // What all share.
    (Baseline, |p| web(p).resources.pids = Some(-1), "services.web.pids_limit unlimited"),
    (Baseline, |p| web(p).resources.memory = Some(-1), "services.web.mem_limit unlimited"),
    (Baseline, |p| web(p).resources.cpu_quota = Some(-1), "services.web.cpu_quota unlimited"),
    (Baseline, |p| web(p).resources.cpu_shares = Some(2048), "services.web.cpu_shares cpu-shares"),
    (Baseline, |p| web(p).resources.cpu_rt_runtime = Some(1), "services.web.cpu_rt_runtime realtime"),
    (Baseline, |p| web(p).resources.memory_swappiness = Some(60), "services.web.mem_swappiness swappiness"),
    (Baseline, |p| web(p).resources.memory_swap = Some(1 << 30), "services.web.memswap_limit memory-swap"),
    (
        Baseline,
        |p| {
            web(p).resources.memory = Some(1 << 30);
            web(p).resources.memory_swap = Some(-1);
        },
        "services.web.memswap_limit memory-swap",
    ),
    (Baseline, |p| web(p).resources.shm_size = Some(20 << 30), "services.web.shm_size shm-size"),
    (Baseline, |p| ulimit(p, "nofile", -1), "services.web.ulimits.nofile ulimit"),
    (Baseline, |p| web(p).working_dir = Some(text("/proc/self/fd/8")), "services.web.working_dir working-dir"),
    (Baseline, |p| web(p).working_dir = Some(text("/x/../proc/./self")), "services.web.working_dir working-dir"),
    (
        Baseline,
        |p| web(p).pre_stop = vec![Hook { working_dir: Some(text("/proc/self/fd/8")), ..Hook::default() }],
        "services.web.pre_stop[0].working_dir working-dir",
    ),
    (Baseline, |p| mounted_at(p, "/"), "services.web.volumes[0] mount-target"),
    (Baseline, |p| mounted_at(p, "/proc"), "services.web.volumes[0] mount-target"),
    (Baseline, |p| mounted_at(p, "/proc/sys"), "services.web.volumes[0] mount-target"),
    (Baseline, |p| mounted_at(p, "/dev"), "services.web.volumes[0] mount-target"),
    (Baseline, |p| mounted_at(p, "/x/../sys"), "services.web.volumes[0] mount-target"),
    (Baseline, |p| tmpfs(p, "size=1m,bind"), "services.web.tmpfs[0] tmpfs-option"),
    (Baseline, |p| tmpfs(p, "rshared"), "services.web.tmpfs[0] tmpfs-option"),
    (Baseline, |p| tmpfs(p, "dev"), "services.web.tmpfs[0] tmpfs-option"),
    (Baseline, |p| ulimit(p, "rtprio", 99), "services.web.ulimits.rtprio ulimit"),
    (Baseline, |p| ulimit(p, "nice", 40), "services.web.ulimits.nice ulimit"),
    (
        Baseline,
        |p| {
            web(p).environment.insert(text("A"), Some("x".repeat(200_000)));
        },
        "services.web.environment environment-size",
    ),
    (
        Baseline,
        |p| check_every(p, std::time::Duration::from_millis(1)),
        "services.web.healthcheck.interval healthcheck-interval",
    ),
    (Baseline, |p| web(p).stop_signal = Some(text("SIGCONT")), "services.web.stop_signal stop-signal"),
    (Baseline, |p| web(p).stop_signal = Some(text("18")), "services.web.stop_signal stop-signal"),
    (Baseline, |p| web(p).stop_signal = Some(text("SIGRTMIN+16")), "services.web.stop_signal stop-signal"),
    (Baseline, |p| web(p).stop_signal = Some(text("RTMAX+1")), "services.web.stop_signal stop-signal"),
    (
        Baseline,
        |p| web(p).stop_grace_period = Some(std::time::Duration::from_hours(1)),
        "services.web.stop_grace_period stop-grace-period",
    ),
    (Baseline, |p| image(p, "localhost:5000/x"), "services.web.image registry"),
    (Baseline, |p| image(p, "169.254.169.254/x"), "services.web.image registry"),
    (Baseline, |p| image(p, "registry:5000/x"), "services.web.image registry"),
    // The network.
    (Baseline, |p| web(p).dns = texts(&["8.8.8.8", "127.0.0.1"]), "services.web.dns[1] dns"),
    (Baseline, |p| web(p).dns = texts(&["169.254.169.254"]), "services.web.dns[0] dns"),
    (Baseline, |p| web(p).dns = texts(&["100.100.100.200"]), "services.web.dns[0] dns"),
    (Baseline, |p| web(p).dns = texts(&["64:ff9b::7f00:1"]), "services.web.dns[0] dns"),
    (Baseline, |p| web(p).dns = texts(&["::127.0.0.1"]), "services.web.dns[0] dns"),
    (Baseline, |p| web(p).dns = texts(&["::1"]), "services.web.dns[0] dns"),
    (Baseline, |p| web(p).dns = texts(&["::"]), "services.web.dns[0] dns"),
    (Baseline, |p| web(p).dns = texts(&["resolver"]), "services.web.dns[0] dns"),
    (Baseline, |p| web(p).hostname = Some(text("a b")), "services.web.hostname hostname"),
    (Baseline, |p| port_on(p, 8080), "services.web.ports[0] host-port"),
    (Baseline, |p| port_on(p, 80), "services.web.ports[0] host-port"),
    (Baseline, |p| web(p).network_mode = Some(NetworkMode::Host), "services.web.network_mode network-mode"),
    (Baseline, |p| web(p).network_mode = Some(NetworkMode::Bridge), "services.web.network_mode network-mode"),
    (Baseline, |p| web(p).network_mode = Some(NetworkMode::Named(text("n"))), "services.web.network_mode network-mode"),
    (
        Baseline,
        |p| web(p).network_mode = Some(NetworkMode::Container(text("c"))),
        "services.web.network_mode network-mode",
    ),
    (
        Baseline,
        |p| web(p).network_mode = Some(NetworkMode::Service(service_name("gone"))),
        "services.web.network_mode network-mode",
    ),
    (Baseline, |p| web(p).mac_address = Some(text("02::")), "services.web.mac_address mac-address"),
    (
        Baseline,
        |p| membership(p).ipv4_address = Some(text("10.0.0.1")),
        "services.web.networks.default.ipv4_address fixed-address",
    ),
    (
        Baseline,
        |p| membership(p).ipv6_address = Some(text("fd00::1")),
        "services.web.networks.default.ipv6_address fixed-address",
    ),
    (
        Baseline,
        |p| membership(p).link_local_ips = texts(&["169.254.169.254"]),
        "services.web.networks.default.link_local_ips link-local",
    ),
    (
        Baseline,
        |p| membership(p).mac_address = Some(text("02::")),
        "services.web.networks.default.mac_address mac-address",
    ),
    (
        Baseline,
        |p| membership(p).driver_opts = map(&[("a", "b")]),
        "services.web.networks.default.driver_opts driver-opts",
    ),
    (Baseline, |p| port(p, Some("0.0.0.0")), "services.web.ports[0] host-ip"),
    (Baseline, |p| port(p, Some("::")), "services.web.ports[0] host-ip"),
    (Baseline, |p| port(p, Some("10.0.0.6")), "services.web.ports[0] host-ip"),
    (Baseline, |p| extra_host(p, &["host-gateway"]), "services.web.extra_hosts.meta extra-hosts"),
    (Baseline, |p| extra_host(p, &["10.1.1.1", "169.254.169.254"]), "services.web.extra_hosts.meta extra-hosts"),
    (Baseline, |p| extra_host(p, &["::ffff:169.254.169.254"]), "services.web.extra_hosts.meta extra-hosts"),
    (Baseline, |p| extra_host(p, &["168.63.129.16"]), "services.web.extra_hosts.meta extra-hosts"),
    (Baseline, |p| extra_host(p, &["[fe80::1]"]), "services.web.extra_hosts.meta extra-hosts"),
    (Baseline, |p| extra_host(p, &["fd00:ec2::254"]), "services.web.extra_hosts.meta extra-hosts"),
    (Baseline, |p| extra_host(p, &["100.100.100.200"]), "services.web.extra_hosts.meta extra-hosts"),
    (Baseline, |p| extra_host(p, &["192.0.0.192"]), "services.web.extra_hosts.meta extra-hosts"),
    (Baseline, |p| extra_host(p, &["fd20:ce::254"]), "services.web.extra_hosts.meta extra-hosts"),
    (Baseline, |p| extra_host(p, &["64:ff9b::a9fe:a9fe"]), "services.web.extra_hosts.meta extra-hosts"),
    (Baseline, |p| extra_host(p, &["::169.254.169.254"]), "services.web.extra_hosts.meta extra-hosts"),
    // Binds.
    (Both, |p| bind(p, "/", Some(true)), "services.web.volumes[0] bind-agent"),
    (Both, |p| bind(p, "/opt", Some(true)), "services.web.volumes[0] bind-agent"),
    (Both, |p| bind(p, "/opt/tenants", None), "services.web.volumes[0] bind-agent"),
    (Both, |p| bind(p, "/opt/tenants/.agent/host-key", Some(true)), "services.web.volumes[0] bind-agent"),
    (Both, |p| bind(p, "/opt/tenants/other", Some(true)), "services.web.volumes[0] bind-agent"),
    (Both, |p| bind(p, "/opt/tenants/other/.agent/record.json", None), "services.web.volumes[0] bind-agent"),
    (Both, |p| bind(p, ".agent", Some(true)), "services.web.volumes[0] bind-agent"),
    (Both, |p| bind(p, ".agent/mounts/x", Some(true)), "services.web.volumes[0] bind-agent"),
    (Both, |p| bind(p, "gone.conf", Some(true)), "services.web.volumes[0] bind-source-missing"),
    (Both, |p| bind(p, "con", Some(true)), "services.web.volumes[0] bind-source-missing"),
    (Both, |p| bind(p, "conf/site.conf/x", Some(true)), "services.web.volumes[0] bind-source-missing"),
    (Both, |p| bind(p, "/opt/tenants/acme/../other/data", None), "services.web.volumes[0] bind-outside"),
    (Both, |p| bind(p, "/opt//tenants/acme/data/.", None), "services.web.volumes[0] bind-outside"),
    (Baseline, |p| bind(p, "/etc", Some(true)), "services.web.volumes[0] bind-outside"),
    (Baseline, |p| bind(p, "/opt/tenants-of-others", Some(true)), "services.web.volumes[0] bind-outside"),
    (Baseline, |p| bind(p, "/opt/tenants/other/data", Some(true)), "services.web.volumes[0] bind-outside"),
    (Baseline, |p| bind(p, "/opt/tenants/acme-2/data", Some(true)), "services.web.volumes[0] bind-outside"),
    (Baseline, |p| bind(p, "/etc/localtime/x", Some(true)), "services.web.volumes[0] bind-outside"),
    (Baseline, |p| bind(p, ".env", Some(true)), "services.web.volumes[0] bind-own-files"),
    (Baseline, |p| bind(p, "compose.yaml", Some(true)), "services.web.volumes[0] bind-own-files"),
    (Baseline, |p| bind(p, "conf/site.conf", Some(false)), "services.web.volumes[0] bind-writable"),
    (Baseline, |p| bind(p, "conf", Some(false)), "services.web.volumes[0] bind-writable"),
    (Baseline, |p| bind(p, "/etc/timezone", Some(false)), "services.web.volumes[0] bind-writable"),
    (Baseline, |p| relabelled(p, "/etc/localtime"), "services.web.volumes[0] bind-selinux"),
    (Baseline, |p| propagated(p, "rshared"), "services.web.volumes[0] bind-propagation"),
    (Baseline, |p| propagated(p, "rslave"), "services.web.volumes[0] bind-propagation"),
    (
        Baseline,
        |p| {
            bind(p, "data", None);
            let inner = bind_at(&format!("{DIRECTORY}/data/db"), Some(true));
            p.services.get_mut("db").unwrap().mounts.push(inner);
        },
        "services.db.volumes[0] bind-nested",
    ),
    // Objects and names.
    (Baseline, |p| web(p).build = Some(serde_json::json!({})), "services.web.build build"),
    (Baseline, |p| web(p).pull_policy = Some(PullPolicy::Build), "services.web.pull_policy build"),
    (Baseline, |p| volume(p).external = true, "volumes.files.external external"),
    (Baseline, |p| volume(p).name = ObjectName::parse("q8-other_files").unwrap(), "volumes.files.name foreign-name"),
    (Baseline, |p| volume(p).driver = Some(text("nfs")), "volumes.files.driver volume-driver"),
    (Baseline, |p| volume(p).driver_opts = map(&[("o", "bind")]), "volumes.files.driver_opts driver-opts"),
    (Baseline, |p| network(p).external = true, "networks.default.external external"),
    (
        Baseline,
        |p| network(p).name = ObjectName::parse("q8-other_default").unwrap(),
        "networks.default.name foreign-name",
    ),
    (Baseline, |p| network(p).driver = Some(text("macvlan")), "networks.default.driver network-driver"),
    (Baseline, |p| network(p).driver_opts = map(&[("parent", "eth0")]), "networks.default.driver_opts driver-opts"),
    (
        Baseline,
        |p| {
            let pool = IpamPool { subnet: Some(text("169.254.169.0/24")), ..IpamPool::default() };
            network(p).ipam = Some(Ipam { config: vec![pool], ..Ipam::default() });
        },
        "networks.default.ipam ipam",
    ),
    (
        Baseline,
        |p| network(p).ipam = Some(Ipam { driver: Some(text("x")), ..Ipam::default() }),
        "networks.default.ipam ipam",
    ),
    (Baseline, |p| web(p).ports.push(PortMapping::of(80, Protocol::Sctp)), "services.web.ports[0] port-protocol"),
    (
        Both,
        |p| {
            let source = FileSource::File { path: text("/etc/passwd"), bytes: None };
            p.configs.get_mut("site").unwrap().source = source;
        },
        "configs.site.file file-outside",
    ),
    (
        Both,
        |p| {
            let source = FileSource::File { path: format!("{DIRECTORY}/data/x"), bytes: Some(Vec::new()) };
            p.configs.get_mut("site").unwrap().source = source;
        },
        "configs.site.file file-outside",
    ),
    (Both, |p| p.secrets.get_mut("token").unwrap().source = FileSource::External, "secrets.token.external external"),
    (
        Both,
        |p| {
            let source = FileSource::Environment { name: text("X"), value: None };
            p.secrets.get_mut("token").unwrap().source = source;
        },
        "secrets.token.environment unset-variable",
    ),
    // Labels.
    (
        Both,
        |p| web(p).labels = map(&[("com.docker.compose.project", "q8-other")]),
        "services.web.labels.com.docker.compose.project reserved-label",
    ),
    (Both, |p| web(p).labels = map(&[("Dev.Q8.Tenant", "x")]), "services.web.labels.Dev.Q8.Tenant reserved-label"),
    (
        Both,
        |p| network(p).labels = map(&[("dev.q8.agent", "x")]),
        "networks.default.labels.dev.q8.agent reserved-label",
    ),
    (Both, |p| volume(p).labels = map(&[("dev.q8.id", "x")]), "volumes.files.labels.dev.q8.id reserved-label"),
    (Both, |p| anonymous(p, "dev.q8.tenant"), "services.web.volumes[0].labels.dev.q8.tenant reserved-label"),
    (
        Baseline,
        |p| web(p).labels = map(&[("traefik.enable", "x")]),
        "services.web.labels.traefik.enable reserved-label",
    ),
    (Baseline, |p| web(p).labels = map(&[("caddy_0", "x")]), "services.web.labels.caddy_0 reserved-label"),
    (Baseline, |p| web(p).labels = map(&[("ofelia.job", "x")]), "services.web.labels.ofelia.job reserved-label"),
    (Baseline, |p| web(p).labels = map(&[("coolify.x", "x")]), "services.web.labels.coolify.x reserved-label"),
    (Baseline, |p| web(p).labels = map(&[("io.docker.x", "x")]), "services.web.labels.io.docker.x reserved-label"),
];

const ACCEPTED: &[fn(&mut Project)] = &[
    |_| {},
    |p| web(p).cap_add = texts(&["chown", "CAP_NET_BIND_SERVICE"]),
    |p| web(p).cap_drop = texts(&["ALL"]),
    |p| web(p).security_opt = texts(&["no-new-privileges", "no-new-privileges:true"]),
    |p| web(p).pid = Some(NamespaceMode::Service(service_name("db"))),
    |p| web(p).ipc = Some(NamespaceMode::Shareable),
    |p| web(p).cgroup = Some(NamespaceMode::Private),
    |p| web(p).oom_score_adj = Some(500),
    |p| web(p).sysctls = map(&[("net.ipv4.ip_unprivileged_port_start", "0")]),
    |p| log_to(p, "json-file", &[("max-size", "1m"), ("max-file", "2")]),
    |p| log_to(p, "local", &[("max-size", "50m"), ("max-file", "5")]),
    |p| log_to(p, "json-file", &[("tag", "{{.ImageName}}/{{ .Name }}/{{.ID}}")]),
    |p| log_to(p, "json-file", &[("tag", "web {of} %m"), ("env-regex", "^(A|B)_"), ("labels-regex", "^app")]),
    |p| web(p).resources.cpu_shares = Some(512),
    |p| {
        web(p).resources.memory = Some(1 << 30);
        web(p).resources.memory_swap = Some(2 << 30);
        web(p).resources.shm_size = Some(1 << 30);
    },
    |p| ulimit(p, "nofile", 1 << 20),
    |p| ulimit(p, "memlock", -1),
    |p| tmpfs(p, "rw,noexec,nosuid,size=64m,mode=1777,uid=1000"),
    |p| tmpfs(p, ""),
    |p| mounted_at(p, "/dev/shm"),
    |p| mounted_at(p, "/processed"),
    |p| web(p).working_dir = Some(text("/app/proc")),
    |p| check_every(p, std::time::Duration::from_millis(500)),
    |p| check_every(p, std::time::Duration::ZERO),
    |p| web(p).stop_signal = Some(text("SIGRTMIN+3")),
    |p| web(p).stop_signal = Some(text("RTMAX-14")),
    |p| web(p).stop_signal = Some(text("quit")),
    |p| web(p).stop_grace_period = Some(std::time::Duration::from_secs(90)),
    |p| image(p, "ghcr.io/acme/web:1"),
    |p| image(p, "registry.example:5000/x"),
    |p| web(p).dns = texts(&["8.8.8.8", "2001:4860:4860::8888", "10.0.0.2"]),
    |p| web(p).hostname = Some(text("my_host.example")),
    |p| port_on(p, 20000),
    |p| port_on(p, 29999),
    |p| web(p).container_name = Some(text("web")),
    |p| web(p).network_mode = Some(NetworkMode::None),
    |p| web(p).network_mode = Some(NetworkMode::Service(service_name("db"))),
    |p| port(p, None),
    |p| port(p, Some("127.0.0.1")),
    |p| port(p, Some("::1")),
    |p| port(p, Some("10.0.0.5")),
    |p| extra_host(p, &["10.1.1.1", "2001:db8::1"]),
    |p| extra_host(p, &["::1", "::", "64:ff9b::101:101", "100.100.100.1"]),
    |p| bind(p, "data", None),
    |p| bind(p, "data/db", Some(false)),
    |p| bind(p, "conf/site.conf", Some(true)),
    |p| bind(p, "conf/more", None),
    |p| bind(p, "/etc/localtime", Some(true)),
    |p| propagated(p, "rprivate"),
    |p| relabelled(p, "data"),
    |p| {
        bind(p, "data/one", None);
        bind(p, "data/one", None);
        bind(p, "data/one-more", None);
    },
    |p| {
        bind(p, "data", Some(true));
        bind(p, "data/db", None);
    },
    |p| web(p).container_name = Some(text("q8-acme-web-1")),
    |p| volume(p).driver = Some(text("local")),
    |p| network(p).driver = Some(text("bridge")),
    |p| network(p).internal = true,
    |p| network(p).ipam = Some(Ipam::default()),
    |p| network(p).ipam = Some(Ipam { driver: Some(text("default")), ..Ipam::default() }),
    |p| web(p).labels = map(&[("app.caddy", "x"), ("com.example.docker", "x")]),
    |p| web(p).platform = Some(text("linux/amd64")),
];

#[test]
fn every_refusal_has_its_field_and_rule() {
    for (by, tweak, expected) in REFUSED {
        assert_eq!(refused(Profile::Baseline, *tweak), [*expected], "baseline");
        let trusted: &[&str] = if *by == Both { &[*expected] } else { &[] };
        assert_eq!(refused(Profile::Trusted, *tweak), trusted, "trusted: {expected}");
    }
}

#[test]
fn what_stays_inside_is_accepted() {
    for (at, tweak) in ACCEPTED.iter().enumerate() {
        for profile in [Profile::Baseline, Profile::Trusted] {
            assert_eq!(refused(profile, *tweak), [""; 0], "case {at}, {profile:?}");
        }
    }
}

#[test]
fn all_refusals_come_at_once() {
    let everything = |p: &mut Project| {
        for (_, tweak, _) in REFUSED.iter().filter(|(_, _, expected)| expected.contains("namespace")) {
            tweak(p);
        }
        web(p).privileged = true;
        p.services.get_mut("db").unwrap().privileged = true;
        volume(p).external = true;
    };
    let mut wanted = project();
    everything(&mut wanted);
    let fields: BTreeSet<String> =
        admit_as(Profile::Baseline, wanted).unwrap_err().into_iter().map(|refusal| refusal.field).collect();
    let expected = [
        "services.db.privileged",
        "services.web.cgroup",
        "services.web.ipc",
        "services.web.pid",
        "services.web.privileged",
        "services.web.userns_mode",
        "services.web.uts",
        "volumes.files.external",
    ];
    assert_eq!(fields.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn baseline_says_what_it_changes_and_trusted_changes_nothing() {
    let mut asked = project();
    for (source, mode) in [("conf/site.conf", None), ("conf", Some(true)), ("data/db", None), ("/etc/localtime", None)]
    {
        bind(&mut asked, source, mode);
    }
    port(&mut asked, None);
    port(&mut asked, Some("127.0.0.1"));

    let trusted = admit_as(Profile::Trusted, asked.clone()).unwrap();
    assert_eq!(trusted.project.project(), &asked);
    assert_eq!(trusted.warnings, [""; 0]);

    let admitted = admit_as(Profile::Baseline, asked.clone()).unwrap();
    let mut expected = asked;
    web(&mut expected).mounts[0].read_only = Some(true);
    web(&mut expected).mounts[3].read_only = Some(true);
    web(&mut expected).ports[0].host_ip = Some("10.0.0.5".parse().unwrap());
    for service in expected.services.values_mut() {
        service.cap_drop = texts(&["MKNOD", "NET_RAW"]);
        service.security_opt = texts(&["no-new-privileges:true"]);
        service.cgroup = Some(NamespaceMode::Private);
        service.resources = Resources {
            nano_cpus: Some(1_000_000_000),
            memory: Some(512 << 20),
            pids: Some(256),
            shm_size: Some(64 << 20),
            ..Resources::default()
        };
        service.ulimits = BTreeMap::from([(text("nofile"), Ulimit { soft: 65_536, hard: 65_536, is_single: true })]);
        let options = map(&[("max-size", "10000000"), ("max-file", "3")]);
        service.logging = Some(Logging { driver: Some(text("json-file")), options });
    }
    assert_eq!(admitted.project.project(), &expected);
    assert!(admitted.project.is_confined());
    let named: Vec<&str> =
        admitted.warnings.iter().filter_map(|warning| warning.split_once(": ")).map(|(f, _)| f).collect();
    assert_eq!(named, ["services.web.volumes[0]", "services.web.volumes[3]"]);
}

#[test]
fn what_the_author_says_about_limits_stays() {
    let mut asked = project();
    let own = web(&mut asked);
    own.resources = Resources {
        cpu_quota: Some(50_000),
        memory: Some(32 << 20),
        pids: Some(7),
        memory_swap: Some(64 << 20),
        ..Resources::default()
    };
    own.ulimits = BTreeMap::from([(text("nofile"), Ulimit { soft: 10, hard: 20, is_single: false })]);
    own.logging = Some(Logging { driver: Some(text("local")), options: map(&[("max-size", "1m"), ("max-file", "2")]) });
    own.cap_drop = texts(&["all"]);
    own.security_opt = texts(&["no-new-privileges"]);
    let expected = own.clone();
    let admitted = admit_as(Profile::Baseline, asked).unwrap();
    let confined = &admitted.project.project().services["web"];
    // What is not larger than its memory.
    let resources = Resources { shm_size: Some(32 << 20), ..expected.resources.clone() };
    assert_eq!(**confined, Service { resources, cgroup: Some(NamespaceMode::Private), ..expected });

    let mut asked = project();
    web(&mut asked).resources.cpu_period = Some(20_000);
    let admitted = admit_as(Profile::Baseline, asked).unwrap();
    let limits = admitted.project.project().services["web"].limits();
    assert_eq!((limits.nano_cpus, limits.cpu_period, limits.cpu_quota), (None, Some(20_000), Some(20_000)));

    let mut asked = project();
    let zero = DeployLimits { nano_cpus: Some(0), memory: Some(0), pids: Some(0) };
    let resources = DeployResources { limits: Some(zero), ..DeployResources::default() };
    web(&mut asked).deploy = Some(Deploy { resources, ..Deploy::default() });
    let admitted = admit_as(Profile::Baseline, asked).unwrap();
    let limits = admitted.project.project().services["web"].limits();
    assert_eq!((limits.nano_cpus, limits.memory, limits.pids), (Some(1_000_000_000), Some(512 << 20), Some(256)));
}

#[test]
fn a_container_name_becomes_an_alias() {
    let mut asked = project();
    web(&mut asked).container_name = Some(text("shop"));
    asked.services.get_mut("db").unwrap().container_name = Some(text("q8-acme-db-1"));
    let admitted = admit_as(Profile::Baseline, asked).unwrap();
    let services = &admitted.project.project().services;
    assert_eq!(services["web"].container_name, None);
    assert_eq!(services["web"].networks["default"].aliases, ["shop"]);
    assert_eq!(services["db"].container_name.as_deref(), Some("q8-acme-db-1"));
    assert_eq!(services["db"].networks["default"].aliases, [""; 0]);
    assert_eq!(admitted.warnings.len(), 1);
    assert!(admitted.warnings[0].starts_with("services.web.container_name: is an alias"), "{:?}", admitted.warnings);
}

#[test]
fn on_a_network_of_others_a_service_has_no_name_that_could_be_anothers() {
    let rules = Rules::parse("[grants]\nexternal_networks = [\"proxy\"]").unwrap().of_any();
    let mut asked = project();
    let mut proxy = network(&mut asked).clone();
    (proxy.external, proxy.name) = (true, ObjectName::parse("proxy").unwrap());
    let key = crate::domain::ObjectKey::parse("proxy").unwrap();
    asked.networks.insert(key.clone(), proxy);
    let service = web(&mut asked);
    let mut membership = service.networks["default"].clone();
    membership.aliases = texts(&["victim"]);
    service.networks.insert(key, membership);
    service.hostname = Some(text("victim"));
    service.container_name = Some(text("victim"));
    let ground = Ground {
        files: &["conf/site.conf"].iter().map(|path| ProjectPath::parse(path).unwrap()).collect(),
        undefined: &[],
        publish_host: "10.0.0.5".parse().unwrap(),
        publish_ports: (20000, 29999),
        platform: "linux/amd64",
    };
    let admitted = admit(&rules, asked, &ground).unwrap();
    let web = &admitted.project.project().services["web"];
    assert_eq!((&web.hostname, &web.container_name), (&None, &None));
    assert_eq!(web.networks["proxy"].aliases, [""; 0]);
    assert_eq!(web.networks["default"].aliases, ["victim"], "among its own it may be called anything");
    let told = admitted.warnings.join("\n");
    for told_of in
        ["networks.proxy.aliases: not used on a network of others; its name there is web.q8-acme", "hostname"]
    {
        assert!(told.contains(told_of), "{told}");
    }
}

#[test]
fn restricted_wants_a_user_and_takes_everything_else() {
    let mut asked = project();
    for service in asked.services.values_mut() {
        service.user = Some(text("1000:1000"));
    }
    let admitted = admit_as(Profile::Restricted, asked.clone()).unwrap();
    let confined = &admitted.project.project().services["web"];
    assert_eq!((confined.cap_drop.as_slice(), confined.read_only), (texts(&["ALL"]).as_slice(), true));
    assert_eq!(admitted.warnings.len(), 4);

    for user in [None, Some("root"), Some("0"), Some("0:1000"), Some("node"), Some("")] {
        let mut asked = asked.clone();
        web(&mut asked).user = user.map(text);
        let refusals = admit_as(Profile::Restricted, asked).unwrap_err();
        assert_eq!((refusals[0].field.as_str(), refusals[0].rule), ("services.web.user", "non-root"), "{user:?}");
    }
    let mut more = asked.clone();
    web(&mut more).cap_add = texts(&["NET_BIND_SERVICE", "CHOWN"]);
    web(&mut more).post_start = vec![Hook { user: Some(text("root")), ..Hook::default() }];
    let refusals = admit_as(Profile::Restricted, more).unwrap_err();
    let told: Vec<String> = refusals.iter().map(|refusal| format!("{} {}", refusal.field, refusal.rule)).collect();
    assert_eq!(told, ["services.web.cap_add[1] capability", "services.web.post_start[0].user non-root"]);

    let ground = Ground {
        files: &["conf/site.conf"].iter().map(|path| ProjectPath::parse(path).unwrap()).collect(),
        undefined: &texts(&["TAG"]),
        publish_host: "10.0.0.5".parse().unwrap(),
        publish_ports: (20000, 29999),
        platform: "linux/amd64",
    };
    let refusals = admit(&Profile::Restricted.into(), asked.clone(), &ground).unwrap_err();
    assert_eq!((refusals[0].field.as_str(), refusals[0].rule), ("variables.TAG", "undefined-variable"));
    assert!(admit(&Profile::Baseline.into(), asked, &ground).is_ok());
}

/// Everything that a policy file can grant, and nothing beside it.
#[test]
fn grants_reach_as_far_as_they_say() {
    let rules = Rules::parse(
        r#"
registries = ["docker.io", "127.0.0.1:5000"]
host_credentials = false
[grants]
capabilities = ["cap_sys_ptrace", "NET_RAW"]
binds = ["/srv/media", "/srv/inbox:rw", "/opt/tenants"]
ports = ["443", "8000-8099"]
publish_hosts = ["0.0.0.0"]
external_networks = ["proxy"]
labels = ["traefik."]
sysctls = ["net.core.somaxconn"]
[tenants.other]
profile = "trusted"
registries = ["ghcr.io"]
host_credentials = true
[tenants.other.grants]
capabilities = ["ALL"]
"#,
    )
    .unwrap();
    let rules_of = |tenant: &str| rules.of(&crate::domain::Subdomain::parse(tenant).unwrap());
    let refused = |tweak: fn(&mut Project)| {
        let mut asked = project();
        tweak(&mut asked);
        let refusals = admit_under(&rules_of("acme"), asked).err().unwrap_or_default();
        refusals.iter().map(|refusal| format!("{} {}", refusal.field, refusal.rule)).collect::<Vec<_>>()
    };
    let granted: &[fn(&mut Project)] = &[
        |p| web(p).cap_add = texts(&["SYS_PTRACE", "CAP_NET_RAW"]),
        |p| bind(p, "/srv/media", Some(true)),
        |p| bind(p, "/srv/media/films", None),
        |p| bind(p, "/srv/inbox", Some(false)),
        |p| bind(p, "/srv/inbox", None),
        |p| port_on(p, 443),
        |p| port_on(p, 8099),
        |p| port(p, Some("0.0.0.0")),
        |p| {
            network(p).external = true;
            network(p).name = ObjectName::parse("proxy").unwrap();
        },
        |p| web(p).labels = map(&[("traefik.enable", "true")]),
        |p| web(p).sysctls = map(&[("net.core.somaxconn", "1024")]),
        |p| image(p, "127.0.0.1:5000/x"),
    ];
    for (at, tweak) in granted.iter().enumerate() {
        assert_eq!(refused(*tweak), [""; 0], "case {at}");
    }
    let beyond: &[Granted] = &[
        (|p| web(p).cap_add = texts(&["SYS_ADMIN"]), "services.web.cap_add[0] capability"),
        (|p| bind(p, "/srv/media", Some(false)), "services.web.volumes[0] bind-writable"),
        (|p| bind(p, "/srv/inbox/deeper", Some(true)), "services.web.volumes[0] bind-outside"),
        (|p| bind(p, "/srv", Some(true)), "services.web.volumes[0] bind-outside"),
        (|p| bind(p, "/srv/media-2", Some(true)), "services.web.volumes[0] bind-outside"),
        (|p| bind(p, "/opt/tenants", Some(true)), "services.web.volumes[0] bind-agent"),
        (|p| bind(p, "/opt/tenants/other/data", Some(true)), "services.web.volumes[0] bind-outside"),
        (|p| port_on(p, 444), "services.web.ports[0] host-port"),
        (|p| network(p).external = true, "networks.default.external external"),
        (|p| web(p).labels = map(&[("traefiks.enable", "x")]), ""),
        (|p| web(p).labels = map(&[("caddy", "x")]), "services.web.labels.caddy reserved-label"),
        (|p| web(p).labels = map(&[("dev.q8.id", "x")]), "services.web.labels.dev.q8.id reserved-label"),
        (|p| image(p, "ghcr.io/x/y"), "services.web.image registry"),
    ];
    for (tweak, expected) in beyond {
        let expected: &[&str] = if expected.is_empty() { &[] } else { &[expected] };
        assert_eq!(refused(*tweak), expected);
    }
    let other = rules_of("other");
    assert_eq!(other.profile, Profile::Trusted);
    assert!(other.grants.capabilities.contains("ALL") && other.grants.capabilities.contains("SYS_PTRACE"));
    assert_eq!(other.registries.unwrap().len(), 3);
    assert!(other.host_credentials && !rules_of("acme").host_credentials);
    assert!(Rules::parse("").unwrap().of_any().host_credentials, "without a word all tenants pull with them");

    // What was granted is not dropped again; what is mounted read-only has a word about it.
    let mut asked = project();
    web(&mut asked).cap_add = texts(&["NET_RAW"]);
    bind(&mut asked, "/srv/media", None);
    let admitted = admit_under(&rules_of("acme"), asked).unwrap();
    let confined = &admitted.project.project().services["web"];
    assert_eq!(confined.cap_drop, ["MKNOD"]);
    assert_eq!(confined.mounts[0].read_only, Some(true));
    assert_eq!(admitted.warnings.len(), 1);
}

/// The example of the repository is a policy file, and has what holds without it where it says so.
#[test]
fn the_example_is_a_policy_file() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/policy.toml")).unwrap();
    let rules = Rules::parse(&text).unwrap();
    assert_eq!(rules.of_any().defaults, Defaults::default());
    assert_eq!(rules.host(), HostShare::default());
    let limits = crate::domain::Limits { nano_cpus: None, memory: None, ..rules.of_any().limits };
    assert_eq!(limits, crate::domain::Limits::DEFAULT);
    let of = |tenant: &str| rules.of(&crate::domain::Subdomain::parse(tenant).unwrap());
    assert_eq!(of("internal-tools").profile, Profile::Trusted);
    assert_eq!(of("acme").grants.ports, [(443, 443), (8000, 8099), (25, 25)]);
    assert_eq!(of("acme").limits.memory, Some(32 << 30));
}

#[test]
fn a_policy_file_has_no_unknown_keys_and_no_impossible_values() {
    for (text, told) in [
        ("profil = \"baseline\"", "unknown field `profil`"),
        ("profile = \"lax\"", "unknown variant `lax`"),
        ("[grants]\ncapabilities = [\"CAP_CAP_CHOWN\"]", "grants.capabilities[0]: must be a capability"),
        ("[grants]\ncapability = []", "unknown field `capability`"),
        ("[tenants.acme.grant]\nports = []", "unknown field `grant`"),
        ("[tenants.acme.defaults]\ncpus = 1", "unknown field `defaults`"),
        ("[tenants.\"a/b\"]", "tenants.a/b: must be named as a tenant's subdomain"),
        ("registries = [\"https://ghcr.io\"]", "registries[0]: must be registry hosts"),
        ("[grants]\nbinds = [\"/srv\", \"relative\"]", "grants.binds[1]: must be an absolute"),
        ("[grants]\nbinds = [\"/\"]", "grants.binds[0]: must be an absolute"),
        ("[grants]\nbinds = [\"/srv/../etc\"]", "grants.binds[0]: must be an absolute"),
        ("[grants]\nbinds = [\"/srv:rw\", \"/srv/x\"]", "grants.binds[1]: must be no path below"),
        ("[grants]\nports = [\"0\"]", "grants.ports[0]: must be a port"),
        ("[grants]\nports = [\"9-8\"]", "grants.ports[0]: must be a port"),
        ("[grants]\nports = [80]", "invalid type: integer `80`"),
        ("[grants]\nexternal_networks = [\"host\"]", "grants.external_networks[0]: must be a network"),
        ("[grants]\nlabels = [\"com.docker.\"]", "grants.labels[0]: must be a label"),
        ("[grants]\nlabels = [\"\"]", "grants.labels[0]: must be a label"),
        ("[limits]\nmemory = \"lots\"", "limits.memory: must be a size"),
        ("[limits]\nservices = 1.5", "limits.services: must be a whole number"),
        ("[limits]\ncpus = -1.0", "limits.cpus: must be a number of CPUs"),
        ("[defaults]\nmemory = 0", "defaults.memory: must be more than 0"),
        ("[defaults]\npids = \"none\"", "defaults.pids: must be more than 0"),
        ("[host]\ncpu_overcommit = 0.0", "host.cpu_overcommit: must be a factor"),
        ("profile = ", "line 1"),
    ] {
        let error = Rules::parse(text).expect_err(text).to_string();
        assert!(error.contains(told), "{text}: {error}");
    }
    assert_eq!(Rules::parse("").unwrap(), Profile::Baseline.into());
    assert_eq!(Rules::parse("profile = \"restricted\"").unwrap(), Profile::Restricted.into());
}

#[test]
fn sums_are_limited() {
    let rules = Rules::parse(
        "[limits]\nservices = 1\ncontainers = 3\nmemory = \"1GiB\"\ncpus = 1.5\npids = \"none\"\n[defaults]\nmemory = \"256MiB\"\n[tenants.acme.limits]\nservices = 2",
    )
    .unwrap();
    let limits_of = |tenant: &str| rules.of(&crate::domain::Subdomain::parse(tenant).unwrap()).limits;
    let mut asked = project();
    web(&mut asked).scale = Some(3);
    web(&mut asked).resources.memory_reservation = Some(1 << 20);
    asked.services.get_mut("db").unwrap().resources.cpu_quota = Some(25_000);
    let demand = demand(&asked, &rules.of_any().defaults);
    assert_eq!((demand.services, demand.containers, demand.networks, demand.volumes), (2, 4, 1, 1));
    assert_eq!((demand.nano_cpus, demand.memory), (3_250_000_000, 1 << 30));
    assert_eq!((demand.reserved_memory, demand.reserved_nano_cpus), ((96 << 20) + (32 << 20), 310_000_000));
    let told = |limits: crate::domain::Limits| {
        limits
            .exceeded_by(&demand)
            .into_iter()
            .map(|over| format!("{} {}/{}", over.limit, over.limit.show(over.asked), over.limit.show(over.allowed)))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(limits_of("acme")), ["containers 4/3", "cpus 3.25/1.5"]);
    assert_eq!(told(limits_of("other")), ["services 2/1", "containers 4/3", "cpus 3.25/1.5"]);
    let asked_for = crate::domain::Limits { memory: Some(1), services: Some(9), ..crate::domain::Limits::default() };
    assert_eq!(
        told(limits_of("acme").and(asked_for)),
        ["containers 4/3", "cpus 3.25/1.5", "memory 1073741824 bytes/1 bytes"]
    );
    assert_eq!(told(TenantRules::from(Profile::Baseline).limits), [""; 0]);
    let trusted = crate::domain::Limits { containers: Some(1000), ..crate::domain::Limits::default() };
    assert_eq!(TenantRules::from(Profile::Trusted).limits, trusted);
}

#[test]
fn a_refusal_repeats_no_value() {
    let mut wanted = project();
    wanted.secrets.get_mut("token").unwrap().source = FileSource::External;
    web(&mut wanted).security_opt = texts(&["canary-7"]);
    bind(&mut wanted, "/canary-7", None);
    port(&mut wanted, Some("10.77.77.77"));
    extra_host(&mut wanted, &["10.77.77.77", "canary-7"]);
    let refusals = admit_as(Profile::Baseline, wanted).unwrap_err();
    assert_eq!(refusals.len(), 5);
    let told = serde_json::to_string(&refusals).unwrap();
    assert!(!told.contains("canary-7") && !told.contains("10.77.77.77"), "{told}");
}

#[test]
fn a_project_directory_right_below_the_top_has_no_tenants_root() {
    let mut checked = project();
    checked.directory = text("/src");
    checked.configs.clear();
    web(&mut checked).mounts.push(bind_at("/etc", Some(true)));
    let refusals = admit_as(Profile::Baseline, checked.clone()).unwrap_err();
    assert_eq!(refusals[0].rule, "bind-outside");
    assert!(admit_as(Profile::Trusted, checked).is_ok());
}
