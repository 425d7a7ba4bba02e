#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# bonnie++, dbench and postmark run to their end and leave nothing behind
. "$(dirname "$0")/lib.sh"

keg_mount
printf 'stays' >"$MNT/stays" # so that what lasts is not an empty tree
dir=$MNT/bench
empty() { equal "what $1 leaves behind" "" "$(find "$dir" -mindepth 1 | head)"; }
# The last words of a benchmark, which it says only when all was done.
said() { # PATTERN
    grep -q "$1" "$T/log" || {
        cat "$T/log" >&2
        fail "no '$1' in what it said"
    }
}
mkdir "$dir"

step "bonnie++"
# A file of some MiB through stdio, by blocks, rewritten, with seeks; then small files made, statted
# and removed in order and at random. With -D the file goes past the page cache; with -b all is synced.
mib=$(scaled 2 8 512)
as=(-f) # without the test that writes a byte a call, 20 million requests
[ "$(id -u)" -ne 0 ] || as+=(-u root)
bonnie() { # OPTION...
    timeout 900 bonnie++ -q -d "$dir" -r "$((mib / 2))" "${as[@]}" "$@" >"$T/log" 2>&1 ||
        said "nothing, it failed"
    said '^1.98,2.00a,'
}
bonnie -s "$mib:8k" -n "$(scaled 1:2000:0:4 1:20000:0:10 32:20000:0:100)"
bonnie -s "$mib:8k" -n 0 -D
[ "$SCALE" != full ] || bonnie -s 0 -n 1:2000:0:4 -b
empty bonnie++
lasting

step "dbench"
for options in "" -x -F -s; do
    # shellcheck disable=SC2086 # none or one
    timeout 900 dbench -D "$dir" -t "$(scaled 2 3 60)" -c /usr/share/dbench/client.txt $options \
        "$(scaled 2 4 20)" >"$T/log" 2>&1 || said "nothing, it failed"
    said '^Throughput [0-9.]*[1-9]' # a slow machine does less than 1 MB/s
    ! grep -i 'failed\|expected' "$T/log" || fail "dbench $options reports failures"
    rm -rf "$dir/clients"
    empty "dbench $options"
done
lasting

step "postmark"
# Through stdio and by system calls, files of up to four extents.
for buffering in true false; do
    timeout 900 postmark >"$T/log" 2>&1 <<POSTMARK
set location $dir
set seed 42
set number $(scaled 50 200 5000)
set subdirectories 10
set size 100 200000
set transactions $(scaled 100 300 12000)
set buffering $buffering
run
quit
POSTMARK
    said 'transactions (.* per second)'
    ! grep -i error "$T/log" || fail "postmark reports errors"
    empty postmark
done
lasting
keg_umount
