#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# random changes of contents, mapped ones too, against a model, over compactions and remounts
. "$(dirname "$0")/lib.sh"

rounds=$(scaled 3 8 100)
operations=$(scaled 150 600 2000)
seed=${TEST_SEED:-$RANDOM}
echo "TEST_SEED=$seed"
RANDOM=$seed
models=$T/models
mkdir "$models"
contents() { python3 "$top/tests/mounted/contents.py" "$1" "$MNT" "$models" "${@:2}"; }

options() { # ROUND: small segments, so that there are many; by turns with two options
    local more=("" ",commit=close" "" ",writeback")
    echo "segment_size=$((64 << $1 % 3))K${more[$1 % 4]}"
}

keg_mount -o "$(options 0)"
step "asynchronous direct writes are seen at once"
python3 "$top/tests/mounted/direct.py" "$MNT/direct" "$(scaled 50 300 3000)"
rm "$MNT/direct"

step "random changes"
for ((round = 1; round <= rounds; round++)); do
    tend_start
    contents run "$seed.$round" "$operations" || fail "round $round with $(options $((round - 1)))"
    tend_stop
    contents verify
    case $((RANDOM % 3)) in
    0) keg_kill ;;
    1) keg_umount && "$KEGFS" check "$STORE" ;;
    2) keg_umount && rm -f "$STORE"/*.hint ;;
    esac
    keg_mount -o "$(options "$round")"
    contents verify >/dev/null
done
compact
contents verify >/dev/null
keg_umount
"$KEGFS" check "$STORE"
