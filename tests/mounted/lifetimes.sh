#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# locks and lifetimes: signals under load, a busy or vanished mountpoint, a store taken away
# (scripts/torture runs it in full)
. "$(dirname "$0")/lib.sh"
export LC_ALL=C
seed=${TEST_SEED:-$RANDOM$RANDOM}
RANDOM=$((seed % 32768))
step "seed $seed"

ended_with() { # STATUS: of the daemon
    local status=0
    wait "$daemon" || status=$?
    equal "exit status of the daemon" "$1" "$status"
    ! is_mounted || fail "it has ended, and is still mounted"
    no_findings
}

number=0
for name in TERM INT HUP; do
    for options in sync_interval=60000 commit=close,sync_interval=60000; do
        step "SIG$name under load, -o $options"
        load=()
        [[ $options != *close* ]] || load=(--commit-close)
        start_daemon -o "$options"
        load_begin "$seed.$number" 3 $((1 + RANDOM % 20)) "${load[@]}"
        load_wait
        load_crash
        kill "-$name" "$daemon"
        ended_with 0
        load_ended
        keg_mount
        load_judge end
        "$KEGFS" check "$STORE" >"$T/check" || { cat "$T/check" && fail "not sound"; }
        keg_umount
        number=$((number + 1))
    done
done

step "an idle mount ends by itself, and is not said to be busy"
: >"$T/daemon.log"
start_daemon
echo kept >"$MNT/kept"
kill -TERM "$daemon"
ended_with 0
if grep -q busy "$T/daemon.log"; then fail "busy?"; fi

step "a mountpoint that is busy"
start_daemon
(cd "$MNT" && exec sleep 1000) &
sleeper=$!
wait_until "$sleeper" is_in "$sleeper" "$MNT"
refused 1 busy "$KEGFS" umount "$MNT"
equal "it still serves" kept "$(cat "$MNT/kept")"
kill "$sleeper"
wait "$sleeper" 2>/dev/null || true
keg_umount
ended_with 0

step "umount -l with open files: they work on, and all is durable when the last is closed"
start_daemon
exec 8>"$MNT/open"
echo before >&8
unmount_lazily "$MNT"
echo after >&8
refused 1 "in use" "$KEGFS" mount "$STORE" "$MNT"
exec 8>&-
ended_with 0
keg_mount
equal "the open file" $'before\nafter' "$(cat "$MNT/open")"
keg_umount

step "killed during umount"
for round in 1 2 3; do
    keg_mount -o sync_interval=60000
    head -c "$((round * 3))M" /dev/urandom >"$T/data"
    cp "$T/data" "$MNT/data"
    pid=$(daemon_pid)
    "$KEGFS" umount "$MNT" 2>/dev/null &
    umount=$!
    sleep "0.0$((RANDOM % 50))" # anywhere in it, or after it
    kill -9 "$pid" 2>/dev/null || true
    wait "$umount" || true
    wait_end "$pid"
    ! is_mounted || unmount_lazily "$MNT"
    keg_mount
    cmp "$T/data" "$MNT/data"
    keg_umount
    "$KEGFS" check "$STORE" >"$T/check" || { cat "$T/check" && fail "not sound"; }
done

step "the store is moved and another put in its place: nothing is lost of it"
start_daemon
echo one >"$MNT/one"
mv "$STORE" "$STORE.moved"
mkdir "$STORE"
echo two >"$MNT/two"
equal "one" one "$(cat "$MNT/one")"
kill -TERM "$daemon"
ended_with 0
equal "in the other" "" "$(ls "$STORE")"
rmdir "$STORE"
mv "$STORE.moved" "$STORE"
keg_mount
equal "one and two" $'one\ntwo' "$(cat "$MNT/one" "$MNT/two")"
keg_umount

step "the store is removed: reading goes on, nothing is said to be durable that is not"
cp -a "$STORE" "$T/copy"
STORE=$T/copy
start_daemon -o segment_size=64K
echo three >"$MNT/three"
for ((i = 0; i < 100; i++)); do
    ! rm -r "$T/copy" 2>/dev/null || break # it makes a hint again that it misses
done
[ ! -e "$T/copy" ] || fail "$T/copy cannot be removed"
equal "three" three "$(cat "$MNT/three")"
status=0
head -c 1M /dev/zero >"$MNT/large" 2>"$T/said" || status=$? # needs new segments
cat "$T/said" >&2
[ "$status" -ne 0 ] || fail "segments were made in a directory that is gone"
kill -TERM "$daemon"
ended_with 1
tail -n 3 "$T/daemon.log"
STORE=$T/store

step "a client that hangs, and many that come and go, at shutdown"
start_daemon
mkfifo "$T/hang"
(exec 7>"$MNT/held" && read -r _ <"$T/hang") &
client=$!
for ((i = 0; i < 40; i++)); do
    (while cat "$MNT/kept" && echo "$i" >>"$MNT/c$i"; do :; done >/dev/null 2>&1) &
    clients[i]=$!
done
wait_until "$client" test -e "$MNT/held"
for ((i = 0; i < 40; i++)); do
    wait_until "${clients[i]}" test -s "$MNT/c$i" # made is not yet written
done
kill -TERM "$daemon"
ended_with 0
kill "$client" "${clients[@]}" 2>/dev/null || true
wait "$client" "${clients[@]}" 2>/dev/null || true
rm -f "$MNT"/* # what the clients left in the directory below, once it was free
keg_mount
for ((i = 0; i < 40; i++)); do
    equal "file $i" "$i" "$(sort -u "$MNT/c$i")"
done
keg_umount

if [ "$(id -u)" -eq 0 ]; then
    step "from another pid namespace"
    keg_mount
    mkdir "$T/other"
    refused 1 "in use" unshare -p -f -m --mount-proc "$KEGFS" mount "$STORE" "$T/other"
    grep -qF "$MNT" "$T/refused" || fail "it does not name the mountpoint"
    grep -qw "$(daemon_pid)" "$T/refused" || fail "it does not name the process"
    equal "kept" kept "$(cat "$MNT/kept")"
    keg_umount

    step "a store on a filesystem made read-only underneath"
    mkdir "$T/disk"
    truncate -s 32M "$T/image"
    mkfs.ext4 -q "$T/image"
    mount -o loop,errors=remount-ro "$T/image" "$T/disk"
    STORE=$T/disk/store
    start_daemon
    echo kept >"$MNT/kept"
    echo sync >"$MNT/.kegfs/control"
    # As the kernel does on an error; a plain remount is refused while files are open for writing.
    echo 1 >"/sys/fs/ext4/$(basename "$(findmnt -n -o SOURCE "$T/disk")")/trigger_fs_error"
    status=0
    python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(fd, b"more")
os.fsync(fd)' "$MNT/more" 2>"$T/said" || status=$?
    tail -n 1 "$T/said" >&2
    [ "$status" -ne 0 ] || fail "fsync says ok on a filesystem that is read-only"
    equal "kept" kept "$(cat "$MNT/kept")"
    kill -TERM "$daemon"
    ended_with 1
    tail -n 2 "$T/daemon.log"
    umount "$T/disk"
    mount -o loop "$T/image" "$T/disk"
    keg_mount
    equal "kept" kept "$(cat "$MNT/kept")"
    keg_umount
    umount "$T/disk"
    STORE=$T/store
fi

step "started inside its own mountpoint"
(cd "$MNT" && "$KEGFS" mount "$STORE" .)
equal "kept" kept "$(cat "$MNT/kept")"
keg_umount
echo "lifetimes: all ended as they should, $SECONDS s"
