#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# each transport: large and late requests, signals, ways to unmount, limits, what cannot be had
. "$(dirname "$0")/lib.sh"
need_root

kinds=(spin libfuse)
if (need_uring) 2>"$T/why"; then kinds=(uring "${kinds[@]}"); else cat "$T/why" >&2; fi

mount_with() { # KIND [OPTION...]
    local kind=$1
    shift
    timeout 120 "$KEGFS" mount "$STORE" "$MNT" -o "transport=$kind" "$@"
    equal "transport" "$kind" "$(stat_of transport)"
}
soon() { timeout 60 "$@" || fail "did not end: $*"; }

large_and_small() {
    local size
    for size in 0 1 4095 65537 1048575 1048576 1048577 5000000; do
        head -c "$size" /dev/urandom >"$T/data"
        soon cp "$T/data" "$MNT/data.$size"
        soon dd if="$T/data" of="$MNT/direct.$size" bs=1M oflag=direct status=none 2>/dev/null ||
            fail "direct write of $size"
    done
    keg_kill_cache
    for size in 0 1 4095 65537 1048575 1048576 1048577 5000000; do
        soon cmp "$MNT/data.$size" "$MNT/direct.$size" || fail "contents of $size"
    done
    soon touch "$MNT/$(printf 'n%.0s' {1..255})"
    ! touch "$MNT/$(printf 'n%.0s' {1..256})" 2>/dev/null || fail "a name of 256 bytes"
    ! cat "$MNT/none" 2>/dev/null || fail "a file that is not there"
    mkdir "$MNT/dir"
    (cd "$MNT/dir" && seq -f "file-with-a-long-name-%g" "$(scaled 200 2000 20000)" | xargs touch)
    equal "names" "$(scaled 200 2000 20000)" "$(find "$MNT/dir" -type f | wc -l)"
}
keg_kill_cache() { echo 3 >/proc/sys/vm/drop_caches; }

# More late requests than a queue has entries: others are served meanwhile.
many_late() {
    python3 - "$MNT" "$(scaled 20 40 100)" <<'END'
import os, sys, threading, time
top, rounds = sys.argv[1], int(sys.argv[2])
errors, over = [], threading.Event()
def syncing(n):
    try:
        fd = os.open(f"{top}/sync{n}", os.O_CREAT | os.O_RDWR)
        for _ in range(rounds):
            os.pwrite(fd, b"x" * 100, 0)
            os.fsync(fd)
        os.close(fd)
    except OSError as error:
        errors.append(error)
def others():
    while not over.is_set():
        open(f"{top}/other", "w").close()
        os.listdir(top)
        open(f"{top}/.kegfs/stats").read()
threads = [threading.Thread(target=syncing, args=(n,)) for n in range(40)]
extra = threading.Thread(target=others)
extra.start()
for t in threads: t.start()
for t in threads: t.join()
over.set()
extra.join()
sys.exit(str(errors[0]) if errors else 0)
END
}

# Each seek has a worker wait for a WRITE, and with -o sync a WRITE needs a worker.
many_seeks() {
    soon python3 - "$MNT" <<'END'
import mmap, os, sys, threading
COUNT, AT = 60, 100 * mmap.PAGESIZE
files = [os.open(f"{sys.argv[1]}/sparse{i}", os.O_CREAT | os.O_RDWR) for i in range(COUNT)]
for fd in files:
    os.ftruncate(fd, 1 << 20)
maps = [mmap.mmap(fd, 1 << 20) for fd in files]
for m in maps:
    m[AT] = 7
errors, together = [], threading.Barrier(COUNT)
def seek(fd):
    together.wait()
    if os.lseek(fd, 0, os.SEEK_DATA) > AT or os.lseek(fd, AT, os.SEEK_HOLE) <= AT:
        errors.append(fd)
threads = [threading.Thread(target=seek, args=(fd,)) for fd in files]
for t in threads: t.start()
for t in threads: t.join()
sys.exit("data passed over" if errors else 0)
END
}

# Writes in the background until the mount is gone. It is inside before this returns, and stays there:
# in the directory below the mount it would go on for ever.
write_on() { # [COMMAND...]: after each write
    rm -f "$MNT/busy"
    (cd "$MNT" && while echo x >busy && "${@:-true}"; do :; done) 2>/dev/null &
    busy=$!
    wait_until $busy test -e "$MNT/busy"
}

# A process killed while it waits, and one that ignores what it asked for.
interrupted() {
    local pid i
    for i in 1 2 3 4 5 6 7 8; do
        (while :; do echo "$i" >"$MNT/killed.$i" && sync "$MNT/killed.$i"; done) 2>/dev/null &
        pid=$!
        sleep 0.0"$i"
        kill -9 $pid
        wait $pid 2>/dev/null || true
    done
    echo after >"$MNT/after"
    equal "after the kills" after "$(cat "$MNT/after")"
}

# A write that waits for a frozen disk when the session is told to end: it is answered still.
reply_due() { # KIND
    local disk=$T/disk pid writer i said
    mkdir -p "$disk"
    truncate -s 200M "$T/image"
    mkfs.ext4 -q -F "$T/image"
    mount -o loop "$T/image" "$disk"
    STORE=$disk/store mount_with "$1" -o sync
    read -r pid _ <"$disk/store/LOCK"
    exec 9>"$MNT/due"
    fsfreeze -f "$disk"
    taskset -c 0 dd of=/dev/fd/9 conv=notrunc status=none <<<"due" 2>"$T/why" &
    writer=$!
    for i in $(seq 600); do # until it waits in write(1, ..., 4)
        [[ $(cat /proc/$writer/syscall) != [0-9]*" 0x1 0x"*" 0x4 "* ]] || break
        sleep 0.05
    done
    kill -TERM "$pid"
    # The other requests of that CPU are refused from then on; what has but one thread has ended.
    for i in $(seq 600); do
        said=$(taskset -c 0 timeout 1 stat "$MNT/none.$i" 2>&1 || true)
        [[ $said == *"No such file"* ]] || break
        sleep 0.05
    done
    fsfreeze -u "$disk"
    wait $writer || fail "the write was not answered: $(cat "$T/why")"
    exec 9>&-
    wait_end "$pid"
    equal "what was written" due "$("$KEGFS" get "$disk/store" due)"
    umount "$disk"
}

inodes_of_many_forgets() {
    mkdir "$MNT/forget"
    (cd "$MNT/forget" && seq 3000 | xargs touch)
    rm -rf "$MNT/forget"
    keg_kill_cache
}

# How long the work goes on that was left behind depends on what else the machine does; an idle mount
# that does something does it all the time.
idle_costs_nothing() {
    local pid before after i
    pid=$(daemon_pid)
    for ((i = 0; i < 20; i++)); do
        before=$(awk '{ print $14 + $15 }' "/proc/$pid/stat")
        sleep 2 # longer than the volume's and the store's own timers
        after=$(awk '{ print $14 + $15 }' "/proc/$pid/stat")
        [ $((after - before)) -gt 4 ] || return 0
    done
    fail "an idle mount used $((after - before)) hundredths of 2 s, and no less before"
}

for kind in "${kinds[@]}"; do
    step "$kind: contents, names, errors"
    rm -rf "$STORE"
    mount_with "$kind"
    large_and_small
    step "$kind: late replies"
    many_late
    step "$kind: interrupts, forgets"
    interrupted
    inodes_of_many_forgets
    step "$kind: idle"
    idle_costs_nothing

    step "$kind: ways to end"
    pid=$(daemon_pid)
    soon fusermount3 -u "$MNT" && wait_end "$pid"
    mount_with "$kind" && pid=$(daemon_pid)
    soon umount "$MNT" && wait_end "$pid"
    for signal in TERM INT HUP; do
        mount_with "$kind" && pid=$(daemon_pid)
        echo "$signal" >"$MNT/last"
        kill -"$signal" "$pid"
        wait_end "$pid"
        ! is_mounted || fail "mounted after SIG$signal"
        equal "after SIG$signal" "$signal" "$("$KEGFS" get "$STORE" last)"
    done
    mount_with "$kind" && pid=$(daemon_pid)
    exec 9>"$MNT/open"
    umount -l "$MNT"
    echo "still open" >&9
    exec 9>&-
    wait_end "$pid"
    equal "after umount -l" "still open" "$("$KEGFS" get "$STORE" open)"

    step "$kind: SIGTERM while busy"
    mount_with "$kind" && pid=$(daemon_pid)
    write_on sync busy
    sleep 0.3
    kill -TERM "$pid"
    wait_end "$pid"
    wait $busy || true
    ! is_mounted || fail "mounted after SIGTERM while busy"

    step "$kind: SIGTERM while a reply is due"
    reply_due "$kind"

    step "$kind: kill -9"
    mount_with "$kind"
    write_on
    keg_kill
    wait $busy || true

    step "$kind: aborted"
    mount_with "$kind" && pid=$(daemon_pid)
    echo before >"$MNT/aborted"
    minor=$(stat -c '%d' "$MNT")
    [ -d /sys/fs/fuse/connections ] && [ -e "/sys/fs/fuse/connections/$minor/abort" ] ||
        mount -t fusectl none /sys/fs/fuse/connections
    write_on
    echo 1 >"/sys/fs/fuse/connections/$minor/abort"
    wait $busy || true
    wait_end "$pid"
    ! is_mounted || unmount_lazily "$MNT"
    equal "after the abort" before "$("$KEGFS" get "$STORE" aborted)"

    step "$kind: every change synced"
    mount_with "$kind" -o sync
    mkdir "$MNT/s"
    for i in $(seq 30); do echo "$i" >"$MNT/s/$i" & done
    wait
    equal "files" 30 "$(find "$MNT/s" -type f | wc -l)"
    cat "$MNT"/s/* >/dev/null && rm -r "$MNT/s"
    many_seeks
    "$KEGFS" umount "$MNT"

    step "$kind: one CPU of several"
    taskset -c 0 timeout 60 "$KEGFS" mount "$STORE" "$MNT" -o "transport=$kind"
    for cpu in $(seq 0 $(($(nproc) - 1))); do
        echo "$cpu" | soon taskset -c "$cpu" tee "$MNT/cpu.$cpu" >/dev/null
        equal "from CPU $cpu" "$cpu" "$(soon taskset -c "$cpu" cat "$MNT/cpu.$cpu")"
    done
    "$KEGFS" umount "$MNT"

    step "$kind: as another user"
    mkdir -p "$T/user/mnt"
    chmod 755 "$T"
    chown -R nobody "$T/user"
    [ -e "$T/fuse" ] || mknod -m 666 "$T/fuse" c 10 229
    unshare -m sh -ec "mount --bind '$T/fuse' /dev/fuse
        exec setpriv --reuid=nobody --regid=nogroup --clear-groups prlimit --memlock=65536 \
            sh -ec 'timeout 60 $KEGFS mount $T/user/store $T/user/mnt -o transport=$kind
                echo mine >$T/user/mnt/a
                timeout 60 sync $T/user/mnt/a
                cat $T/user/mnt/a
                timeout 60 $KEGFS umount $T/user/mnt'" >"$T/said"
    equal "its file" mine "$(cat "$T/said")"
    rm -rf "$T/user"
done
no_findings

step "without the means"
refused 2 transport "$KEGFS" mount "$STORE" "$MNT" -o transport=dove
# seccomp, as in containers: io_uring_setup is not permitted.
cat >"$T/without.py" <<'END'
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
SETUP, ALLOW, EPERM = 425, 0x7fff0000, 0x00050001
code = [(0x20, 0, 0, 0), (0x15, 0, 1, SETUP), (6, 0, 0, EPERM), (6, 0, 0, ALLOW)]
program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *i) for i in code))
fprog = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(program)))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, fprog, 0, 0):
    sys.exit("no seccomp")
os.execvp(sys.argv[1], sys.argv[1:])
END
python3 "$T/without.py" "$KEGFS" mount "$STORE" "$MNT"
equal "transport" spin "$(stat_of transport)"
"$KEGFS" umount "$MNT"
[ "${kinds[0]}" = uring ] || exit 0
refused 1 "no transport=uring here" python3 "$T/without.py" "$KEGFS" mount "$STORE" "$MNT" -o transport=uring
echo N >"$T/N"
off="mount --bind '$T/N' /sys/module/fuse/parameters/enable_uring && exec '$KEGFS' mount '$STORE' '$MNT'"
refused 1 "switched off" unshare -m sh -c "$off -o transport=uring"
# Switched on when it is looked at, and not offered by the kernel: what is forced, fails all the same.
# The switch is the whole machine's, so this is no test to have others beside it.
on=$(cat "$uring_switch")
echo Y >"$T/Y"
if [ "$SCALE" = full ] && [ -w "$uring_switch" ]; then
    lying="mount --bind '$T/Y' $uring_switch || exit
        '$KEGFS' mount '$STORE' '$MNT' -o transport=uring
        echo status \$?
        ! grep -F ' $MNT ' /proc/self/mounts"
    switch_back() { # and end with the status that there was
        local status=$?
        set +e
        echo "$on" >"$uring_switch"
        (exit "$status")
        clean_up
    }
    trap switch_back EXIT
    echo N >"$uring_switch"
    for _ in 1 2 3 4 5; do # the first open comes before the end of the mount or after
        unshare -m sh -c "$lying" >"$T/said" 2>&1 || fail "mounted: $(cat "$T/said")"
        cat "$T/said" >&2
        equal "what a mount without what is forced says" \
            "kegfs: no transport=uring here: the kernel offers none"$'\n'"status 1" "$(cat "$T/said")"
    done
    echo "$on" >"$uring_switch"
    trap clean_up EXIT
fi

step "descriptors for some of the rings"
declare -A seen=()
for limit in $(seq 8 $((40 + 2 * $(nproc)))); do
    if prlimit --nofile="$limit" timeout 60 "$KEGFS" mount "$STORE" "$MNT" 2>/dev/null; then
        kind=$(stat_of transport)
        seen[$kind]=1
        soon touch "$MNT/limit"
        "$KEGFS" umount "$MNT"
        [ "$kind" != uring ] || break
    else
        seen[refused]=1
        ! is_mounted || fail "mounted, and said that it failed"
    fi
done
[ -n "${seen[uring]:-}" ] && [ -n "${seen[spin]:-}" ] || fail "seen only: ${!seen[*]}"
"$KEGFS" check "$STORE"
