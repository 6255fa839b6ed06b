#!/usr/bin/env bash
# Fetches a Docker Engine that is newer than the distribution's, and the real docker compose, without installing either.
#
#   scripts/newer-engine.sh [DIR]   prints the root: Q8_ENGINE_ROOT for scripts/engine.sh
#
# They are Debian trixie's packages (Engine 26.1, API 1.45; Compose 2.26), fetched and verified by apt with settings of its own and
# unpacked below DIR (default: the target directory, so `cargo clean` removes them). What is there already is not fetched again.
# runc, iptables and the init of containers are the machine's own.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
DIR=${1:-${CARGO_TARGET_DIR:-$here/../target}/trixie}
packages=(docker.io containerd docker-compose)

die() { echo "newer-engine: $*" >&2; exit 1; }

mkdir -p "$DIR"
DIR=$(cd "$DIR" && pwd)
exec 9>"$DIR/lock"
flock 9
if [ ! -e "$DIR/complete" ]; then
  command -v apt-get >/dev/null || die "apt-get is needed to fetch ${packages[*]}"
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -e $keyring ] || die "$keyring is missing; what is fetched could not be verified"
  # The mirror that this machine uses for Debian itself.
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1)
  mirror=${mirror:-http://deb.debian.org/debian}
  rm -rf "$DIR/apt" "$DIR/root"
  mkdir -p "$DIR"/apt/{lists/partial,cache/archives/partial,debs} "$DIR/root"
  echo "deb [signed-by=$keyring] $mirror trixie main" >"$DIR/apt/sources.list"
  cat >"$DIR/apt/apt.conf" <<CONF
Dir::Etc::sourcelist "$DIR/apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$DIR/apt/lists";
Dir::State::status "/dev/null";
Dir::Cache "$DIR/apt/cache";
APT::Sandbox::User "";
Acquire::Retries "3";
Acquire::Languages "none";
CONF
  echo "newer-engine: fetching ${packages[*]} of trixie from $mirror" >&2
  (cd "$DIR/apt/debs" && apt-get -qq -c "$DIR/apt/apt.conf" update && apt-get -qq -c "$DIR/apt/apt.conf" download "${packages[@]}") >&2 ||
    die "apt-get could not fetch ${packages[*]}"
  for package in "$DIR"/apt/debs/*.deb; do dpkg -x "$package" "$DIR/root"; done
  rm -rf "$DIR/apt"
  # Last, and only if it all works here: what is incomplete is fetched anew the next time.
  "$DIR/root/usr/sbin/dockerd" --version >&2 || die "this machine cannot run that dockerd"
  "$DIR/root/usr/libexec/docker/cli-plugins/docker-compose" version >&2 || die "this machine cannot run that docker compose"
  : >"$DIR/complete"
fi
echo "$DIR/root"
