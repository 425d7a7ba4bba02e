#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# how many requests each common operation makes, on each transport, with attributes and without
. "$(dirname "$0")/lib.sh"

kinds=(spin libfuse)
if (need_uring) 2>"$T/why"; then kinds=(uring "${kinds[@]}"); else cat "$T/why" >&2; fi
# Other kernels may do with less, and owners of the directory make the fewest.
case $(uname -r) in 6.18.*) exact=exact ;; *) exact= ;; esac

budget() { # KIND [noxattr]
    local phase
    step "$*"
    rm -rf "$STORE"
    for phase in warm cold; do
        "$KEGFS" mount "$STORE" "$MNT" -o "transport=$1${2:+,$2}"
        # shellcheck disable=SC2086
        python3 "$top/tests/mounted/budget.py" "$MNT" $phase $exact ${2-}
        "$KEGFS" umount "$MNT"
    done
}
for kind in "${kinds[@]}"; do
    budget "$kind"
    budget "$kind" noxattr
done
