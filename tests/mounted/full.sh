#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# a full disk: puts get ENOSPC, reads and deletes go on, what they free is usable without a restart
. "$(dirname "$0")/lib.sh"
need_root

mkdir "$T/small"
truncate -s 80M "$T/image"
mkfs.ext4 -q -m 0 "$T/image"
mount -o loop "$T/image" "$T/small"
STORE=$T/small/store
keg_mount

fill() { # DIRECTORY: files of 32 KiB until there is no more room; prints how many are whole
    python3 - "$MNT/$1" <<'PYTHON'
import errno, os, sys
directory = sys.argv[1]
os.makedirs(directory, exist_ok=True)
count = 0
try:
    while True:
        with open(f"{directory}/{count}", "wb", buffering=0) as file:
            assert file.write(b"%08d" % count * 4096) == 32768
        count += 1
        assert count < 10000, "it never gets full"
except OSError as error:
    assert error.errno == errno.ENOSPC, error
print(count)
PYTHON
}
verify() { # DIRECTORY FIRST COUNT
    python3 - "$MNT/$1" "$2" "$3" <<'PYTHON'
import sys
directory, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for i in range(first, count):
    with open(f"{directory}/{i}", "rb") as file:
        assert file.read() == b"%08d" % i * 4096, f"{directory}/{i} is not what was written"
PYTHON
}

for round in $(seq "$(scaled 1 3 20)"); do
    step "round $round"
    count=$(fill d)
    echo "$count files fit"
    [ "$count" -ge 1000 ] || fail "only $count files of 32 KiB fit 80 MiB"
    keg_remount # drops what the kernel has cached
    verify d 0 "$count"
    refused 1 'No space' env LC_ALL=C cp "$T/image" "$MNT/more"
    rm -f "$MNT/more"
    rm "$MNT/d/$count" 2>/dev/null || true # the one that did not fit, if its name did
    for ((i = 0; i < count / 2; i++)); do rm "$MNT/d/$i"; done
    compact
    again=$(fill e)
    echo "and $again more after half of them are deleted"
    [ "$again" -ge $((count / 3)) ] || fail "what was deleted is not usable"
    verify d $((count / 2)) "$count"
    verify e 0 "$again"
    keg_kill
    keg_mount
    verify d $((count / 2)) "$count"
    verify e 0 "$again"
    rm -r "$MNT/d" "$MNT/e"
    compact
done
keg_umount
"$KEGFS" check "$STORE"
umount "$T/small"
