#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# a real tree copied in is the same after remounts, kill -9, lost hints and compactions
. "$(dirname "$0")/lib.sh"

special=$T/special
special_tree "$special"
setfacl -m u:1001:rw,g:1002:r "$special/random" 2>/dev/null || true
setfacl -m u:1001:rwx,d:u:1001:rwx,d:o::- "$special/sub" 2>/dev/null || true
sources=("$special" "$(scaled /usr/include/linux /usr/include /usr/include)")
[ "$SCALE" = smoke ] || sources+=(/usr/share/doc)

check() { # WHAT
    local source
    step "$1"
    for source in "${sources[@]}"; do same_tree "$source" "$MNT/tree/$(basename "$source")"; done
}

keg_mount
mkdir "$MNT/tree" "$MNT/again"
cp -a "${sources[@]}" "$MNT/tree"
check "copied"
keg_remount
check "remounted"

cp -a "${sources[@]}" "$MNT/again"
keg_kill
keg_mount
for source in "${sources[@]}"; do same_tree "$source" "$MNT/again/$(basename "$source")"; done
check "killed right after a copy"
rm -r "$MNT/again"

keg_umount
rm "$STORE"/*.hint
keg_mount
check "all hints removed"
[ ! -e "$MNT/again" ] || fail "a removed tree is back"

setfattr -n user.kegfs.compact -v 1 "$MNT"
check "compacted by the attribute"
compact
check "compacted by the control file"
keg_kill
keg_mount
check "killed right after compaction"
keg_umount
rm "$STORE"/*.hint
keg_mount
check "hints removed again"
[ ! -e "$MNT/again" ] || fail "a removed tree is back"
keg_umount
"$KEGFS" check "$STORE"
