#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# nginx with WebDAV: PUT GET MOVE COPY DELETE MKCOL PROPFIND by a worker without privileges
. "$(dirname "$0")/lib.sh"

# As root the worker is another user, who may not pass through $T; nginx sees the mount elsewhere,
# in a mount namespace of its own. That must not keep copies of the mounts of tests that run beside
# this one: they would not be gone when they are unmounted. Else all is one user's.
seen=$MNT user='' inside=() options=()
if [ "$(id -u)" -eq 0 ]; then
    seen=/mnt user='user www-data;' options=(-o allow_other)
    cat >"$T/inside.sh" <<'INSIDE'
set -e # MNT TESTS COMMAND...
mount --bind "$1" /mnt
awk -v tests="$2/" 'index($2, tests) == 1 { print $2 }' /proc/self/mounts | tac |
    xargs -r -n 1 umount -l
shift 2
exec "$@"
INSIDE
    inside=(unshare -m bash "$T/inside.sh" "$MNT" "${T%/*}")
fi
module=/usr/lib/nginx/modules/ngx_http_dav_ext_module.so

stop() {
    local pid
    pid=$(cat "$T/nginx.pid" 2>/dev/null) || return 0
    kill -TERM "$pid"
    wait_end "$pid"
    rm -f "$T/nginx.pid"
}
trap 'status=$?; set +e; (stop); (exit $status); clean_up' EXIT

start() { # sets $url
    local port try
    for try in 1 2 3 4 5; do # the port may be taken between the look and the bind
        port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])')
        cat >"$T/nginx.conf" <<NGINX
load_module $module;
$user
worker_processes 2;
pid $T/nginx.pid;
error_log $T/nginx.log;
events {}
http {
    access_log off;
    client_body_temp_path $seen/tmp;
    client_max_body_size 0;
    proxy_temp_path $T/nginx-temp; fastcgi_temp_path $T/nginx-temp;
    uwsgi_temp_path $T/nginx-temp; scgi_temp_path $T/nginx-temp;
    server {
        listen 127.0.0.1:$port;
        root $seen/dav;
        sendfile on;
        open_file_cache off;
        create_full_put_path on;
        dav_methods PUT DELETE MKCOL COPY MOVE;
        dav_ext_methods PROPFIND OPTIONS;
        dav_access user:rw group:r all:r;
    }
}
NGINX
        url=http://127.0.0.1:$port
        ! "${inside[@]}" nginx -c "$T/nginx.conf" || return 0
        echo "try $try: port $port is taken?" >&2
    done
    fail "nginx does not start: $(tail -n 3 "$T/nginx.log")"
}
# The status of a request; its body goes to $T/body.
request() { # METHOD PATH [CURL OPTION...]
    local method=$1 path=$2
    shift 2
    curl -s -o "$T/body" -w '%{http_code}' -X "$method" "$@" "$url$path"
}
does() { # STATUS METHOD PATH [CURL OPTION...]
    local status=$1
    shift
    equal "$*" "$status" "$(request "$@")"
}

keg_mount "${options[@]}"
mkdir "$MNT/dav" "$MNT/tmp"
[ -z "$user" ] || chown www-data "$MNT/dav" "$MNT/tmp"
start

step "PUT and GET of files of many sizes"
sizes=(0 1 1000 65535 65536 65537 1048576 "$(scaled 2000000 5000000 100000000)")
for size in "${sizes[@]}"; do
    head -c "$size" /dev/urandom >"$T/$size"
    does 201 PUT "/a/b/$size" -T "$T/$size"
    does 200 GET "/a/b/$size"
    cmp "$T/body" "$T/$size"
    cmp "$MNT/dav/a/b/$size" "$T/$size"
done
does 206 GET /a/b/1048576 -r 65530-65549
cmp "$T/body" <(tail -c +65531 "$T/1048576" | head -c 20)
[ -z "$user" ] || equal "owner" www-data "$(stat -c %U "$MNT/dav/a/b/1000")"
does 204 PUT /a/b/1000 -T "$T/65537"
cmp "$MNT/dav/a/b/1000" "$T/65537"

step "MKCOL, COPY, MOVE, DELETE, PROPFIND"
does 201 MKCOL /c/
does 405 MKCOL /c/
does 201 COPY /a/ -H "Destination: $url/copied/"
diff -r "$MNT/dav/a" "$MNT/dav/copied"
does 204 COPY /a/b/65536 -H "Destination: $url/c/file"
does 204 MOVE /c/file -H "Destination: $url/c/moved"
does 404 GET /c/file
does 412 COPY /a/b/1 -H "Destination: $url/c/moved" -H "Overwrite: F"
cmp "$MNT/dav/c/moved" "$T/65536"
does 201 MOVE /copied/ -H "Destination: $url/renamed/"
diff -r "$MNT/dav/a" "$MNT/dav/renamed"
[ ! -e "$MNT/dav/copied" ] || fail "the moved collection is still there"
does 204 DELETE /a/b/1
does 404 DELETE /a/b/1
does 204 DELETE /renamed/
[ ! -e "$MNT/dav/renamed" ] || fail "the deleted collection is still there"
does 207 PROPFIND /a/b/ -H "Depth: 1"
equal "names that PROPFIND shows" "$(printf '/a/b/%s\n' "" "${sizes[@]}" | grep -vx /a/b/1 | sort)" \
    "$(grep -o '<D:href>[^<]*' "$T/body" | sed 's/.*>//' | sort)"

many=$(scaled 20 200 5000)
step "$many files by four clients"
does 201 MKCOL /many/
mkdir "$T/many"
for ((i = 0; i < many; i++)); do head -c $((i * 997 % 150000)) /dev/urandom >"$T/many/$i"; done
(cd "$T/many" && find . -type f -printf '%f\n') |
    xargs -P 4 -I '{}' curl -sf -T "$T/many/{}" "$url/many/{}"
diff -r "$T/many" "$MNT/dav/many"

step "a file that is replaced is the old one or the new one"
does 201 PUT /replaced -T "$T/65537"
for ((i = 0; i < $(scaled 5 30 300); i++)); do
    for size in 1048576 65537; do curl -sf -T "$T/$size" "$url/replaced"; done
done &
writer=$!
gets=0
while [ "$gets" -lt 5 ] || kill -0 "$writer" 2>/dev/null; do
    does 200 GET /replaced
    cmp -s "$T/body" "$T/65537" || cmp "$T/body" "$T/1048576"
    gets=$((gets + 1))
done
wait "$writer"

step "after a remount"
etag=$(curl -sfI "$url/a/b/65536" | sed -n 's/^ETag: \(.*\)\r$/\1/p')
stop
equal "left in the directory of temporary files" "" "$(find "$MNT/tmp" -type f)"
lasting "${options[@]}"
start
does 304 GET /a/b/65536 -H "If-None-Match: $etag"
does 200 GET /a/b/65536
cmp "$T/body" "$T/65536"
stop
# It logs refusals that were asked for as errors, too.
! grep -E '\[(error|crit|alert|emerg)\]' "$T/nginx.log" |
    grep -vE '\(2: No such file|\(17: File exists' || fail "nginx reports errors"
keg_umount
