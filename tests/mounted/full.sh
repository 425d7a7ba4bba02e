#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# a full disk: puts get ENOSPC, reads and deletes go on, what they free is usable without a restart
# (scripts/torture runs it in full)
. "$(dirname "$0")/lib.sh"
need_root

mkdir "$T/small"
small_disk() { # ext4|xfs
    rm -f "$T/image"
    truncate -s 64M "$T/image"
    if [ "$1" = ext4 ]; then
        mkfs.ext4 -q -m 0 "$T/image"
    else
        mkfs.xfs -q --unsupported "$T/image" # which is: smaller than 300 MiB
    fi
    mount -o loop "$T/image" "$T/small"
    STORE=$T/small/store
    keg_mount
}

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

one_cycle() { # filled, half of it deleted, filled again, killed, all deleted
    local count again i
    count=$(fill d)
    echo "$count files fit"
    [ "$count" -ge 600 ] || fail "only $count files of 32 KiB fit 64 MiB"
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
}

# Names take the memory of the index and space in the log; they go, too, where nothing else fits.
empty_files() { # COUNT
    fill d >"$T/filled"
    for ((i = 0; i < 200; i++)); do rm "$MNT/d/$i"; done # room for names
    compact
    python3 - "$MNT" "$1" <<'PYTHON'
import errno, os, sys
top, count, made = sys.argv[1] + "/empty", int(sys.argv[2]), 0
os.mkdir(top)
try:
    for made in range(count):
        os.close(os.open(f"{top}/{made}", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    print(count, "empty files on a disk that was full")
except OSError as error:
    assert error.errno == errno.ENOSPC, error
    print(made, "empty files until it was full again")
for i, entry in enumerate(os.scandir(top)):
    os.unlink(entry.path)
assert i >= min(made, count) - 1 and not os.listdir(top)
PYTHON
    rm -r "$MNT/d" "$MNT/empty"
    compact
}

# Others fill the disk at the same time: then even a delete may meet ENOSPC, and nothing is lost.
beside_others() {
    local count deleted
    fill d >"$T/filled"
    head -c 100M /dev/zero >"$T/small/others" 2>/dev/null || true
    count=$(cat "$T/filled")
    deleted=0
    for ((i = 0; i < 20; i++)); do
        ! rm "$MNT/d/$i" 2>"$T/said" || deleted=$((deleted + 1))
    done
    echo "$deleted of 20 deleted beside others"
    verify d 20 "$count"
    rm "$T/small/others"
    keg_kill
    keg_mount
    verify d 20 "$count"
    rm -r "$MNT/d"
    compact
}

cycles=0
for filesystem in ext4 xfs; do
    small_disk "$filesystem"
    for round in $(seq "$(scaled 1 1 20)"); do
        step "$filesystem, round $round"
        one_cycle
        cycles=$((cycles + 1))
    done
    step "$filesystem: empty files"
    empty_files "$(scaled 100 3000 1000000)"
    step "$filesystem: other programs fill the disk, too"
    beside_others
    keg_umount
    "$KEGFS" check "$STORE"
    umount "$T/small"
done
echo "full: $cycles cycles filled, emptied and filled again, $SECONDS s"
