//! One row an attribute: what it is in the engine's request.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::backend::docker::gates::{self, ApiVersion};
use crate::backend::sample;
use crate::domain::{DesiredState, FileContent, ProjectPath};
use crate::policy::Profile;

/// A trusted tenant's project; `seccomp.json` is a file of the request.
fn deployment(text: &str) -> Deployment {
    let profile = FileContent { bytes: b"{ \"defaultAction\": \"SCMP_ACT_ALLOW\" }\n".to_vec(), mode: 0o644 };
    let not_json = FileContent { bytes: b"SCMP_ACT_ALLOW".to_vec(), mode: 0o644 };
    let mut deployment = sample::deployment(Profile::Trusted, text, &[]);
    deployment.files = BTreeMap::from([
        (ProjectPath::parse("conf/seccomp.json").unwrap(), profile),
        (ProjectPath::parse("seccomp.txt").unwrap(), not_json),
    ]);
    deployment
}

/// A project whose service `a` has these attributes; `b` (two containers), `c` and `d` are there to be tied to.
fn with_attributes(attributes: &str) -> Deployment {
    deployment(&format!(
        "services: {{a: {{image: x, {attributes}}}, b: {{image: x, scale: 2}}, c: {{image: x, container_name: see}}, \
         d: {{image: x, network_mode: none}}}}\n\
         networks: {{default: {{}}, n2: {{}}, n3: {{name: third}}}}\nvolumes: {{v: {{}}, vol: {{}}}}\n"
    ))
}

fn id(digit: &str) -> ContainerId {
    ContainerId::parse(&digit.repeat(64)).unwrap()
}

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn names(of: &[(&str, &[&str])]) -> BTreeMap<ServiceName, Vec<ContainerName>> {
    let parse = |name: &&str| ContainerName::parse(name).unwrap();
    of.iter().map(|(name, containers)| (service(name), containers.iter().map(parse).collect())).collect()
}

/// The create request of `a`, with what is not in its body beside it.
fn request(deployment: &Deployment, api: ApiVersion) -> Result<Value, BackendError> {
    gates::check(deployment, api, None)?;
    let name = service("a");
    let containers = BTreeMap::from([(service("b"), id("b")), (service("c"), id("c")), (service("d"), id("d"))]);
    let around = Surroundings {
        number: 1,
        container_name: "q8-acme-a-1",
        image: "x",
        image_id: "sha256:1",
        instead: &crate::backend::Instead::default(),
        containers: &containers,
        names: &names(&[("b", &["q8-acme-b-1", "q8-acme-b-2"]), ("c", &["see"]), ("d", &["q8-acme-d-1"])]),
        inherited: &BTreeMap::new(),
        ports: &BTreeMap::new(),
        api,
    };
    let request = container(deployment, &name, deployment.service(&name).unwrap(), &around)?;
    let mut value = serde_json::to_value(&request.body).unwrap();
    value["later"] = request.connect_later.iter().map(|(network, to)| (network.clone(), json!(to))).collect();
    value["MacAddress"] = json!(request.mac_address);
    Ok(value)
}

const BOTH: &[ApiVersion] = &[(1, 41), (1, 45)];
const OLD: &[ApiVersion] = &[(1, 41)];
const NEW: &[ApiVersion] = &[(1, 45)];
const NEWEST: &[ApiVersion] = &[(1, 51)];
/// `@` in a pointer.
const MAIN: &str = "/NetworkingConfig/EndpointsConfig/q8-acme_default";

#[test]
#[rustfmt::skip]
fn every_attribute_has_its_place() {
    let b = "b".repeat(64);
    let c = "c".repeat(64);
    let links = json!(["q8-acme-b-1:b", "q8-acme-b-1:b-1", "q8-acme-b-1:q8-acme-b-1",
                       "q8-acme-b-2:b", "q8-acme-b-2:b-1", "q8-acme-b-2:q8-acme-b-1",
                       "see:alias", "see:c-1", "see:q8-acme-c-1", "ext:e", "out:out"]);
    let rows: Vec<(&[ApiVersion], &str, &str, Value)> = vec![
        // What runs.
        (BOTH, "tty: false", "/Image", json!("x")),
        (BOTH, "tty: false", "/AttachStdout", json!(true)),
        (BOTH, "tty: false", "/AttachStderr", json!(true)),
        (BOTH, "command: echo 'a b'", "/Cmd", json!(["echo", "a b"])),
        (BOTH, "command: []", "/Cmd", json!([])),
        (BOTH, "command: null", "/Cmd", json!(null)),
        (BOTH, "entrypoint: [a, b]", "/Entrypoint", json!(["a", "b"])),
        (BOTH, "environment: {A: '1', B: null, C: ''}", "/Env", json!(["A=1", "B", "C="])),
        (BOTH, "labels: {x: y}", "/Labels/x", json!("y")),
        (BOTH, "depends_on: {b: {condition: service_started, restart: true}, c: {condition: service_started}}",
               "/Labels/com.docker.compose.depends_on", json!("b:service_started:true,c:service_started:false")),
        (BOTH, "hostname: h", "/Hostname", json!("h")),
        (BOTH, "domainname: d.example", "/Domainname", json!("d.example")),
        (BOTH, "user: '1:2'", "/User", json!("1:2")),
        (BOTH, "working_dir: /w", "/WorkingDir", json!("/w")),
        (BOTH, "tty: true", "/Tty", json!(true)),
        (BOTH, "stdin_open: true", "/OpenStdin", json!(true)),
        (BOTH, "stop_signal: SIGINT", "/StopSignal", json!("SIGINT")),
        (BOTH, "stop_grace_period: 1m30s", "/StopTimeout", json!(90)),
        (BOTH, "stop_grace_period: 500ms", "/StopTimeout", json!(1)),
        (BOTH, "stop_grace_period: 0s", "/StopTimeout", json!(0)),
        (BOTH, "group_add: [staff, 7]", "/HostConfig/GroupAdd", json!(["staff", "7"])),
        (BOTH, "init: true", "/HostConfig/Init", json!(true)),
        (BOTH, "init: false", "/HostConfig/Init", json!(false)),
        (BOTH, "tty: false", "/HostConfig/Init", json!(null)),
        (BOTH, "read_only: true", "/HostConfig/ReadonlyRootfs", json!(true)),
        (BOTH, "runtime: crun", "/HostConfig/Runtime", json!("crun")),
        (BOTH, "isolation: default", "/HostConfig/Isolation", json!("default")),
        (NEW,  "annotations: {k: v}", "/HostConfig/Annotations", json!({"k": "v"})),
        // Health.
        (BOTH, "healthcheck: {test: [CMD, a]}", "/Healthcheck/Test", json!(["CMD", "a"])),
        (BOTH, "healthcheck: {test: a b}", "/Healthcheck/Test", json!(["CMD-SHELL", "a b"])),
        (BOTH, "healthcheck: {test: [NONE]}", "/Healthcheck/Test", json!(["NONE"])),
        (BOTH, "healthcheck: {disable: true}", "/Healthcheck/Test", json!(["NONE"])),
        (BOTH, "healthcheck: {test: [CMD, a], disable: true}", "/Healthcheck/Test", json!(["NONE"])),
        (BOTH, "healthcheck: {interval: 1s}", "/Healthcheck/Test", json!(null)),
        (BOTH, "healthcheck: {interval: 1500ms}", "/Healthcheck/Interval", json!(1_500_000_000_i64)),
        (BOTH, "healthcheck: {timeout: 2s}", "/Healthcheck/Timeout", json!(2_000_000_000_i64)),
        (BOTH, "healthcheck: {retries: 3}", "/Healthcheck/Retries", json!(3)),
        (BOTH, "healthcheck: {start_period: 4s}", "/Healthcheck/StartPeriod", json!(4_000_000_000_i64)),
        (NEW,  "healthcheck: {start_period: 4s, start_interval: 1s}", "/Healthcheck/StartInterval", json!(1_000_000_000)),
        (OLD,  "healthcheck: {start_period: 4s, start_interval: 1s}", "/Healthcheck/StartInterval", Value::Null),
        // Ports.
        (BOTH, "ports: ['80', '127.0.0.1:81:82/udp', '90-91:83']", "/ExposedPorts", json!({"80/tcp": {}, "82/udp": {}, "83/tcp": {}})),
        (BOTH, "ports: ['80']", "/HostConfig/PortBindings", json!({"80/tcp": [{"HostPort": ""}]})),
        (BOTH, "ports: ['127.0.0.1:81:82/udp']", "/HostConfig/PortBindings", json!({"82/udp": [{"HostIp": "127.0.0.1", "HostPort": "81"}]})),
        (BOTH, "ports: ['90-91:83']", "/HostConfig/PortBindings", json!({"83/tcp": [{"HostPort": "90-91"}]})),
        (BOTH, "expose: ['7', '8-9/udp']", "/ExposedPorts", json!({"7/tcp": {}, "8/udp": {}, "9/udp": {}})),
        // Networks.
        (BOTH, "tty: false", "/HostConfig/NetworkMode", json!("q8-acme_default")),
        (BOTH, "networks: {default: {aliases: [x, y]}}", "@/Aliases", json!(["q8-acme-a-1", "a", "x", "y"])),
        (BOTH, "networks: {default: {ipv4_address: 10.0.0.9, ipv6_address: 'fd00::9', link_local_ips: [169.254.1.1]}}",
               "@/IPAMConfig",
               json!({"IPv4Address": "10.0.0.9", "IPv6Address": "fd00::9", "LinkLocalIPs": ["169.254.1.1"]})),
        (BOTH, "networks: {default: {driver_opts: {k: v}}}", "@/DriverOpts", json!({"k": "v"})),
        (NEWEST, "networks: {default: {interface_name: eth9, driver_opts: {k: v}}}", "@/DriverOpts",
               json!({"k": "v", "com.docker.network.endpoint.ifname": "eth9"})),
        (NEWEST, "networks: {default: {gw_priority: 5}}", "@/GwPriority", json!(5)),
        (BOTH, "networks: {default: {}, n2: {priority: 2}, n3: {}}", "/HostConfig/NetworkMode", json!("q8-acme_n2")),
        (OLD,  "networks: {default: {}, n2: {priority: 2}, n3: {}}", "/later/third/Aliases", json!(["q8-acme-a-1", "a"])),
        (OLD,  "networks: {default: {}, n2: {priority: 2}, n3: {}}", "@/Aliases", json!(null)),
        (NEW,  "networks: {default: {}, n2: {priority: 2}, n3: {}}", "/later", json!({})),
        (NEW,  "networks: {default: {}, n2: {priority: 2}, n3: {}}", "@/Aliases", json!(["q8-acme-a-1", "a"])),
        (OLD,  "mac_address: '02:00:00:00:00:01'", "/MacAddress", json!("02:00:00:00:00:01")),
        (OLD,  "mac_address: '02:00:00:00:00:01'", "@/MacAddress", json!(null)),
        (NEW,  "mac_address: '02:00:00:00:00:01'", "/MacAddress", json!(null)),
        (NEW,  "mac_address: '02:00:00:00:00:01'", "@/MacAddress", json!("02:00:00:00:00:01")),
        (NEW,  "mac_address: '02:00:00:00:00:01', networks: {default: {}, n2: {}}",
               "/NetworkingConfig/EndpointsConfig/q8-acme_n2/MacAddress", json!(null)),
        (OLD,  "networks: {default: {mac_address: '02:00:00:00:00:02'}}", "/MacAddress", json!("02:00:00:00:00:02")),
        (NEW,  "networks: {default: {}, n2: {mac_address: '02:00:00:00:00:02'}}",
               "/NetworkingConfig/EndpointsConfig/q8-acme_n2/MacAddress", json!("02:00:00:00:00:02")),
        (OLD,  "network_mode: bridge, mac_address: '02:00:00:00:00:03'", "/MacAddress", json!("02:00:00:00:00:03")),
        (NEW,  "network_mode: bridge, mac_address: '02:00:00:00:00:03'",
               "/NetworkingConfig/EndpointsConfig/bridge/MacAddress", json!("02:00:00:00:00:03")),
        (BOTH, "network_mode: none", "/HostConfig/NetworkMode", json!("none")),
        (BOTH, "network_mode: none", "/NetworkingConfig", json!(null)),
        (BOTH, "network_mode: host", "/HostConfig/NetworkMode", json!("host")),
        (BOTH, "network_mode: somebodys", "/HostConfig/NetworkMode", json!("somebodys")),
        (BOTH, "network_mode: 'container:x'", "/HostConfig/NetworkMode", json!("container:x")),
        (BOTH, "network_mode: 'service:b'", "/HostConfig/NetworkMode", json!(format!("container:{b}"))),
        (BOTH, "links: [b, 'c:alias'], external_links: ['ext:e', out]", "@/Links", links.clone()),
        (BOTH, "links: [b, 'c:alias'], external_links: ['ext:e', out]", "/HostConfig/Links", json!(null)),
        (OLD,  "links: ['c:k'], networks: {default: {}, n2: {}}", "/later/q8-acme_n2/Links", json!(["see:k", "see:c-1", "see:q8-acme-c-1"])),
        (BOTH, "network_mode: bridge, links: [b, 'c:alias'], external_links: ['ext:e', out]", "/HostConfig/Links", links.clone()),
        (BOTH, "dns: 10.0.0.1", "/HostConfig/Dns", json!(["10.0.0.1"])),
        (BOTH, "dns_search: [a.example, b.example]", "/HostConfig/DnsSearch", json!(["a.example", "b.example"])),
        (BOTH, "dns_opt: [ndots:2]", "/HostConfig/DnsOptions", json!(["ndots:2"])),
        (BOTH, "extra_hosts: ['a:10.0.0.1', 'b=fd00::1', 'c:host-gateway']", "/HostConfig/ExtraHosts",
               json!(["a:10.0.0.1", "b:fd00::1", "c:host-gateway"])),
        (BOTH, "extra_hosts: {a: [10.0.0.1, 10.0.0.2]}", "/HostConfig/ExtraHosts", json!(["a:10.0.0.1", "a:10.0.0.2"])),
        // Mounts.
        (BOTH, "volumes: ['vol:/v']", "/HostConfig/Mounts", json!([{"Type": "volume", "Source": "q8-acme_vol", "Target": "/v"}])),
        (BOTH, "volumes: [/anon]", "/HostConfig/Mounts", json!([{"Type": "volume", "Target": "/anon"}])),
        (BOTH, "volumes: ['vol:/v:ro']", "/HostConfig/Mounts/0/ReadOnly", json!(true)),
        (BOTH, "volumes: [{type: volume, source: v, target: /v, volume: {nocopy: true, labels: {k: w}}}]",
               "/HostConfig/Mounts/0/VolumeOptions", json!({"NoCopy": true, "Labels": {"k": "w"}})),
        (NEW,  "volumes: [{type: volume, source: v, target: /v, volume: {subpath: s/t}}]",
               "/HostConfig/Mounts/0/VolumeOptions", json!({"Subpath": "s/t"})),
        (BOTH, "volumes: ['/etc/x:/x:ro,rslave']", "/HostConfig/Mounts/0/BindOptions/Propagation", json!("rslave")),
        (OLD,  "volumes: ['/srv/x:/x']", "/HostConfig/Mounts/0/BindOptions", json!(null)),
        (NEW,  "volumes: ['/srv/x:/x']", "/HostConfig/Mounts/0/BindOptions", json!({"CreateMountpoint": true})),
        (NEW,  "volumes: [{type: bind, source: /srv/x, target: /x, bind: {create_host_path: false}}]", "/HostConfig/Mounts/0/BindOptions", json!(null)),
        (NEW,  "volumes: ['./data/x:/x']", "/HostConfig/Mounts/0/BindOptions", json!(null)),
        (BOTH, "volumes: [{type: bind, source: ./data/x, target: /x, bind: {recursive: disabled}}]",
               "/HostConfig/Mounts/0/BindOptions", json!({"NonRecursive": true})),
        (OLD,  "volumes: [{type: bind, source: ./data/x, target: /x, bind: {recursive: writable}}]",
               "/HostConfig/Mounts/0/BindOptions", json!(null)),
        (NEW,  "volumes: [{type: bind, source: ./data/x, target: /x, bind: {recursive: writable}}]",
               "/HostConfig/Mounts/0/BindOptions", json!({"ReadOnlyNonRecursive": true})),
        (NEW,  "volumes: [{type: bind, source: ./data/x, target: /x, bind: {recursive: readonly}}]",
               "/HostConfig/Mounts/0/BindOptions", json!({"ReadOnlyForceRecursive": true})),
        (BOTH, "volumes: [{type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}]", "/HostConfig/Mounts",
               json!([{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 0o700}}])),
        (BOTH, "volumes: [{type: volume, source: v, target: /v, consistency: cached}]", "/HostConfig/Mounts/0/Consistency", json!("cached")),
        (NEWEST, "volumes: [{type: image, source: y, target: /i, image: {subpath: s}}]", "/HostConfig/Mounts",
               json!([{"Type": "image", "Source": "y", "Target": "/i", "ImageOptions": {"Subpath": "s"}}])),
        (BOTH, "tmpfs: ['/t:size=1m,mode=700', /u]", "/HostConfig/Tmpfs", json!({"/t": "size=1m,mode=700", "/u": ""})),
        (BOTH, "volumes_from: [b, 'c:ro', 'container:other:ro']", "/HostConfig/VolumesFrom",
               json!([b, format!("{c}:ro"), "other:ro"])),
        (BOTH, "storage_opt: {size: 1G}", "/HostConfig/StorageOpt", json!({"size": "1G"})),
        // Limits.
        (BOTH, "cpus: 0.5", "/HostConfig/NanoCpus", json!(500_000_000)),
        (BOTH, "cpu_shares: 7", "/HostConfig/CpuShares", json!(7)),
        (BOTH, "cpu_quota: 5000", "/HostConfig/CpuQuota", json!(5000)),
        (BOTH, "cpu_period: 9000", "/HostConfig/CpuPeriod", json!(9000)),
        (BOTH, "cpu_rt_period: 8000", "/HostConfig/CpuRealtimePeriod", json!(8000)),
        (BOTH, "cpu_rt_runtime: 7000", "/HostConfig/CpuRealtimeRuntime", json!(7000)),
        (BOTH, "cpu_count: 2", "/HostConfig/CpuCount", json!(2)),
        (BOTH, "cpu_percent: 12.5", "/HostConfig/CpuPercent", json!(1250)),
        (BOTH, "cpuset: '0,1'", "/HostConfig/CpusetCpus", json!("0,1")),
        (BOTH, "mem_limit: 64m", "/HostConfig/Memory", json!(67_108_864)),
        (BOTH, "mem_reservation: 32m", "/HostConfig/MemoryReservation", json!(33_554_432)),
        (BOTH, "memswap_limit: -1", "/HostConfig/MemorySwap", json!(-1)),
        (BOTH, "mem_swappiness: 60", "/HostConfig/MemorySwappiness", json!(60)),
        (BOTH, "mem_swappiness: 0", "/HostConfig/MemorySwappiness", json!(null)),
        (BOTH, "pids_limit: 5", "/HostConfig/PidsLimit", json!(5)),
        (BOTH, "pids_limit: -1", "/HostConfig/PidsLimit", json!(-1)),
        (BOTH, "pids_limit: 0", "/HostConfig/PidsLimit", json!(null)),
        (BOTH, "shm_size: 1m", "/HostConfig/ShmSize", json!(1_048_576)),
        (BOTH, "deploy: {resources: {limits: {cpus: '0.25', memory: 1m, pids: 9}, reservations: {memory: 1k}}}",
               "/HostConfig/NanoCpus", json!(250_000_000)),
        (BOTH, "deploy: {resources: {limits: {cpus: '0.25', memory: 1m, pids: 9}, reservations: {memory: 1k}}}",
               "/HostConfig/MemoryReservation", json!(1024)),
        (BOTH, "ulimits: {nofile: {soft: 1, hard: 2}, nproc: 3}", "/HostConfig/Ulimits",
               json!([{"Name": "nofile", "Soft": 1, "Hard": 2}, {"Name": "nproc", "Soft": 3, "Hard": 3}])),
        (BOTH, "sysctls: {net.core.somaxconn: 9}", "/HostConfig/Sysctls", json!({"net.core.somaxconn": "9"})),
        (BOTH, "blkio_config: {weight: 300}", "/HostConfig/BlkioWeight", json!(300)),
        (BOTH, "blkio_config: {weight_device: [{path: /dev/a, weight: 200}]}", "/HostConfig/BlkioWeightDevice",
               json!([{"Path": "/dev/a", "Weight": 200}])),
        (BOTH, "blkio_config: {device_read_bps: [{path: /dev/a, rate: 1m}]}", "/HostConfig/BlkioDeviceReadBps",
               json!([{"Path": "/dev/a", "Rate": 1_048_576}])),
        (BOTH, "blkio_config: {device_write_bps: [{path: /dev/a, rate: 2k}]}", "/HostConfig/BlkioDeviceWriteBps",
               json!([{"Path": "/dev/a", "Rate": 2048}])),
        (BOTH, "blkio_config: {device_read_iops: [{path: /dev/a, rate: 3}]}", "/HostConfig/BlkioDeviceReadIOps",
               json!([{"Path": "/dev/a", "Rate": 3}])),
        (BOTH, "blkio_config: {device_write_iops: [{path: /dev/a, rate: 4}]}", "/HostConfig/BlkioDeviceWriteIOps",
               json!([{"Path": "/dev/a", "Rate": 4}])),
        (BOTH, "oom_kill_disable: true", "/HostConfig/OomKillDisable", json!(true)),
        (BOTH, "oom_score_adj: -5", "/HostConfig/OomScoreAdj", json!(-5)),
        // Restarts and logs.
        (BOTH, "tty: false", "/HostConfig/RestartPolicy", json!(null)),
        (BOTH, "restart: 'no'", "/HostConfig/RestartPolicy", json!({"Name": "no"})),
        (BOTH, "restart: unless-stopped", "/HostConfig/RestartPolicy", json!({"Name": "unless-stopped"})),
        (BOTH, "restart: on-failure:3", "/HostConfig/RestartPolicy", json!({"Name": "on-failure", "MaximumRetryCount": 3})),
        (BOTH, "restart: always, deploy: {restart_policy: {condition: on-failure, max_attempts: 2}}", "/HostConfig/RestartPolicy",
               json!({"Name": "on-failure", "MaximumRetryCount": 2})),
        (BOTH, "deploy: {restart_policy: {condition: any}}", "/HostConfig/RestartPolicy", json!({"Name": "always"})),
        (BOTH, "logging: {driver: local, options: {max-size: 1m}}", "/HostConfig/LogConfig",
               json!({"Type": "local", "Config": {"max-size": "1m"}})),
        // Namespaces, privileges, devices.
        (BOTH, "ipc: shareable", "/HostConfig/IpcMode", json!("shareable")),
        (BOTH, "ipc: 'service:b'", "/HostConfig/IpcMode", json!(format!("container:{b}"))),
        (BOTH, "pid: host", "/HostConfig/PidMode", json!("host")),
        (BOTH, "pid: 'service:c'", "/HostConfig/PidMode", json!(format!("container:{c}"))),
        (BOTH, "uts: host", "/HostConfig/UTSMode", json!("host")),
        (BOTH, "userns_mode: host", "/HostConfig/UsernsMode", json!("host")),
        (BOTH, "cgroup: private", "/HostConfig/CgroupnsMode", json!("private")),
        (BOTH, "cgroup: host", "/HostConfig/CgroupnsMode", json!("host")),
        (BOTH, "cgroup_parent: /p", "/HostConfig/CgroupParent", json!("/p")),
        (BOTH, "privileged: true", "/HostConfig/Privileged", json!(true)),
        (BOTH, "cap_add: [NET_ADMIN]", "/HostConfig/CapAdd", json!(["NET_ADMIN"])),
        (BOTH, "cap_drop: [ALL]", "/HostConfig/CapDrop", json!(["ALL"])),
        (BOTH, "security_opt: ['no-new-privileges:true', 'label=disable']", "/HostConfig/SecurityOpt",
               json!(["no-new-privileges:true", "label=disable"])),
        (BOTH, "security_opt: ['seccomp:unconfined']", "/HostConfig/SecurityOpt", json!(["seccomp:unconfined"])),
        (BOTH, "security_opt: ['seccomp:./conf/seccomp.json']", "/HostConfig/SecurityOpt",
               json!([r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#])),
        (BOTH, "security_opt: [seccomp=conf/seccomp.json]", "/HostConfig/SecurityOpt",
               json!([r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#])),
        (BOTH, "security_opt: [systempaths=unconfined]", "/HostConfig/MaskedPaths", json!([])),
        (BOTH, "security_opt: [systempaths=unconfined]", "/HostConfig/ReadonlyPaths", json!([])),
        (BOTH, "security_opt: [systempaths=unconfined]", "/HostConfig/SecurityOpt", json!(null)),
        (BOTH, "tty: false", "/HostConfig/MaskedPaths", json!(null)),
        (BOTH, "devices: ['/dev/a', '/dev/b:/dev/c:r']", "/HostConfig/Devices",
               json!([{"PathOnHost": "/dev/a", "PathInContainer": "/dev/a", "CgroupPermissions": "rwm"},
                      {"PathOnHost": "/dev/b", "PathInContainer": "/dev/c", "CgroupPermissions": "r"}])),
        (BOTH, "devices: ['acme.example/gpu=all', /dev/a]", "/HostConfig/DeviceRequests",
               json!([{"Driver": "cdi", "DeviceIDs": ["acme.example/gpu=all"]}])),
        (BOTH, "devices: ['acme.example/gpu=all', /dev/a]", "/HostConfig/Devices/0/PathOnHost", json!("/dev/a")),
        (BOTH, "device_cgroup_rules: ['c 1:3 r']", "/HostConfig/DeviceCgroupRules", json!(["c 1:3 r"])),
        (BOTH, "gpus: all", "/HostConfig/DeviceRequests", json!([{"Count": -1, "Capabilities": [["gpu"]]}])),
        (BOTH, "gpus: [{driver: n, count: 2}]", "/HostConfig/DeviceRequests",
               json!([{"Driver": "n", "Count": 2, "Capabilities": [["gpu"]]}])),
        (BOTH, "deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}", "/HostConfig/DeviceRequests",
               json!([{"Count": -1, "Capabilities": [["gpu"]]}])),
        (BOTH, "deploy: {resources: {reservations: {devices: [{device_ids: ['0'], capabilities: [gpu], options: {k: v}}]}}}",
               "/HostConfig/DeviceRequests", json!([{"DeviceIDs": ["0"], "Capabilities": [["gpu"]], "Options": {"k": "v"}}])),
    ];
    let mut wrong = Vec::new();
    for (versions, attributes, pointer, expected) in &rows {
        let deployment = with_attributes(attributes);
        for api in *versions {
            let request = request(&deployment, *api).unwrap_or_else(|error| panic!("{attributes}: {error}"));
            let found = request.pointer(&pointer.replace('@', MAIN)).unwrap_or(&Value::Null);
            if found != expected {
                wrong.push(format!("{attributes} at {api:?}: {pointer} is {found}, not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
#[rustfmt::skip]
fn what_the_engine_cannot_do_is_refused_by_its_field() {
    for (api, attributes, field) in [
        ((1, 42), "annotations: {k: v}", "services.a.annotations"),
        ((1, 44), "volumes: [/x, {type: volume, source: v, target: /v, volume: {subpath: s}}]", "services.a.volumes[1].volume.subpath"),
        ((1, 43), "volumes: [{type: bind, source: /x, target: /x, bind: {recursive: readonly}}]", "services.a.volumes[0].bind.recursive"),
        ((1, 47), "volumes: [{type: image, source: y, target: /i}]", "services.a.volumes[0].type"),
        ((1, 43), "networks: {default: {}, n2: {mac_address: '02:00:00:00:00:02'}}", "services.a.networks.n2.mac_address"),
        ((1, 47), "networks: {default: {gw_priority: 1}}", "services.a.networks.default.gw_priority"),
        ((1, 48), "networks: {default: {interface_name: eth9}}", "services.a.networks.default.interface_name"),
        ((1, 51), "isolation: hyperv", "services.a.isolation"),
        ((1, 51), "security_opt: ['label=disable', 'seccomp:./other.json']", "services.a.security_opt[1]"),
        ((1, 51), "security_opt: ['seccomp:/etc/seccomp.json']", "services.a.security_opt[0]"),
        ((1, 51), "security_opt: ['seccomp:seccomp.txt']", "services.a.security_opt[0]"),
    ] {
        let refused = request(&with_attributes(attributes), api);
        let Err(BackendError::Unsupported { field: found, .. }) = refused else { panic!("{attributes}: {refused:?}") };
        assert_eq!(found, field, "{attributes}");
    }
    let without_ipv4 = deployment("services: {a: {image: x}}\nnetworks: {default: {enable_ipv4: false}}");
    let refused = gates::check(&without_ipv4, (1, 47), None);
    assert!(
        matches!(&refused, Err(BackendError::Unsupported { field, .. }) if field == "networks.default.enable_ipv4"),
        "{refused:?}"
    );
    assert!(gates::check(&without_ipv4, (1, 48), None).is_ok());
}

#[test]
fn a_request_has_a_bounded_size() {
    let long = "x".repeat(500 << 10);
    let of = |count: usize, word: &str| (0..count).map(|at| format!("{word}{at}")).collect::<Vec<_>>().join(", ");
    for (attributes, passes) in [
        (format!("command: [&l '{long}'], entrypoint: [*l]"), true),
        (format!("command: [&l '{long}'], entrypoint: [*l], labels: {{a: *l}}"), false),
        (format!("environment: {{A: &l '{long}', B: *l, C: *l}}"), false),
        ("links: ['b:one', 'b:two']".to_owned(), true),
        // A few bytes each, and very many of the request.
        (format!("links: [{}], networks: [default, n2, n3]", of(2000, "'b:l").replace(',', "',") + "'"), false),
        (format!("external_links: [{}], networks: [default, n2, n3]", of(20_000, "container-of-others-")), false),
        ("expose: ['1-65535']".to_owned(), false),
    ] {
        let deployment = with_attributes(&attributes);
        let checked = gates::check(&deployment, (1, 51), None);
        assert_eq!(checked.is_ok(), passes, "{}", attributes.split_at(20).0);
        match checked {
            Ok(()) => {
                let request = request(&deployment, (1, 51)).unwrap().to_string();
                let about = super::size(&deployment, deployment.service(&service("a")).unwrap());
                assert!(request.len() < about + (64 << 10), "{} bytes, and not about {about}", request.len());
            }
            Err(refused) => assert_eq!(refused.field().as_deref(), Some("services.a")),
        }
    }
}

#[test]
fn a_stopped_tenant_restarts_nothing() {
    let mut deployment = with_attributes("restart: always");
    deployment.desired = DesiredState::Stopped;
    assert_eq!(request(&deployment, (1, 41)).unwrap()["HostConfig"]["RestartPolicy"], json!({"Name": "no"}));
}

#[test]
fn another_seccomp_profile_is_another_service() {
    let mut deployment = with_attributes("security_opt: [seccomp=conf/seccomp.json]");
    let hash = |deployment: &Deployment| deployment.service_hash(deployment.service(&service("a")).unwrap());
    let before = hash(&deployment);
    for file in deployment.files.values_mut() {
        file.bytes = b"{}".to_vec();
    }
    assert_ne!(hash(&deployment), before);
}
