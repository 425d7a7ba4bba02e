#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# -o noxattr: attributes are not served, stay in the store, and are there again without the option
. "$(dirname "$0")/lib.sh"
export LC_ALL=C

attributes() { (cd "$MNT" && getfattr -R -h -P -d -m - -e hex . 2>/dev/null) || true; }
capability=0x0100000200200000000000000000000000000000
has_capability() { getfattr -n security.capability --only-values "$1" >/dev/null 2>&1; }

step "attributes, of every kind that may be set here"
keg_mount
mkdir "$MNT/dir" "$MNT/gone" "$MNT/heirs"
for file in same renamed rewritten over removed replaced; do
    echo "$file" >"$MNT/$file"
    setfattr -n user.colour -v "blue $file" "$MNT/$file"
done
head -c 5000 /dev/urandom | base64 -w 0 >"$T/long"
setfattr -n user.long -v "0s$(cat "$T/long")" "$MNT/dir"
setfattr -n user.gone -v x "$MNT/gone"
setfacl -m u:1001:rwx,d:u:1002:rx "$MNT/dir"
setfacl -m d:u:1004:rwx "$MNT/heirs"
for file in guarded heirs/put; do
    echo "$file" >"$MNT/$file"
    setfacl -b -m u:1001:rwx,g::- "$MNT/$file"
    chmod 674 "$MNT/$file"
done
if [ "$(id -u)" -eq 0 ]; then
    ln -s nowhere "$MNT/link"
    setfattr -h -n trusted.of-a-link -v x "$MNT/link"
    for file in bare kept-bare; do
        echo program >"$MNT/$file"
        setfattr -n security.capability -v "$capability" "$MNT/$file"
    done
fi
attributes >"$T/before"
grep -q user.long "$T/before" || fail "no attributes were set"

step "none of it is to be seen"
keg_remount -o noxattr
attributes >"$T/hidden"
equal "attributes shown" "" "$(cat "$T/hidden")"
refused 1 'not supported' setfattr -n user.colour -v red "$MNT/same"
refused 1 'not supported' setfattr -x user.colour "$MNT/same"
refused 1 'not supported' getfattr -n user.colour "$MNT/same"
refused 1 'not supported' getfattr -n user.kegfs.stats "$MNT"
refused 1 'not supported' setfacl -m u:1003:r "$MNT/same"
asked() { for opcode in GETXATTR LISTXATTR SETXATTR REMOVEXATTR; do requests $opcode; done; }
before=$(asked)
attributes >"$T/hidden"
setfattr -n user.colour -v red "$MNT/same" 2>/dev/null || true
setfattr -x user.colour "$MNT/same" 2>/dev/null || true
echo more >"$MNT/more"
equal "requests for attributes once each was refused" "$before" "$(asked)"

step "what a program does leaves them as they are"
mv "$MNT/renamed" "$MNT/dir/moved"
echo rewritten again >"$MNT/rewritten"
mv "$MNT/more" "$MNT/over"
rm "$MNT/removed"
rmdir "$MNT/gone"
mkdir "$MNT/dir/inherits"
[ ! -e "$MNT/bare" ] || echo changed >>"$MNT/bare"

step "the control file, and the commands that use it"
for command in stats segments hint compact; do "$KEGFS" $command "$STORE" >/dev/null; done
compact
grep -q live_bytes "$MNT/.kegfs/stats"
"$KEGFS" check "$STORE"
echo put | "$KEGFS" put "$STORE" replaced
equal "what was put" put "$("$KEGFS" get "$STORE" replaced)"
"$KEGFS" ls "$STORE" >/dev/null
"$KEGFS" rm "$STORE" replaced
for file in guarded heirs/put; do
    equal "mode with an ACL that is not seen" 674 "$(stat -c %a "$MNT/$file")"
    echo put | "$KEGFS" put "$STORE" $file
    equal "mode, without what may be the mask" 604 "$(stat -c %a "$MNT/$file")"
done

step "a kill, a check, and they are there again"
keg_kill
"$KEGFS" check "$STORE"
keg_mount
attributes >"$T/after"
sed -e '/^# file: renamed$/,/^$/d' -e '/^# file: \(guarded\|heirs\/put\|over\|removed\|replaced\|gone\|bare\)$/,/^$/d' \
    "$T/before" | LC_ALL=C sort >"$T/expected"
sed -e '/^# file: \(dir\/moved\|dir\/inherits\|heirs\/put\)$/,/^$/d' "$T/after" | LC_ALL=C sort |
    diff "$T/expected" - || fail "attributes have changed"
colour() { getfattr --absolute-names --only-values -n user.colour "$1"; }
equal "of a file renamed" "blue renamed" "$(colour "$MNT/dir/moved")"
equal "of a file written anew" "blue rewritten" "$(colour "$MNT/rewritten")"
equal "ACL of a directory made meanwhile" user:1002:r-x \
    "$(getfacl -cnp "$MNT/dir/inherits" 2>/dev/null | sed -n 's/\t.*//; /^user:1002/p')"
equal "ACL of a file that was put" "user::rw- group::--- other::r--" \
    "$(getfacl -cn "$MNT/guarded" 2>/dev/null | xargs)"
equal "and with an ACL that it inherited" "group::r-x mask::---" \
    "$(getfacl -cEn "$MNT/heirs/put" 2>/dev/null | grep -E '^(group|mask):' | xargs)"
if [ -e "$MNT/bare" ]; then
    has_capability "$MNT/kept-bare" || fail "a file that was let alone has lost its capability"
    ! has_capability "$MNT/bare" || fail "a file that was written to has kept its capability"
fi

if [ "$(id -u)" -eq 0 ]; then
    step "suid and sgid go when others write"
    keg_remount -o noxattr,allow_other,suid
    chmod 755 "$T" "$MNT"
    for mode in 4777 6777; do
        echo x >"$MNT/suid" && chmod $mode "$MNT/suid"
        # shellcheck disable=SC2016
        setpriv --reuid 1001 --regid 1001 --clear-groups sh -c 'echo y >>"$0"' "$MNT/suid"
        equal "mode after a write" 777 "$(stat -c %a "$MNT/suid")"
        chmod $mode "$MNT/suid"
        setpriv --reuid 1001 --regid 1001 --clear-groups truncate -s 1 "$MNT/suid"
        equal "mode after a truncation" 777 "$(stat -c %a "$MNT/suid")"
    done
fi
[ "$(id -u)" -eq 0 ] || keg_remount -o noxattr

step "remounts, and options that contradict each other"
refused 2 'contradict' "$KEGFS" mount "$STORE" "$MNT" -o nonempty,noxattr,acl
refused 1 ' xattr is for mounting' "$KEGFS" mount "$STORE" "$MNT" -o remount,ro,xattr
echo writable >"$MNT/still"
"$KEGFS" mount "$STORE" "$MNT" -o remount,ro,noxattr
equal "attributes shown" "" "$(attributes)"
keg_umount
keg_mount -o noxattr,noacl
keg_remount -o noxattr,xattr
refused 1 ' noxattr is for mounting' "$KEGFS" mount "$STORE" "$MNT" -o remount,ro,noxattr
"$KEGFS" mount "$STORE" "$MNT" -o remount,xattr
echo writable >"$MNT/still"
keg_umount
"$KEGFS" check "$STORE"
