#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# calls on contents, locks, attributes, files without a name; with commit=close, too
. "$(dirname "$0")/lib.sh"
need_root

for options in allow_other,dev,suid allow_other,dev,suid,commit=close; do
    step "$options"
    keg_mount -o $options
    mkdir "$MNT/$options"
    python3 "$top/tests/mounted/calls.py" "$MNT/$options"
    keg_umount
    "$KEGFS" check "$STORE"
done

step "a file without a name is gone after a crash, and after an unmount"
unnamed() { # leaves one open as descriptor 9, and one that got a name
    python3 - "$MNT" 9<&- <<'END' &
import os, sys
sys.path.insert(0, os.environ["LIB"])
from posixlib import AT_EMPTY_PATH, linkat
os.chdir(sys.argv[1])
for i in range(20):
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, b"x" * 100_000)
    if i == 0:
        linkat(fd, "", "named", AT_EMPTY_PATH)
open(sys.argv[1] + "/ready", "w").close()
os.read(os.open(sys.argv[1] + ".wait", os.O_RDONLY), 1)
END
    holder=$!
    wait_until $holder test -e "$MNT/ready"
}
export LIB=$top/tests/mounted
mkfifo "$MNT.wait"
rm -rf "$STORE"
keg_mount
unnamed
keg_kill
kill $holder
wait $holder || true
keg_mount
equal "what is there" "named ready" "$(cd "$MNT" && echo *)"
equal "bytes of the named one" 100000 "$(stat -c %s "$MNT/named")"
equal "inodes in use" 3 "$(stat -f -c '%c %d' "$MNT" | awk '{ print $1 - $2 }')"
keg_umount
"$KEGFS" check "$STORE"
