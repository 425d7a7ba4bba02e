#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# a store of an ordinary user's, mounted by that user: who gets in, and what is said if not
. "$(dirname "$0")/lib.sh"
need_root
command -v fusermount3 >/dev/null || skip "needs fusermount3"

# With a /dev/fuse, an /etc/fuse.conf and users of the test's own.
[ "${OWN_MOUNTS-}" = had ] || skip "needs a mount namespace"
user=54321 other=54322
mkdir "$T/bin" "$T/home" "$T/dev"
mount -t tmpfs -o dev none "$T/dev"
mknod -m 666 "$T/dev/fuse" c 10 229
mount --bind "$T/dev/fuse" /dev/fuse
configure() { # LINE...: of /etc/fuse.conf
    printf '%s\n' "$@" >"$T/dev/fuse.conf"
}
configure "# nothing"
[ -e /etc/fuse.conf ] || skip "there is no /etc/fuse.conf to stand in for"
mount --bind "$T/dev/fuse.conf" /etc/fuse.conf

# fusermount3 mounts only for who has a name.
{ cat /etc/passwd && printf 'kegfs%s:x:%s:%s::/:/bin/sh\n' a $user $user b $other $other; } \
    >"$T/dev/passwd"
mount --bind "$T/dev/passwd" /etc/passwd

chmod 755 "$T"
cp "$KEGFS" "$T/bin/kegfs"
KEGFS=$T/bin/kegfs
chmod -R a+rX "$T/bin"
STORE=$T/home/store MNT=$T/home/mnt
mkdir "$MNT"
chown -R $user:$user "$T/home"
as() { # UID COMMAND...
    local uid=$1
    shift
    setpriv --reuid "$uid" --regid "$uid" --clear-groups -- "$@"
}
options_of() { awk -v dir="$MNT" '$2 == dir { print "," $4 "," }' /proc/self/mounts; }

step "a user mounts, uses and unmounts"
as $user "$KEGFS" mount "$STORE" "$MNT"
as $user sh -c "echo mine >'$MNT/file' && mkdir '$MNT/dir' && chmod 600 '$MNT/file'"
equal "contents" mine "$(as $user cat "$MNT/file")"
equal "owner" "$user $user" "$(as $user stat -c '%u %g' "$MNT/file")"
equal "owner of the root" "$user $user" "$(as $user stat -c '%u %g' "$MNT")"
equal "owner and mode of the store" "$user 700" "$(stat -c '%u %a' "$STORE")"
as $user "$KEGFS" stats "$MNT" >/dev/null
as $user sh -c "echo sync >'$MNT/.kegfs/control'"
as $user setfattr -n user.a -v 1 "$MNT/file"
refused 1 "Operation not permitted" as $user chown $other "$MNT/file"
refused 1 "Operation not permitted" as $user mknod "$MNT/null" c 1 3

step "nobody else gets in, not even root"
refused 2 "Permission denied" as $other ls "$MNT"
refused 2 "Permission denied" ls "$MNT/"
refused 1 "Permission denied" as $other cat "$MNT/file"
refused 1 "user $user mounted it" as $other "$KEGFS" umount "$MNT"
as $user "$KEGFS" umount "$MNT"
as $user "$KEGFS" check "$STORE"

step "dev and suid are not a user's to give"
as $user "$KEGFS" mount "$STORE" "$MNT" -o dev,suid
[[ $(options_of) == *,nosuid,nodev,* ]] || fail "-o dev,suid: $(options_of)"
as $user "$KEGFS" umount "$MNT"

step "allow_other has to be allowed"
refused 1 "user_allow_other" as $user "$KEGFS" mount "$STORE" "$MNT" -o allow_other
configure "#user_allow_other" "user_allow_others"
refused 1 "user_allow_other" as $user "$KEGFS" mount "$STORE" "$MNT" -o allow_other
configure "mount_max = 100" " user_allow_other # for all"
as $user "$KEGFS" mount "$STORE" "$MNT" -o allow_other
as $user sh -c "mkdir '$MNT/open' && echo all >'$MNT/open/file' && chmod 777 '$MNT/open'"
equal "what another reads" all "$(as $other cat "$MNT/open/file")"
equal "what root reads" mine "$(cat "$MNT/file")"
refused 1 "Permission denied" as $other cat "$MNT/file"
as $other sh -c "echo theirs >'$MNT/open/theirs'"
equal "owner" $other "$(stat -c %u "$MNT/open/theirs")"
refused 2 "ermission denied" as $other sh -c "echo x >'$MNT/new'"
chmod 777 "$MNT"
as $other sh -c "echo theirs >'$MNT/new'"
refused 2 "ermission denied" as $other sh -c "echo sync >'$MNT/.kegfs/control'"
refused 1 "Operation not permitted" as $other setfattr -n user.kegfs.sync -v 1 "$MNT"
as $user setfattr -n user.kegfs.sync -v 1 "$MNT"
setfattr -n user.kegfs.sync -v 1 "$MNT"
as $user chmod 755 "$MNT"
refused 1 "user $user mounted it" as $other "$KEGFS" umount "$MNT"
as $user "$KEGFS" umount "$MNT"

step "another user's store is not to be opened"
refused 1 "ermission denied" as $other "$KEGFS" ls "$STORE"
refused 1 "ermission denied" as $other "$KEGFS" mount "$STORE" "$MNT"

step "without access to /dev/fuse it says so"
chmod 600 "$T/dev/fuse"
refused 1 "/dev/fuse" as $user "$KEGFS" mount "$STORE" "$MNT"
umount /dev/fuse /etc/fuse.conf /etc/passwd
