#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# power cuts on ext4 and xfs: what fsync acknowledged is there, the rest is a prefix of what was done
# (scripts/torture runs it in full)
#
# A filesystem in a file, cut off by its shutdown ioctl without a flush of its journal: what it had
# not synced is gone. CUTS sets how many cuts are to count: those in which unsynced bytes of the
# store were lost. TEST_SEED sets the seed.
. "$(dirname "$0")/lib.sh"
need_root

cuts=${CUTS:-$(scaled 1 2 200)}
seed=${TEST_SEED:-$RANDOM$RANDOM}
RANDOM=$((seed % 32768))
step "seed $seed, $cuts cuts"
counted=0 void=0 all_steps=0 all_lost=0 all_timed=0 double=0
declare -A counted_on=([ext4]=0 [xfs]=0)

mkdir "$T/disk" "$T/memory"
mount -t tmpfs -o size=1g,mode=700 tmpfs "$T/memory" # the "medium": nobody waits for a real one
make_disk() { # ext4|xfs
    rm -f "$T/memory/image"
    truncate -s 320M "$T/memory/image"
    if [ "$1" = ext4 ]; then mkfs.ext4 -q "$T/memory/image"; else mkfs.xfs -q "$T/memory/image"; fi
    rm -rf "$T/accounts"
}
cut() { # without a flush of the journal (xfs_io would stat all mounts first, and wait for ours)
    "$python" -S - "$T/disk" <<'PYTHON'
import fcntl, os, struct, sys
SHUTDOWN, NO_LOG_FLUSH = 0x8004587d, 2
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
PYTHON
}
sizes() { { find "$STORE" -name '*.data' -printf '%f %s\n' 2>/dev/null || true; } | sort; } # compaction removes some meanwhile
shrunk() { # BEFORE: some segment is shorter than it was
    join <(echo "$1") <(sizes) | awk '$3 < $2 { found = 1 } END { exit !found }'
}

# In one round of ten nobody syncs, and so little is written that nothing but the timer does: it goes
# on for longer than load.py takes a timer to need (MARGIN).
options_of() { # ROUND: sets options, load, least (steps of each writer) and more (seconds after them)
    options=(segment_size=1M) load=() least=$((1 + RANDOM % 80)) more=0
    if [ $(($1 % 10)) -eq 0 ]; then
        options=(sync_interval=1000) load=(--interval 1 --unsynced --pace 1) least=1 more=9
        return
    fi
    [ $(($1 & 1)) -eq 0 ] || options+=(sync_interval=60000)
    case $(($1 % 5)) in
    1) options+=(commit=close) load+=(--commit-close) ;;
    2) options+=(sync) load+=(--sync) ;;
    3) options+=(commit=close) load+=(--commit-close --big 3000000) ;;
    4) options=(sync_interval=60000) ;; # one segment
    esac
}

# Cut again while the store is being opened; nothing more may be lost by that.
cut_the_recovery() {
    local pid
    "$KEGFS" mount -f "$STORE" "$MNT" -o segment_size=1M 2>/dev/null &
    pid=$!
    sleep "0.0$((RANDOM % 100))" # anywhere in it, or before or after
    cut
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" || true
    while is_mounted; do unmount_lazily "$MNT"; done
    revive
    double=$((double + 1))
}
revive() {
    umount "$T/disk"
    # While anybody holds the filesystem (a copy of our mounts, in another namespace), it would be
    # the dead one that is mounted again.
    for ((i = 0; i < 3000; i++)); do
        [ -n "$(losetup -j "$T/memory/image")" ] || break
        sleep 0.01
    done
    [ -z "$(losetup -j "$T/memory/image")" ] || fail "the filesystem stays mounted somewhere"
    mount -o loop "$T/memory/image" "$T/disk"
}

one_round() { # FILESYSTEM ROUND
    local options load least more before is_lost=0 stopped again="" pid
    options_of "$2"
    keg_mount -o "$(IFS=, && echo "${options[*]}")"
    load_begin "$seed.$2" 4 "$least" "${load[@]}"
    load_wait
    sleep "$more"
    load_crash
    pid=$(daemon_pid)
    # The daemon does not live to see it, as in a real cut: a sync that is under way at the moment of
    # the shutdown may return 0 after it, and must not be told to anybody.
    stop_process "$pid"
    before=$(sizes)
    cut
    stopped=$(awk '$1 == "State:" { print $2 }' "/proc/$pid/task/"*/status | sort | uniq -c | tr -d '\n')
    keg_kill "$pid"
    load_ended
    revive
    ! shrunk "$before" || is_lost=1
    if [ $((RANDOM % 4)) -eq 0 ]; then
        cut_the_recovery
        again=", cut again in recovery"
    fi
    load_about="TEST_SEED=$seed, round $2, $1$again, -o $(IFS=, && echo "${options[*]}"); at the cut"
    load_about+=" the threads were$stopped, the last segments $(tail -n 2 <<<"$before" | tr '\n' ' ')"
    keg_mount -o segment_size=1M
    load_judge cut
    "$KEGFS" check "$STORE" >"$T/check" || { cat "$T/check" && fail "round $2: not sound"; }
    keg_umount
    all_steps=$((all_steps + steps)) all_lost=$((all_lost + lost)) all_timed=$((all_timed + timed))
    if [ "$is_lost" -eq 1 ] || [ "$lost" -gt 0 ]; then
        counted=$((counted + 1)) counted_on[$1]=$((counted_on[$1] + 1))
    else
        void=$((void + 1))
        echo "nothing was lost ($load_about)"
    fi
}

round=0 goal=0
for filesystem in ext4 xfs; do
    make_disk "$filesystem"
    mount -o loop "$T/memory/image" "$T/disk"
    STORE=$T/disk/store
    goal=$((goal == 0 ? (cuts + 1) / 2 : cuts))
    while [ "$counted" -lt "$goal" ]; do
        one_round "$filesystem" "$round"
        round=$((round + 1))
        [ "$void" -le $((5 + round / 2)) ] || fail "$void of $round cuts lost nothing"
    done
    umount "$T/disk"
done
echo "powercut: $counted cuts that lost unsynced bytes (ext4 ${counted_on[ext4]}, xfs" \
    "${counted_on[xfs]}; $double cut again in recovery, $void lost nothing), $all_steps calls," \
    "$all_lost of them unsynced and lost, $all_timed synced by nothing but the timer," \
    "0 acknowledged or synced lost, $SECONDS s"
