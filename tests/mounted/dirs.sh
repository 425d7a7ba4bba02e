#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# directories that change while they are listed, great ones, sparse files, handles over a remount
. "$(dirname "$0")/lib.sh"
need_root

keg_mount
python3 "$top/tests/mounted/dirs.py" "$MNT"
keg_remount
python3 "$top/tests/mounted/dirs.py" "$MNT" again
rm -rf "${MNT:?}"/*
keg_umount
"$KEGFS" check "$STORE"

count=$(scaled 2000 30000 1000000)
step "$count entries in a directory: listed by two at a time, in a stream, and deleted"
rm -rf "$STORE"
keg_mount
memory() { # FIELD, in KiB
    awk -v field="$1:" '$1 == field { print $2 }' "/proc/$(daemon_pid)/status"
}
mkdir "$MNT/a" "$MNT/b" "$MNT/c"
for dir in a b c; do
    seq -f "$MNT/$dir/a-name-of-20-b-%06g" "$((count / 3))" | xargs touch
done
keg_remount # what is left of making them is gone
echo 2 >/proc/sys/vm/drop_caches
index=$(memory VmRSS)
for dir in a b c; do
    find "$MNT/$dir" -mindepth 1 -printf '%f\n' | wc -l >"$T/one" &
    one=$!
    find "$MNT/$dir" -type f -name '*7' | wc -l >"$T/two"
    wait $one
    equal "entries" $((count / 3)) "$(cat "$T/one")"
    equal "entries that end in 7" "$(seq $((count / 3)) | grep -c '7$')" "$(cat "$T/two")"
done
# A reply at a time, and 32 bytes for each inode that the kernel knows: 48 with half of it free.
step "memory: $index KiB with the index, $(memory VmHWM) at most, $(memory VmRSS) now"
limit=$((index + count * 64 / 1024 + 16 * 1024))
[ "$SCALE" = smoke ] || [ "$(memory VmHWM)" -le "$limit" ] || fail "listing took more than $limit KiB"
rm -rf "$MNT/a"
find "$MNT/b" -delete
rm -rf "$MNT/c"
step "memory: $(memory VmHWM) KiB at most, $(memory VmRSS) now"
equal "what is left" "" "$(ls -A "$MNT")"
keg_remount
equal "inodes in use" 1 "$(stat -f -c '%c %d' "$MNT" | awk '{ print $1 - $2 }')"
keg_umount
"$KEGFS" check "$STORE"
