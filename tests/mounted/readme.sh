#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# the README's tour, as it stands there
. "$(dirname "$0")/lib.sh"

awk '/^## /{ tour = /Five minutes/ } /^```/{ code = tour && /^```sh$/; next } code' "$top/README.md" \
    >"$T/tour"
[ "$(wc -l <"$T/tour")" -gt 10 ] || fail "no tour in README.md"
mkdir -p "$T/top/build"
ln -s "$(dirname "$KEGFS")" "$T/top/build/fs"
cd "$T/top"
TMPDIR=$T bash -euxo pipefail "$T/tour"
equal "mounts left" "" "$(mounts_below "$T")"
