#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# -o commit=close: files written in many pieces are replaced as a whole
. "$(dirname "$0")/lib.sh"

mib=$(scaled 3 8 32)
old=$T/old new=$T/new
head -c "$((mib << 20))" /dev/urandom >"$old"
head -c "$(((mib << 20) + 12345))" /dev/urandom >"$new"

# Opens and truncates FILE, writes SOURCE in pieces of 100,000 bytes; after COUNT of them makes the
# file SAY and waits to be killed.
replace() { # FILE SOURCE COUNT SAY
    exec python3 - "$@" <<'PYTHON'
import sys, time
to, source, stop = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open(source, "rb") as read, open(to, "wb", buffering=0) as write:
    count = 0
    while piece := read.read(100000):
        write.write(piece)
        count += 1
        if count == stop:
            open(sys.argv[4], "w").close()
            time.sleep(1000)
PYTHON
}
wait_for() { # FILE
    local i
    for ((i = 0; i < 3000; i++)); do
        [ ! -e "$1" ] || return 0
        sleep 0.01
    done
    fail "no $1 after 30 s"
}

keg_mount -o commit=close,sync_interval=50
cp "$old" "$MNT/file"

step "kill -9 in the middle: the old contents"
for pieces in 1 7 25; do
    rm -f "$T/half"
    replace "$MNT/file" "$new" "$pieces" "$T/half" &
    writer=$!
    wait_for "$T/half"
    equal "the size that others see" "$((pieces * 100000))" "$(stat -c %s "$MNT/file")"
    sleep 0.7 # more than the sync interval, and than a truncation is held
    keg_kill
    kill -9 "$writer"
    wait "$writer" 2>/dev/null || true
    keg_mount -o commit=close,sync_interval=50
    cmp "$MNT/file" "$old"
done

step "the writer is killed: what it wrote is the file's"
rm -f "$T/half"
cp "$old" "$MNT/other"
replace "$MNT/other" "$new" 2 "$T/half" &
writer=$!
wait_for "$T/half"
kill -9 "$writer"
wait "$writer" 2>/dev/null || true
head -c 200000 "$new" | cmp - "$MNT/other"

step "kill -9 right after close: the new contents"
for round in 1 2 3; do
    python3 - "$MNT/file" "$new" "$(daemon_pid)" <<'PYTHON'
import os, signal, sys
data = open(sys.argv[2], "rb").read()
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC)
for at in range(0, len(data), 100000):
    os.write(fd, data[at:at + 100000])
os.close(fd)
os.kill(int(sys.argv[3]), signal.SIGKILL)
PYTHON
    unmount_lazily "$MNT"
    keg_mount -o commit=close
    cmp "$MNT/file" "$new"
    cat "$old" >"$MNT/file"
    equal "round $round" "$(stat -c %s "$old")" "$(stat -c %s "$MNT/file")"
done

step "the same, of a thread that is not the one that opened, which has ended"
for round in 1 2 3; do
    python3 - "$MNT/thread" "$new" "$(daemon_pid)" <<'PYTHON'
import os, signal, sys, threading
data, fds = open(sys.argv[2], "rb").read(), []
def write():
    fds.append(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    for at in range(0, len(data), 100000):
        os.write(fds[0], data[at:at + 100000])
thread = threading.Thread(target=write)
thread.start()
thread.join()
while len(os.listdir("/proc/self/task")) > 1: # join returns before the kernel's thread has ended
    pass
os.close(fds[0])
os.kill(int(sys.argv[3]), signal.SIGKILL)
PYTHON
    unmount_lazily "$MNT"
    keg_mount -o commit=close
    cmp "$MNT/thread" "$new" || fail "round $round"
done

step "opened for a child, which goes on writing when its parent has closed"
echo old >"$MNT/child"
for end in kill wait; do
    python3 - "$MNT/child" "$(daemon_pid)" $end <<'PYTHON'
import os, signal, subprocess, sys
with open(sys.argv[1], "w") as file:
    child = subprocess.Popen(["sh", "-c", "echo one; read line; echo two"], stdin=subprocess.PIPE, stdout=file)
    while os.fstat(file.fileno()).st_size != 4:
        pass
if sys.argv[3] == "kill":
    os.kill(int(sys.argv[2]), signal.SIGKILL)
child.communicate(b"\n")
PYTHON
    [ $end = wait ] || {
        unmount_lazily "$MNT"
        keg_mount -o commit=close
        equal "after the kill" old "$(cat "$MNT/child")"
    }
done
keg_remount -o commit=close
equal "after the end" $'one\ntwo' "$(cat "$MNT/child")"

step "a shell's redirections: nothing is committed before the end"
echo old >"$MNT/small"
# shellcheck disable=SC2094 # it is read while it is written, on purpose
{
    echo one
    "$(command -v echo)" two
    [ "$(cat "$MNT/small")" = $'one\ntwo' ] || fail "not visible"
    (keg_kill >&2)
} >"$MNT/small"
keg_mount -o commit=close
equal "small" old "$(cat "$MNT/small")"
sh -c 'echo new' >"$MNT/small"
equal "small" new "$(cat "$MNT/small")"

step "new files, appending, and fsync"
python3 - "$MNT" "$(daemon_pid)" <<'PYTHON'
import os, signal, sys
top = sys.argv[1]
created = open(top + "/created", "wb", buffering=0)
created.write(b"half")
log = open(top + "/small", "ab", buffering=0)
log.write(b"appended\n")
synced = open(top + "/synced", "wb", buffering=0)
synced.write(b"whole")
os.fsync(synced.fileno())
renamed = open(top + "/temporary", "wb", buffering=0)
renamed.write(b"renamed")
open(top + "/target", "w").close()
os.rename(top + "/temporary", top + "/target")
os.kill(int(sys.argv[2]), signal.SIGKILL)
PYTHON
unmount_lazily "$MNT"
keg_mount -o commit=close
equal "created" "" "$(cat "$MNT/created")"
equal "small" $'new\nappended' "$(cat "$MNT/small")"
equal "synced" whole "$(cat "$MNT/synced")"
equal "target" renamed "$(cat "$MNT/target")"

step "SIGTERM while files are open: the old contents, and none of the new by half"
cat "$old" >"$MNT/file"
python3 - "$MNT" "$(daemon_pid)" "$STORE" <<'PYTHON'
import os, signal, sys, time
top = sys.argv[1]
half = open(top + "/file", "wb", buffering=0)
half.write(b"x" * 300000)
created = open(top + "/half", "wb", buffering=0)
created.write(b"x" * 300000)
closed = open(top + "/closed", "wb", buffering=0)
closed.write(b"whole")
closed.close()
os.kill(int(sys.argv[2]), signal.SIGTERM)
def runs():
    try:
        return "State:\tZ" not in open(f"/proc/{sys.argv[2]}/status").read()
    except OSError:
        return False
while runs():
    time.sleep(0.01)
PYTHON
keg_mount -o commit=close
cmp "$MNT/file" "$old"
equal "half" "" "$(cat "$MNT/half")"
equal "closed" whole "$(cat "$MNT/closed")"

# A writer that is open still, with half of "file" and of a new one written.
half_writer() {
    rm -f "$T/half"
    python3 - "$MNT" "$T/half" <<'PYTHON' &
import sys, time
top = sys.argv[1]
half = open(top + "/file", "wb", buffering=0)
half.write(b"x" * 300000)
created = open(top + "/half", "wb", buffering=0)
created.write(b"x" * 300000)
open(sys.argv[2], "w").close()
time.sleep(1000)
PYTHON
    writer=$!
    wait_for "$T/half"
}
cut_off() { # COMMAND...: that ends the connection and leaves the mount
    local pid
    pid=$(daemon_pid)
    rm "$MNT/half" "$MNT/closed"
    half_writer
    sh -c 'echo whole' >"$MNT/closed"
    "$@"
    wait_end "$pid"
    is_mounted || fail "unmounted"
    kill -9 "$writer"
    wait "$writer" 2>/dev/null || true
    unmount_lazily "$MNT"
    keg_mount -o commit=close
    cmp "$MNT/file" "$old"
    equal "half" "" "$(cat "$MNT/half")"
    equal "closed" whole "$(cat "$MNT/closed")"
}
force() { ! umount -f "$MNT" || fail "not busy"; }
abort() {
    local abort
    abort=/sys/fs/fuse/connections/$(stat -c %d "$MNT")/abort
    [ -e "$abort" ] || mount -t fusectl none /sys/fs/fuse/connections
    echo 1 >"$abort"
}
if [ "$(id -u)" -eq 0 ]; then
    step "umount -f while files are open: the old contents"
    cut_off force
    step "an aborted connection: the old contents"
    cut_off abort
fi

step "unmount commits, and the tree is sound"
cp -p "$new" "$MNT/file"
[ "$(requests OPEN)" -gt 0 ] && [ "$(requests FLUSH)" -gt 0 ] || fail "no OPEN or no FLUSH"
keg_remount
cmp "$MNT/file" "$new"
equal "time" "$(stat -c %Y "$new")" "$(stat -c %Y "$MNT/file")"

if [ "$(id -u)" -eq 0 ]; then
    step "a full disk: the old contents, also in the kernel's cache"
    keg_umount
    mkdir "$T/small"
    mount -t tmpfs -o size=64m tmpfs "$T/small"
    main=$STORE STORE=$T/small/store
    keg_mount -o commit=close
    cp "$old" "$MNT/file"
    if head -c 100M /dev/zero >"$MNT/file" 2>"$T/said"; then fail "100 MiB in 64"; fi
    cat "$T/said" >&2
    for ((i = 0; i < 6000; i++)); do # RELEASE comes after close
        [ "$(stat -c %s "$MNT/file")" != "$(stat -c %s "$old")" ] || break
        sleep 0.01
    done
    cmp "$MNT/file" "$old"
    keg_remount -o commit=close
    cmp "$MNT/file" "$old"
    keg_umount
    umount "$T/small"
    STORE=$main
    keg_mount
fi

step "without the option nothing is opened"
before=$(requests OPEN),$(requests FLUSH),$(requests RELEASE)
cat "$MNT/file" >"$T/copy"
echo x >"$MNT/x"
echo y >>"$MNT/x"
equal "OPEN, FLUSH, RELEASE" "$before" "$(requests OPEN),$(requests FLUSH),$(requests RELEASE)"
keg_umount
"$KEGFS" check "$STORE" || fail "check"
refused 2 commit "$KEGFS" mount "$STORE" "$MNT" -o commit=never
