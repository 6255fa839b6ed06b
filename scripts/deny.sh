#!/bin/sh
# Checks the dependencies by deny.toml; advisories only where their database can be reached.
set -eu
cd "$(dirname "$0")/.."

cargo deny --locked check bans licenses sources
if cargo deny fetch db; then
    cargo deny --locked check advisories
else
    echo "the advisory database cannot be reached: advisories are not checked" >&2
fi
