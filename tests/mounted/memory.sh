#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# what the daemon keeps in memory of changes stays within -o memory, and nothing of them is lost
. "$(dirname "$0")/lib.sh"

files=$(scaled 9000 9000 40000)
most=$((2 << 20)) # half of 4M

step "$files times of access"
keg_mount
python3 - "$MNT" "$files" <<'PYTHON'
import os, sys
os.mkdir(f"{sys.argv[1]}/d")
for i in range(int(sys.argv[2])):
    with open(f"{sys.argv[1]}/d/{i}", "w") as file:
        file.write("text")
PYTHON
keg_umount
keg_mount -o relatime,memory=4M
cat "$MNT"/d/* >"$T/read" 2>/dev/null || find "$MNT/d" -type f -exec cat {} + >"$T/read"
equal "bytes read" $((4 * files)) "$(wc -c <"$T/read")"
held=$(stat_of held_inodes)
echo "$held inodes are held, $(stat_of table_bytes) bytes in all"
[ "$held" -gt 1000 ] || fail "times of access are logged at once"
[ "$held" -lt "$files" ] || fail "all are held"
[ $((held * 200)) -le $most ] || fail "more are held than may be"
keg_umount
keg_mount
equal "files whose time of access moved" "$files" "$(find "$MNT/d" -type f -printf '%A@ %T@\n' | awk '$1 > $2' | wc -l)"
keg_umount

step "writes that wait for a sync"
keg_mount -o sync,transport=spin,memory=4M
python3 - "$MNT" $most <<'PYTHON'
import json, os, sys, threading, time
mnt, most = sys.argv[1], int(sys.argv[2])
data = os.urandom(4 << 20)
errors = []
peak = 0
end = time.monotonic() + 30

# Each writes its file, and again until somebody was seen to wait.
def write_file(i):
    with open(f"{mnt}/w{i}", "wb", buffering=0) as file:
        while True:
            file.seek(0)
            for at in range(0, len(data), 1 << 20):
                file.write(data[at:at + (1 << 20)])
            if peak or time.monotonic() > end:
                break

def write(i):
    try:
        write_file(i)
    except Exception as error:
        errors.append(f"w{i}: {error!r}")

def waiting():
    with open(f"{mnt}/.kegfs/stats.json") as file:
        return json.load(file)["waiting_bytes"]

threads = [threading.Thread(target=write, args=(i,)) for i in range(16)]
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    peak = max(peak, waiting())
for thread in threads:
    thread.join()
assert not errors, errors
for i in range(len(threads)):
    with open(f"{mnt}/w{i}", "rb") as file:
        assert file.read() == data, f"w{i} is not what was written"
print(f"{peak} bytes waited at most")
assert 0 < peak <= most, "none waits, or more than may"
end = time.monotonic() + 10
while waiting() and time.monotonic() < end: # what was answered is counted off a moment later
    time.sleep(0.01)
assert waiting() == 0, "and for ever"
PYTHON
keg_umount
"$KEGFS" check "$STORE"
