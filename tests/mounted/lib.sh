# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# What the mounted tests share. A test sources this first; it then has
#   $T      a directory of its own, removed at the end with all mounts below it
#   $STORE  where its store will be, $MNT its (empty) mountpoint
#   $KEGFS  the program; SCALE is smoke (sanitizers), ci or full; KEGFS_TRANSPORT, if set, is the
#           transport of what keg_mount mounts
# and fails by the first command that fails, or by `fail`.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
KEGFS=${KEGFS:-$top/build/fs/kegfs}
SCALE=${SCALE:-ci}
T=$(mktemp -d "${TMPDIR:-/tmp}/kegfs.XXXXXX")
STORE=$T/store
MNT=$T/mnt
mkdir "$MNT"
# Where a sanitizer in the daemon, which has no stderr, puts what it finds.
for tool in ASAN UBSAN TSAN; do
    variable=${tool}_OPTIONS
    declare -x "$variable=${!variable:+${!variable}:}log_path=$T/sanitizer"
done

fail() {
    printf 'FAIL: %s (%s line %s)\n' "$*" "${BASH_SOURCE[1]##*/}" "${BASH_LINENO[0]}" >&2
    exit 1
}
skip() {
    printf 'skipped: %s\n' "$*" >&2
    exit 77
}
step() { printf -- '-- %s\n' "$*" >&2; }
need_root() { [ "$(id -u)" -eq 0 ] || skip "needs root"; }
scaled() { # SMOKE CI FULL: the one of this scale
    case $SCALE in smoke) echo "$1" ;; ci) echo "$2" ;; full) echo "$3" ;; esac
}

mounts_below() { awk -v top="$1/" 'index($2, top) == 1 { print $2 }' /proc/self/mounts | tac; }
unmount_lazily() {
    if [ "$(id -u)" -eq 0 ]; then umount -l "$1"; else fusermount3 -u -z "$1"; fi
}
clean_up() {
    local status=$? mount lock
    trap - EXIT
    set +e
    cd /
    [ "$status" -eq 0 ] || [ "$status" -eq 77 ] || {
        echo "exit status $status; the mounts and the last lines of the daemon's log:"
        mounts_below "$T"
        tail -n 20 "$T"/daemon.log 2>/dev/null
    } >&2
    mounts_below "$T" | while read -r mount; do unmount_lazily "$mount"; done
    for lock in "$T"/*/LOCK; do kill_holder "$lock" 2>/dev/null; done
    if compgen -G "$T/sanitizer.*" >/dev/null; then
        cat "$T"/sanitizer.* >&2
        [ "$status" -ne 0 ] || status=1
    fi
    rm -rf --one-file-system "$T"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# ---- The mount ----

uring_switch=/sys/module/fuse/parameters/enable_uring
need_uring() { # FUSE over io_uring, switched on
    local on
    on=$(cat $uring_switch 2>/dev/null) || skip "the kernel has no FUSE over io_uring"
    [ "$on" = Y ] || echo 1 2>/dev/null >$uring_switch || skip "$uring_switch is not set; needs root"
    python3 -c 'import ctypes, sys
sys.exit(ctypes.CDLL(None).syscall(425, 1, ctypes.create_string_buffer(120)) < 0)' ||
        skip "no rings may be made here"
}
[ "${KEGFS_TRANSPORT:-}" != uring ] || need_uring
keg_mount() { # [OPTION...]
    timeout 120 "$KEGFS" mount "$STORE" "$MNT" ${KEGFS_TRANSPORT:+-o "transport=$KEGFS_TRANSPORT"} "$@"
}
keg_umount() {
    timeout 120 "$KEGFS" umount "$MNT"
    ! is_mounted || fail "umount said ok, and it is still mounted"
    no_findings
}
keg_remount() { keg_umount && keg_mount "$@"; }
is_mounted() { [ -n "$(awk -v dir="$MNT" '$2 == dir' /proc/self/mounts)" ]; }
no_findings() {
    ! compgen -G "$T/sanitizer.*" >/dev/null || fail "a sanitizer found something in the daemon"
}

daemon_pid() { # of the process that holds $STORE
    local pid
    read -r pid _ <"$STORE/LOCK"
    [ "$(readlink "/proc/$pid/exe")" = "$(realpath "$KEGFS")" ] || fail "LOCK names $pid: not ours"
    echo "$pid"
}
kill_holder() { # LOCK-FILE
    local pid
    read -r pid _ <"$1" || return 0
    [ "$(readlink "/proc/$pid/exe")" != "$(realpath "$KEGFS")" ] || kill -9 "$pid"
}
keg_kill() { # kill -9, and the mountpoint is free again
    local pid
    pid=$(daemon_pid)
    kill -9 "$pid"
    while [ -e "/proc/$pid" ] && ! grep -q '^State:\sZ' "/proc/$pid/status" 2>/dev/null; do
        sleep 0.01
    done
    unmount_lazily "$MNT"
}

stat_of() { # NAME: a number of stats.json
    python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1" \
        <"$MNT/.kegfs/stats.json"
}
compact() { echo compact >"$MNT/.kegfs/control"; }
data_files_bytes() { cat "$STORE"/*.data | wc -c; }

# ---- Judging ----

equal() { # WHAT EXPECTED GOT
    [ "$2" = "$3" ] || fail "$1: expected '$2', got '$3'"
}
same_tree() { # A B: contents and everything rsync can see of two trees are equal
    local changes
    diff -r --no-dereference -x fifo -x null "$1" "$2" || fail "contents differ"
    changes=$(rsync -aHAXn --delete --itemize-changes "$1/" "$2/")
    [ -z "$changes" ] || fail "rsync would change: $(head -n 20 <<<"$changes")"
}
# The command fails with the exit code and exactly one line on stderr, which has the text.
refused() { # CODE TEXT COMMAND...
    local code=$1 text=$2 status=0
    shift 2
    "$@" >/dev/null 2>"$T/refused" </dev/null || status=$?
    cat "$T/refused" >&2
    equal "exit code of $*" "$code" "$status"
    equal "lines on stderr of $*" 1 "$(wc -l <"$T/refused")"
    grep -qF -- "$text" "$T/refused" || fail "no '$text' in the message"
    no_findings
}
