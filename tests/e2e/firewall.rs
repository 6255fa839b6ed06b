//! `scripts/firewall.sh` puts its rules in place, notices when one is gone, and takes them out again.
#![allow(clippy::disallowed_methods, reason = "the rules are made in a network namespace of their own")]

use std::process::Command;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/firewall.sh");

/// Each line must succeed; what it prints is shown when one does not.
const STEPS: &str = r#"
set -eux
export PATH=$PATH:/usr/sbin:/sbin
fails() { if "$@"; then exit 1; fi; }
state() { iptables-save; ip6tables-save; }
kept() { state | grep -c -- "$1" || true; }
iptables -t mangle -A FORWARD -s 198.51.100.1 -j ACCEPT
iptables -A INPUT -s 198.51.100.1 -j ACCEPT
fails bash "$0" check
bash "$0" apply
bash "$0" check
rules=$(kept Q8-)
bash "$0" apply
bash "$0" check
test "$(kept Q8-)" = "$rules"
test "$(iptables -t mangle -S FORWARD | sed -n 2p)" = '-A FORWARD -j Q8-FORWARD'
iptables -t mangle -C Q8-FORWARD -s 10.213.0.0/16 -d 169.254.0.0/16 -j DROP
# Whatever goes away or comes before them is noticed and put right.
iptables -D Q8-INPUT -s 10.213.0.0/16 -j DROP
fails bash "$0" check
bash "$0" apply
bash "$0" check
iptables -I INPUT 1 -j ACCEPT
fails bash "$0" check
bash "$0" apply
bash "$0" check
# Other settings are other rules, and the old ones go.
export Q8_AGENT_SUBNET_POOL=10.99.0.0/16 Q8_AGENT_PUBLISH_HOST=192.0.2.7
fails bash "$0" check
bash "$0" apply
bash "$0" check
test "$(kept 10.213.0.0)" = 0
iptables -C Q8-INPUT -s 10.99.0.0/16 -d 192.0.2.7/32 -p tcp -m tcp --dport 20000:29999 -j ACCEPT
bash "$0" remove
bash "$0" remove
test "$(kept Q8-)" = 0
test "$(kept 198.51.100.1)" = 2
fails env Q8_AGENT_SUBNET_POOL='10.0.0.0/8 -j ACCEPT' bash "$0" apply
"#;

#[test]
fn the_rules_come_and_go() {
    let output = Command::new("unshare").args(["--net", "bash", "-c", STEPS, SCRIPT]).output().expect("unshare starts");
    // `show` gives what can be put into a script.
    let shown = Command::new("bash").args([SCRIPT, "show"]).output().expect("bash starts");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("iptables -w -t mangle -A Q8-FORWARD -s 10.213.0.0/16 -d 169.254.0.0/16 -j DROP"),
        "{shown}"
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
