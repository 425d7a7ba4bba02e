#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# scripts/quickstart in a fresh clone, twice, and what it says where it cannot work
. "$(dirname "$0")/lib.sh"

if git -C "$top" rev-parse --git-dir >/dev/null 2>&1; then
    git -c safe.directory="$top" clone -q "$top" "$T/clone"
else
    mkdir "$T/clone" && (cd "$top" && tar -c --exclude='./build*' .) | tar -C "$T/clone" -x
fi
KEGFS=$T/clone/build/fs/kegfs
cd "$T"
clone/scripts/quickstart mnt | tee "$T/said"
is_mounted || fail "nothing is mounted"
equal greeting "hello, keg" "$(cat "$MNT/demo/greeting")"
equal "files left" 201 "$(find "$MNT/demo" -type f | wc -l)"
grep -q "kegfs umount $MNT" "$T/said" || fail "it does not say how to unmount"

step "again, while mounted"
clone/scripts/quickstart mnt | tee "$T/said"
grep -q 'already mounted' "$T/said" || fail "it does not say that it is mounted"
"$KEGFS" umount mnt
step "and again, unmounted"
clone/scripts/quickstart mnt
equal greeting "hello, keg" "$(cat "$MNT/demo/greeting")"
equal "what is new in the clone" "" "$(git -C clone status --porcelain)"
"$KEGFS" umount mnt

step "what it refuses"
mkdir full && echo x >full/x
refused 1 empty clone/scripts/quickstart full
refused 2 usage clone/scripts/quickstart one two
