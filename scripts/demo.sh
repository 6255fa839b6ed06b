#!/usr/bin/env bash
# The agent's main job, watched by a person: a tenant of three services is provisioned, looked at, updated and torn down.
#
# Uses the engine that DOCKER_HOST names, else starts a private one, and the agent that Q8_DEMO_BINARY names, else builds it.
# Starts it on a temporary root, a free port and a random token. Ends everything that it started, and fails if anything is
# left or any step is not as it should be.
set -euo pipefail
cd "$(dirname "$0")/.."

bold= plain=
if [ -t 1 ]; then bold=$(tput bold 2>/dev/null || true) plain=$(tput sgr0 2>/dev/null || true); fi
step() { printf "\n%s== %s%s (%d s)\n" "$bold" "$*" "$plain" "$SECONDS"; }
fail() { echo "demo: $*" >&2; exit 1; }

missing=
for tool in jq curl; do command -v $tool >/dev/null || missing="$missing $tool"; done
if [ -n "$missing" ]; then
  { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; } || fail "missing:$missing (Debian: apt-get install$missing)"
  # shellcheck disable=SC2086
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates $missing; } >&2 </dev/null
fi

home=$(mktemp -d "${TMPDIR:-/tmp}/q8-demo-XXXXXX")
engine= agent= subdomain=acme
finish() {
  local code=$?
  trap - EXIT
  if [ $code != 0 ]; then
    echo "demo: failed; the agent's last lines:" >&2
    tail -n 30 "$home/agent.log" >&2 2>/dev/null || true
    # On somebody else's engine nothing may stay behind.
    [ -n "$engine" ] || [ -z "$agent" ] || call POST "/v1/tenants/teardown/$subdomain?purge=true" >/dev/null 2>&1 || true
  fi
  if [ -n "$agent" ]; then kill "$agent" 2>/dev/null || true; wait "$agent" 2>/dev/null || true; fi
  if [ -n "$engine" ]; then scripts/engine.sh stop "$engine" || code=1; fi
  rm -rf "$home"
  exit $code
}
trap finish EXIT
trap 'exit 130' INT TERM

call() { # METHOD PATH [BODY_FILE]: prints the answer; fails unless it is a 2xx
  local method=$1 path=$2 body=() status
  [ -z "${3:-}" ] || body=(-H 'Content-Type: application/json' --data-binary "@$3")
  status=$(curl --silent --show-error --max-time 180 -o "$home/answer" -w '%{http_code}' -X "$method" \
    -H "Authorization: Bearer $token" "${body[@]}" "http://127.0.0.1:$port$path") || return 1
  cat "$home/answer"
  case $status in 2*) ;; *) echo "demo: $method $path answered $status: $(cat "$home/answer")" >&2; return 1 ;; esac
}
services() { # the status as a table
  call GET "/v1/tenants/status/$subdomain" | jq -r '
    "tenant \(.subdomain): \(.state), generation \(.generation)",
    (.services[] | "  \(.name)\t\(.state)\t\(.containers | map("\(.name) \(.id[:12])") | join(", "))"),
    (.endpoints[] | "  \(.service):\(.port) is at http://\(.host):\(.host_port)/")' | expand -t 16
}
containers() { call GET "/v1/tenants/status/$subdomain" | jq -c '[.services[] | {key: .name, value: [.containers[].id]}] | from_entries'; }
page() { curl --silent --show-error --fail --max-time 10 "$(call GET "/v1/tenants/status/$subdomain" |
  jq -r '.endpoints[] | select(.service == "web") | "http://\(.host):\(.host_port)/"')"; }

step "A Docker Engine"
if [ -n "${DOCKER_HOST:-}" ]; then
  echo "DOCKER_HOST names one: $DOCKER_HOST"
else
  engine=${TMPDIR:-/tmp}/q8-demo-engine-$$
  eval "$(scripts/engine.sh start "$engine")"
fi
socket=${DOCKER_HOST#unix://}
scripts/demo-images.sh
echo "stand-ins for the templates' images: q8demo/web:1, q8demo/db:1"

step "The agent"
binary=${Q8_DEMO_BINARY:-}
[ -n "$binary" ] || binary=$(cargo build --locked --bin q8-agent --message-format=json-render-diagnostics | jq -r 'select(.executable) | .executable' | tail -n 1)
token=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')
port=$((30000 + RANDOM % 2000))
while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
# Not the default pool: another engine on this machine may run an agent with it, and two bridges with one subnet do not work.
env -i PATH="$PATH" DOCKER_HOST="$DOCKER_HOST" Q8_AGENT_SUBNET_POOL=10.$((193 + $$ % 16)).0.0/16 Q8_AGENT_PORT=$port Q8_AGENT_ADMIN_TOKEN="$token" \
  Q8_AGENT_TENANTS_ROOT="$home/tenants" Q8_AGENT_LOG_FORMAT=text "$binary" serve >"$home/agent.log" 2>&1 &
agent=$!
for _ in $(seq 200); do
  curl --silent --fail --output /dev/null --max-time 2 "http://127.0.0.1:$port/ready" && break
  kill -0 $agent 2>/dev/null || fail "the agent ended"
  sleep 0.05
done
call GET /ready | jq -c .
label="dev.q8.agent=$(call GET /v1/system/info | jq -r .agent)"

step "Provision: web and migration wait for the database to be healthy"
printf 'DB_PASSWORD=%s\nADMIN_PASSWORD=%s\nDB_IMAGE=q8demo/db:1\nWEB_IMAGE=q8demo/web:1\n' \
  "$(od -An -tx1 -N12 /dev/urandom | tr -d ' \n')" "$(od -An -tx1 -N12 /dev/urandom | tr -d ' \n')" >"$home/env"
scripts/request.sh compose-templates/web-database "$subdomain" tenant-1 "$home/env" >"$home/request.json"
call POST /v1/tenants/provision "$home/request.json" | jq -c '{status, subdomain, project, generation, changed, warnings}'
services
page

step "Logs"
call GET "/v1/tenants/logs/$subdomain?tail=3"

step "The same request again: nothing to do"
call POST /v1/tenants/provision "$home/request.json" | jq -c '{status, generation, changed}' | tee "$home/again"
[ "$(jq .changed "$home/again")" = false ] || fail "an identical request changed something"

step "Update of one file: only the service that mounts it is made anew"
before=$(containers)
printf 'LISTEN_ADDR=0.0.0.0:8080\nPOLLING_FREQUENCY=15\n' | jq -Rs --arg subdomain "$subdomain" \
  '{subdomain: $subdomain, files: {"miniflux.conf": .}, pull: false}' >"$home/update.json"
call POST /v1/tenants/update "$home/update.json" | jq -c '{status, generation, changed}'
after=$(containers)
services
changed=$(jq -nr --argjson before "$before" --argjson after "$after" '[$before | keys[] | select($before[.] != $after[.])] | join(" ")')
echo "made anew: $changed"
[ "$changed" = web ] || fail "these services were made anew: '$changed', and it should have been 'web'"
page

step "Teardown with purge"
call POST "/v1/tenants/teardown/$subdomain?purge=true" | jq -c .
filter=$(jq -rn --arg label "$label" '{"label": [$ARGS.named.label]} | tojson | @uri')
left=$(for kind in 'containers/json?all=1&' 'networks?' 'volumes?'; do
  curl --silent --show-error --fail --unix-socket "$socket" "http://engine/${kind}filters=$filter" | jq -c '(.Volumes? // .)[]? | .Names // .Name'
done)
[ -z "$left" ] || fail "left on the engine: $left"
[ ! -e "$home/tenants/$subdomain" ] || fail "the tenant's directory is left"
echo "nothing labelled $label is left"

step "The end"
kill "$agent"
wait "$agent" || fail "the agent did not end well"
agent=
echo "demo: ok"
