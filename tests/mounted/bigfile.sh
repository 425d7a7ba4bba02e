#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# one big file, written and read back, in bounded memory (4 GiB with --full)
. "$(dirname "$0")/lib.sh"

mebibytes=$(scaled 64 512 4096)
keg_mount
echo warm >"$MNT/warm"
rss() { awk '/^VmRSS/ { print $2 }' "/proc/$(daemon_pid)/status"; } # KiB
peak() { awk '/^VmHWM/ { print $2 }' "/proc/$(daemon_pid)/status"; }
cat >"$T/big.py" <<'PYTHON'
import random, sys
path, mode, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open(path, mode) as file:
    for i in range(count):
        block = random.Random(i).randbytes(1 << 20)
        if mode == "wb":
            file.write(block)
        else:
            assert file.read(1 << 20) == block, f"MiB {i} is not what was written"
    if mode == "rb":
        assert file.read() == b""
PYTHON
before=$(rss)
python3 "$T/big.py" "$MNT/big" wb "$mebibytes"
equal size $((mebibytes << 20)) "$(stat -c %s "$MNT/big")"
echo "written: the daemon's memory peaked at $(peak) KiB, from $before"
[ $(($(peak) - before)) -lt 262144 ] || fail "the daemon grew by 256 MiB or more"
keg_remount
before=$(rss)
python3 "$T/big.py" "$MNT/big" rb "$mebibytes"
echo "read: the daemon's memory peaked at $(peak) KiB, from $before"
[ $(($(peak) - before)) -lt 262144 ] || fail "the daemon grew by 256 MiB or more"
rm "$MNT/big"
compact
[ "$(stat_of data_bytes)" -lt 10000000 ] || fail "the bytes are not given back"
keg_umount
