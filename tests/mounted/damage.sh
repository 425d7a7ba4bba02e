#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# torn tails, flipped bits in values and in record heads: found, named, never served
. "$(dirname "$0")/lib.sh"

count=20

STORE=$base
keg_mount
mkdir "$MNT/d"
for i in $(seq "$count"); do text "tail$i" >"$MNT/d/tail$i"; done
keg_kill

for bytes in 1 7 100 $((count * 10)) 900 2000 5000; do
    step "the last $bytes bytes of the log are cut off after kill -9"
    use_copy
    # Behind the last file's last byte only zeros follow, up to where the segment ends.
    read -r file offset <<<"$(find_bytes "$(text "tail$count")")"
    truncate -s $((offset + $(text "tail$count" | wc -c) - bytes)) "$file"
    keg_mount
    whole=0
    for i in $(seq "$count"); do
        if [ "$(cat "$MNT/d/tail$i" 2>/dev/null)" = "$(text "tail$i")" ]; then
            equal "files before tail$i that are whole" $((i - 1)) "$whole"
            whole=$i
        else
            [ ! -s "$MNT/d/tail$i" ] || fail "tail$i is neither whole nor empty nor gone"
        fi
    done
    echo "$whole of $count files are whole"
    [ "$whole" -lt "$count" ] || fail "nothing was cut"
    [ "$whole" -ge $((count - 1 - bytes / 500)) ] || fail "more is lost than the cut frames"
    text new >"$MNT/d/new" # and it goes on
    keg_umount
    "$KEGFS" check "$STORE"
    keg_mount
    equal "files whole after a remount" "$whole" \
        "$(for i in $(seq "$count"); do ! cmp -s <(text "tail$i") "$MNT/d/tail$i" || echo; done | wc -l)"
    equal "the new file" "$(text new)" "$(cat "$MNT/d/new")"
    keg_umount
done

STORE=$base
keg_mount
for i in $(seq "$count"); do text "value$i" >"$MNT/d/value$i"; done
mkdir "$MNT/d/sub"
head -c 200000 /dev/urandom >"$MNT/d/sub/large"
text victim >>"$MNT/d/sub/large"
# Its name stands in record heads only, nowhere in a value.
text other >"$MNT/d/in-the-head"
keg_umount

others_are_whole() { # but those whose name begins with $1
    local i
    for i in $(seq "$count"); do
        for name in "tail$i" "value$i"; do
            [[ $name == "$1"* ]] || cmp <(text "$name") "$MNT/d/$name"
        done
    done
}
damaged_read() { # FILE
    if LC_ALL=C cat "$MNT/$1" >"$T/read" 2>"$T/said"; then fail "$1 is damaged and was served"; fi
    grep -q 'Input/output error' "$T/said" || fail "no EIO but: $(cat "$T/said")"
}
check_finds() { # TEXT
    local status=0
    "$KEGFS" check "$STORE" >"$T/check" 2>&1 || status=$?
    cat "$T/check"
    equal "exit code of check" 1 "$status"
    grep -qF -- "$1" "$T/check" || fail "check does not name $1"
}

step "a flipped bit in a value"
use_copy
read -r file offset <<<"$(find_bytes "$(text value9)")"
flip "$file" $((offset + 300))
keg_mount
others_are_whole value9
damaged_read d/value9
[ "$(stat_of damaged_reads)" -ge 1 ] || fail "the statistics do not count it"
check_finds d/value9
equal "paths named" 1 "$(grep -c 'd/' "$T/check")"
text value9 >"$MNT/d/value9" # writing it anew mends it
equal "mended" "$(text value9)" "$(cat "$MNT/d/value9")"
compact
keg_umount
"$KEGFS" check "$STORE"

step "a flipped bit in one part of a larger file"
use_copy
read -r file offset <<<"$(find_bytes "$(text victim)")"
flip "$file" $((offset + 5))
keg_mount
others_are_whole none
cp "$MNT/d/value1" "$T/value1"
damaged_read d/sub/large
dd if="$MNT/d/sub/large" of=/dev/null bs=64K count=2 status=none # the other parts are served
compact # a damaged value moves as it is and stays damaged
others_are_whole none
damaged_read d/sub/large
keg_umount
check_finds d/sub/large

step "a flipped bit in a record head, its hint is there"
use_copy
read -r file offset <<<"$(find_bytes in-the-head)"
flip "$file" "$offset"
keg_mount
others_are_whole none
equal "the file" "$(text other)" "$(cat "$MNT/d/in-the-head")"
keg_umount
number=$(basename "$file" .data)
check_finds "segment $((10#$number))"

step "a flipped bit in a record head, no hint"
rm "$STORE"/*.hint
keg_mount 2>"$T/said"
cat "$T/said"
equal "lines said" 1 "$(wc -l <"$T/said")"
grep -q 'read-only' "$T/said" || fail "it does not say that the store is read-only"
for i in $(seq "$count"); do
    cmp <(text "tail$i") "$MNT/d/tail$i"
done
if (echo x >"$MNT/d/x") 2>"$T/said"; then fail "a damaged store took a change"; fi
grep -q 'Read-only file system' "$T/said" || fail "not EROFS: $(cat "$T/said")"
keg_umount
