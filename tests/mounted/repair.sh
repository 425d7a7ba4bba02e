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
"$KEGFS" check "$STORE" >"$T/said" || fail "a repaired store is sound"
says '^/d/large: a part of its contents is lost'
says '^sound, but not whole: 1 known to be lost'
"$KEGFS" check --json "$STORE" >"$T/said"
python3 -c 'import json,sys; r = json.load(open(sys.argv[1])); assert r["known_lost"] == 1 and r["total"] == 0 and r["findings"][0]["known_lost"], r' \
    "$T/said"
keg_mount
equal "whole files" "$count" "$(whole)"
if cat "$MNT/d/large" >"$T/read" 2>"$T/why"; then fail "lost bytes were served"; fi
equal "size" $((200000 + $(text victim | wc -c))) "$(stat -c %s "$MNT/d/large")"
dd if="$MNT/d/large" of=/dev/null bs=64K count=2 status=none
echo new >"$MNT/d/large"
equal "overwritten" new "$(cat "$MNT/d/large")"
compact
keg_umount
equal "said" sound "$("$KEGFS" check "$STORE")"

step "a damaged symbolic link does not read; rm removes it, or a repair"
use_copy
keg_mount
target=$(text where-it-leads)
ln -s "$target" "$MNT/d/link"
ln -s "$target" "$MNT/d/link2"
keg_umount
read -r file offset <<<"$(find_bytes "$target")"
flip "$file" $((offset + 5))
python3 - "$file" "$target" $((offset + 20)) <<'PYTHON'
import sys
data = bytearray(open(sys.argv[1], "rb").read())
at = data.find(sys.argv[2].encode()) # the second one is whole yet
assert at >= 0
data[at + 5] ^= 1
open(sys.argv[1], "wb").write(data)
PYTHON
unreadable() {
    if readlink "$MNT/d/$1" >"$T/read"; then fail "a damaged link was read: $1"; fi
    python3 -c 'import errno, os, sys
try: os.readlink(sys.argv[1])
except OSError as e: assert e.errno == errno.EIO, e' "$MNT/d/$1"
    rm "$MNT/d/$1"
    [ ! -L "$MNT/d/$1" ] || fail "$1 is still there"
}
keg_mount
unreadable link
keg_umount
repair
says 'the text of the symbolic link is lost: removed'
equal "said" sound "$("$KEGFS" check "$STORE")"

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
