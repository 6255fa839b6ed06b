#!/usr/bin/env bash
# Makes the stand-in images q8demo/web:1 and q8demo/db:1 from the static busybox and imports them through the Engine API:
# no registry, no docker client. DOCKER_HOST names the engine (unix:// only).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
socket=${DOCKER_HOST:?set DOCKER_HOST=unix://… or run: eval "$(scripts/engine.sh start)"}
socket=${socket#unix://}
busybox=$(command -v busybox) || { echo "busybox is missing (Debian: apt-get install busybox-static)" >&2; exit 1; }
# A dynamically linked one names its interpreter.
if grep -qa '/ld-linux' "$busybox"; then echo "$busybox is linked dynamically; install busybox-static" >&2; exit 1; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

root() { # NAME: a root with busybox, its applets and the usual directories
  local root=$work/$1 applet
  mkdir -p "$root"/{bin,etc,tmp,usr/bin,usr/sbin,usr/local/bin}
  chmod 1777 "$root/tmp"
  cp "$busybox" "$root/bin/busybox"
  for applet in $("$busybox" --list); do
    [ "$applet" = busybox ] || [ "$applet" = wget ] || ln -s busybox "$root/bin/$applet"
  done
  install -m 0755 "$here/images/wget" "$root/bin/wget"
  printf 'root:x:0:0:root:/:/bin/sh\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\nnginx:x:101:101::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n' >"$root/etc/passwd"
  printf 'root:x:0:\npostgres:x:70:\nnginx:x:101:\nnobody:x:65534:\n' >"$root/etc/group"
  echo "$root"
}

import() { # ROOT REPOSITORY TAG CHANGE...
  local root=$1 query="fromSrc=-&repo=$2&tag=$3" change
  shift 3
  for change in "$@"; do query="$query&changes=$(printf '%s' "$change" | sed 's/%/%25/g; s/ /%20/g; s/"/%22/g; s/\[/%5B/g; s/\]/%5D/g; s/=/%3D/g; s/,/%2C/g; s/&/%26/g')"; done
  tar --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$root" -cf - . |
    curl --silent --show-error --fail --unix-socket "$socket" -H 'Content-Type: application/x-tar' -X POST --data-binary @- \
      "http://engine/images/create?$query" | grep -q '"status":"sha256:' || { echo "the engine refused the image" >&2; exit 1; }
}

web=$(root web)
install -m 0755 "$here/images/nginx" "$web/usr/sbin/nginx"
install -m 0755 "$here/images/miniflux" "$web/usr/bin/miniflux"
mkdir -p "$web/usr/share/miniflux/cgi-bin" "$web/usr/share/nginx/html" "$web/etc/nginx/conf.d"
install -m 0755 "$here/images/page" "$web/usr/share/miniflux/cgi-bin/index.cgi"
echo OK >"$web/usr/share/miniflux/healthcheck"
import "$web" q8demo/web 1 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' 'USER 65534' 'EXPOSE 8080' 'CMD ["/usr/sbin/nginx"]'

db=$(root db)
install -m 0755 "$here/images/postgres" "$here/images/session" "$here/images/pg_isready" "$db/usr/local/bin/"
mkdir -p "$db/var/lib/postgresql/data"
import "$db" q8demo/db 1 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' 'EXPOSE 5432' 'VOLUME /var/lib/postgresql/data' 'CMD ["postgres"]'
