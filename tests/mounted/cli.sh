#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# put, get, ls and rm agree with the mount, on a mounted store and on one that is not
. "$(dirname "$0")/lib.sh"

head -c 200000 /dev/urandom >"$T/binary"
: >"$T/empty"
long=$(printf 'n%.0s' {1..255})
names=("plain" "with space" "$long" "$(printf 'new\nline')" "$(printf '\377\376\200')"
    "-dash" "a/b/c/deep" "d/$long")

got() { # KEY FILE: get gives the file's bytes
    "$KEGFS" get -- "$STORE" "$1" >"$T/got" || fail "get $1"
    cmp "$2" "$T/got" || fail "get gives other bytes for $1"
}
put_and_get() {
    local name
    for name in "${names[@]}"; do
        "$KEGFS" put -- "$STORE" "$name" "$T/binary"
        got "$name" "$T/binary"
        "$KEGFS" put -- "$STORE" "$name" <"$T/empty" # from stdin, replacing
        got "$name" "$T/empty"
        "$KEGFS" put -- "$STORE" "$name" <"$T/binary"
        got "$name" "$T/binary"
    done
    "$KEGFS" put "$STORE" nothing "$T/empty"
    "$KEGFS" put "$STORE" /slash <"$T/empty" # the same key as without the slash
}
in_mount() {
    local name
    for name in "${names[@]}"; do cmp "$T/binary" "$MNT/$name"; done
    [ -f "$MNT/nothing" ] && [ ! -s "$MNT/nothing" ] || fail "the empty value is no empty file"
    [ -f "$MNT/slash" ] || fail "/slash is not slash"
}
removed() {
    local name
    for name in "${names[@]}" nothing slash; do "$KEGFS" rm -- "$STORE" "$name"; done
    refused 1 plain "$KEGFS" get "$STORE" plain
    refused 1 plain "$KEGFS" rm "$STORE" plain
    refused 1 a/b "$KEGFS" rm "$STORE" a/b/x
    refused 1 a "$KEGFS" rm "$STORE" a # not empty
    "$KEGFS" rm "$STORE" a/b/c && "$KEGFS" rm "$STORE" a/b && "$KEGFS" rm "$STORE" a
    "$KEGFS" rm "$STORE" d
    equal "ls of the emptied store" "" "$("$KEGFS" ls "$STORE")"
}

step "not mounted"
put_and_get
"$KEGFS" ls "$STORE" >"$T/ls-unmounted"
keg_mount
in_mount
step "mounted"
"$KEGFS" ls "$STORE" >"$T/ls-mounted"
diff <(sort "$T/ls-unmounted") <(sort "$T/ls-mounted")
removed
equal "files in the mount" "" "$(ls -A "$MNT")"
put_and_get
in_mount

step "what the mount makes, the commands see"
mkdir -p "$MNT/dir/empty-dir"
echo mounted >"$MNT/dir/file"
keg_umount
echo mounted >"$T/want" && got dir/file "$T/want"
"$KEGFS" ls "$STORE" dir | grep -q empty-dir || fail "ls does not show an empty directory"
"$KEGFS" ls "$STORE" dir | grep -q file || fail "ls does not show a file"
"$KEGFS" ls -l "$STORE" dir | grep -q '\b8\b.*file' || fail "ls -l does not show the size"
refused 1 empty-dir "$KEGFS" get "$STORE" dir/empty-dir
"$KEGFS" rm "$STORE" dir/file
"$KEGFS" rm "$STORE" dir/empty-dir
"$KEGFS" rm "$STORE" dir
removed
"$KEGFS" check "$STORE"

step "a file put keeps its parents and its place in the tree"
"$KEGFS" put "$STORE" x/y/z "$T/binary"
keg_mount
equal "directories made" "x x/y" "$(cd "$MNT" && find . -type d -name '[xy]' -printf '%P\n' | sort | xargs)"
keg_umount
"$KEGFS" --help >/dev/null
for command in stats segments; do
    "$KEGFS" "$command" "$STORE" >/dev/null
    "$KEGFS" "$command" --json "$STORE" | python3 -m json.tool >/dev/null
done
for command in hint compact check dump; do "$KEGFS" "$command" "$STORE" >/dev/null; done
got x/y/z "$T/binary"
