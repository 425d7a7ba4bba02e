#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# fio --verify: sequential and random, psync, mmap and libaio, with O_DIRECT too
. "$(dirname "$0")/lib.sh"

mib=$(scaled 1 4 64)
seed=${TEST_SEED:-$RANDOM}
echo "TEST_SEED=$seed"

# Each block has a header that says where it belongs, and a CRC; fio reads all back and compares.
run() { # NAME OPTION...
    local name=$1
    shift
    step "$name: $*"
    timeout 600 fio --name="$name" --directory="$MNT/fio" --size="${mib}m" --minimal \
        --verify=crc32c --verify_fatal=1 --verify_state_save=0 --randseed="$seed" "$@" \
        >"$T/fio.log" 2>&1 || {
        cat "$T/fio.log" >&2
        fail "fio $name"
    }
    ! grep -qi 'verify: bad\|verify failed' "$T/fio.log" || fail "$(cat "$T/fio.log")"
}

keg_mount
mkdir "$MNT/fio"
for engine in psync mmap; do
    run "$engine-write" --ioengine=$engine --rw=write --bs=64k
    run "$engine-randwrite" --ioengine=$engine --rw=randwrite --bs=4k --fsync=64
    run "$engine-mixed" --ioengine=$engine --rw=randrw --bsrange=4k-128k --numjobs=2
done
run odd --ioengine=psync --rw=randwrite --bsrange=600-70000 --bs_unaligned=1
run direct-write --ioengine=psync --direct=1 --rw=write --bs=1m
run direct-randwrite --ioengine=psync --direct=1 --rw=randwrite --bs=4k
run aio-randwrite --ioengine=libaio --direct=1 --rw=randwrite --bs=16k --iodepth=16
run aio-mixed --ioengine=libaio --rw=randrw --bsrange=4k-64k --iodepth=8 --numjobs=2
# Verification behind the writer, with blocks that were just written read back through O_DIRECT.
run backlog --ioengine=libaio --direct=1 --rw=randwrite --bs=8k --iodepth=8 --verify_backlog=64

step "verified again after a remount and a compaction"
compact
lasting
for again in "psync-write --bs=64k --rw=write" "direct-write --bs=1m --rw=write"; do
    # shellcheck disable=SC2086 # words on purpose
    run $again --ioengine=psync --verify_only
done

step "a flipped byte is noticed"
printf X | dd of="$MNT/fio/psync-write.0.0" bs=1 seek=70000 conv=notrunc status=none
! (run psync-write --ioengine=psync --rw=write --bs=64k --verify_only) >"$T/noticed" 2>&1 ||
    fail "fio verifies nothing"
keg_umount
"$KEGFS" check "$STORE"
