#!/usr/bin/env bash
# A private Docker Engine for tests and the demo: everything it makes is below one directory, and stop removes all of it.
#
#   scripts/engine.sh start   [DIR]   start it (or leave it running); prints `export DOCKER_HOST=unix://DIR/docker.sock`
#   scripts/engine.sh stop    [DIR]   end it and remove containers, networks, mounts, firewall rules and DIR
#   scripts/engine.sh restart [DIR]   end dockerd as an administrator would (SIGTERM) and start it on the same data
#   scripts/engine.sh kill    [DIR]   kill -9 dockerd and leave everything as it then lies; `start` brings it back
#   scripts/engine.sh freeze  [DIR]   stop dockerd in its tracks (SIGSTOP); `thaw` lets it go on
#   scripts/engine.sh status  [DIR]   say whether it answers; exit 0 if it does
#   scripts/engine.sh install         install what is missing, as `start` does, and docker-registry, which the tests need
#
# DIR defaults to $Q8_ENGINE_DIR, else ${XDG_RUNTIME_DIR:-/tmp}/q8-engine.
# Q8_ENGINE_NETWORK=host (default) publishes ports on this machine's 127.0.0.1. Two engines in one network namespace do
# not get on: the second one to start empties the isolation rules of the first. So an engine beside another one is
# started with Q8_ENGINE_NETWORK=own: bridges, rules and published ports are then in a namespace of its own. It has no default
# bridge (docker0) unless Q8_ENGINE_DEFAULT_BRIDGE is set: where another engine runs there would be two.
#
# Q8_ENGINE_ROOT=/some/root takes dockerd, containerd and what they start from a root that was unpacked and not installed, as
# scripts/newer-engine.sh makes one; what it does not have comes from this machine. The directory remembers it.
#
# dockerd runs in mount and pid namespaces that a holder process keeps open. So a restart finds the same world, and when
# the holder dies the kernel takes with it every process and mount that dockerd may have left.
set -euo pipefail

command=${1:-}
DIR=${2:-${Q8_ENGINE_DIR:-${XDG_RUNTIME_DIR:-/tmp}/q8-engine}}
NETWORK=${Q8_ENGINE_NETWORK:-host}
ROOT=${Q8_ENGINE_ROOT:-}
SOCKET=$DIR/docker.sock

say() { echo "engine: $*" >&2; }
die() { say "$*"; exit 1; }

api() { # METHOD PATH
  curl --silent --show-error --fail --max-time 30 --unix-socket "$SOCKET" -X "$1" "http://engine$2"
}
answers() { [ -S "$SOCKET" ] && curl --silent --fail --max-time 3 --output /dev/null --unix-socket "$SOCKET" http://engine/_ping; }

holder() { # the pid of the process that keeps the namespaces; fails if it is gone
  local pid
  pid=$(cat "$DIR/holder.pid" 2>/dev/null) || return 1
  # A pid may have been given to another process since: the command line must name this engine.
  tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF "q8-engine-holder $DIR " || return 1
  echo "$pid"
}

entrance() { # sets ENTER to the command line that leads into the engine's namespaces
  local pid ns
  pid=$(holder) || return 1
  ns=/proc/$pid/ns
  ENTER=(nsenter "--mount=$ns/mnt" "--pid=$ns/pid_for_children")
  [ "$(cat "$DIR/network")" != own ] || ENTER+=("--net=$ns/net")
}

signal() { # the pid in the file is the one inside the namespace
  [ -s "$DIR/dockerd.pid" ] && entrance && "${ENTER[@]}" sh -c "kill -$1 $(cat "$DIR/dockerd.pid")" 2>/dev/null
}
dockerd_runs() { signal 0; }
stands_still() { # a busy machine takes a while to stop each thread
  "${ENTER[@]}" sh -c "cat /proc/$(cat "$DIR/dockerd.pid")/task/*/stat" | awk '{ sub(/.*\) /, ""); if ($1 != "T") moves = 1 } END { exit moves || !NR }'
}

install_what_is_missing() { # [FURTHER_PACKAGE, named as its program]
  local tool missing=
  for tool in dockerd iptables curl busybox nsenter unshare flock "$@"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null || missing="$missing $tool"
  done
  # The distribution's `busybox` may be linked dynamically; the test images need the static one.
  [ -z "$missing" ] && return
  command -v apt-get >/dev/null || die "missing:$missing; install them (Debian: docker.io iptables curl busybox-static util-linux $*)"
  say "installing what is missing:$missing"
  export DEBIAN_FRONTEND=noninteractive
  # policy-rc.d: the packages must not start a system engine or registry; they are not ours to start.
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e $policy ]; then printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made=1; fi
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends \
      docker.io iptables busybox-static ca-certificates curl util-linux procps "$@"; } >&2 </dev/null || {
    [ -n "$made" ] && rm -f $policy
    die "apt-get could not install what is missing:$missing"
  }
  [ -z "$made" ] || rm -f $policy
}

wait_until() { # SECONDS COMMAND...
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.05
  done
}

other_engines_here() { # dockerd processes in this network namespace, not counting ours, which is gone by now
  local pid
  for pid in $(pgrep -x dockerd); do
    [ "$(readlink "/proc/$pid/ns/net")" = "$(readlink /proc/self/ns/net)" ] && return 0
  done
  return 1
}

# dockerd leaves its chains, the FORWARD policy and ip_forward changed. They go back once no engine needs them.
remember_firewall() {
  [ ! -f "$DIR/firewall" ] || return 0
  {
    echo "forward=$(iptables -S FORWARD 2>/dev/null | awk '$1 == "-P" { print $3 }')"
    echo "ip_forward=$(cat /proc/sys/net/ipv4/ip_forward)"
    echo "chains=$(iptables -S 2>/dev/null | grep -c '^-N DOCKER' || true)"
  } >"$DIR/firewall"
}
put_firewall_back() {
  local forward= ip_forward= chains=1 table chain rule
  # shellcheck disable=SC1091
  [ -f "$DIR/firewall" ] && . "$DIR/firewall"
  if other_engines_here || [ "$chains" != 0 ]; then return; fi
  for table in filter nat; do
    iptables -w -t $table -S | sed -nE '/^-A (FORWARD|PREROUTING|OUTPUT|POSTROUTING) .*-j DOCKER/s/^-A/-D/p' |
      while read -r rule; do
        # shellcheck disable=SC2086
        iptables -w -t $table $rule || true
      done
    for chain in $(iptables -w -t $table -S | awk '$1 == "-N" && $2 ~ /^DOCKER/ { print $2 }'); do iptables -w -t $table -F "$chain" || true; done
    for chain in $(iptables -w -t $table -S | awk '$1 == "-N" && $2 ~ /^DOCKER/ { print $2 }'); do iptables -w -t $table -X "$chain" || true; done
  done
  [ -z "$forward" ] || iptables -w -P FORWARD "$forward"
  [ -z "$ip_forward" ] || echo "$ip_forward" >/proc/sys/net/ipv4/ip_forward
}

start_holder() {
  local flags="--mount --pid --fork --kill-child --mount-proc --propagation slave"
  [ "$NETWORK" = own ] && flags="$flags --net"
  echo "$NETWORK" >"$DIR/network"
  [ "$NETWORK" = own ] || remember_firewall
  # As process 1 of its namespace, bash also reaps what dockerd orphans. /etc/docker and /run/docker are written by every
  # dockerd wherever its data is: it gets its own, in memory.
  # shellcheck disable=SC2086,SC2016
  setsid unshare $flags bash -c '
    mkdir -p /etc/docker /run/docker
    mount -t tmpfs tmpfs /etc/docker && mount -t tmpfs tmpfs /run/docker || exit 1
    [ -e /sys/fs/cgroup/cgroup.controllers ] || [ -d /sys/fs/cgroup/memory ] || mount -t cgroup2 none /sys/fs/cgroup
    [ "$3" != own ] || ip link set lo up 2>/dev/null || ifconfig lo up 2>/dev/null || busybox ip link set lo up
    : >"$2/holder.ready"
    while :; do sleep 3600 & wait $!; done' \
    q8-engine-holder q8-engine-holder "$DIR" "$NETWORK" </dev/null >"$DIR/holder.log" 2>&1 9>&- &
  echo $! >"$DIR/holder.pid"
  disown $!
  wait_until 10 test -e "$DIR/holder.ready" || die "no namespaces for the engine: $(cat "$DIR/holder.log")"
}

start() {
  case $NETWORK in host | own) ;; *) die "Q8_ENGINE_NETWORK is host or own, not '$NETWORK'" ;; esac
  [ "$(id -u)" = 0 ] || die "dockerd needs root: run this as root, or set DOCKER_HOST=unix://… to an engine that may be used for tests"
  # containerd's socket below DIR must fit into a socket address of 108 bytes.
  [ ${#DIR} -le 60 ] || die "the path $DIR is too long for the engine's sockets (60 characters at most)"
  case $DIR in /*) ;; *) die "the directory must be an absolute path, not '$DIR'" ;; esac
  case $ROOT in "" | /*) ;; *) die "Q8_ENGINE_ROOT must be an absolute path, not '$ROOT'" ;; esac
  if [ -d "$DIR" ] && [ -n "$(ls -A "$DIR")" ] && [ ! -e "$DIR/.q8-engine" ]; then die "$DIR exists and is not an engine's directory"; fi
  PATH=$PATH:/usr/sbin:/sbin
  install_what_is_missing
  mkdir -p -m 0700 "$DIR"
  : >"$DIR/.q8-engine"
  exec 9>"$DIR/lock"
  flock 9
  remembered_root
  echo "$ROOT" >"$DIR/engine-root"
  if answers; then
    say "runs already at $SOCKET"
  else
    holder >/dev/null || { rm -f "$DIR"/holder.* "$DIR/dockerd.pid" "$DIR/docker.sock"; start_holder; }
    start_dockerd
    say "Docker Engine $(api GET /version | sed 's/.*"Version":"\([^"]*\)","ApiVersion".*/\1/;t;s/.*/(version unknown)/') answers at $SOCKET"
  fi
  echo "export DOCKER_HOST=unix://$SOCKET"
}

remembered_root() { [ -n "$ROOT" ] || ROOT=$(cat "$DIR/engine-root" 2>/dev/null || true); }

start_dockerd() {
  # Networks come from a /16 that differs between directories, so that two engines seldom want the same subnet; the agent's
  # own pool 10.213.0.0/16 is not among them.
  local pool cgroup=()
  pool=10.$((64 + $(printf '%s' "$DIR" | cksum | cut -d' ' -f1) % 128)).0.0/16
  # With systemd on cgroup v2 the parent would have to be a slice; there the default is left alone.
  [ -d /run/systemd/system ] || cgroup=(--cgroup-parent "$(cgroup_parent)")
  wait_until 5 not dockerd_runs || die "a dockerd of $DIR runs but does not answer; see $DIR/dockerd.log"
  rm -f "$DIR/dockerd.pid"
  echo '{}' >"$DIR/daemon.json"
  # What Q8_ENGINE_ROOT does not have, such as runc, is found behind it on the path.
  local path=$PATH
  [ -z "$ROOT" ] || path=$ROOT/usr/sbin:$ROOT/usr/bin:$path
  # --bridge=none: no docker0, so nothing to clash over; tenants' networks are bridges of their own all the same.
  local bridge=(--bridge=none)
  [ -z "${Q8_ENGINE_DEFAULT_BRIDGE:-}" ] || bridge=()
  entrance || die "the engine's namespaces are gone"
  # GOGC: tests have memory and are short of CPU.
  "${ENTER[@]}" env "PATH=$path" GOGC=400 dockerd --config-file "$DIR/daemon.json" --data-root "$DIR/data" --exec-root "$DIR/exec" --pidfile "$DIR/dockerd.pid" \
    --host "unix://$SOCKET" "${bridge[@]}" --default-address-pool "base=$pool,size=24" --log-level warn "${cgroup[@]}" \
    </dev/null >>"$DIR/dockerd.log" 2>&1 9>&- &
  local launcher=$! end=$((SECONDS + 60))
  echo $launcher >"$DIR/launcher.pid"
  until answers; do
    if ! kill -0 $launcher 2>/dev/null || [ $SECONDS -ge $end ]; then
      tail -n 20 "$DIR/dockerd.log" >&2
      die "dockerd did not come up; its log is $DIR/dockerd.log"
    fi
    sleep 0.05
  done
}
not() { ! "$@"; }
cgroup_parent() { echo "/q8-engine-$(printf '%s' "$DIR" | cksum | cut -d' ' -f1)"; }

stop_dockerd() { # SECONDS
  dockerd_runs || return 0
  signal TERM || true
  wait_until "$1" not dockerd_runs
}

remove_contents() { # by the engine itself: it knows best what belongs to a container or a network
  local id removals=()
  for id in $(api GET '/containers/json?all=1' | grep -o '"Id":"[0-9a-f]*"' | cut -d'"' -f4); do
    api DELETE "/containers/$id?force=1&v=1" >/dev/null 2>&1 &
    removals+=($!)
  done
  # Not a bare wait: the holder may be a child of this shell too, and it does not end.
  [ ${#removals[@]} -eq 0 ] || wait "${removals[@]}" || true
  for id in $(api GET '/networks?filters=%7B%22type%22:%5B%22custom%22%5D%7D' | grep -o '"Id":"[0-9a-f]*"' | cut -d'"' -f4); do
    api DELETE "/networks/$id" >/dev/null 2>&1 || true
  done
}

end_holder() { # and with it every process in its namespaces
  local pid
  pid=$(holder) || return 0
  kill -KILL "$pid"
  wait_until 10 not runs "$pid" || say "the process $pid is still there"
  # nsenter ends when dockerd does, but a moment later, and not while it is stopped.
  pid=$(cat "$DIR/launcher.pid" 2>/dev/null) || return 0
  launches "$pid" && kill -CONT "$pid" 2>/dev/null
  wait_until 2 not launches "$pid" || say "the process $pid is still there"
}
launches() { runs "$1" && tr '\0' ' ' <"/proc/$1/cmdline" | grep -qF "$DIR/dockerd.pid"; } 2>/dev/null
runs() { [ -d "/proc/$1" ] && ! grep -q "^State:.Z" "/proc/$1/status"; } 2>/dev/null

stop() {
  [ -d "$DIR" ] || { say "nothing at $DIR"; return 0; }
  [ -e "$DIR/.q8-engine" ] || die "$DIR is not an engine's directory; it is left alone"
  PATH=$PATH:/usr/sbin:/sbin
  exec 9>"$DIR/lock"
  flock 9
  NETWORK=$(cat "$DIR/network" 2>/dev/null || echo host)
  remembered_root
  # A dockerd that died left containers and bridges that only it can name: it comes back for the tidying.
  if [ "$NETWORK" = host ] && [ -d "$DIR/data" ] && ! answers; then
    end_holder
    rm -f "$DIR"/holder.* "$DIR/dockerd.pid" "$DIR/docker.sock"
    start_holder
    (start_dockerd) || true
  fi
  if answers; then remove_contents; fi
  stop_dockerd 15 || say "dockerd did not stop in time; it is killed"
  end_holder
  [ "$NETWORK" = own ] || put_firewall_back
  wait_until 3 remove_cgroups || say "empty control groups of $(cgroup_parent) are left"
  wait_until 10 remove_directory || die "$DIR cannot be removed"
  say "stopped, nothing left"
}
remove_cgroups() { # they can go a moment after their last process
  local group
  for group in $(find /sys/fs/cgroup -mindepth 1 -maxdepth 5 -depth -type d -path "*$(cgroup_parent)*" 2>/dev/null); do
    rmdir "$group" 2>/dev/null || return 1
  done
}
remove_directory() { rm -rf --one-file-system "$DIR" 2>/dev/null; }

case $command in
  start) start ;;
  stop) stop ;;
  restart)
    holder >/dev/null || die "nothing to restart at $DIR"
    stop_dockerd 30 || die "dockerd did not stop within 30 seconds"
    start
    ;;
  kill)
    signal KILL || die "no dockerd runs at $DIR"
    wait_until 5 not dockerd_runs || die "dockerd survived"
    ;;
  freeze)
    signal STOP || die "no dockerd runs at $DIR"
    wait_until 5 stands_still || die "dockerd goes on"
    ;;
  thaw)
    signal CONT || die "no dockerd runs at $DIR"
    # nsenter stops itself when what it has started is stopped.
    launches "$(cat "$DIR/launcher.pid")" && kill -CONT "$(cat "$DIR/launcher.pid")"
    ;;
  status)
    if answers; then say "answers at $SOCKET"; else say "does not answer at $SOCKET"; exit 1; fi
    ;;
  install)
    [ "$(id -u)" = 0 ] || die "installing needs root"
    PATH=$PATH:/usr/sbin:/sbin
    install_what_is_missing docker-registry
    ;;
  *) die "usage: engine.sh start|stop|restart|kill|freeze|thaw|status|install [DIR]" ;;
esac
