#!/usr/bin/env bash
# Writes src/start.ld anew: what an agent with tenants calls from its start on while little happens. To be run after larger changes, or
# with another compiler; an old file costs some idle memory and nothing else. Needs an engine (DOCKER_HOST, or a private one as the
# tests have), nm, python3 and x86_64. The release binary is left with its symbols.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${DOCKER_HOST:-}" ]; then exec scripts/with-engine.sh scripts/order.sh; fi
TENANTS=40
SECONDS_TRACED=45

cargo rustc --locked --release --bin q8-agent -- -C strip=none
agent=$(ls target/*/release/q8-agent)
scripts/demo-images.sh

work=$(mktemp -d)
token=$(head -c 24 /dev/urandom | base64 | tr '+/' '-_')
export Q8_AGENT_ADMIN_TOKEN=$token Q8_AGENT_TENANTS_ROOT=$work/tenants Q8_AGENT_PORT=18499 Q8_AGENT_SUBNET_POOL=10.213.0.0/16 MALLOC_ARENA_MAX=2
call() { # METHOD PATH [BODY]
  curl --silent --show-error --output /dev/null --write-out '%{http_code}' --max-time 60 -X "$1" -H "Authorization: Bearer $token" \
    -H 'Content-Type: application/json' ${3:+--data "$3"} "http://127.0.0.1:$Q8_AGENT_PORT$2"
}
ready() {
  local second
  for second in $(seq 20); do [ "$(call GET /ready 2>/dev/null)" != 200 ] || return 0; sleep 1; done
  echo "the agent is not ready after $second s" >&2
  cat "$work/log" >&2
  return 1
}
start() {
  "$agent" serve >>"$work/log" 2>&1 &
  ready
}
stop() {
  kill "$!"
  wait "$!" || true
}
clean_up() {
  start
  for number in $(seq $TENANTS); do call POST "/v1/tenants/teardown/order-$number?purge=true" >/dev/null; done
  stop
  rm -rf "$work"
}
mkdir "$work/tenants"
trap clean_up EXIT

start
for number in $(seq $TENANTS); do
  compose='services:\n  web: {image: \"q8demo/web:1\", command: [sleep, infinity], stop_signal: SIGKILL, mem_limit: 16m}\n'
  [ "$(call POST /v1/tenants/provision "{\"id\":\"$number\",\"subdomain\":\"order-$number\",\"compose_content\":\"$compose\"}")" = 201 ] ||
    { cat "$work/log" >&2; exit 1; }
done
stop

(
  ready
  sleep 5
  for path in /v1/tenants /v1/tenants/status/order-1 /v1/system/stats /metrics; do call GET "$path" >/dev/null; done
) &
scripts/order.py "$agent" "$SECONDS_TRACED" src/start.ld serve >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
tail -n 1 "$work/log"
