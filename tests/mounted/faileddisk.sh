#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# a disk that fails: EIO to all who wait for fsync, read-only until reopened, nothing acknowledged lost
# (scripts/torture runs it in full)
#
# A sparse image on a small filesystem that others fill: the ext4 in it has free blocks, and its
# disk has none, so that what was written cannot be written back.
. "$(dirname "$0")/lib.sh"
need_root

mkdir "$T/outer" "$T/disk"
mount -t tmpfs -o size=40m,mode=700 tmpfs "$T/outer"
truncate -s 256M "$T/outer/image"
mkfs.ext4 -q -E lazy_itable_init=1 -O ^has_journal "$T/outer/image"
attach() {
    mount -o loop "$T/outer/image" "$T/disk"
    # The loop driver says that a request went well of which it could write the first pages only;
    # so each is to be a page. A disk that lies is not what is tested here.
    echo 4 >"/sys/block/$(basename "$(findmnt -n -o SOURCE "$T/disk")")/queue/max_sectors_kb"
}
attach
STORE=$T/disk/store

start_daemon -o sync_interval=60000

step "acknowledged, then the disk runs dry"
head -c 4M /dev/urandom >"$T/kept"
cp "$T/kept" "$MNT/kept"
python3 -c 'import os, sys; os.fsync(os.open(sys.argv[1], os.O_RDONLY))' "$MNT/kept"
step "fsync fails, for all who wait for it, and again"
python3 - "$MNT" "$T/acknowledged" "$T/outer/others" <<'PYTHON'
import errno, os, sys, threading
top, acknowledged, others = sys.argv[1], [], sys.argv[3]
results = []
def writer(number):
    for i in range(200):
        path = f"{top}/{number}-{i}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT)
            os.write(fd, b"%08d" % i * 8192)
            os.fsync(fd)
            acknowledged.append(f"{number}-{i}")
            os.close(fd)
        except OSError as error:
            results.append(error.errno)
            return
threads = [threading.Thread(target=writer, args=(n,)) for n in range(8)]
for thread in threads: thread.start()
while len(acknowledged) < 8 and threads[0].is_alive():
    pass
try:
    with open(others, "wb", buffering=0) as file:
        while True:
            file.write(bytes(65536))
except OSError as error:
    assert error.errno == errno.ENOSPC, error
for thread in threads: thread.join()
assert len(results) == 8, f"{8 - len(results)} writers never met an error"
assert set(results) <= {errno.EIO, errno.EROFS}, results
assert errno.EIO in results, results
for path in (top + "/kept", top):
    for again in range(2):
        try:
            os.fsync(os.open(path, os.O_RDONLY))
            sys.exit("a later fsync says ok")
        except OSError as error:
            assert error.errno == errno.EIO, error
open(sys.argv[2], "w").writelines(name + "\n" for name in acknowledged)
print(len(acknowledged), "acknowledged before it failed;", sorted(results))
PYTHON
grep -i "poison\|syncing\|read-only" "$T/daemon.log" || fail "no line in the log"
refused 1 'Input/output error' env LC_ALL=C touch "$MNT/more"
cmp "$MNT/kept" "$T/kept"

step "space comes back: it is read-only until reopened"
rm "$T/outer/others"
refused 1 'Input/output error' env LC_ALL=C touch "$MNT/more"
kill -9 "$daemon"
wait "$daemon" || true
unmount_lazily "$MNT"

step "reopened: what was acknowledged is there, whole"
umount "$T/disk" # and nothing is left in the page cache
attach
start_daemon -o sync_interval=60000
cmp "$MNT/kept" "$T/kept"
python3 - "$MNT" "$T/acknowledged" <<'PYTHON'
import sys
for name in open(sys.argv[2]).read().split():
    with open(f"{sys.argv[1]}/{name}", "rb") as file:
        assert file.read() == b"%08d" % int(name.split("-")[1]) * 8192, name
PYTHON
"$KEGFS" check "$STORE" || fail "not sound"
echo new >"$MNT/new"
keg_umount
wait "$daemon" || fail "exit status $? of the daemon"
"$KEGFS" check "$STORE" || fail "not sound"
umount "$T/disk"
echo "faileddisk: $(wc -l <"$T/acknowledged") files acknowledged before it failed, 0 lost, $SECONDS s"
