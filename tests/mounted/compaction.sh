#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# overwritten and deleted bytes are seen, compaction gives them back, deleted stays deleted
. "$(dirname "$0")/lib.sh"

files=$(scaled 100 1000 4000)
python3 - "$T/want" "$files" <<'PYTHON'
import os, random, sys
directory, count = sys.argv[1], int(sys.argv[2])
numbers = random.Random(7)
os.mkdir(directory)
for i in range(count):
    with open(f"{directory}/{i}", "wb") as file:
        file.write(numbers.randbytes(numbers.randrange(0, 30000)))
PYTHON

keg_mount
mkdir "$MNT/d"
for _ in 1 2 3; do
    for i in $(seq 0 $((files - 1))); do head -c 15000 /dev/urandom >"$MNT/d/$i"; done
done
cp "$T"/want/* "$MNT/d"
live_before=$(stat_of live_bytes) data_before=$(stat_of data_bytes)
echo "overwritten: live $live_before, data $data_before"
# The background may have given some of them back by now, but never below what the promise asks.
if [ "$(stat_of compactions)" -gt 0 ]; then
    [ "$data_before" -gt "$live_before" ] || fail "no dead bytes to be seen"
else
    [ $((data_before - live_before)) -gt $((3 * files * 15000 / 2)) ] || fail "no dead bytes to be seen"
fi

for i in $(seq 0 2 $((files - 1))); do rm "$MNT/d/$i" "$T/want/$i"; done
compact
live=$(stat_of live_bytes) data=$(stat_of data_bytes) sum=$(data_files_bytes)
echo "compacted: live $live, data $data, the .data files $sum"
[ "$live" -lt "$live_before" ] || fail "deletes freed nothing"
[ $((data * 10)) -le $((live * 11)) ] || fail "data_bytes over 1.1 x live_bytes"
diff -r "$T/want" "$MNT/d"

keg_umount
sum=$(data_files_bytes)
echo "unmounted: the .data files $sum"
[ $((sum * 10)) -le $((live * 11)) ] || fail ".data files over 1.1 x live_bytes"
"$KEGFS" check "$STORE"
rm "$STORE"/*.hint
keg_mount
diff -r "$T/want" "$MNT/d" || fail "not the same without hints"
for i in $(seq 0 2 $((files - 1))); do
    [ ! -e "$MNT/d/$i" ] || fail "deleted file $i is back"
done
equal "live bytes without hints" "$live" "$(stat_of live_bytes)"
keg_umount
