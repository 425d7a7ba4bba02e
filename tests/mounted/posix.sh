#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# what programs expect of a file system: names, links, modes, times, holes, attributes, sync
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" -ne 0 ] || set -- -o allow_other # another user is tried
keg_mount "$@"
python3 "$top/tests/mounted/posix.py" "$MNT"

step "sparse copies"
truncate -s 64M "$T/sparse" && echo here | dd of="$T/sparse" bs=1M seek=32 conv=notrunc status=none
cp --sparse=always "$T/sparse" "$MNT/sparse"
cmp "$T/sparse" "$MNT/sparse"
[ "$(du -k "$MNT/sparse" | cut -f 1)" -le 2048 ] || fail "a sparse file takes $(du -k "$MNT/sparse")"
cp --sparse=auto "$MNT/sparse" "$T/back"
cmp "$T/sparse" "$T/back"
[ "$(du -k "$T/back" | cut -f 1)" -le 2048 ] || fail "cp does not see the holes"

step "inode numbers and cookies hold over a remount"
mkdir "$MNT/many" && (cd "$MNT/many" && touch {1..500} && ln 1 hard && ln -s 2 soft)
inodes() { find "$MNT" -printf '%i %m %n %s %T@ %p %l\n' | sort; }
order() { find "$MNT/many" -printf '%f\n'; }
inodes >"$T/inodes" && order >"$T/order"
keg_remount
diff "$T/inodes" <(inodes) || fail "inodes changed"
diff "$T/order" <(order) || fail "the order of the listing changed"
keg_kill
keg_mount
diff "$T/inodes" <(inodes) || fail "inodes changed over kill -9"
python3 "$top/tests/mounted/posix.py" "$MNT" again

step "an unlinked open file at unmount is reclaimed"
rm -rf "${MNT:?}"/*
keg_remount
equal "inodes in use" 1 "$(stat -f -c '%c %d' "$MNT" | awk '{ print $1 - $2 }')"
keg_umount
"$KEGFS" check "$STORE"
