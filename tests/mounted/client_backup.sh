#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# rsync, tar, restic and borg: from a mount and onto it, and what a second run costs
. "$(dirname "$0")/lib.sh"

source=$MNT/source # what the backups are taken of
special_tree "$T/special"
setfacl -m u:nobody:rw,g:users:r "$T/special/random"
setfacl -d -m u:nobody:rx "$T/special/empty"
cp -a "$(scaled /usr/include/linux /usr/include/linux /usr/share/doc)" "$T/real"
trees=("$T/special" "$T/real")
keg_mount

step "rsync"
copy() { rsync -aHAXS --itemize-changes --stats "$@"; } # FROM... TO
nothing_moved() { # what a second run says, on standard input
    local said
    said=$(cat)
    # Lines before the empty one are changes.
    equal "changes" "" "$(sed '/^$/,$d' <<<"$said")"
    grep -qx 'Number of regular files transferred: 0' <<<"$said" || fail "files moved: $said"
    grep -qx 'Total transferred file size: 0 bytes' <<<"$said" || fail "bytes moved: $said"
}
copy "${trees[@]}" "$source" >"$T/first"
grep -q '^>f+++++++++ special/random$' "$T/first"
copy "${trees[@]}" "$source" | nothing_moved
lasting
copy "${trees[@]}" "$source" >"$T/second"
nothing_moved <"$T/second"
copy "$source/" "$T/out" >/dev/null
same_tree "$source" "$T/out"
keg_remount
copy_out() { copy "$source/" "$T/out" | nothing_moved; }
equal "READs of a second rsync" 0 "$(reads_of copy_out)"
for tree in "${trees[@]}"; do same_tree "$tree" "$T/out/${tree##*/}"; done
[ "$(du -k "$T/out/special/sparse" | cut -f 1)" -lt 100 ] || fail "the sparse file is not sparse"
# Snapshots of hard links, as rsnapshot makes them.
mkdir "$MNT/snapshots"
rsync -aHAX "$source/" "$MNT/snapshots/1"
echo more >>"$source/special/random"
rsync -aHAX --link-dest=../1 "$source/" "$MNT/snapshots/2"
equal "files of a snapshot that are not in the one before" special/random \
    "$(cd "$MNT/snapshots/2" && find . -type f ! -name 'hard?' -links 1 -printf '%P\n')"
rm -r "$MNT/snapshots/1"
same_tree "$source" "$MNT/snapshots/2"
rm -r "$MNT/snapshots"
lasting

step "tar"
archive() { tar --warning=no-timestamp --xattrs --xattrs-include='*' --acls --sparse "$@"; }
archive -C "$source" -cf "$MNT/there.tar" .
mkdir "$MNT/untarred" "$T/untarred"
archive -C "$MNT/untarred" -xpf "$MNT/there.tar"
same_tree "$source" "$MNT/untarred"
archive -C "$MNT/untarred" -cf - . | archive -C "$T/untarred" -xpf -
same_tree "$source" "$T/untarred"
rm -r "$MNT/untarred" "$MNT/there.tar"

incremental() { # ARCHIVE
    tar --warning=no-timestamp -C "$source" -g "$T/snapshot" --no-check-device --sparse -cf "$1" .
}
dumped() { tar -tf "$1" | grep -v '/$' || true; } # ARCHIVE: all but the directories
touch "$source/special/empty-file" # what is dated in the future is dumped each time
keg_remount
[ "$(reads_of incremental "$T/level0.tar")" -gt 0 ] || fail "a first dump that reads nothing"
keg_remount
equal "READs of a second tar -g" 0 "$(reads_of incremental "$T/level1.tar")"
equal "files it dumped" "" "$(dumped "$T/level1.tar")"
rm "$source/special/hard1"
mv "$source/special/random" "$source/special/renamed"
keg_remount
incremental "$T/level2.tar"
equal "files dumped after changes" "./special/renamed ./special/sub/hard1" \
    "$(dumped "$T/level2.tar" | sort | xargs)"
mkdir "$T/levels"
for level in 0 1 2; do tar --warning=no-timestamp -C "$T/levels" -g /dev/null -xpf "$T/level$level.tar"; done
diff -r --no-dereference -x fifo -x null "$source" "$T/levels"
lasting

step "restic"
export RESTIC_PASSWORD=secret RESTIC_CACHE_DIR=$T/restic-cache GOMAXPROCS=2
restic_backup() { # REPOSITORY: the counts of the summary to $T/summary
    restic -q -r "$1" backup --json "$source" >"$T/restic.json"
    python3 -c 'import json, sys
last = json.loads(sys.stdin.readlines()[-1])
print(*(last["files_" + kind] for kind in ("new", "changed", "unmodified")))' \
        <"$T/restic.json" >"$T/summary"
}
files=$(find "$source" -type f -printf x | wc -c)
restic -q -r "$T/restic" init
keg_remount
[ "$(reads_of restic_backup "$T/restic")" -gt 0 ] || fail "a first backup that reads nothing"
equal "files new, changed, unmodified" "$files 0 0" "$(cat "$T/summary")"
keg_remount
equal "READs of a second restic" 0 "$(reads_of restic_backup "$T/restic")"
equal "files new, changed, unmodified, after a remount" "0 0 $files" "$(cat "$T/summary")"
restic -q -r "$T/restic" restore latest --target "$T/restored"
same_tree "$source" "$T/restored$source"
rm -rf "$T/restored"

repository=$MNT/restic
restic -q -r "$repository" init
restic_backup "$repository"
echo changed >"$source/special/renamed"
restic_backup "$repository"
equal "files new, changed, unmodified" "0 1 $((files - 1))" "$(cat "$T/summary")"
restic -q -r "$repository" forget --keep-last 1 --prune
lasting
restic -q -r "$repository" check --read-data
restic -q -r "$repository" restore latest --target "$T/restored"
same_tree "$source" "$T/restored$source"
rm -rf "$T/restored" "$repository"

step "borg"
export BORG_BASE_DIR=$T/borg-home BORG_PASSPHRASE=secret
borg_create() { # REPOSITORY NAME: the status and name of each file that it read to $T/listed
    borg create --list --filter AMCE "$1::$2" "$source" 2>"$T/listed"
}
borg init -e repokey-blake2 "$T/borg" 2>/dev/null
touch "$source/special/hard3" # it keeps no time before 1970
# Borg never trusts the times of the newest file; let that be one without anything to read.
: >"$source/newest"
keg_remount
[ "$(reads_of borg_create "$T/borg" first)" -gt 0 ] || fail "a first archive that reads nothing"
equal "files added" "$(find "$source" -type f -printf '%i\n' | sort -u | wc -l)" \
    "$(grep -c '^A ' "$T/listed")" # further names of a file are not "added"
keg_remount
equal "READs of a second borg" 0 "$(reads_of borg_create "$T/borg" second)"
equal "files it looked into" "A $source/newest" "$(cat "$T/listed")"
mkdir "$T/restored"
(cd "$T/restored" && borg extract --sparse "$T/borg::second")
same_tree "$source" "$T/restored$source"
rm -rf "$T/restored"

repository=$MNT/borg
borg init -e repokey-blake2 "$repository" 2>/dev/null
borg_create "$repository" first
rm -r "$source/special/sub"
borg_create "$repository" second
borg delete "$repository::first"
borg compact "$repository"
lasting
borg check --verify-data "$repository"
mkdir "$T/restored"
(cd "$T/restored" && borg extract --sparse "$repository::second")
same_tree "$source" "$T/restored$source"
lasting
keg_umount
