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

/// A host, a tenant's container behind a bridge of the engine's kind, and a cloud with its metadata services, each with a
/// network namespace of its own. Before the rules packets arrive, so that what stops them afterwards is the rules.
const PACKETS: &str = r#"
set -eu
export PATH=$PATH:/usr/sbin:/sbin
unshare --net sleep 600 >/dev/null 2>&1 & tenant=$!
unshare --net sleep 600 >/dev/null 2>&1 & cloud=$!
listeners=
trap 'kill $tenant $cloud $listeners' EXIT
own=$(readlink /proc/self/ns/net)
for pid in $tenant $cloud; do
  while [ "$(readlink /proc/$pid/ns/net)" = "$own" ]; do sleep 0.02; done
done
in_tenant() { nsenter --net=/proc/$tenant/ns/net "$@"; }
in_cloud() { nsenter --net=/proc/$cloud/ns/net "$@"; }
bridge=br-0123456789ab
ip link set lo up
ip link add $bridge type bridge
ip address add 10.213.0.1/26 dev $bridge
ip address add fd01::1/64 dev $bridge nodad
ip link add t0 type veth peer name eth0
ip link add c0 type veth peer name eth0 netns $cloud
ip link set eth0 netns $tenant
ip link set t0 master $bridge
ip address add 192.0.2.1/24 dev c0
ip address add fd02::1/64 dev c0 nodad
for link in $bridge t0 c0; do ip link set $link up; done
in_tenant ip address add 10.213.0.2/26 dev eth0
in_tenant ip address add fd01::2/64 dev eth0 nodad
in_tenant ip link set eth0 up
in_tenant ip route add default via 10.213.0.1
in_tenant ip -6 route add default via fd01::1
in_cloud ip address add 192.0.2.2/24 dev eth0
in_cloud ip address add fd02::2/64 dev eth0 nodad
in_cloud ip link set eth0 up
in_cloud ip link set lo up
in_cloud ip route add default via 192.0.2.1
in_cloud ip -6 route add default via fd02::1
closed='169.254.169.254 168.63.129.16 100.100.100.200 192.0.0.192 fd00:ec2::254 fd20:ce::254'
open='198.51.100.9 2001:db8::9'
for address in $closed $open; do
  case $address in
    *:*) in_cloud ip address add $address/128 dev lo nodad; ip -6 route add $address via fd02::2 ;;
    *) in_cloud ip address add $address/32 dev lo; ip route add $address via 192.0.2.2 ;;
  esac
done
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
# Not through a function: the process to be ended is the listener itself. What outlives the script must not hold its output.
nsenter --net=/proc/$cloud/ns/net busybox nc -ll -p 80 -e true >/dev/null 2>&1 & listeners="$listeners $!"
for port in 8080 20000; do busybox nc -ll -p $port -e true >/dev/null 2>&1 & listeners="$listeners $!"; done
reaches() { in_tenant busybox nc -w 2 "$1" "$2" </dev/null >/dev/null 2>&1; }
expect() {
  # What is to be open may take a moment: neighbours have to find each other first.
  for _ in $(seq 20); do
    if [ "$1" = closed ] || reaches "$2" "$3"; then break; fi
    sleep 0.1
  done
  if reaches "$2" "$3"; then found=open; else found=closed; fi
  [ $found = "$1" ] || { echo "$2 port $3 is $found, and not $1"; exit 1; }
}
listens() {
  for _ in $(seq 200); do
    if "$@" </dev/null >/dev/null 2>&1; then return; fi
    sleep 0.05
  done
  echo "nobody listens: $*"
  exit 1
}
for port in 8080 20000; do listens busybox nc -w 1 127.0.0.1 $port; done
listens in_cloud busybox nc -w 1 198.51.100.9 80
for address in $closed $open; do expect open $address 80; done
for address in 10.213.0.1 192.0.2.1 fd01::1; do expect open $address 8080; done
export Q8_AGENT_PUBLISH_HOST=192.0.2.1
bash "$0" apply
for address in $closed; do expect closed $address 80; done
for address in $open; do expect open $address 80; done
for address in 10.213.0.1 192.0.2.1 fd01::1; do expect closed $address 8080; done
expect open 192.0.2.1 20000
expect closed 10.213.0.1 20000
bash "$0" remove
for address in $closed $open; do expect open $address 80; done
expect open 10.213.0.1 8080
"#;

#[test]
fn packets_go_where_they_may() {
    let output =
        Command::new("unshare").args(["--net", "bash", "-c", PACKETS, SCRIPT]).output().expect("unshare starts");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{errors}");
}
