#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# -o writeback: what the kernel gathers is seen at once, and safe after fsync or close
. "$(dirname "$0")/lib.sh"

rounds=$(scaled 1 3 20)
seed=${TEST_SEED:-$RANDOM}
echo "TEST_SEED=$seed"
mounting=(-o writeback)

# A write in the same tick of the kernel's clock as a truncation leaves its time as it is, so that the
# daemon's stays: times are compared where nothing of that kind was done.
contents() { (cd "$MNT" && find . -printf '%p %s %m\n' | LC_ALL=C sort && sha256sum -- *); }
lasting_contents() {
    contents >"$T/before"
    keg_umount
    "$KEGFS" check "$STORE" >&2
    keg_mount "${mounting[@]}"
    contents >"$T/after"
    diff "$T/before" "$T/after" >&2 || fail "not the same after a remount"
}
# Runs a program of Python (stdin) with the mount, the daemon's process and the seed as its arguments.
python() { python3 - "$MNT" "$(daemon_pid)" "$seed"; }

step "refused: what it contradicts"
refused 2 "commit=close" "$KEGFS" mount "$STORE" "$MNT" -o commit=close,writeback
refused 2 "sync" "$KEGFS" mount "$STORE" "$MNT" -o writeback -o sync

keg_mount "${mounting[@]}"
step "small writes are gathered, and everyone sees them at once"
python <<'PYTHON'
import json, os, subprocess, sys
top = sys.argv[1]
def writes():
    with open(top + "/.kegfs/stats.json") as file:
        return json.load(file)["requests"].get("WRITE", 0)
before = writes()
fd = os.open(top + "/gathered", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for i in range(64):
    os.write(fd, bytes([i]) * 1000)
    assert os.stat(top + "/gathered").st_size == 1000 * (i + 1), i
seen = subprocess.run(["cat", top + "/gathered"], stdout=subprocess.PIPE, check=True).stdout
assert seen == b"".join(bytes([i]) * 1000 for i in range(64))
os.close(fd)
made = writes() - before
assert 1 <= made <= 16, f"{made} requests to write 64 times"
PYTHON

step "a hole in front of what is not written back is not taken for the end"
python <<'PYTHON'
import os, sys
fd = os.open(sys.argv[1] + "/sparse", os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 100)
os.pwrite(fd, b"behind", 3 << 20)
assert os.lseek(fd, 0, os.SEEK_DATA) <= 3 << 20
assert os.lseek(fd, 3 << 20, os.SEEK_DATA) == 3 << 20
assert os.lseek(fd, 3 << 20, os.SEEK_HOLE) == (3 << 20) + 6
assert os.pread(fd, 100, (3 << 20) - 4) == b"\0\0\0\0behind"
os.posix_fallocate(fd, 4 << 20, 4096)
assert os.fstat(fd).st_size == (4 << 20) + 4096
os.close(fd)
PYTHON
cp --sparse=always "$MNT/sparse" "$T/sparse"
cmp "$MNT/sparse" "$T/sparse"

step "writers that append at the same time lose no line"
for writer in 1 2 3; do
    python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for i in range(500):
    os.write(fd, f"{sys.argv[2]} {i}\n".encode())' "$MNT/lines" "$writer" &
done
wait
equal "lines" "$(for w in 1 2 3; do seq -f "$w %g" 0 499; done | sort)" "$(sort "$MNT/lines")"

step "times: those of writes, and those that are set, last"
echo first >"$MNT/times"
touch -d '2001-02-03 04:05:06.789 UTC' "$MNT/times"
equal "mtime that was set" 981173106 "$(stat -c %Y "$MNT/times")"
cp -p "$MNT/times" "$MNT/copy"
equal "mtime of a copy" 981173106 "$(stat -c %Y "$MNT/copy")"
echo second >>"$MNT/copy"
written=$(stat -c %y "$MNT/copy")
[ "$(stat -c %Y "$MNT/copy")" -gt 981173106 ] || fail "an append leaves the time as it was"
lasting_contents
equal "mtime after a remount" "$written" "$(stat -c %y "$MNT/copy")"

step "orders: each is done when its write returns or its file is closed, or gives its error there"
for order in sync hint compact check; do echo "$order" >"$MNT/.kegfs/control"; done
for order in sync hint compact; do setfattr -n "user.kegfs.$order" -v 1 "$MNT"; done
for order in hint compact check; do "$KEGFS" "$order" "$STORE" >&2; done
python <<'PYTHON'
import errno, os, sys
def tell(word, flags=0):
    fd = os.open(sys.argv[1] + "/.kegfs/control", os.O_WRONLY | os.O_TRUNC | flags)
    try:
        os.write(fd, word)
    finally:
        os.close(fd)
def error_of(function, *arguments):
    try:
        function(*arguments)
    except OSError as e:
        return e.errno
tell(b"sync")
tell(b"sync", os.O_DIRECT)
# The kernel keeps no errors but these two for close.
assert error_of(tell, b"nonsense") == errno.EIO
assert error_of(tell, b"nonsense", os.O_DIRECT) == errno.EINVAL
assert error_of(os.setxattr, sys.argv[1], "user.kegfs.nonsense", b"1") == errno.EOPNOTSUPP
PYTHON

step "a sync that fails is told by the commands"
echo old >"$MNT/unsynced"
(trap '' XFSZ && keg_remount "${mounting[@]}")
: >"$MNT/unsynced" # held, so that the sync has something to log
prlimit --pid "$(daemon_pid)" --fsize=1
refused 1 "" "$KEGFS" umount "$MNT"
grep -q "not everything is durable" "$T/refused" || fail "umount does not say it"
keg_mount "${mounting[@]}"

step "kill -9 before the kernel wrote back: the old contents, or the new"
head -c 5000 /dev/zero >"$MNT/kept"
python <<'PYTHON'
import os, signal, sys, time
fd = os.open(sys.argv[1] + "/kept", os.O_WRONLY | os.O_TRUNC)
os.write(fd, b"new")
time.sleep(1.5) # longer than a truncation waits without the option
os.kill(int(sys.argv[2]), signal.SIGKILL)
PYTHON
unmount_lazily "$MNT"
keg_mount "${mounting[@]}"
size=$(stat -c %s "$MNT/kept")
[ "$size" -eq 5000 ] || [ "$size" -eq 3 ] || fail "$size bytes"

for ((round = 1; round <= rounds; round++)); do
    step "kill -9: what was fsynced or closed is there ($round)"
    rm -f "$MNT"/{synced,closed,mapped,grown,cut,replaced}
    echo old >"$MNT/replaced"
    seed=$((seed + 1))
    python <<'PYTHON'
import mmap, os, random, signal, sys
top, rng = sys.argv[1], random.Random(int(sys.argv[3]))
def write(name, flags=0):
    fd = os.open(top + "/" + name, os.O_RDWR | os.O_CREAT | flags, 0o644)
    for at in range(0, 300000, 1000):
        os.pwrite(fd, bytes([at // 1000 % 251]) * 1000, at)
    return fd
order = list(range(6))
rng.shuffle(order)
for which in order:
    if which == 0:
        os.fsync(write("synced"))
    elif which == 1:
        os.close(write("closed"))
    elif which == 2:
        fd = write("mapped")
        with mmap.mmap(fd, 300000) as memory:
            memory[1234:1239] = b"store"
            memory.flush()
    elif which == 3:
        fd = write("grown")
        os.fsync(fd)
        os.pwrite(fd, b"end", 400000)
        os.fdatasync(fd)
    elif which == 4:
        fd = write("cut")
        os.ftruncate(fd, 1500)
        os.fsync(fd)
    else:
        os.close(write("replaced.new"))
        os.rename(top + "/replaced.new", top + "/replaced")
os.kill(int(sys.argv[2]), signal.SIGKILL)
PYTHON
    unmount_lazily "$MNT"
    keg_mount "${mounting[@]}"
    python <<'PYTHON'
import sys
whole = b"".join(bytes([i % 251]) * 1000 for i in range(300))
expected = {"synced": whole, "closed": whole, "replaced": whole, "cut": whole[:1500],
            "mapped": whole[:1234] + b"store" + whole[1239:],
            "grown": whole + bytes(100000) + b"end"}
for name, data in expected.items():
    with open(sys.argv[1] + "/" + name, "rb") as file:
        got = file.read()
    assert got == data, f"{name}: {len(got)} bytes instead of {len(data)}"
PYTHON
done
lasting_contents

step "unmounting writes back what is mapped"
python3 -c 'import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 10000)
memory = mmap.mmap(fd, 10000)
memory[5000:5006] = b"mapped"' "$MNT/late"
keg_remount "${mounting[@]}"
equal "what was mapped" mapped "$(tail -c +5001 "$MNT/late" | head -c 6)"

if [ "$(id -u)" -eq 0 ]; then
    step "a full disk: the error comes at fsync or close, and not never"
    keg_umount
    mkdir "$T/small"
    mount -t tmpfs -o size=48m tmpfs "$T/small"
    STORE=$T/small/store
    keg_mount "${mounting[@]}" -o segment_size=4M
    python <<'PYTHON'
import errno, os, sys
fd = os.open(sys.argv[1] + "/file", os.O_WRONLY | os.O_CREAT)
error = None
try:
    for _ in range(100):
        os.write(fd, bytes(1 << 20))
    os.fsync(fd)
except OSError as e:
    error = e.errno
assert error in (errno.ENOSPC, errno.EIO), error
PYTHON
    rm "$MNT/file"
    keg_umount
    umount "$T/small"
else
    keg_umount
fi
