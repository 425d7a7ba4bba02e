#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# kill -9 under load: all that had returned is there, replaced files are whole, the tree is sound
# (scripts/torture runs it in full)
#
# KILLS sets the number of kills, TEST_SEED the seed. A writer whose call was aborted proves that
# something was under way; a kill without one does not count, and there may be few of them.
. "$(dirname "$0")/lib.sh"

kills=${KILLS:-$(scaled 2 8 500)}
seed=${TEST_SEED:-$RANDOM$RANDOM}
RANDOM=$((seed % 32768))
biggest=$(($(scaled 2 8 1024) << 20))
step "seed $seed, $kills kills"
counted=0 all_steps=0 all_aborted=0

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
    load_crash
    keg_kill
    load_ended
    keg_mount -o segment_size=1M
    load_judge kill
    [ "$aborted" -eq 0 ] || counted=$((counted + 1))
    "$KEGFS" check "$STORE" >"$T/check" || { cat "$T/check" && fail "round $number: not sound"; }
    keg_umount
    all_steps=$((all_steps + steps)) all_aborted=$((all_aborted + aborted))
}

for ((number = 0; counted < kills; number++)); do
    one_round "$number"
    [ $((number - counted)) -le $((5 + number / 4)) ] || fail "little was under way: $counted of $number"
done
echo "kill: $counted kills with calls under way (and $((number - counted)) without), $all_steps calls returned and found," \
    "$all_aborted were under way, $SECONDS s"
