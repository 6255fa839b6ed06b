#!/usr/bin/env bash
# What the host's firewall has to do around q8-agent, because neither the agent nor the engine does it:
#
#   - tenants' containers reach no cloud metadata service: it hands out the credentials of the machine;
#   - they reach no service of this host, whatever address it listens on, but published ports on the publish host;
#   - no packet goes from one tenant to another. The engine sees to that too, but takes its rule out for some milliseconds
#     whenever it makes a network.
#
#   scripts/firewall.sh show     print the rules, for a firewall of your own
#   scripts/firewall.sh apply    put them in place; again is harmless. They do not outlive a reboot: call it at boot
#   scripts/firewall.sh check    say which are missing; exit 0 if none is
#   scripts/firewall.sh remove   take them out
#
# It reads the agent's own settings: Q8_AGENT_SUBNET_POOL, Q8_AGENT_PUBLISH_HOST, Q8_AGENT_PUBLISH_PORTS.
#
# The pool is of IPv4, and strangers' networks have no other addresses. Those of an operator's own stacks may have IPv6 ones,
# which the engine takes from the private range, behind bridges that it names br- and 12 digits. So for IPv6 the host's services are
# closed to private and link-local addresses behind such bridges. Q8_FIREWALL_BRIDGES names others (a + at the end stands for
# any rest; none: leave this out), for a host that has bridges of its own with such names.
#
# The chains are the script's own. The one for forwarded packets is in `mangle`: what is in DOCKER-USER, too, is out of force
# while the engine makes a network. Tenants' networks that an author chose a subnet for (policy `trusted`) are not covered.
set -euo pipefail

POOL=${Q8_AGENT_SUBNET_POOL:-10.213.0.0/16}
PUBLISH_HOST=${Q8_AGENT_PUBLISH_HOST:-127.0.0.1}
PUBLISH_PORTS=${Q8_AGENT_PUBLISH_PORTS:-20000-29999}
BRIDGES=${Q8_FIREWALL_BRIDGES:-br-+}
FORWARD=Q8-FORWARD
INPUT=Q8-INPUT
PATH=$PATH:/usr/sbin:/sbin

die() { echo "firewall: $*" >&2; exit 1; }

[[ $POOL =~ ^[0-9.]+/[0-9]+$ ]] || die "Q8_AGENT_SUBNET_POOL must be a range such as 10.213.0.0/16"
[[ $PUBLISH_HOST =~ ^[0-9a-fA-F.:]+$ ]] || die "Q8_AGENT_PUBLISH_HOST must be an IP address"
[[ $PUBLISH_PORTS =~ ^[0-9]+-[0-9]+$ ]] || die "Q8_AGENT_PUBLISH_PORTS must be a range such as 20000-29999"
[[ $BRIDGES =~ ^[a-zA-Z0-9._-]{1,14}[+]?$ ]] || die "Q8_FIREWALL_BRIDGES must be an interface such as br-+, or none"

# A kernel without IPv6 needs no rules for it.
IPV6=yes
[ -e /proc/net/if_inet6 ] || command -v ip6tables >/dev/null || IPV6=

# One rule a line, without the chain: COMMAND TABLE CHAIN RULE...
rules() { all_rules | of_kernel; }
of_kernel() { if [ -n "$IPV6" ]; then cat; else grep -v '^ip6tables '; fi; }

all_rules() {
  # The metadata services of AWS, Azure, Google and others are link-local; Azure's host agent, Alibaba's and Oracle's are not.
  echo "iptables mangle $FORWARD -s $POOL -d 169.254.0.0/16 -j DROP"
  echo "iptables mangle $FORWARD -s $POOL -d 168.63.129.16/32 -j DROP"
  echo "iptables mangle $FORWARD -s $POOL -d 100.100.100.200/32 -j DROP"
  echo "iptables mangle $FORWARD -s $POOL -d 192.0.0.192/32 -j DROP"
  # Within one bridge packets are not routed, and are none of this rule's.
  echo "iptables mangle $FORWARD -s $POOL -d $POOL -m physdev ! --physdev-is-bridged -j DROP"
  # AWS and Google. What the host itself sends is not forwarded, and is not stopped.
  echo "ip6tables mangle $FORWARD -d fd00:ec2::254/128 -j DROP"
  echo "ip6tables mangle $FORWARD -d fd20:ce::254/128 -j DROP"
  echo "ip6tables mangle $FORWARD -d fe80::/10 -j DROP"
  echo "iptables filter $INPUT -s $POOL -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
  case $PUBLISH_HOST in
    127.* | ::1 | *:*) ;;
    *)
      local to=
      [ "$PUBLISH_HOST" = 0.0.0.0 ] || to=" -d $PUBLISH_HOST/32"
      for protocol in tcp udp; do
        echo "iptables filter $INPUT -s $POOL$to -p $protocol -m $protocol --dport ${PUBLISH_PORTS/-/:} -j ACCEPT"
      done
      ;;
  esac
  # Names are answered inside the containers' own namespaces, by the engine: no port 53 is needed here.
  echo "iptables filter $INPUT -s $POOL -j DROP"
  [ "$BRIDGES" != none ] || return 0
  echo "ip6tables filter $INPUT -i $BRIDGES -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
  # Without these nobody finds the way out (RFC 4890, 4.4).
  echo "ip6tables filter $INPUT -i $BRIDGES -p ipv6-icmp -j ACCEPT"
  for from in fc00::/7 fe80::/10; do
    case $PUBLISH_HOST in
      ::1) ;;
      *:*)
        local to6=
        [ "$PUBLISH_HOST" = :: ] || to6=" -d $PUBLISH_HOST/128"
        for protocol in tcp udp; do
          echo "ip6tables filter $INPUT -s $from$to6 -i $BRIDGES -p $protocol -m $protocol --dport ${PUBLISH_PORTS/-/:} -j ACCEPT"
        done
        ;;
    esac
    echo "ip6tables filter $INPUT -s $from -i $BRIDGES -j DROP"
  done
}

# Which chain of the kernel leads into which of ours.
jumps() {
  of_kernel <<END
iptables mangle FORWARD $FORWARD
ip6tables mangle FORWARD $FORWARD
iptables filter INPUT $INPUT
ip6tables filter INPUT $INPUT
END
}

show() {
  jumps | while read -r command table from chain; do
    echo "$command -w -t $table -N $chain"
    echo "$command -w -t $table -I $from 1 -j $chain"
  done
  rules | while read -r command table chain rule; do echo "$command -w -t $table -A $chain $rule"; done
}

# The new rules stand behind the old ones before those go, so that there is no moment without.
apply() {
  jumps | while read -r command table from chain; do
    "$command" -w -t "$table" -n -L "$chain" >/dev/null 2>&1 || "$command" -w -t "$table" -N "$chain"
    local old
    old=$("$command" -w -t "$table" -S "$chain" | grep -c '^-A' || true)
    rules | while read -r rule_command rule_table rule_chain rule; do
      [ "$rule_command $rule_table $rule_chain" = "$command $table $chain" ] || continue
      # shellcheck disable=SC2086
      "$command" -w -t "$table" -A "$chain" $rule
    done
    while [ "$old" -gt 0 ]; do
      "$command" -w -t "$table" -D "$chain" 1
      old=$((old - 1))
    done
    # First of all, whatever has been put before it since.
    while "$command" -w -t "$table" -D "$from" -j "$chain" 2>/dev/null; do :; done
    "$command" -w -t "$table" -I "$from" 1 -j "$chain"
  done
}

remove() {
  jumps | while read -r command table from chain; do
    while "$command" -w -t "$table" -D "$from" -j "$chain" 2>/dev/null; do :; done
    "$command" -w -t "$table" -F "$chain" 2>/dev/null || true
    "$command" -w -t "$table" -X "$chain" 2>/dev/null || true
  done
}

check() {
  local missing=0 command table from chain rule
  while read -r command table from chain; do
    [ "$("$command" -w -t "$table" -S "$from" 2>/dev/null | sed -n 2p)" = "-A $from -j $chain" ] || {
      echo "missing or not the first: $command -t $table $from -j $chain"
      missing=1
    }
  done < <(jumps)
  while read -r command table chain rule; do
    # shellcheck disable=SC2086
    "$command" -w -t "$table" -C "$chain" $rule 2>/dev/null || {
      echo "missing: $command -t $table -A $chain $rule"
      missing=1
    }
  done < <(rules)
  return $missing
}

case ${1:-} in
  show) show ;;
  apply | check | remove)
    [ "$(id -u)" = 0 ] || die "$1 needs root"
    for tool in iptables ${IPV6:+ip6tables}; do command -v $tool >/dev/null || die "$tool is missing"; done
    "$1"
    ;;
  *) die "usage: firewall.sh show|apply|check|remove" ;;
esac
