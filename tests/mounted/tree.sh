#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# a real tree copied in is the same after remounts, kill -9, lost hints and compactions
. "$(dirname "$0")/lib.sh"

# Things that real trees seldom have.
special=$T/special
mkdir -p "$special/empty" "$special/sub/deeper"
for i in 1 2 3; do echo "hard $i" >"$special/hard$i" && ln "$special/hard$i" "$special/sub/hard$i"; done
ln -s ../nowhere "$special/dangling"
ln -s . "$special/loop"
mkfifo "$special/fifo"
[ "$(id -u)" -ne 0 ] || mknod "$special/null" c 1 3
: >"$special/empty-file"
head -c 300000 /dev/urandom >"$special/random"
truncate -s 10M "$special/sparse" && echo end >>"$special/sparse"
echo x >"$special/$(printf '\377\376\n\t')" && echo y >"$special/$(printf 'n%.0s' {1..255})"
chmod 4750 "$special/hard1" && chmod 0 "$special/hard2" && chmod 1777 "$special/empty"
touch -d '1969-12-31 23:59:58.123456789 UTC' "$special/hard3"
touch -d '2038-01-19 03:14:09.987654321 UTC' "$special/empty-file"
setfattr -n user.colour -v blue "$special/random" 2>/dev/null || true
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
