//! What a group cannot do, and where the file says it.

use super::{GROUND, Ground, convert, deployment, refusal, service};
use crate::backend::aci::names;
use crate::policy::Profile;

fn refused(text: &str, files: &[(&str, &str)]) -> String {
    let error = convert(&deployment(Profile::Trusted, text, files), &GROUND).expect_err(text);
    let (field, reason) = refusal(&error);
    assert!(!reason.is_empty());
    field.to_owned()
}

#[test]
fn of_one_service() {
    for (attributes, field) in [
        ("command: [a]", "command"),
        ("command: []", "command"),
        ("entrypoint: []", "entrypoint"),
        ("environment: {A.B: c}", "environment.A.B"),
        ("privileged: true", "privileged"),
        ("cap_add: [NET_ADMIN]", "cap_add[0]"),
        ("security_opt: ['apparmor:unconfined']", "security_opt[0]"),
        ("devices: [/dev/fuse]", "devices"),
        ("gpus: all", "gpus"),
        ("user: node", "user"),
        ("group_add: [video]", "group_add"),
        ("working_dir: /app", "working_dir"),
        ("hostname: h", "hostname"),
        ("read_only: true", "read_only"),
        ("sysctls: {net.core.somaxconn: 1024}", "sysctls"),
        ("ulimits: {nofile: 1024}", "ulimits.nofile"),
        ("extra_hosts: ['a:1.2.3.4']", "extra_hosts"),
        ("dns: [1.1.1.1]", "dns"),
        ("dns_search: [a.example]", "dns_search"),
        ("mac_address: 02:42:ac:11:65:43", "mac_address"),
        ("network_mode: host", "network_mode"),
        ("network_mode: none", "network_mode"),
        ("pid: host", "pid"),
        ("ipc: host", "ipc"),
        ("shm_size: 1g", "shm_size"),
        ("platform: linux/arm64", "platform"),
        ("pull_policy: never", "pull_policy"),
        ("scale: 2", "scale"),
        ("deploy: {replicas: 2}", "deploy.replicas"),
        ("deploy: {mode: global-job}", "deploy.mode"),
        ("post_start: [{command: [a]}]", "post_start"),
        ("pre_stop: [{command: [a]}]", "pre_stop"),
        ("storage_opt: {size: 1G}", "storage_opt"),
        ("runtime: runsc", "runtime"),
        ("cgroup_parent: x", "cgroup_parent"),
        ("oom_kill_disable: true", "oom_kill_disable"),
        ("cpus: 4.5", "cpus"),
        ("cpu_quota: 500000", "cpu_quota"),
        ("mem_limit: 17g", "mem_limit"),
        ("mem_reservation: 17g", "mem_reservation"),
        ("deploy: {resources: {limits: {cpus: '5'}}}", "deploy.resources.limits.cpus"),
        ("deploy: {resources: {reservations: {cpus: '5'}}}", "deploy.resources.reservations.cpus"),
        ("deploy: {resources: {limits: {memory: 20g}}}", "deploy.resources.limits.memory"),
        ("ports: ['8080:80']", "ports[0]"),
        ("ports: ['80:80', '8000-8010:81']", "ports[1]"),
        ("ports: ['127.0.0.1:80:80']", "ports[0]"),
        ("ports: ['80:80/sctp']", "ports[0]"),
        ("ports: ['1', '2', '3', '4', '5', '6']", "ports[5]"),
        ("domainname: Shop, ports: ['80:80']", "domainname"),
        ("domainname: abcd, ports: ['80:80']", "domainname"),
        ("volumes: ['./data/x:/x']", "volumes[0]"),
        ("volumes: ['/srv:/srv']", "volumes[0]"),
        ("volumes: ['./site.conf:/etc/site.conf:ro']", "volumes[0]"),
        ("volumes: ['./deep:/x:ro']", "volumes[0]"),
        ("volumes: ['./site.conf:/x/y/site.conf:ro'], tmpfs: [/x/y/z]", "volumes[0]"),
        ("volumes: ['./site.conf:/x/a b:ro']", "volumes[0]"),
        ("volumes: ['./site.conf:/x/site.conf:ro'], tmpfs: [/x]", "volumes[0]"),
    ] {
        let files = [("site.conf", ""), ("deep/er/x", "")];
        assert_eq!(refused(&service(attributes), &files), format!("services.web.{field}"), "{attributes}");
    }
}

#[test]
fn between_services_and_beside_them() {
    for (text, field) in [
        ("services: {a: {image: x, restart: always}, b: {image: x}}", "services.b.restart"),
        (
            "services: {a: {image: x}, b: {image: x, deploy: {restart_policy: {condition: any}}}}",
            "services.b.deploy.restart_policy.condition",
        ),
        ("services: {a: {image: x, ports: ['80:80']}, b: {image: x, ports: ['80']}}", "services.b.ports[0]"),
        ("services: {a: {image: x, expose: ['9']}, b: {image: x, expose: ['8', '7-9']}}", "services.b.expose[1]"),
        ("services: {a: {image: x, domainname: aaaaa}, b: {image: x, domainname: bbbbb}}", "services.b.domainname"),
        (
            "services: {a: {image: x, deploy: {resources: {reservations: {cpus: '3'}}}},
                        b: {image: x, deploy: {resources: {reservations: {cpus: '2'}}}}}",
            "services.b.deploy.resources.reservations.cpus",
        ),
        (
            "services: {a: {image: x, depends_on: {j: {condition: service_completed_successfully}}},
                        j: {image: x, depends_on: [d]}, d: {image: x}}",
            "services.j.depends_on.d",
        ),
        (
            "services: {a: {image: x, depends_on: {j: {condition: service_completed_successfully}}},
                        j: {image: x, ports: ['80']}}",
            "services.j.ports[0]",
        ),
        (
            "services: {a: {image: x, depends_on: {j: {condition: service_completed_successfully}}},
                        j: {image: x, healthcheck: {test: x}}}",
            "services.j.healthcheck",
        ),
        ("services: {a: {image: x, scale: 0}}", "services"),
        ("services: {a: {image: x, links: [b]}, b: {image: x}}", "services.a.links"),
        ("services: {a: {image: x, volumes_from: [b]}, b: {image: x}}", "services.a.volumes_from[0]"),
        ("services: {a: {image: x, pid: 'service:b'}, b: {image: x}}", "services.a.pid"),
        ("services: {a: {image: x, networks: [n]}}\nnetworks: {n: {external: true}}", "networks.n.external"),
        ("services: {a: {image: x, networks: [n]}}\nnetworks: {n: {driver: macvlan}}", "networks.n.driver"),
        (
            "services: {a: {image: x, networks: {n: {ipv4_address: 10.0.0.2}}}}\nnetworks: {n: {}}",
            "services.a.networks.n.ipv4_address",
        ),
        ("services: {a: {image: x, volumes: ['v:/v']}}\nvolumes: {v: {external: true}}", "volumes.v.external"),
        ("services: {a: {image: x, volumes: ['v:/v']}}\nvolumes: {v: {driver: nfs}}", "volumes.v.driver"),
        (
            "services: {a: {image: x, volumes: ['v:/v']}}\nvolumes: {v: {driver_opts: {device: /x}}}",
            "volumes.v.driver_opts.device",
        ),
        (
            "services: {a: {image: x, volumes: ['v:/v']}}\nvolumes: {v: {labels: {q8.size: large}}}",
            "volumes.v.labels.q8.size",
        ),
        (
            "services: {a: {image: x, volumes: [{type: volume, source: v, target: /v, volume: {subpath: s}}]}}
volumes: {v: {}}",
            "services.a.volumes[0]",
        ),
        // The config's place by default is the root directory.
        ("services: {a: {image: x, configs: [c]}}\nconfigs: {c: {content: x}}", "services.a.configs[0]"),
    ] {
        assert_eq!(refused(text, &[]), field, "{text}");
    }
}

#[test]
fn more_than_a_group_has() {
    let volumes: Vec<String> = (0..21).map(|at| format!("/v{at}")).collect();
    assert_eq!(refused(&service(&format!("tmpfs: [{}]", volumes.join(", "))), &[]), "services.web.tmpfs[20]");
    let services: Vec<String> = (0..61).map(|at| format!("s{at}: {{image: x}}")).collect();
    assert_eq!(refused(&format!("services: {{{}}}", services.join(", ")), &[]), "services");
    // Each has a tag with its real name.
    let services: Vec<String> = (0..45).map(|at| format!("s_{at}: {{image: x}}")).collect();
    assert_eq!(refused(&format!("services: {{{}}}", services.join(", ")), &[]), "services");
}

#[test]
fn two_files_in_one_place() {
    let text = "
services: {a: {image: x, volumes: ['./site.conf:/x/c:ro'], configs: [{source: c, target: /x/c}]}}
configs: {c: {content: x}}
";
    assert_eq!(refused(text, &[("site.conf", "")]), "services.a.configs[0]");
}

#[test]
fn a_volume_needs_an_account() {
    let text = "services: {a: {image: x, volumes: ['v:/v']}}\nvolumes: {v: {}}";
    let ground = Ground { storage_account: None, ..GROUND };
    let error = convert(&deployment(Profile::Trusted, text, &[]), &ground).unwrap_err();
    assert_eq!(refusal(&error).0, "services.a.volumes[0]");
    assert!(names::is_dns_label("abcde") && !names::is_dns_label("abcd"));
}
