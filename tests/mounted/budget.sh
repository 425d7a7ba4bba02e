#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# how many requests each common operation makes, on each transport
. "$(dirname "$0")/lib.sh"

kinds=(spin libfuse)
if (need_uring) 2>"$T/why"; then kinds=(uring "${kinds[@]}"); else cat "$T/why" >&2; fi
# Other kernels may do with less, and owners of the directory make the fewest.
case $(uname -r) in 6.18.*) exact=exact ;; *) exact= ;; esac

for kind in "${kinds[@]}"; do
    step "$kind"
    rm -rf "$STORE"
    "$KEGFS" mount "$STORE" "$MNT" -o "transport=$kind"
    # shellcheck disable=SC2086
    python3 "$top/tests/mounted/budget.py" "$MNT" warm $exact
    "$KEGFS" umount "$MNT"
    "$KEGFS" mount "$STORE" "$MNT" -o "transport=$kind"
    # shellcheck disable=SC2086
    python3 "$top/tests/mounted/budget.py" "$MNT" cold $exact
    "$KEGFS" umount "$MNT"
done
