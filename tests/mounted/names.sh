#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# several processes change one tree at random; it is sound, and the same after a remount without hints
. "$(dirname "$0")/lib.sh"

rounds=$(scaled 2 4 40)
operations=$(scaled 150 700 3000)
seed=${TEST_SEED:-$RANDOM}
echo "TEST_SEED=$seed"
names() { python3 "$top/tests/mounted/names.py" "$@"; }

for ((round = 0; round < rounds; round++)); do
    with=segment_size=$((128 << round % 3))K
    [ $((round % 2)) -eq 0 ] || with+=,commit=close
    step "round $round: $with"
    keg_mount -o "$with"
    mkdir -p "$MNT/tree"
    tend_start
    names run "$MNT/tree" "$seed.$round" 4 "$operations"
    tend_stop
    names list "$MNT/tree" >"$T/before"
    keg_umount
    "$KEGFS" check "$STORE"
    rm -f "$STORE"/*.hint
    keg_mount
    names list "$MNT/tree" | diff "$T/before" - || fail "the tree changed over the remount"
    if [ $((round % 2)) -eq 1 ]; then # nothing that was unlinked or replaced is left behind
        rm -r "$MNT/tree"
        keg_remount
        equal "inodes in use" 1 "$(stat -f -c '%c %d' "$MNT" | awk '{ print $1 - $2 }')"
    fi
    keg_umount
    "$KEGFS" check "$STORE"
done
