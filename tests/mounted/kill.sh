#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# kill -9 under load: all that had returned is there, replaced files are whole, the tree is sound
#
# KILLS sets the number of rounds, TEST_SEED the seed. A writer whose call was aborted proves that
# something was under way; a round without one fails.
OWN_MOUNTS=${OWN_MOUNTS:-wanted}
. "$(dirname "$0")/lib.sh"

kills=${KILLS:-$(scaled 2 8 500)}
seed=${TEST_SEED:-$RANDOM$RANDOM}
RANDOM=$((seed % 32768))
biggest=$(($(scaled 2 8 1024) << 20))
step "seed $seed, $kills kills"
all_steps=0 all_aborted=0

one_round() { # NUMBER
    local number=$1 options=(segment_size=1M) load=() big=0
    # One round in 20 goes to the full size of the replaced file, the others to a 64th of it.
    case $((number % 4)) in
    1 | 3)
        options+=(commit=close)
        big=$((number % 20 == 3 ? biggest : biggest / 64 + 1000000))
        load+=(--commit-close --big "$big")
        ;;
    2)
        options+=(sync)
        load+=(--sync)
        ;;
    esac
    keg_mount -o "$(IFS=, && echo "${options[*]}")"
    load_begin "$seed.$number" 5 $((1 + RANDOM % 60)) "${load[@]}"
    load_wait
    keg_kill
    load_ended
    keg_mount -o segment_size=1M
    load_judge kill
    [ "$aborted" -gt 0 ] || fail "round $number: nothing was under way"
    "$KEGFS" check "$STORE" >"$T/check" || { cat "$T/check" && fail "round $number: not sound"; }
    keg_umount
    all_steps=$((all_steps + steps)) all_aborted=$((all_aborted + aborted))
}

for ((number = 0; number < kills; number++)); do
    one_round "$number"
done
echo "kill: $kills kills, $all_steps calls returned and found, $all_aborted were under way," \
    "$SECONDS s"
