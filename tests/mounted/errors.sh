#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# what cannot work says so in one line, with an exit code, and nothing is lost
. "$(dirname "$0")/lib.sh"
export LC_ALL=C

step "wrong usage is 2"
for words in "" "nonsense" "mount" "mount $STORE" "umount" "put $STORE" "get" "stats" "check a b c"; do
    status=0
    # shellcheck disable=SC2086
    "$KEGFS" $words >"$T/out" 2>"$T/err" </dev/null || status=$?
    equal "exit code of kegfs $words" 2 "$status"
    [ -s "$T/err" ] || fail "kegfs $words says nothing"
done
refused 2 nonsense "$KEGFS" mount "$STORE" "$MNT" -o nonsense
refused 2 sync_interval "$KEGFS" mount "$STORE" "$MNT" -o sync_interval=soon
[ ! -e "$STORE" ] || fail "wrong usage made a store"

step "mountpoints"
refused 1 "$T/none" "$KEGFS" mount "$STORE" "$T/none"
echo x >"$T/file"
refused 1 "$T/file" "$KEGFS" mount "$STORE" "$T/file"
mkdir "$T/full" && echo x >"$T/full/x"
refused 1 "$T/full" "$KEGFS" mount "$STORE" "$T/full"
refused 1 "$MNT" "$KEGFS" umount "$MNT"
refused 1 "$T/none/store" "$KEGFS" mount "$T/none/store" "$MNT"
refused 1 "$T/file" "$KEGFS" mount "$T/file" "$MNT"
mkdir "$T/outer" && mkdir "$T/outer/in"
refused 1 inside "$KEGFS" mount "$T/outer/in" "$T/outer" -o nonempty
refused 1 inside "$KEGFS" mount "$T/outer" "$T/outer/in"
if is_mounted; then fail "mounted all the same"; fi
"$KEGFS" mount "$STORE" "$T/full" -o nonempty
[ ! -e "$T/full/x" ] || fail "-o nonempty did not mount"
"$KEGFS" umount "$T/full"

step "a store that is held"
keg_mount
echo kept >"$MNT/kept"
pid=$(daemon_pid)
mkdir "$T/other"
refused 1 "$MNT" "$KEGFS" mount "$STORE" "$T/other"
grep -qw "$pid" "$T/refused" || fail "it does not name the process that holds it"
refused 1 "$MNT" "$KEGFS" mount "$T/store2" "$MNT"
refused 1 "$MNT" "$KEGFS" mount "$STORE" "$MNT"
equal "the first mount" kept "$(cat "$MNT/kept")"

step "names"
long=$(printf 'n%.0s' {1..256})
refused 1 "long" "$KEGFS" put "$STORE" "$long" "$T/file"
refused 1 "long" touch "$MNT/$long"
refused 1 "missing" "$KEGFS" get "$STORE" missing
refused 1 "missing" "$KEGFS" rm "$STORE" missing
keg_umount
refused 1 "long" "$KEGFS" put "$STORE" "$long" "$T/file"
refused 1 "missing" "$KEGFS" get "$STORE" missing
refused 1 "missing" "$KEGFS" rm "$STORE" missing
refused 1 "$T/no-file" "$KEGFS" put "$STORE" key "$T/no-file"
refused 1 "key" "$KEGFS" get "$STORE" key
refused 1 "$T/no-store" "$KEGFS" get "$T/no-store" key
refused 1 "$T/no-store" "$KEGFS" stats "$T/no-store"
[ ! -e "$T/no-store" ] || fail "reading made a store"

step "a mountpoint whose daemon was killed"
keg_mount
pid=$(daemon_pid)
kill -9 "$pid"
wait_end "$pid"
keg_mount 2>"$T/said"
grep -qF "$MNT" "$T/said" || fail "it does not say that it cleared the mountpoint"
equal "the file" kept "$(cat "$MNT/kept")"
keg_umount

step "a store of a newer format"
cp -a "$STORE" "$T/newer"
python3 - "$T/newer/MANIFEST" <<'PYTHON'
import struct, sys, zlib
with open(sys.argv[1], "r+b") as file:
    data = bytearray(file.read())
    half = len(data) // 2
    for at in 0, half:
        copy = data[at:at + half]
        copy[8:12] = struct.pack("<I", 99)
        copy[-4:] = struct.pack("<I", zlib.crc32(copy[:-4]))
        data[at:at + half] = copy
    file.seek(0)
    file.write(data)
PYTHON
refused 1 newer "$KEGFS" mount "$T/newer" "$MNT"
refused 1 newer "$KEGFS" get "$T/newer" kept

step "a damaged MANIFEST, and none"
cp -a "$STORE" "$T/broken"
printf 'x%.0s' {1..500} >"$T/broken/MANIFEST"
refused 1 MANIFEST "$KEGFS" mount "$T/broken" "$MNT"
rm "$T/broken/MANIFEST"
refused 1 MANIFEST "$KEGFS" mount "$T/broken" "$MNT"
[ "$(cat "$T"/broken/*.data | wc -c)" -gt 0 ] || fail "the segments are gone"

equal "after all that" kept "$("$KEGFS" get "$STORE" kept)"
"$KEGFS" check "$STORE"
[ "$(id -u)" -eq 0 ] || exit 0 # what follows needs root

step "a store that cannot be written"
mkdir "$T/bound"
mount --bind "$STORE" "$T/bound"
mount -o remount,ro,bind "$T/bound"
refused 1 "Read-only file system" "$KEGFS" mount "$T/bound" "$MNT"
refused 1 "Read-only file system" "$KEGFS" put "$T/bound" key "$T/file"
umount "$T/bound"

step "no /dev/fuse"
refused 1 /dev/fuse unshare -m sh -c "mount -t tmpfs none /dev && exec '$KEGFS' mount '$STORE' '$MNT'"
equal "after all that" kept "$("$KEGFS" get "$STORE" kept)"
