#!/usr/bin/env bash
# Runs the tests that need an engine on two of them, one after the other: the distribution's and a newer one.
#
#   scripts/test-engines.sh [ARGUMENTS OF cargo test]   `make test-engines` and `make interop` say which tests
#
# Each pass has a network namespace of its own, with the tests, the agents and the engine in it: another engine on this machine is
# not disturbed, and ports published on 127.0.0.1 are within the tests' reach. Both passes run; one that fails fails the whole.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "test-engines: namespaces and dockerd need root" >&2; exit 1; }

# There is no network within: whatever has to be fetched is fetched before.
scripts/engine.sh install
newer=$(scripts/newer-engine.sh)
export Q8_DOCKER_COMPOSE=$newer/usr/libexec/docker/cli-plugins/docker-compose
cargo test --locked --no-run "$@"

failed=
pass() { # NAME ROOT ARGUMENTS...
  local name=$1
  echo "test-engines: on the $name engine" >&2
  # Not `ip netns exec`: it mounts /sys anew, and there the control groups are missing.
  # A newer engine makes no container that has a link without a default bridge.
  env -u DOCKER_HOST Q8_ENGINE_ROOT="$2" Q8_ENGINE_DEFAULT_BRIDGE=1 unshare --net \
    bash -c 'busybox ip link set lo up && exec scripts/with-engine.sh cargo test --locked --no-fail-fast "$@"' bash "${@:3}" || failed="$failed $name"
}
pass "distribution's" "" "$@"
pass newer "$newer" "$@"
[ -z "$failed" ] || { echo "test-engines: failed on:$failed" >&2; exit 1; }
echo "test-engines: passed on both engines" >&2
