#!/usr/bin/env bash
# Runs a command with DOCKER_HOST naming an engine: the one it names already, else a private one that ends with the command.
set -euo pipefail
if [ -n "${DOCKER_HOST:-}" ]; then exec "$@"; fi
here=$(cd "$(dirname "$0")" && pwd)
engine=${TMPDIR:-/tmp}/q8-engine-$$
trap 'code=$?; trap - EXIT; "$here/engine.sh" stop "$engine" || code=1; exit $code' EXIT
trap 'exit 130' INT TERM
eval "$("$here/engine.sh" start "$engine")"
"$@"
