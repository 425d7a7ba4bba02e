#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# mount(8) and umount(8): by type, as fstab would, and remounts that change the flags
. "$(dirname "$0")/lib.sh"
export LC_ALL=C
need_root
[ "${OWN_MOUNTS-}" = had ] || skip "needs a mount namespace"

# mount(8) looks for the program where root's programs are: here, in a mount namespace of our own.
mount -t tmpfs none /usr/local/bin
cp "$KEGFS" /usr/local/bin/kegfs
options() { findmnt -n -o OPTIONS --mountpoint "$MNT"; }
has_not() { [[ ",$(options)," != *",$1,"* ]] || fail "mounted with $1: $(options)"; }
has() { [[ ",$(options)," == *",$1,"* ]] || fail "not mounted with $1: $(options)"; }

step "mount, by type"
mount -t fuse.kegfs -o noexec,allow_other,sync_interval=500,x-systemd.automount "$STORE" "$MNT"
for word in rw noexec nosuid nodev allow_other default_permissions; do has "$word"; done
echo kept >"$MNT/file"
umount "$MNT"
pid=$(sed -n 's/^\([0-9]*\).*/\1/p' "$STORE/LOCK")
[ -z "$pid" ] || wait_end "$pid"
mount -t fuse.kegfs -o ro "$STORE" "$MNT"
has ro
equal "the file" kept "$(cat "$MNT/file")"

step "what is open for reading only does not become writable"
refused 1 "reading only" mount -o remount,rw "$MNT"
has ro
keg_umount

step "remount"
keg_mount -o allow_other
exec 5>"$MNT/held"
refused 1 "open for writing" mount -o remount,ro "$MNT"
has rw
exec 5>&-
: >"$MNT/file" # a truncation, which is still held back
mount -o remount,ro "$MNT"
has ro
has allow_other
has nosuid
refused 1 "Read-only file system" touch "$MNT/new"
equal "the file" "" "$(cat "$MNT/file")"
mount -o remount,rw,noexec "$MNT"
has rw
has noexec
touch "$MNT/new"
printf '#!/bin/sh\n' >"$MNT/program"
chmod +x "$MNT/program"
refused 126 "Permission denied" bash -c "'$MNT/program'"
mount -o remount,exec "$MNT"
"$MNT/program"

step "a remount changes what it names"
mount -o remount,noexec "$MNT"
"$KEGFS" mount "$STORE" "$MNT" -o remount,ro
for word in ro noexec nosuid nodev; do has "$word"; done
"$KEGFS" mount "$STORE" "$MNT" -o remount,rw,suid
for word in rw noexec nodev; do has "$word"; done
has_not nosuid
mount -o remount,dev "$MNT"
has_not nodev
has_not nosuid
mount -o remount,nosuid "$MNT"
has_not nodev
has nosuid
keg_umount
step "dev and suid by type"
for how in allow_dev,allow_suid allow_suid,noatime,allow_dev; do
    mount -t fuse.kegfs -o $how "$STORE" "$MNT"
    has_not nodev
    has_not nosuid
    keg_umount
done
cp "$KEGFS" "$T/mount.kegfs" # as mount -t kegfs calls it
"$T/mount.kegfs" "$STORE" "$MNT" -o rw,dev,suid
has_not nodev
has_not nosuid
refused 2 nonsense "$KEGFS" "$STORE" "$MNT" -o remount,nonsense
refused 1 "not mounted" "$KEGFS" mount "$T/another" "$MNT" -o remount,ro
keg_umount
refused 1 "not mounted" "$KEGFS" mount "$STORE" "$MNT" -o remount,ro
"$KEGFS" check "$STORE"
