#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# check --repair: what is whole stays, what is lost is named and never served, the store is sound
. "$(dirname "$0")/lib.sh"

count=20
repair() { # and what must be so after any repair
    "$KEGFS" check --repair "$STORE" >"$T/said"
    cat "$T/said"
    "$KEGFS" check "$STORE"
    equal "a second repair" "nothing to repair" "$("$KEGFS" check --repair "$STORE")"
}
says() { grep -q -- "$1" "$T/said" || fail "repair does not say: $1"; }
whole() { # counts the files that are as they were; another text fails the test
    local i n=0
    for i in $(seq "$count"); do
        if ! cat "$MNT/d/file$i" >"$T/read" 2>/dev/null; then continue; fi
        cmp <(text "file$i") "$T/read" || fail "file$i has other contents"
        n=$((n + 1))
    done
    echo "$n"
}

STORE=$base
keg_mount
mkdir "$MNT/d"
for i in $(seq "$count"); do text "file$i" >"$MNT/d/file$i"; done
head -c 200000 /dev/urandom >"$MNT/d/large"
text victim >>"$MNT/d/large"

step "a mounted store is refused"
if "$KEGFS" check --repair "$STORE" 2>"$T/said"; then fail "it repaired a mounted store"; fi
says "unmount it first"
keg_umount

step "a sound store is left alone"
(cd "$STORE" && md5sum ./*.data MANIFEST >"$T/sums")
equal "said" "nothing to repair" "$("$KEGFS" check --repair "$STORE")"
(cd "$STORE" && md5sum --quiet -c "$T/sums")

step "a lost value: the file stays, and reading it fails"
use_copy
read -r file offset <<<"$(find_bytes "$(text victim)")"
flip "$file" $((offset + 5))
before=$(md5sum <"$file")
repair
says '^/d/large: its value is lost'
equal "the damaged segment" "$before" "$(md5sum <"$file.damaged")"
keg_mount
equal "whole files" "$count" "$(whole)"
if cat "$MNT/d/large" >"$T/read" 2>"$T/why"; then fail "lost bytes were served"; fi
equal "size" $((200000 + $(text victim | wc -c))) "$(stat -c %s "$MNT/d/large")"
dd if="$MNT/d/large" of=/dev/null bs=64K count=2 status=none
echo new >"$MNT/d/large"
equal "overwritten" new "$(cat "$MNT/d/large")"
compact
keg_umount
"$KEGFS" check "$STORE"

step "lost record heads, no hint: a gap is told of, all else is whole"
use_copy
read -r file offset <<<"$(find_bytes file7)"
rm "$STORE"/*.hint
# The name stands in the head of its frame.
offset=$(grep -obUaF file7 "$file" | head -n 1 | cut -d : -f 1)
flip "$file" "$offset"
repair
says 'records are lost'
keg_mount
[ "$(whole)" -ge $((count - 1)) ] || fail "more is lost than one file: $(whole)"
text new >"$MNT/d/new"
keg_umount
"$KEGFS" check "$STORE"

step "MANIFEST is lost"
use_copy
rm "$STORE/MANIFEST"
repair
keg_mount
equal "whole files" "$count" "$(whole)"
keg_umount

step "the first segment is lost, and as JSON"
use_copy
keg_mount
compact
text more >"$MNT/d/more"
keg_umount
rm "$(find "$STORE" -name '*.data' | sort | head -n 1)"
rm -f "$STORE"/*.hint
"$KEGFS" check --repair --json "$STORE" >"$T/said"
python3 -c 'import json,sys; r = json.load(open(sys.argv[1])); assert r["repaired"] and r["sound"], r' \
    "$T/said"
"$KEGFS" check "$STORE"
keg_mount
ls -lR "$MNT"
keg_umount
