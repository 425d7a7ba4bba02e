# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# What the mounted tests share. A test sources this first; it then has
#   $T      a directory of its own, removed at the end with all mounts below it
#   $STORE  where its store will be, $MNT its (empty) mountpoint
#   $KEGFS  the program; SCALE is smoke (sanitizers), ci or full; KEGFS_TRANSPORT, if set, is the
#           transport of what keg_mount mounts
# and fails by the first command that fails, or by `fail`.
#
# As root it is run in a mount namespace of its own: a namespace that another test makes meanwhile
# would have copies of its mounts, and a daemon lives as long as any of them. For the same reason it
# lets go of those that it has of others'.
set -euo pipefail

if [ "${OWN_MOUNTS-}" != had ] && [ "$(id -u)" -eq 0 ] && unshare --mount true 2>/dev/null; then
    OWN_MOUNTS=had exec unshare --mount --propagation private bash "$0" "$@"
fi
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$top/scripts/common.sh"
[ "${OWN_MOUNTS-}" != had ] || drop_copies

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
# What a test that failed has left running is not to go on, least of all where the mount was. Daemons
# are left to kill_holder.
end_descendants() { # PID
    local child children
    children=$(cat "/proc/$1/task/"*/children 2>/dev/null)
    for child in $children; do
        [ "$(readlink "/proc/$child/exe")" = "$(realpath "$KEGFS")" ] || {
            kill -STOP "$child"
            end_descendants "$child"
            kill -9 "$child"
        }
    done 2>/dev/null
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
    end_descendants $$
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
keg_remount() { # not "a && b", in which a failure inside of a would not count
    keg_umount
    keg_mount "$@"
}
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
keg_kill() { # [PID]: kill -9, and the mountpoint is free again
    local pid=${1-}
    [ -n "$pid" ] || pid=$(daemon_pid)
    kill -9 "$pid"
    wait_end "$pid"
    unmount_lazily "$MNT"
}
# A signal to stop is taken by one thread, which may be in the middle of a system call, while the
# others run on. Once one has stopped all are told, and who is in a system call stops at its end.
stop_process() { # PID: none of its threads runs, or will, outside of the kernel
    local i states
    kill -STOP "$1"
    for ((i = 0; i < 6000; i++)); do
        states=$(sed -sn 's/^State:\s\(.\).*/\1/p' "/proc/$1/task/"*/status 2>/dev/null |
            sort -u | tr -d '\n') || true # a thread has ended meanwhile
        case $states in T | DT) return 0 ;; esac
        sleep 0.01
    done
    fail "it does not stop ($states)"
}
# Waits for a command to succeed, for as long as the process is there (it may be ours, and a zombie)
# that is to make it so, and no longer than is reasonable.
wait_until() { # PID COMMAND...
    local i pid=$1
    shift
    for ((i = 0; i < 12000; i++)); do
        ! "$@" || return 0
        is_running "$pid" || break
        sleep 0.01
    done
    "$@" || fail "process $pid, which is $(is_running "$pid" || echo not) there, did not make it so: $*"
}
is_running() { # PID
    [ -e "/proc/$1" ] && ! grep -q '^State:\sZ' "/proc/$1/status" 2>/dev/null
}
is_in() { [ "$(readlink "/proc/$1/cwd")" = "$2" ]; } # PID DIRECTORY
wait_end() { # PID: of a process that is no child of ours, or not waited for yet
    local i
    for ((i = 0; i < 12000; i++)); do
        is_running "$1" || return 0
        sleep 0.01
    done
    fail "process $1 does not end"
}

start_daemon() { # [OPTION...]: in the foreground: its exit status and its log can be had
    local i
    "$KEGFS" mount -f "$STORE" "$MNT" "$@" 2>>"$T/daemon.log" &
    # shellcheck disable=SC2034 # the caller's
    daemon=$!
    for ((i = 0; i < 6000; i++)); do
        ! is_mounted || [ ! -e "$MNT/.kegfs/stats" ] || return 0
        sleep 0.01
    done
    fail "it does not mount"
}

stat_of() { # NAME: a number of stats.json
    python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1" \
        <"$MNT/.kegfs/stats.json"
}
requests() { # OPCODE: how many there were since the mount
    sed -n "/\"requests\": /{s/.*\"$1\": \([0-9]*\).*/\1/;s/.*{.*/0/;p}" "$MNT/.kegfs/stats.json"
}
# How many READs a command makes, without those that reading stats.json takes.
reads_of() { # COMMAND...
    local first second third
    first=$(requests READ)
    second=$(requests READ)
    "$@" >&2
    third=$(requests READ)
    echo $((third - second - (second - first)))
}
compact() { echo compact >"$MNT/.kegfs/control"; }
# Beside a test: compactions and hints without a pause, until it is told to stop or ends. They may
# fail only where there is no mount any more.
tend_start() {
    touch "$T/tending"
    while [ -e "$T/tending" ]; do
        { compact && echo hint >"$MNT/.kegfs/control"; } 2>"$T/tender.log" ||
            ! stat "$MNT/.kegfs/control" >/dev/null 2>&1 ||
            fail "compact or hint beside the test: $(cat "$T/tender.log")"
        sleep 0.05
    done &
    tender=$!
}
tend_stop() { rm "$T/tending" && wait "$tender"; }
data_files_bytes() { cat "$STORE"/*.data | wc -c; }

# ---- Things to put into it ----

special_tree() { # DIR: things that real trees seldom have
    local special=$1 i
    mkdir -p "$special/empty" "$special/sub/deeper"
    for i in 1 2 3; do echo "hard $i" >"$special/hard$i" && ln "$special/hard$i" "$special/sub/hard$i"; done
    ln -s ../nowhere "$special/dangling"
    ln -s . "$special/loop"
    mkfifo "$special/fifo"
    [ "$(id -u)" -ne 0 ] || mknod "$special/null" c 1 3
    : >"$special/empty-file"
    head -c 300000 /dev/urandom >"$special/random"
    truncate -s 10M "$special/sparse" && echo end >>"$special/sparse"
    echo x >"$special/$(printf '\377\376\n\t')" && echo y >"$special/$(printf 'n%.0s' {1..255})"
    chmod 4750 "$special/hard1" && chmod 1777 "$special/empty"
    [ "$(id -u)" -ne 0 ] || chmod 0 "$special/hard2" # which others could not read
    touch -d '1969-12-31 23:59:58.123456789 UTC' "$special/hard3"
    touch -d '2038-01-19 03:14:09.987654321 UTC' "$special/empty-file"
    setfattr -n user.colour -v blue "$special/random" 2>/dev/null || true
}

# ---- Load: see load.py ----

# Each round: load_begin, load_wait, load_crash, an end of the daemon, load_ended, a mount, load_judge.
load_begin() { # SEED WRITERS STEPS OPTION...
    local seed=$1 writers=$2 steps=$3
    shift 3
    # The interpreter itself, as what is called python3 may be a slow script.
    python=${python:-$(python3 -c 'import sys; print(sys.executable)')}
    mkdir -p "$T/accounts"
    rm -f "$T"/accounts/*.account "$T/accounts/ready"
    unset -v load_before load_at
    load_options=(--seed "$seed" --writers "$writers" --steps "$steps" "$@")
    "$python" -S "$top/tests/mounted/load.py" run "$MNT" "$T/accounts" "${load_options[@]}" &
    load_pid=$!
}
load_wait() { # until each writer has done STEPS steps
    while [ ! -e "$T/accounts/ready" ]; do
        kill -0 "$load_pid" || fail "the writers ended (${load_options[*]})"
        sleep 0.005
    done
}
load_crash() { # before anything is done to the daemon: an error of a writer until now is a failure
    read -r load_before _ </proc/uptime
}
load_ended() { # by itself, because its calls fail
    read -r load_at _ </proc/uptime
    wait "$load_pid" || fail "a writer failed otherwise than by the crash (${load_options[*]})"
}
load_judge() { # cut|kill|end; sets steps, lost, aborted, timed; load_about says which round it is
    local figures
    figures=$("$python" -S "$top/tests/mounted/load.py" judge "$MNT" "$T/accounts" \
        "${load_options[@]}" --after "$1" --crash "$load_before" --at "$load_at") || {
        echo "$figures"
        fail "not what was acknowledged (${load_about:+$load_about; }${load_options[*]})"
    }
    # shellcheck disable=SC2034 # the caller's
    read -r steps lost aborted timed _ <<<"$figures"
}

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
# All that there is to see of the tree DIR: contents, attributes and what stat tells, inode numbers
# and times of change in nanoseconds among it. Two manifests are equal or the trees are not.
manifest() { # DIR
    (
        cd "$1"
        find . -printf '%p|%y|%i|%m|%U:%G|%n|%b|%T@|%C@|%s|%l\n' | LC_ALL=C sort
        find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum
        getfattr -R -h -P -d -m - -e hex . 2>/dev/null
    )
}
# What the mount holds is sound after an unmount, and the same after the mount that follows.
lasting() { # [MOUNT OPTION...]
    manifest "$MNT" >"$T/manifest.before"
    keg_umount
    "$KEGFS" check "$STORE" >&2
    keg_mount "$@"
    manifest "$MNT" >"$T/manifest.after"
    diff "$T/manifest.before" "$T/manifest.after" >&2 || fail "not the same after a remount"
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

# ---- Damage ----

base=$T/base
use_copy() { # of the store that each case damages a copy of
    rm -rf "$T/copy"
    cp -a --sparse=always "$base" "$T/copy"
    STORE=$T/copy
}
find_bytes() { # TEXT: prints the file of $STORE and the offset where TEXT stands last
    grep -HobUaF -- "$1" "$STORE"/*.data | tail -n 1 | cut -d : -f 1,2 | tr : ' '
}
flip() { # FILE OFFSET
    python3 - "$1" "$2" <<'PYTHON'
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(int(sys.argv[2]))
    byte = file.read(1)[0]
    file.seek(-1, 1)
    file.write(bytes([byte ^ 4]))
PYTHON
}
text() { printf "$1-%.0s" {1..100}; } # what the file of that name holds
