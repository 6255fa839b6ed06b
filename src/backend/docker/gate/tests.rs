//! Whatever the policy admits passes the gate; whatever is changed in it to something hostile does not; and what an engine
//! makes of a request has to be what was asked for.

mod fuzz;

use std::cell::Cell;

use bollard::models::HostConfig;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::*;
use crate::backend::docker::convert::{self, Surroundings};
use crate::backend::docker::labels as names;
use crate::backend::sample;
use crate::policy::{BindGrant, TenantRules};

const FILES: &[&str] = &["conf/site.conf", "page.html"];

fn ground() -> Ground {
    Ground {
        publish: Some((std::net::Ipv4Addr::LOCALHOST.into(), (20000, 29999))),
        pool: Subnet::parse("10.213.0.0/16").unwrap(),
    }
}

fn id(digit: &str) -> ContainerId {
    ContainerId::parse(&digit.repeat(64)).unwrap()
}

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

/// What stands around service `a`.
struct World {
    deployment: Deployment,
    ground: Ground,
    containers: BTreeMap<ServiceName, ContainerId>,
    inherited: BTreeMap<String, String>,
    a: ServiceName,
}

impl World {
    fn new(deployment: Deployment) -> Self {
        Self {
            deployment,
            ground: ground(),
            containers: BTreeMap::from([(service("b"), id("b")), (service("c"), id("c"))]),
            inherited: BTreeMap::from([("1".repeat(64), "/inherited".to_owned())]),
            a: service("a"),
        }
    }

    fn of(profile: Profile, attributes: &str) -> Self {
        Self::new(sample::deployment(profile, &project(attributes, ""), FILES))
    }

    fn allowance(&self) -> Allowance<'_> {
        Allowance::of(&self.deployment, &self.ground)
    }

    fn known(&self) -> Known<'_> {
        Known { service: &self.a, number: 1, containers: &self.containers, inherited: &self.inherited }
    }

    /// The request for `a`, with its connections, as `convert` makes it.
    fn request(&self, api: (u32, u32)) -> (Creation, Vec<Connection>) {
        self.try_request(api).unwrap()
    }

    /// The same, where the backend may say that it cannot.
    fn try_request(&self, api: (u32, u32)) -> Result<(Creation, Vec<Connection>), BackendError> {
        let name = ContainerName::parse("q8-acme-a-1").unwrap();
        let around = Surroundings {
            number: 1,
            container_name: name.as_str(),
            image: "x",
            image_id: "sha256:1",
            instead: &crate::backend::Instead::default(),
            containers: &self.containers,
            names: &BTreeMap::from([(service("b"), vec![ContainerName::parse("q8-acme-b-1").unwrap()])]),
            inherited: &self.inherited,
            ports: &BTreeMap::new(),
            api,
        };
        let of_service = self.deployment.service(&self.a).unwrap();
        let request = convert::container(&self.deployment, &self.a, of_service, &around)?;
        let later = request.connect_later.into_iter();
        let connections = later.map(|(network, endpoint)| Connection { network, container: id("a"), endpoint });
        let platform = of_service.platform.clone();
        let (image_id, body, mac_address) = (format!("sha256:{}", "a".repeat(64)), request.body, request.mac_address);
        let creation = Creation { name, platform, image_id, body, mac_address };
        Ok((creation, connections.collect()))
    }

    fn judge(&self, creation: &Creation) -> Verdict {
        self.allowance().judge_container(creation, &self.known())
    }
}

/// `b` and `c` are there to be tied to.
fn project(attributes: &str, top: &str) -> String {
    let top = if top.is_empty() { "networks: {default: {}, back: {internal: true}}\nvolumes: {v: {}}" } else { top };
    format!(
        "services:\n  a: {{image: x, {attributes}}}\n  b: {{image: x, user: '5', ipc: shareable}}\n  \
         c: {{image: x, user: '5', volumes: ['v:/v']}}\n{top}\n"
    )
}

/// Attributes of a service that nobody need fear.
const HARMLESS: &[&str] = &[
    "command: [a, b]",
    "entrypoint: a b",
    "environment: {A: '1', B: ''}",
    "user: '1000:1000'",
    "working_dir: /w",
    "hostname: h",
    "domainname: d.example",
    "init: true",
    "tty: true",
    "stdin_open: true",
    "read_only: true",
    "stop_signal: SIGINT",
    "stop_grace_period: 30s",
    "restart: unless-stopped",
    "healthcheck: {test: [CMD, a], interval: 5s, timeout: 2s, retries: 3, start_period: 1s, start_interval: 1s}",
    "healthcheck: {disable: true}",
    "ports: ['80', '127.0.0.1:20080:81', '127.0.0.1:21000-21010:82/udp']",
    "ports: [{target: 80, published: '25000'}]",
    "expose: ['90']",
    "network_mode: none",
    "network_mode: 'service:b'",
    "networks: {default: {aliases: [x]}, back: {priority: 5}}",
    "networks: [back]",
    "dns: [9.9.9.9]",
    "dns_search: [example]",
    "dns_opt: ['ndots:1']",
    "extra_hosts: {h: 10.1.2.3, i: '2001:db8::1'}",
    "links: ['b:alias']",
    "volumes: ['v:/v', './data:/d', './conf/site.conf:/c:ro', '/anonymous', '/inherited', '/etc/localtime:/l:ro']",
    "volumes: ['./data/a:/a', './data/b:/b:ro', './conf:/conf', {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 448}}]",
    "volumes: [{type: volume, source: v, target: /s, volume: {nocopy: true, labels: {x: y}}}]",
    "tmpfs: ['/x', '/y:size=1m,noexec,mode=1777']",
    "tmpfs: ['/x:bind']",
    "tmpfs: ['/x:rshared']",
    "volumes_from: ['c', 'b:ro']",
    "configs: [k]",
    "configs: [{source: k, target: /s, mode: 256, uid: '7'}]",
    "mem_limit: 100m",
    "mem_limit: 0",
    "memswap_limit: 0",
    "cpus: 0.5",
    "cpu_quota: 20000",
    "cpu_period: 50000",
    "cpu_shares: 512",
    "cpuset: '0'",
    "pids_limit: 20",
    "pids_limit: 0",
    "shm_size: 1m",
    "deploy: {replicas: 2, resources: {limits: {memory: 64m, cpus: '0.2', pids: 9}}}",
    "ulimits: {nofile: 1024, nproc: {soft: 10, hard: 20}}",
    "sysctls: {net.ipv4.tcp_syncookies: '1'}",
    "logging: {driver: local, options: {max-size: 1m, max-file: '2'}}",
    "logging: {driver: json-file}",
    "logging: {options: {mode: non-blocking, max-buffer-size: 1m}}",
    "cap_add: [NET_BIND_SERVICE]",
    "cap_add: [cap_chown, SETUID]",
    "cap_drop: [ALL]",
    "cap_drop: [CHOWN]",
    "security_opt: ['no-new-privileges:true']",
    "pid: 'service:b'",
    "ipc: 'service:b'",
    "ipc: shareable",
    "ipc: private",
    "ipc: none",
    "cgroup: private",
    "oom_score_adj: 100",
    "labels: {x: y, com.example.z: ''}",
    "container_name: mine",
    "platform: linux/amd64",
    "blkio_config: {weight: 300}",
    "oom_kill_disable: false",
    "privileged: false",
    "depends_on: [b]",
];

/// Attributes that a confined tenant must not have. One that the policy lets pass ends at the gate, and here.
const HOSTILE: &[&str] = &[
    "privileged: true",
    "cap_add: [ALL]",
    "cap_add: [SYS_ADMIN]",
    "cap_add: [net_raw]",
    "cap_add: [CAP_MKNOD]",
    "security_opt: ['seccomp=unconfined']",
    "security_opt: ['systempaths=unconfined']",
    "security_opt: ['no-new-privileges:false']",
    "security_opt: ['label:disable']",
    "pid: host",
    "ipc: host",
    "uts: host",
    "userns_mode: host",
    "cgroup: host",
    "pid: 'container:victim'",
    "network_mode: host",
    "network_mode: bridge",
    "network_mode: 'container:victim'",
    "network_mode: victim_default",
    "networks: {default: {mac_address: '02:00:00:00:00:01'}}",
    "networks: {default: {ipv4_address: 10.0.0.2}}",
    "networks: {default: {driver_opts: {a: b}}}",
    "volumes: ['/:/h']",
    "volumes: ['/etc:/h:ro']",
    "volumes: ['./.agent:/h:ro']",
    "volumes: ['./.agent/mounts/x:/h:ro']",
    "volumes: ['./:/h:ro']",
    "volumes: ['./.env:/h:ro']",
    "volumes: ['./compose.yaml:/h:ro']",
    "volumes: ['./../victim/data:/h']",
    "volumes: ['./data:/d', './data/x:/x']",
    "volumes: [{type: bind, source: ./data, target: /d, bind: {propagation: shared}}]",
    "volumes: ['/var/run/docker.sock:/s:ro']",
    "volumes: ['./conf:/c:rw']",
    "volumes_from: ['container:victim']",
    "devices: ['/dev/sda']",
    "device_cgroup_rules: ['b 8:* rwm']",
    "gpus: all",
    "cgroup_parent: /x",
    "runtime: other",
    "group_add: ['0']",
    "annotations: {a: b}",
    "oom_kill_disable: true",
    "oom_score_adj: -500",
    "sysctls: {kernel.core_pattern: x}",
    "storage_opt: {size: 1g}",
    "cpu_rt_runtime: 1000",
    "cpu_shares: 4096",
    "mem_swappiness: 60",
    "memswap_limit: -1",
    "shm_size: 20g",
    "pids_limit: -1",
    "blkio_config: {device_read_bps: [{path: /dev/sda, rate: 1}]}",
    "ulimits: {nofile: -1}",
    "ulimits: {nice: 1}",
    "logging: {driver: syslog, options: {syslog-address: 'tcp://127.0.0.1:1'}}",
    "logging: {driver: none}",
    "logging: {options: {max-size: '-1'}}",
    "logging: {options: {max-size: 100g}}",
    "logging: {options: {mode: non-blocking, max-buffer-size: 1g}}",
    "labels: {dev.q8.tenant: victim}",
    "labels: {com.docker.compose.project: victim}",
    "labels: {Traefik.enable: 'true'}",
    "extra_hosts: ['h:host-gateway']",
    "extra_hosts: ['h:169.254.169.254']",
    "extra_hosts: ['h:::ffff:168.63.129.16']",
    "dns: [127.0.0.1]",
    "dns: [169.254.169.254]",
    "external_links: [victim]",
    "ports: ['0.0.0.0:20001:80']",
    "ports: ['22:22']",
    "mac_address: '02:00:00:00:00:01'",
    "healthcheck: {test: [CMD, a], interval: 1ms}",
    "stop_grace_period: 100000h",
    "isolation: default",
];

const TOPS: &[&str] = &[
    "networks: {default: {}, back: {internal: true, attachable: true, driver: bridge}}\nvolumes: {v: {driver: local}}",
    "networks: {default: {enable_ipv6: true, labels: {x: y}}, back: {}}\nvolumes: {v: {labels: {x: y}}}",
    "networks: {default: {}, back: {}}\nvolumes: {v: {driver_opts: {type: none, o: bind, device: /}}}",
    "networks: {default: {}, back: {external: true, name: shared}}\nvolumes: {v: {}}",
    "networks: {default: {}, back: {external: true, name: victim_default}}\nvolumes: {v: {}}",
    "networks: {default: {}, back: {name: host}}\nvolumes: {v: {}}",
    "networks: {default: {}, back: {driver: macvlan}}\nvolumes: {v: {}}",
    "networks: {default: {}, back: {driver_opts: {a: b}}}\nvolumes: {v: {}}",
    "networks: {default: {}, back: {ipam: {config: [{subnet: 10.0.0.0/24}]}}}\nvolumes: {v: {}}",
    "networks: {default: {}, back: {}}\nvolumes: {v: {name: victim_data}}",
    "networks: {default: {}, back: {}}\nvolumes: {v: {external: true, name: victim_data}}",
];

fn grants() -> Grants {
    Grants {
        capabilities: ["NET_RAW".to_owned(), "SYS_PTRACE".to_owned()].into(),
        binds: vec![
            BindGrant { path: "/srv/shared".to_owned(), read_write: false },
            BindGrant { path: "/srv/spool".to_owned(), read_write: true },
        ],
        ports: vec![(80, 81)],
        publish_hosts: ["10.9.8.7".parse().unwrap()].into(),
        external_networks: [crate::domain::ObjectName::parse("shared").unwrap()].into(),
        labels: ["traefik.".to_owned()].into(),
        sysctls: ["net.core.somaxconn".to_owned()].into(),
    }
}

/// What only these grants allow.
const GRANTED: &[&str] = &[
    "cap_add: [NET_RAW, CAP_SYS_PTRACE]",
    "volumes: ['/srv/shared/x:/x:ro', '/srv/shared:/y', '/srv/spool:/z']",
    "volumes: ['/srv/shared:/y:rw']",
    "volumes: ['/srv/spool/below:/z']",
    "ports: ['80:80', '10.9.8.7:20000:1']",
    "labels: {traefik.enable: 'true'}",
    "sysctls: {net.core.somaxconn: '1'}",
];

/// One value for each key, the first that was drawn.
fn one_each(lines: &[&str]) -> String {
    let mut keys = BTreeSet::new();
    let first = lines.iter().filter(|line| keys.insert(line.split(':').next().unwrap_or_default().to_owned()));
    first.copied().collect::<Vec<_>>().join(", ")
}

/// Every request that a deployment makes.
fn all_requests_pass(world: &World, api: (u32, u32)) -> Result<(), String> {
    let allowance = world.allowance();
    let told = |refusal: Refusal| format!("{}: {}", refusal.field, refusal.rule);
    let (creation, connections) = world.request(api);
    world.judge(&creation).map_err(told)?;
    for connection in &connections {
        allowance.judge_connection(connection).map_err(told)?;
    }
    let of_service = world.deployment.service(&world.a).unwrap();
    for hook in of_service.post_start.iter().chain(&of_service.pre_stop) {
        let config = crate::backend::docker::hooks::command(hook);
        objects::judge_command(allowance.profile, &config).map_err(told)?;
    }
    let project = world.deployment.project.project();
    for (key, network) in project.networks.iter().filter(|(_, network)| !network.external) {
        let request = crate::backend::docker::networks::request(
            &world.deployment,
            (key, network),
            Some("10.213.4.64/26".to_owned()),
        );
        allowance.judge_network(&request).map_err(told)?;
    }
    for (key, volume) in project.volumes.iter().filter(|(_, volume)| !volume.external) {
        let request = crate::backend::docker::networks::volume_request(&world.deployment, key, volume);
        allowance.judge_volume(&request).map_err(told)?;
    }
    Ok(())
}

/// Draws projects until there are enough; those that the policy admits have to pass. Gives how many were admitted and refused.
fn what_is_admitted_passes(profile: Profile, cases: u32) -> (u32, u32) {
    let (admitted, refused) = (Cell::new(0), Cell::new(0));
    let harmless = proptest::sample::subsequence(HARMLESS, 0..14).prop_shuffle();
    let others: Vec<&str> = HOSTILE.iter().chain(GRANTED).copied().collect();
    let hostile = proptest::collection::vec(proptest::sample::select(others), 0..2);
    let top = prop_oneof![3 => Just(""), 2 => proptest::sample::select(TOPS)];
    let api = proptest::sample::select(vec![(1, 41), (1, 44), (1, 51)]);
    let strategy = (harmless, hostile, top, api, any::<bool>());
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(&strategy, |(harmless, hostile, top, api, is_granted)| {
        let mut lines = hostile.clone();
        lines.extend(&harmless);
        // Both are about the same and cannot be had together.
        if lines.iter().any(|line| line.starts_with("network_mode")) {
            lines.retain(|line| !line.starts_with("networks") && !line.starts_with("links"));
        }
        if profile == Profile::Restricted {
            lines.push("user: '1000'");
        }
        lines.push("post_start: [{command: [a], user: '7'}]");
        let top = format!("{}\nconfigs: {{k: {{content: c}}}}", top_or_default(top));
        let text = project(&one_each(&lines), &top);
        let grants = if is_granted { grants() } else { Grants::default() };
        let rules = TenantRules { grants, ..TenantRules::from(profile) };
        match sample::judged(&rules, &text, FILES) {
            Ok(deployment) => {
                admitted.set(admitted.get() + 1);
                let passed = all_requests_pass(&World::new(deployment), api);
                prop_assert!(passed.is_ok(), "{passed:?}\n{text}");
            }
            Err(_) => refused.set(refused.get() + 1),
        }
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
    (admitted.get(), refused.get())
}

fn top_or_default(top: &str) -> &str {
    if top.is_empty() { TOPS[0] } else { top }
}

#[test]
fn what_the_policy_admits_passes() {
    for profile in [Profile::Baseline, Profile::Restricted] {
        let (admitted, refused) = what_is_admitted_passes(profile, 1500);
        assert!(admitted > 200 && refused > 200, "{profile:?}: {admitted} admitted, {refused} refused");
    }
}

#[test]
fn what_is_granted_passes_with_the_grant_only() {
    for attribute in GRANTED {
        let text = project(attribute, "");
        assert!(sample::judged(&Profile::Baseline.into(), &text, FILES).is_err(), "{attribute} needs no grant");
        let rules = TenantRules { grants: grants(), ..TenantRules::from(Profile::Baseline) };
        let Ok(deployment) = sample::judged(&rules, &text, FILES) else { continue };
        let mut world = World::new(deployment);
        all_requests_pass(&world, (1, 45)).unwrap_or_else(|refused| panic!("{attribute}: {refused}"));
        let (creation, _) = world.request((1, 45));
        // The same request of a tenant that is granted nothing.
        world.deployment = sample::deployment(Profile::Baseline, &project("tty: false", ""), FILES);
        let verdict = world.judge(&Creation { body: relabelled(&creation, &world), ..creation.clone() });
        assert!(verdict.is_err(), "{attribute} passes without the grant");
    }
}

/// The body with the other labels that a deployment of another content has.
fn relabelled(creation: &Creation, world: &World) -> ContainerCreateBody {
    let mut body = creation.body.clone();
    let (other, _) = world.request((1, 45));
    let labels = body.labels.get_or_insert_default();
    for (label, value) in other.body.labels.unwrap() {
        labels.insert(label, value);
    }
    body
}

/// Everything at once that a request may have.
fn busy(profile: Profile) -> World {
    World::of(
        profile,
        "user: '1000', read_only: true, cap_drop: [ALL], ports: ['20001:80'], links: [b], \
         networks: {default: {aliases: [x]}, back: {}}, volumes: ['v:/v', './data:/d', './conf/site.conf:/c:ro'], \
         volumes_from: [c], healthcheck: {test: [CMD, a], interval: 5s}, extra_hosts: {h: 10.0.0.1}, tmpfs: ['/x:size=1m']",
    )
}

/// Puts a value at a JSON pointer, making the objects on the way.
fn put(root: &mut Value, pointer: &str, value: Value) {
    let mut at = root;
    for part in pointer.trim_start_matches('/').split('/') {
        let part = part.replace("~1", "/");
        at = if at.is_array() {
            let index: usize = part.parse().unwrap();
            &mut at[index]
        } else {
            &mut at[part.as_str()]
        };
    }
    *at = value;
}

fn changed<T: serde::Serialize + serde::de::DeserializeOwned>(request: &T, pointer: &str, value: Value) -> T {
    let mut json = serde_json::to_value(request).unwrap();
    put(&mut json, pointer, value);
    serde_json::from_value(json).unwrap_or_else(|error| panic!("{pointer}: {error}"))
}

#[test]
#[rustfmt::skip]
fn one_hostile_value_is_enough() {
    let world = busy(Profile::Baseline);
    let (good, _) = world.request((1, 45));
    world.judge(&good).unwrap();
    let mount = |mount: Value| json!([mount]);
    let bind = |source: &str, read_only: bool| mount(json!({"Type": "bind", "Source": source, "Target": "/x", "ReadOnly": read_only}));
    let d = "q8-acme_default";
    let endpoint = |field: &str| format!("/NetworkingConfig/EndpointsConfig/{d}/{field}");
    let port = |ip: Value, port: Value| json!({"80/tcp": [{"HostIp": ip, "HostPort": port}]});
    let victim = format!("container:{}", "e".repeat(64));
    let rows: Vec<(String, Value)> = [
        ("Privileged", json!(true)),
        ("CapAdd", json!(["SYS_ADMIN"])), ("CapAdd", json!(["all"])), ("CapAdd", json!(["CAP_NET_RAW"])),
        ("CapAdd", json!(["mknod"])), ("CapAdd", json!(["CHOWN", "sys_ptrace"])),
        ("CapDrop", json!(null)), ("CapDrop", json!(["NET_RAW"])), ("CapDrop", json!(["MKNOD"])),
        ("SecurityOpt", json!(null)), ("SecurityOpt", json!([])), ("SecurityOpt", json!(["no-new-privileges:false"])),
        ("SecurityOpt", json!(["no-new-privileges", "seccomp=unconfined"])),
        ("SecurityOpt", json!(["no-new-privileges", "apparmor=unconfined"])),
        ("SecurityOpt", json!(["no-new-privileges", "label=disable"])),
        ("MaskedPaths", json!([])), ("MaskedPaths", json!(["/proc/kcore"])), ("ReadonlyPaths", json!([])),
        ("PidMode", json!("host")), ("PidMode", json!(victim)), ("PidMode", json!("container:q8-acme-b-1")),
        ("IpcMode", json!("host")), ("IpcMode", json!(victim)), ("UTSMode", json!("host")), ("UsernsMode", json!("host")),
        ("CgroupnsMode", json!("host")), ("CgroupnsMode", json!(null)), ("Cgroup", json!(victim)),
        ("CgroupParent", json!("/x")), ("Runtime", json!("other")), ("Isolation", json!("process")),
        ("GroupAdd", json!(["0"])), ("Annotations", json!({"a": "b"})),
        ("Devices", json!([{"PathOnHost": "/dev/sda"}])), ("DeviceCgroupRules", json!(["a *:* rwm"])),
        ("DeviceRequests", json!([{"Count": -1}])), ("BlkioWeightDevice", json!([{"Path": "/dev/sda", "Weight": 1}])),
        ("BlkioDeviceReadBps", json!([{"Path": "/dev/sda"}])), ("BlkioDeviceWriteBps", json!([{"Path": "/dev/sda"}])),
        ("BlkioDeviceReadIOps", json!([{"Path": "/dev/sda"}])), ("BlkioDeviceWriteIOps", json!([{"Path": "/dev/sda"}])),
        ("IOMaximumIOps", json!(1)), ("IOMaximumBandwidth", json!(1)), ("CpuRealtimePeriod", json!(1)),
        ("CpuRealtimeRuntime", json!(1)), ("CpusetMems", json!("0")), ("MemorySwappiness", json!(60)),
        ("CpuShares", json!(4096)), ("OomKillDisable", json!(true)), ("OomScoreAdj", json!(-1)),
        ("StorageOpt", json!({"size": "1g"})),
        ("Memory", json!(null)), ("Memory", json!(0)), ("Memory", json!(-1)), ("MemorySwap", json!(-1)),
        ("NanoCpus", json!(null)), ("NanoCpus", json!(0)), ("PidsLimit", json!(null)), ("PidsLimit", json!(0)),
        ("PidsLimit", json!(-1)), ("ShmSize", json!(null)), ("ShmSize", json!(20_i64 << 30)),
        ("Ulimits", json!(null)), ("Ulimits", json!([{"Name": "nproc", "Soft": 1, "Hard": 1}])),
        ("Ulimits", json!([{"Name": "nofile", "Soft": -1, "Hard": -1}])),
        ("Ulimits", json!([{"Name": "nofile", "Soft": 1, "Hard": 1}, {"Name": "nice", "Soft": 1, "Hard": 1}])),
        ("LogConfig", json!(null)), ("LogConfig/Type", json!("syslog")), ("LogConfig/Type", json!("none")),
        ("LogConfig/Type", json!(null)), ("LogConfig/Config", json!(null)), ("LogConfig/Config/max-size", json!("-1")),
        ("LogConfig/Config/max-size", json!("100g")), ("LogConfig/Config/max-file", json!("0")),
        ("LogConfig/Config/mode", json!("other")), ("LogConfig/Config/max-buffer-size", json!("1g")),
        ("LogConfig/Config/syslog-address", json!("tcp://127.0.0.1:1")),
        ("LogConfig/Config/tag", json!("{{pad \"x\" 2000000000 0}}")), ("LogConfig/Config/tag", json!("{{.Name}}}}")),
        ("LogConfig/Config/tag", json!("{{.Name")), ("LogConfig/Config/tag", json!("x".repeat(257))),
        ("LogConfig/Config/env-regex", json!("x".repeat(257))), ("LogConfig/Config/labels-regex", json!("x".repeat(257))),
        ("Binds", json!(["/:/h"])), ("ContainerIDFile", json!("/x")), ("VolumeDriver", json!("other")),
        ("VolumesFrom", json!(["victim"])), ("VolumesFrom", json!(["e".repeat(64)])),
        ("VolumesFrom", json!([format!("{}:z", "c".repeat(64))])),
        ("Mounts", bind("/", true)), ("Mounts", bind("/etc", true)), ("Mounts", bind("/etc/localtime", false)),
        ("Mounts", bind("/opt/t", true)), ("Mounts", bind("/opt/t/acme", true)), ("Mounts", bind("/opt/t/acme/", true)),
        ("Mounts", bind("/opt/t/acme/.", true)), ("Mounts", bind("/opt/t/acme/data/..", true)),
        ("Mounts", bind("/opt/t/acme//x", true)), ("Mounts", bind("/opt/t/acme-other/data", true)),
        ("Mounts", bind("/opt/t/victim/data", true)), ("Mounts", bind("/opt/t/acme/.agent", true)),
        ("Mounts", bind("/opt/t/acme/.agent/record", true)), ("Mounts", bind("/opt/t/acme/.agent/mounts", true)),
        ("Mounts", bind("/opt/t/acme/.agent/mounts/x/y", true)), ("Mounts", bind("/opt/t/acme/.agent/mounts/x", false)),
        ("Mounts", bind("/opt/t/acme/.env", true)), ("Mounts", bind("/opt/t/acme/compose.yaml", true)),
        ("Mounts", bind("/opt/t/acme/conf", false)), ("Mounts", bind("data", true)), ("Mounts", bind("/var/run/docker.sock", true)),
        ("Mounts", bind("/srv/shared", true)), ("Mounts", json!([{"Type": "bind", "Target": "/x"}])),
        ("Mounts", json!([{"Type": "bind", "Source": "/opt/t/acme/data", "Target": "x"}])),
        ("Mounts", json!([{"Type": "bind", "Source": "/opt/t/acme/data", "Target": "/x"},
                          {"Type": "bind", "Source": "/opt/t/acme/data/a", "Target": "/y", "ReadOnly": true}])),
        ("Mounts/1/BindOptions", json!({"Propagation": "shared"})), ("Mounts/1/BindOptions", json!({"Propagation": "rslave"})),
        ("Mounts/1/BindOptions", json!({"CreateMountpoint": true})), ("Mounts/1/VolumeOptions", json!({})),
        ("Mounts/1/ReadOnly", json!(false)), // Writable is right there; see the check below the table.
        ("Mounts", mount(json!({"Type": "volume", "Source": "victim_data", "Target": "/x"}))),
        ("Mounts", mount(json!({"Type": "volume", "Source": "q8-acme-x_data", "Target": "/x"}))),
        ("Mounts", mount(json!({"Type": "volume", "Source": "2".repeat(64), "Target": "/x"}))),
        ("Mounts/0/VolumeOptions", json!({"DriverConfig": {"Options": {"device": "/"}}})),
        ("Mounts/0/VolumeOptions", json!({"Subpath": "../x"})),
        ("Mounts/0/VolumeOptions", json!({"Labels": {"dev.q8.tenant": "victim"}})),
        ("Mounts", mount(json!({"Type": "image", "Source": "x", "Target": "/x"}))),
        ("Mounts", mount(json!({"Type": "npipe", "Source": "x", "Target": "/x"}))),
        ("Mounts", mount(json!({"Type": "cluster", "Source": "x", "Target": "/x"}))),
        ("Mounts", mount(json!({"Type": "tmpfs", "Source": "/", "Target": "/x"}))),
        ("Mounts", mount(json!({"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [["bind"]]}}))),
        ("Mounts", mount(json!({"Source": "/", "Target": "/x"}))),
        ("Tmpfs", json!({"/x": "bind"})), ("Tmpfs", json!({"/x": "size=1m,rshared"})), ("Tmpfs", json!({"x": ""})),
        ("AutoRemove", json!(true)), ("PublishAllPorts", json!(true)), ("ConsoleSize", json!([1, 1])), ("Links", json!(["victim:v"])),
        ("PortBindings", json!({"80/tcp": null})), ("PortBindings", port(json!(null), json!("20001"))),
        ("PortBindings", port(json!(""), json!("20001"))), ("PortBindings", port(json!("0.0.0.0"), json!("20001"))),
        ("PortBindings", port(json!("::"), json!("20001"))), ("PortBindings", port(json!("10.9.8.7"), json!("20001"))),
        ("PortBindings", port(json!("127.0.0.1"), json!(""))), ("PortBindings", port(json!("127.0.0.1"), json!(null))),
        ("PortBindings", port(json!("127.0.0.1"), json!("0"))), ("PortBindings", port(json!("127.0.0.1"), json!("22"))),
        ("PortBindings", port(json!("127.0.0.1"), json!("19999-20001"))), ("PortBindings", port(json!("127.0.0.1"), json!("29999-30000"))),
        ("ExtraHosts", json!(["h:host-gateway"])), ("ExtraHosts", json!(["h:169.254.169.254"])),
        ("ExtraHosts", json!(["h:fd20:ce::254"])), ("ExtraHosts", json!(["h:168.63.129.16"])), ("ExtraHosts", json!(["h:fd00:ec2::254"])), ("ExtraHosts", json!(["h"])),
        ("Dns", json!(["127.0.0.1"])), ("Dns", json!(["169.254.169.254"])), ("Dns", json!(["x"])), ("Dns", json!(["100.100.100.200"])), ("Dns", json!(["0.0.0.0"])),
        ("Sysctls", json!({"kernel.core_pattern": "x"})), ("Sysctls", json!({"net.core.somaxconn": "1"})),
        ("NetworkMode", json!("host")), ("NetworkMode", json!("bridge")), ("NetworkMode", json!("default")),
        ("NetworkMode", json!(null)), ("NetworkMode", json!("")), ("NetworkMode", json!("victim_default")),
        ("NetworkMode", json!("none")), ("NetworkMode", json!("q8-acme-x_default")),
    ].into_iter().map(|(field, value)| (format!("/HostConfig/{field}"), value)).chain([
        ("/NetworkingConfig/EndpointsConfig/host".to_owned(), json!({})),
        ("/NetworkingConfig/EndpointsConfig/victim_default".to_owned(), json!({})),
        (endpoint("MacAddress"), json!("02:00:00:00:00:01")),
        (endpoint("IPAMConfig"), json!({"IPv4Address": "10.213.0.9"})),
        (endpoint("DriverOpts"), json!({"com.docker.network.bridge.name": "x"})),
        (endpoint("Links"), json!(["victim:v"])), (endpoint("NetworkID"), json!("x")), (endpoint("Gateway"), json!("10.0.0.1")),
        (endpoint("IPAddress"), json!("10.0.0.2")), (endpoint("IPPrefixLen"), json!(8)), (endpoint("DNSNames"), json!(["x"])),
        (endpoint("EndpointID"), json!("x")), (endpoint("IPv6Gateway"), json!("::1")),
        (endpoint("GlobalIPv6Address"), json!("::1")), (endpoint("GlobalIPv6PrefixLen"), json!(1)),
        ("/HostConfig".to_owned(), json!(null)), ("/Image".to_owned(), json!(null)),
        ("/AttachStdin".to_owned(), json!(true)), ("/StdinOnce".to_owned(), json!(true)), ("/ArgsEscaped".to_owned(), json!(true)),
        ("/Volumes".to_owned(), json!({"/x": {}})), ("/OnBuild".to_owned(), json!(["x"])), ("/Shell".to_owned(), json!(["x"])),
        ("/StopTimeout".to_owned(), json!(360_000_000)), ("/StopTimeout".to_owned(), json!(-1)),
        ("/Healthcheck/Interval".to_owned(), json!(1_000_000)), ("/Healthcheck/StartInterval".to_owned(), json!(1)),
        ("/Labels".to_owned(), json!(null)), (format!("/Labels/{}", names::AGENT), json!("other")),
        (format!("/Labels/{}", names::TENANT), json!("victim")), (format!("/Labels/{}", names::ID), json!("2")),
        (format!("/Labels/{}", names::GENERATION), json!("3")), (format!("/Labels/{}", names::PROJECT), json!("q8-victim")),
        (format!("/Labels/{}", names::SERVICE), json!("b")), (format!("/Labels/{}", names::NUMBER), json!("2")),
        (format!("/Labels/{}", names::SPEC), json!("")), ("/Labels/com.docker.compose.oneoff".to_owned(), json!("True")),
        ("/Labels/com.docker.compose.project.working_dir".to_owned(), json!("/opt/t/victim")),
        ("/Labels/dev.q8.new".to_owned(), json!("x")), ("/Labels/DEV.Q8.tenant".to_owned(), json!("x")),
        (format!("/Labels/{}", names::VOLUME), json!("x")), ("/Labels/traefik.enable".to_owned(), json!("true")),
        ("/Labels/caddy".to_owned(), json!("x")), ("/Labels/org.opencontainers.image.source".to_owned(), json!("x")),
    ]).collect();
    for (pointer, value) in rows {
        let body = changed(&good.body, &pointer, value.clone());
        let verdict = world.judge(&Creation { body, ..good.clone() });
        let is_right = pointer == "/HostConfig/Mounts/1/ReadOnly";
        assert_eq!(verdict.is_ok(), is_right, "{pointer} = {value}: {verdict:?}");
    }
    let named = Creation { name: ContainerName::parse("q8-victim-a-1").unwrap(), ..good.clone() };
    assert!(world.judge(&named).is_err());
    assert!(world.judge(&Creation { mac_address: Some("02:00:00:00:00:01".to_owned()), ..good }).is_err());
}

#[test]
fn names_on_a_network_of_others_end_in_the_projects() {
    let rules = crate::policy::TenantRules { grants: grants(), ..Profile::Baseline.into() };
    let top = "networks: {default: {}, back: {external: true, name: shared}}\nvolumes: {v: {}}";
    let text = project("hostname: h, networks: {default: {aliases: [x]}, back: {aliases: [victim]}}", top);
    let world = World::new(sample::judged(&rules, &text, FILES).unwrap());
    let (good, _) = world.request((1, 45));
    world.judge(&good).unwrap();
    let endpoints = "/NetworkingConfig/EndpointsConfig";
    let sent = json!(good.body);
    assert_eq!(sent.pointer(&format!("{endpoints}/shared/Aliases")), Some(&json!(["a.q8-acme"])));
    assert_eq!(sent.pointer(&format!("{endpoints}/q8-acme_default/Aliases")), Some(&json!(["q8-acme-a-1", "a", "x"])));
    for (pointer, value) in [
        ("/shared/Aliases", json!(["a"])),
        ("/shared/Aliases", json!(["a.q8-acme", "q8-victim-a"])),
        ("/shared/Aliases", json!(["a.q8-victim"])),
    ] {
        let body = changed(&good.body, &format!("{endpoints}{pointer}"), value.clone());
        assert!(world.judge(&Creation { body, ..good.clone() }).is_err(), "{pointer} = {value}");
    }
    let body = changed(&good.body, "/Hostname", json!("victim"));
    assert_eq!(world.judge(&Creation { body, ..good }).unwrap_err().field, "Hostname");
    // Engines that take one network at creation are asked for the other one afterwards.
    let (_, connections) = world.request((1, 41));
    for connection in connections {
        world.allowance().judge_connection(&connection).unwrap();
        let endpoint = EndpointSettings { aliases: Some(vec!["victim".to_owned()]), ..connection.endpoint.clone() };
        let refused = world.allowance().judge_connection(&Connection { endpoint, ..connection.clone() });
        assert_eq!(refused.is_err(), connection.network == "shared", "{}", connection.network);
    }
}

#[test]
fn restricted_takes_more_away() {
    let world = busy(Profile::Restricted);
    let (good, _) = world.request((1, 45));
    world.judge(&good).unwrap();
    for (pointer, value) in [
        ("/User", json!(null)),
        ("/User", json!("")),
        ("/User", json!("0")),
        ("/User", json!("000:1000")),
        ("/User", json!("root")),
        ("/User", json!("node")),
        ("/HostConfig/CapDrop", json!(["NET_RAW", "MKNOD"])),
        ("/HostConfig/CapAdd", json!(["CHOWN"])),
        ("/HostConfig/ReadonlyRootfs", json!(false)),
        ("/HostConfig/ReadonlyRootfs", json!(null)),
    ] {
        let body = changed(&good.body, pointer, value.clone());
        assert!(world.judge(&Creation { body, ..good.clone() }).is_err(), "{pointer} = {value}");
    }
    let body = changed(&good.body, "/HostConfig/CapAdd", json!(["NET_BIND_SERVICE"]));
    world.judge(&Creation { body, ..good }).unwrap();
}

#[test]
fn nothing_is_published_where_nobody_said_where() {
    let mut world = busy(Profile::Baseline);
    let (good, _) = world.request((1, 45));
    world.ground.publish = None;
    assert_eq!(world.judge(&good).unwrap_err().field, "HostConfig.PortBindings.HostPort");
}

#[test]
fn a_trusted_stack_may_do_all_but_take_what_is_the_agents() {
    let world = World::of(
        Profile::Trusted,
        "privileged: true, pid: host, network_mode: host, volumes: ['/etc:/h'], cap_add: [ALL], configs: [k]\nconfigs: {k: {content: c}}"
            .split('\n')
            .next()
            .unwrap()
            .trim_end_matches(", configs: [k]"),
    );
    let (good, _) = world.request((1, 45));
    world.judge(&good).unwrap();
    let bind = |source: &str| json!([{"Type": "bind", "Source": source, "Target": "/x", "ReadOnly": true}]);
    for (pointer, value, passes) in [
        ("/HostConfig/Mounts", bind("/opt/t/.agent"), false),
        ("/HostConfig/Mounts", bind("/opt/t/acme/.agent"), false),
        ("/HostConfig/Mounts", bind("/opt/t/acme/.agent/x"), false),
        ("/HostConfig/Mounts", bind("/opt/t/victim"), false),
        ("/HostConfig/Mounts", bind("/opt/t/victim/.agent"), false),
        ("/HostConfig/Mounts", bind("/opt/t"), false),
        ("/HostConfig/Mounts", bind("/opt"), false),
        ("/HostConfig/Mounts", bind("/"), false),
        ("/HostConfig/Mounts", bind("/etc/../opt/t"), false),
        ("/HostConfig/Mounts", bind("/opt/t/acme"), false),
        ("/HostConfig/Mounts", bind("/opt/t/acme/.agent/mounts/x"), true),
        ("/HostConfig/Mounts", bind("/opt/t/victim/data"), true),
        ("/HostConfig/Mounts", bind("/opt/tx"), true),
        ("/HostConfig/Mounts", bind("/opt/t/acme/data"), true),
        ("/HostConfig/Binds", json!(["/etc:/h"]), false),
        ("/Labels/dev.q8.tenant", json!("victim"), false),
        ("/Labels/com.docker.compose.new", json!("x"), false),
        ("/Labels/traefik.enable", json!("true"), true),
    ] {
        let body = changed(&good.body, pointer, value.clone());
        let verdict = world.judge(&Creation { body, ..good.clone() });
        assert_eq!(verdict.is_ok(), passes, "{pointer} = {value}: {verdict:?}");
    }
}

#[test]
#[rustfmt::skip]
fn networks_volumes_connections_and_commands() {
    let world = busy(Profile::Baseline);
    let allowance = world.allowance();
    let project = world.deployment.project.project();
    let (key, network) = project.networks.first_key_value().unwrap();
    let subnet = Some("10.213.4.64/26".to_owned());
    let good = crate::backend::docker::networks::request(&world.deployment, (key, network), subnet);
    allowance.judge_network(&good).unwrap();
    for (pointer, value) in [
        ("/Name", json!("victim_default")), ("/Name", json!("host")), ("/Name", json!("q8-acme")), ("/Driver", json!("host")),
        ("/Driver", json!("macvlan")), ("/Scope", json!("swarm")), ("/Ingress", json!(true)), ("/ConfigOnly", json!(true)),
        ("/ConfigFrom", json!({"Network": "x"})), ("/Options", json!({"com.docker.network.bridge.name": "x"})),
        ("/IPAM", json!(null)), ("/IPAM/Driver", json!("x")), ("/IPAM/Options", json!({"a": "b"})), ("/IPAM/Config", json!([])),
        ("/IPAM/Config", json!([{"Subnet": "10.213.4.64/26"}, {"Subnet": "10.213.4.128/26"}])),
        ("/IPAM/Config/0/Subnet", json!("10.0.0.0/24")), ("/IPAM/Config/0/Subnet", json!("10.212.0.0/15")),
        ("/IPAM/Config/0/Subnet", json!("10.213.0.0/8")), ("/IPAM/Config/0/Subnet", json!(null)),
        ("/IPAM/Config/0/Gateway", json!("10.213.4.65")), ("/IPAM/Config/0/IPRange", json!("10.213.4.64/27")),
        ("/IPAM/Config/0/AuxiliaryAddresses", json!({"a": "10.213.4.66"})), ("/Labels", json!(null)),
        ("/Labels/dev.q8.id", json!("2")), ("/Labels/traefik.x", json!("y")), ("/Labels/com.docker.compose.service", json!("y")),
    ] {
        let verdict = allowance.judge_network(&changed(&good, pointer, value.clone()));
        assert!(verdict.is_err(), "{pointer} = {value}");
    }

    let (key, volume) = project.volumes.first_key_value().unwrap();
    let good = crate::backend::docker::networks::volume_request(&world.deployment, key, volume);
    allowance.judge_volume(&good).unwrap();
    for (pointer, value) in [
        ("/Name", json!("victim_data")), ("/Name", json!(null)), ("/Driver", json!("nfs")),
        ("/DriverOpts", json!({"type": "none", "o": "bind", "device": "/"})),
        ("/DriverOpts", json!({"type": "overlay", "o": "lowerdir=/a:/b"})), ("/ClusterVolumeSpec", json!({})),
        ("/Labels/dev.q8.agent", json!("x")), ("/Labels/com.docker.compose.network", json!("x")),
    ] {
        let verdict = allowance.judge_volume(&changed(&good, pointer, value.clone()));
        assert!(verdict.is_err(), "{pointer} = {value}");
    }

    let (_, connections) = world.request((1, 41));
    let good = connections.into_iter().next().unwrap();
    allowance.judge_connection(&good).unwrap();
    for network in ["host", "bridge", "victim_default", "container:x", ""] {
        assert!(allowance.judge_connection(&Connection { network: network.to_owned(), ..good.clone() }).is_err());
    }
    let endpoint = EndpointSettings { mac_address: Some("02:00:00:00:00:01".to_owned()), ..good.endpoint.clone() };
    assert!(allowance.judge_connection(&Connection { endpoint, ..good }).is_err());

    let good = ExecConfig { cmd: Some(vec!["a".to_owned()]), privileged: Some(false), ..Default::default() };
    objects::judge_command(Profile::Baseline, &good).unwrap();
    objects::judge_command(Profile::Restricted, &good).unwrap();
    for (pointer, value) in [
        ("/Privileged", json!(true)), ("/AttachStdin", json!(true)), ("/Tty", json!(true)), ("/DetachKeys", json!("x")),
        ("/ConsoleSize", json!([1, 1])),
    ] {
        assert!(objects::judge_command(Profile::Baseline, &changed(&good, pointer, value)).is_err(), "{pointer}");
    }
    let as_root = changed(&good, "/User", json!("0"));
    objects::judge_command(Profile::Baseline, &as_root).unwrap();
    assert!(objects::judge_command(Profile::Restricted, &as_root).is_err());
}

/// What an engine says of a container that it made as it was asked to.
fn inspected(creation: &Creation) -> Value {
    let mut host = json!(creation.body.host_config);
    for (field, value) in [
        ("MaskedPaths", json!(["/proc/asound", "/proc/kcore"])),
        ("ReadonlyPaths", json!(["/proc/bus", "/proc/sys"])),
        ("Runtime", json!("runc")),
        ("Isolation", json!("")),
        ("IpcMode", json!("private")),
        ("ConsoleSize", json!([0, 0])),
        ("CgroupParent", json!("")),
        ("UsernsMode", json!("")),
        ("Binds", json!(null)),
        ("MemorySwap", json!(-1)),
        ("CpuShares", json!(0)),
    ] {
        host[field] = value;
    }
    json!({
        "Id": "a".repeat(64), "Name": format!("/{}", creation.name), "Image": creation.image_id,
        "Config": {"Labels": creation.body.labels, "User": creation.body.user, "Image": "x"},
        "HostConfig": host,
        "Mounts": [
            {"Type": "volume", "Name": "q8-acme_v", "Destination": "/v", "Driver": "local", "RW": true},
            {"Type": "bind", "Source": "/opt/t/acme/data", "Destination": "/d", "RW": true},
            {"Type": "bind", "Source": "/opt/t/acme/conf/site.conf", "Destination": "/c", "RW": false},
            {"Type": "volume", "Name": "1".repeat(64), "Destination": "/inherited", "Driver": "local", "RW": true},
            {"Type": "volume", "Name": "4".repeat(64), "Destination": "/of/the/image", "Driver": "local", "RW": true},
            {"Type": "bind", "Source": "/opt/t/acme/data/of-c", "Destination": "/of/c", "RW": true},
        ],
        "NetworkSettings": {"Networks": {"q8-acme_back": {}}},
    })
}

#[test]
#[rustfmt::skip]
fn what_the_engine_made_is_what_was_asked_for() {
    let world = busy(Profile::Baseline);
    let (sent, _) = world.request((1, 41));
    let later = BTreeSet::from(["q8-acme_default".to_owned()]);
    let compare = |found: &Value| {
        let found: ContainerInspectResponse = serde_json::from_value(found.clone()).unwrap();
        world.allowance().compare_container(&sent, &later, &world.known(), &found)
    };
    let good = inspected(&sent);
    compare(&good).unwrap();
    let h = |field: &str| format!("/HostConfig/{field}");
    for (pointer, value) in [
        ("/Image".to_owned(), json!(format!("sha256:{}", "b".repeat(64)))), ("/Image".to_owned(), json!(null)),
        ("/Name".to_owned(), json!("/other")), ("/Config/User".to_owned(), json!("")), ("/Config".to_owned(), json!(null)),
        ("/Config/Labels/dev.q8.tenant".to_owned(), json!("victim")), ("/HostConfig".to_owned(), json!(null)),
        ("/Config/Healthcheck".to_owned(), json!({"Test": ["CMD", "x"], "Interval": 1_000_000})), ("/Config/WorkingDir".to_owned(), json!("/proc/self/fd/7")),
        (h("Privileged"), json!(true)), (h("CapAdd"), json!(["NET_RAW"])), (h("CapAdd"), json!(["CHOWN"])),
        (h("CapDrop"), json!(null)), (h("SecurityOpt"), json!(null)), (h("SecurityOpt"), json!(["seccomp=unconfined", "no-new-privileges:true"])),
        (h("MaskedPaths"), json!(null)), (h("MaskedPaths"), json!([])), (h("ReadonlyPaths"), json!([])),
        (h("PidMode"), json!("host")), (h("IpcMode"), json!("host")), (h("UsernsMode"), json!("host")),
        (h("CgroupnsMode"), json!("host")), (h("NetworkMode"), json!("bridge")), (h("NetworkMode"), json!("q8-acme_default")),
        (h("ReadonlyRootfs"), json!(false)), (h("Memory"), json!(0)), (h("Memory"), json!(1_i64 << 40)), (h("NanoCpus"), json!(0)),
        (h("PidsLimit"), json!(null)), (h("PidsLimit"), json!(0)), (h("ShmSize"), json!(1)), (h("Ulimits"), json!([])),
        (h("Ulimits/0/Hard"), json!(1 << 20)), (h("LogConfig/Type"), json!("syslog")), (h("LogConfig/Config"), json!({})),
        (h("LogConfig/Type"), json!("local")), (h("VolumesFrom"), json!(null)), (h("VolumesFrom"), json!(["b".repeat(64)])),
        (h("Mounts"), json!([])), (h("Mounts/2/ReadOnly"), json!(false)), (h("Mounts/1/Source"), json!("/opt/t/acme/data/x")),
        (h("PortBindings"), json!({})), (h("PortBindings/80~1tcp/0/HostIp"), json!("127.0.0.2")), (h("PublishAllPorts"), json!(true)),
        (h("Devices"), json!([{"PathOnHost": "/dev/sda"}])), (h("Binds"), json!(["/:/h"])), (h("OomKillDisable"), json!(true)),
        ("/Mounts/1/Source".to_owned(), json!("/")), ("/Mounts/1/Source".to_owned(), json!("/opt/t/acme/data/x")),
        ("/Mounts/2/RW".to_owned(), json!(true)), ("/Mounts/0/Name".to_owned(), json!("victim_data")),
        ("/Mounts/0/Driver".to_owned(), json!("nfs")), ("/Mounts/5/Source".to_owned(), json!("/etc")),
        ("/Mounts/5/Type".to_owned(), json!("image")), ("/Mounts/4/Name".to_owned(), json!("victim_data")),
        ("/NetworkSettings/Networks/bridge".to_owned(), json!({})),
    ] {
        let mut found = good.clone();
        put(&mut found, &pointer, value.clone());
        assert!(compare(&found).is_err(), "{pointer} = {value}");
    }
    for (pointer, value) in [
        ("/NetworkSettings/Networks/q8-acme_default".to_owned(), json!({})), (h("Runtime"), json!("runsc")), (h("MemorySwap"), json!(1 << 30)),
        ("/Config/Labels/org.opencontainers.image.title".to_owned(), json!("x")), (h("IpcMode"), json!("shareable")),
        (h("SecurityOpt"), json!(["no-new-privileges:true", "label=type:x"])),
    ] {
        let mut found = good.clone();
        put(&mut found, &pointer, value.clone());
        compare(&found).unwrap_or_else(|refused| panic!("{pointer} = {value}: {refused:?}"));
    }
    for (label, acted_on) in [("traefik.enable", true), ("dev.q8.new", true), ("Caddy", true), ("org.opencontainers.x", false), ("maintainer", false)] {
        let mut found = good.clone();
        put(&mut found, &format!("/Config/Labels/{label}"), json!("x"));
        let found: ContainerInspectResponse = serde_json::from_value(found).unwrap();
        assert_eq!(world.allowance().label_of_image(&sent, &found).is_some(), acted_on, "{label}");
    }
}

#[test]
fn an_empty_host_config_has_none_of_the_defaults() {
    let refused = container::judge_defaults(&HostConfig::default()).unwrap_err();
    assert_eq!(refused.field, "HostConfig.SecurityOpt");
}

#[test]
fn networks_and_volumes_are_what_was_asked_for() {
    let world = busy(Profile::Baseline);
    let (key, network) = world.deployment.project.project().networks.first_key_value().unwrap();
    let subnet = Some("10.213.4.64/26".to_owned());
    let sent = crate::backend::docker::networks::request(&world.deployment, (key, network), subnet);
    let mut good = json!(sent);
    put(&mut good, "/Scope", json!("local"));
    put(&mut good, "/Driver", json!("bridge"));
    put(&mut good, "/Internal", json!(sent.internal));
    let found = |value: &Value| serde_json::from_value::<NetworkInspect>(value.clone()).unwrap();
    compare::network(&sent, &found(&good)).unwrap();
    for (pointer, value) in [
        ("/Driver", json!("macvlan")),
        ("/Name", json!("x")),
        ("/Internal", json!(!sent.internal.unwrap())),
        ("/IPAM/Config/0/Subnet", json!("10.0.0.0/24")),
        ("/IPAM/Config", json!([])),
        ("/Labels/dev.q8.id", json!("2")),
        ("/Scope", json!("swarm")),
        ("/ConfigOnly", json!(true)),
    ] {
        let mut other = good.clone();
        put(&mut other, pointer, value.clone());
        // A network that became open is the only difference in `Internal` that weakens.
        let expected = pointer == "/Internal" && sent.internal == Some(false);
        assert_eq!(compare::network(&sent, &found(&other)).is_ok(), expected, "{pointer} = {value}");
    }
    let volume = |driver: &str, options: Value| {
        let value = json!({"Name": "x", "Driver": driver, "Mountpoint": "/m", "Labels": {}, "Scope": "local", "Options": options});
        compare::volume(&serde_json::from_value(value).unwrap()).is_ok()
    };
    assert!(volume("local", json!({})));
    assert!(!volume("nfs", json!({})));
    assert!(!volume("local", json!({"type": "none", "o": "bind", "device": "/"})));
}
