#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The daemon and the command line: what was wrong once.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_root

step "the daemon keeps no descriptor that it was started with"
mkfifo "$T/fifo"
cat "$T/fifo" >"$T/read" &
reader=$!
exec 9>"$T/fifo"
keg_mount
exec 9>&-
for _ in $(seq 1200); do kill -0 $reader 2>/dev/null || break; sleep 0.05; done
! kill -0 $reader 2>/dev/null || fail "who reads the pipe still waits for the daemon"
wait $reader
keg_umount

step "closed standard descriptors do not become the store's"
timeout 20 "$KEGFS" mount "$STORE" "$MNT" <&- >&- 2>&- || fail "no mount: $?"
[ "$(readlink "/proc/$(daemon_pid)/fd/"* | grep -cFx "$STORE")" -eq 1 ] ||
    fail "the daemon has lost its store's directory"
status=0
"$KEGFS" get "$STORE" none >&- 2>&- || status=$?
equal "exit status" 1 "$status"
keg_umount

step "a put that is ended by a signal leaves nothing behind"
keg_mount
for signal in TERM INT HUP; do
    mkfifo "$T/in"
    # A shell lets what it starts in the background ignore SIGINT; env gives it back.
    env --default-signal=INT "$KEGFS" put "$STORE" "dir/$signal" "$T/in" &
    put=$!
    exec 9>"$T/in"
    printf half >&9
    for _ in $(seq 1200); do compgen -G "$MNT/dir/.kegfs-put-*" >/dev/null && break; sleep 0.05; done
    compgen -G "$MNT/dir/.kegfs-put-*" >/dev/null || fail "nothing was put"
    status=0
    kill -"$signal" $put
    wait $put || status=$?
    exec 9>&-
    rm "$T/in"
    equal "exit status" "$((128 + $(kill -l $signal)))" "$status"
    equal "what is left" "" "$(ls -A "$MNT/dir")"
done

step "a put makes directories by the umask, mounted or not"
for mask in 002 077; do
    keg_umount
    (umask $mask && echo x | "$KEGFS" put "$STORE" direct.$mask/a)
    keg_mount
    (umask $mask && echo x | "$KEGFS" put "$STORE" mounted.$mask/a)
    equal "mode" "$(stat -c %a "$MNT/mounted.$mask")" "$(stat -c %a "$MNT/direct.$mask")"
done

step "a put gets past what a killed one of the same number left"
# shellcheck disable=SC2016 # $$ is that of the process that becomes the put
echo new | sh -c 'touch "$1/dir/.kegfs-put-$$-0"; exec "$2" put "$3" dir/a' sh "$MNT" "$KEGFS" "$STORE"
equal contents new "$(cat "$MNT/dir/a")"
keg_umount

step "what mount.fuse3(8) adds to a list does not turn suid and dev on"
options_of() { awk -v dir="$MNT" '$2 == dir { print "," $4 "," }' /proc/self/mounts; }
for list in noatime,dev,suid dev,suid nosuid,nodev; do
    "$KEGFS" "$STORE" "$MNT" -o $list
    [[ $(options_of) == *,nosuid,nodev,* ]] || fail "-o $list: $(options_of)"
    keg_umount
done
for list in suid,dev,dev,suid suid,dev; do
    "$KEGFS" "$STORE" "$MNT" -o $list
    [[ $(options_of) != *,nosuid,* && $(options_of) != *,nodev,* ]] || fail "-o $list: $(options_of)"
    keg_umount
done
keg_mount -o dev,suid
[[ $(options_of) != *,nosuid,* && $(options_of) != *,nodev,* ]] || fail "mount -o dev,suid: $(options_of)"
keg_umount

step "umount waits for the daemon of a mount whose path was renamed"
mkdir "$T/above"
# Stops the daemon between the unmount and the end of its work, and looks whether umount waits.
stop_and_look() { # exits with 75 when it came too late
    python3 - "$KEGFS" "$T/renamed/mnt" "$STORE/LOCK" "$(daemon_pid)" <<'END'
import os, signal, subprocess, sys, time
kegfs, point, lock, pid = sys.argv[1:3] + [":%d " % os.stat(sys.argv[3]).st_ino, int(sys.argv[4])]
umount = subprocess.Popen([kegfs, "umount", point])
while point in open("/proc/self/mounts").read():
    if umount.poll():
        sys.exit("umount failed")
try:
    os.kill(pid, signal.SIGSTOP)
except ProcessLookupError:
    sys.exit(umount.wait() or 75)
time.sleep(0.2)
held, waits = lock in open("/proc/locks").read(), umount.poll() is None
os.kill(pid, signal.SIGCONT)
if umount.wait() or (held and not waits):
    sys.exit("umount did not wait")
sys.exit(0 if held else 75)
END
}
status=75
for _ in $(seq 100); do
    mkdir -p "$T/above/mnt"
    "$KEGFS" mount "$STORE" "$T/above/mnt"
    mv "$T/above" "$T/renamed"
    seq -f "$T/renamed/mnt/%g" 500 | xargs touch
    status=0
    stop_and_look || status=$?
    mv "$T/renamed" "$T/above"
    [ $status -eq 75 ] || break
done
equal "exit status" 0 "$status"

step "umount waits for who only looks at the mount"
keg_mount
(cd "$MNT" && sleep 0.2) &
looker=$!
while is_running $looker && ! is_in $looker "$MNT"; do sleep 0.01; done
keg_umount
wait $looker

step "a mountpoint that LOCK could not name is refused"
mkdir "$T/"$'new\nline'
status=0
"$KEGFS" mount "$STORE" "$T/"$'new\nline' 2>/dev/null || status=$?
equal "exit status" 1 "$status"

step "ls says which path it cannot list"
keg_mount
python3 - "$MNT" <<'END'
import os, sys
os.chdir(sys.argv[1])
for _ in range(21):
    os.mkdir("d" * 200)
    os.chdir("d" * 200)
END
refused 1 "cannot list: /: a path would be longer" "$KEGFS" ls "$STORE"
keg_umount
refused 1 "cannot list: /: a path would be longer" "$KEGFS" ls "$STORE"

step "-o sync: a truncation waits for its write, too"
# If the test is held up for half a second before the kill, the truncation is logged alone.
kept=0
for round in 1 2 3 4 5; do
    keg_mount -o sync
    echo old >"$MNT/synced"
    python3 - "$MNT/synced" "$(daemon_pid)" <<'PYTHON'
import os, signal, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC)
os.kill(int(sys.argv[2]), signal.SIGKILL)
PYTHON
    unmount_lazily "$MNT"
    keg_mount
    case $(cat "$MNT/synced") in
    old) kept=$((kept + 1)) ;;
    "") ;;
    *) fail "round $round: neither old nor empty" ;;
    esac
    echo new >"$MNT/synced"
    keg_umount
done
[ $kept -gt 0 ] || fail "each truncation was logged by itself"
