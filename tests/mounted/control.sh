#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# the hidden directory .kegfs and the attributes of the root
. "$(dirname "$0")/lib.sh"

keg_mount
step "there, but not listed"
for file in stats stats.json metrics segments control; do
    [ -f "$MNT/.kegfs/$file" ] || fail "no .kegfs/$file"
done
for file in stats stats.json metrics segments; do
    [ "$(wc -c <"$MNT/.kegfs/$file")" -gt 0 ] || fail ".kegfs/$file is empty"
    equal "size of $file is that of what it holds" \
        0 "$(python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(fd).st_size
print(size - len(os.read(fd, 1 << 20)))' "$MNT/.kegfs/$file")"
done
equal "root's listing" "" "$(ls -A "$MNT")"
# The kernel itself refuses to make what it has found; the rest reaches the daemon.
refused 1 'File exists' env LC_ALL=C mkdir "$MNT/.kegfs"
refused 1 'File exists' env LC_ALL=C ln -sT x "$MNT/.kegfs"
mkdir "$MNT/directory"
refused 1 'not permitted' env LC_ALL=C mv -T "$MNT/directory" "$MNT/.kegfs"
refused 1 'not permitted' env LC_ALL=C mv -T "$MNT/.kegfs" "$MNT/directory"
refused 1 'not permitted' env LC_ALL=C rmdir "$MNT/.kegfs"
rmdir "$MNT/directory"
mkdir "$MNT/sub" && mkdir "$MNT/sub/.kegfs" # an ordinary name anywhere else
[ ! -e "$MNT/.kegfs/nothing" ] || fail ".kegfs/nothing exists"
if touch "$MNT/.kegfs/new" 2>/dev/null; then fail "a file could be made in .kegfs"; fi
if rm -f "$MNT/.kegfs/stats" 2>/dev/null; then fail "a file of .kegfs could be removed"; fi

step "numbers"
python3 -m json.tool <"$MNT/.kegfs/stats.json" >/dev/null
python3 - "$MNT/.kegfs/stats.json" <<'PYTHON'
import json, os, sys
path = sys.argv[1]
read = lambda: json.load(open(path))
first = read()
for key in "requests segments live_bytes data_bytes keys index_bytes transport".split():
    assert key in first, f"stats.json has no {key}"
directory = os.path.dirname(os.path.dirname(path))
for i in range(10):
    with open(f"{directory}/counted{i}", "w") as file:
        file.write("x")
then = read()
for opcode in "LOOKUP", "CREATE", "WRITE":
    grown = then["requests"].get(opcode, 0) - first["requests"].get(opcode, 0)
    assert grown >= 10, f"{opcode} grew by {grown} for 10 files made"
assert then["keys"] > first["keys"] and then["live_bytes"] > first["live_bytes"], (first, then)
for i in range(10):
    os.unlink(f"{directory}/counted{i}")
assert read()["requests"].get("UNLINK", 0) - then["requests"].get("UNLINK", 0) == 10
PYTHON
grep -q '^kegfs_' "$MNT/.kegfs/metrics" || fail "metrics are not named kegfs_"
if grep -vE '^(#.*|[a-z_]+(\{[^}]*\})? [-+.e0-9]+)$' "$MNT/.kegfs/metrics"; then
    fail "not Prometheus text"
fi

step "orders"
for order in sync hint compact; do echo "$order" >"$MNT/.kegfs/control"; done
printf sync >"$MNT/.kegfs/control" # without a newline
if (echo nonsense >"$MNT/.kegfs/control") 2>/dev/null; then fail "nonsense was accepted"; fi
for order in sync hint compact; do setfattr -n "user.kegfs.$order" -v 1 "$MNT"; done
getfattr --only-values -n user.kegfs.stats "$MNT" 2>/dev/null | grep -q live || fail "no user.kegfs.stats"
equal "attributes listed" "" "$(getfattr -d -m - --absolute-names "$MNT")"

step "the order hint writes hints"
echo more >"$MNT/more"
rm -f "$STORE"/*.hint
echo hint >"$MNT/.kegfs/control"
keg_kill
compgen -G "$STORE/*.hint" >/dev/null || fail "no hint was written"
keg_mount
equal "contents" more "$(cat "$MNT/more")"
keg_umount
