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
        services: BTreeMap::from([(service_name("web"), plain_service()), (service_name("db"), plain_service())]),
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
    let published = Some((8080, 8080));
    web(project).ports.push(PortMapping { host_ip, published, ..PortMapping::of(80, Protocol::Tcp) });
}

fn extra_host(project: &mut Project, addresses: &[&str]) {
    web(project).extra_hosts.insert(text("meta"), texts(addresses));
}

fn log_to(project: &mut Project, driver: &str, options: &[(&str, &str)]) {
    web(project).logging = Some(Logging { driver: Some(text(driver)), options: map(options) });
}

fn admit_as(profile: Profile, project: Project) -> Result<Admitted, Vec<Refusal>> {
    let files = ["conf/site.conf", "conf/more/deep.conf", "page.html"];
    let files = files.iter().map(|path| ProjectPath::parse(path).unwrap()).collect();
    admit(
        profile,
        project,
        &Ground { files: &files, publish_host: "10.0.0.5".parse().unwrap(), publish_ports: (20000, 29999) },
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
    // The network.
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
    (Baseline, |p| web(p).container_name = Some(text("web")), "services.web.container_name container-name"),
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
    |p| web(p).network_mode = Some(NetworkMode::None),
    |p| web(p).network_mode = Some(NetworkMode::Service(service_name("db"))),
    |p| port(p, None),
    |p| port(p, Some("127.0.0.1")),
    |p| port(p, Some("::1")),
    |p| port(p, Some("10.0.0.5")),
    |p| extra_host(p, &["10.1.1.1", "2001:db8::1"]),
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
    assert_eq!(admitted.project.project(), &expected);
    let named: Vec<&str> =
        admitted.warnings.iter().filter_map(|warning| warning.split_once(": ")).map(|(f, _)| f).collect();
    assert_eq!(named, ["services.web.volumes[0]", "services.web.volumes[3]"]);
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
