#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# who may do what, which error a call gives, which times and link counts it changes
. "$(dirname "$0")/lib.sh"
need_root

keg_mount -o allow_other,dev,suid
mkdir "$MNT/rules" "$MNT/times"
python3 "$top/tests/mounted/rules.py" "$MNT/rules"
python3 "$top/tests/mounted/times.py" "$MNT/times"

step "the same with every change durable"
keg_remount -o allow_other,dev,suid,sync
mkdir "$MNT/sync"
python3 "$top/tests/mounted/rules.py" "$MNT/sync"

step "times of access, with -o relatime"
keg_remount -o relatime
mkdir "$MNT/relatime"
python3 "$top/tests/mounted/times.py" "$MNT/relatime" relatime

step "read-only"
list() { find "$MNT" -printf '%p %i %m %n %s %T@ %C@ %U %G %y %l\n' | sort; }
list >"$T/before"
keg_remount -o ro
python3 "$top/tests/mounted/rules.py" "$MNT/rules" readonly
diff "$T/before" <(list) || fail "a remount shows another tree"
keg_umount
"$KEGFS" check "$STORE"
