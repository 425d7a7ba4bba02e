#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# POSIX ACLs: kept, inherited and enforced as on ext4, over remounts and kill -9
. "$(dirname "$0")/lib.sh"
need_root
export LC_ALL=C

chmod 711 "$T"
EXT4=$T/ext4
mkdir "$EXT4"
truncate -s 64M "$T/image"
mkfs.ext4 -q -F "$T/image"
mount -o loop,acl "$T/image" "$EXT4" 2>/dev/null || skip "no loop mount of ext4 with ACLs"
rmdir "$EXT4/lost+found"
keg_mount -o allow_other

as() { # UID GID COMMAND...
    setpriv --reuid "$1" --regid "$2" --clear-groups "${@:3}"
}
try() { # COMMAND...: what it says, and its exit status
    local status=0
    "$@" 2>&1 || status=$?
    echo "$status: $*"
}
show() { # FILE...: all that there is to say of their rights
    stat -c '%n %A %u %g' "$@"
    getfacl -n "$@"
    getfattr -d -m - "$@"
}
show_all() { find . ! -type l -print0 | sort -z | xargs -0 bash -c "$(declare -f show); show \"\$@\"" show; }
# The same steps here and there, and every word that they print.
compare() { # WHAT COMMAND...
    local place status
    step "$1"
    for place in "$EXT4" "$MNT"; do
        set +e
        (
            set -e
            cd "$place"
            "${@:2}"
        ) >"$T/${place##*/}.said" 2>&1
        status=$?
        set -e
        [ "$status" -eq 0 ] || fail "$(tail -n 5 "$T/${place##*/}.said")"
    done
    [ -s "$T/mnt.said" ] || fail "it said nothing"
    diff "$T/ext4.said" "$T/mnt.said" || fail "not as on ext4: $1"
}

# ---- Setting and removing ----

settings() {
    umask 022
    mkdir set
    cd set
    echo x >file
    mkdir dir
    ln -s file link
    mkfifo fifo
    show file dir
    setfacl -m u:1001:rwx,g:2002:r file
    setfacl -m u:1001:rw fifo
    setfacl -m u:1001:rx,d:u:1001:rwx,d:g:2002:rx,d:o::- dir
    show file dir fifo
    local mode
    for mode in 600 u+s,g-w 4777 0 g=rwx,o= 640; do
        chmod "$mode" file && show file
        chmod "$mode" dir && show dir
    done
    setfacl -m m::rwx file
    setfacl -x u:1001 file
    show file
    setfacl -x g:2002 file # a mask stays
    show file
    setfacl -x m file
    show file
    setfacl -m u:1001:r,m::- file
    show file
    setfacl -k dir
    show dir
    setfacl -b dir file
    show dir file
    setfacl -m u:1001:r file
    setfattr -x system.posix_acl_access file # the mode stays
    show file
    try setfattr -x system.posix_acl_access file
    try setfattr -x system.posix_acl_default file
    try getfattr -n system.posix_acl_access file
    try getfattr -n system.posix_acl_default dir
    try setfattr -n system.other -v 1 file
}
compare "setting and removing" settings

# Entries as hex: tag, permissions, id.
entry() { printf '%02x%02x%02x%02x%s' "$1" 0 "$2" 0 "${3:-ffffffff}"; }
invalid() {
    local user owner group named mask other head=0x02000000 value attribute
    owner=$(entry 1 7) user=$(entry 2 7 05000000) group=$(entry 4 5)
    named=$(entry 8 7 06000000) mask=$(entry 16 7) other=$(entry 32 4)
    mkdir invalid
    cd invalid
    mkdir dir
    echo x >file
    ln -s file link
    for value in $head 0x 0x0200 0x01000000 "0x01000000$owner$group$other" 0x03000000 \
        $head"$owner" $head"$owner$group" $head"$owner$other" $head"$group$owner$other" \
        $head"$owner$owner$group$other" $head"$owner$group$group$other" \
        $head"$owner$group$other$other" $head"$owner$user$group$other" \
        $head"$owner$group$named$other" $head"$owner$group$mask$mask$other" \
        $head"$owner$group$user$mask$other" $head"$owner$group$other$mask" \
        $head"$(entry 1 8)$group$other" $head"$(entry 64 7)$group$other" \
        $head"$owner$(entry 2 7)$group$mask$other" $head"$owner$group$other"00 \
        $head"$owner$user$user$group$named$mask$other" $head"$owner$group$mask$other" \
        $head"$(entry 1 7 09000000)$user$group$mask$(entry 32 4 00000000)" \
        $head"$owner$group$other" 0x; do
        for attribute in access default; do
            try setfattr -n system.posix_acl_$attribute -v "$value" dir
            try setfattr -n system.posix_acl_$attribute -v "$value" file
            show dir file
        done
    done
    try setfattr -h -n system.posix_acl_access -v $head"$owner$group$other" link
    try setfattr -h -n system.posix_acl_default -v $head"$owner$group$other" link
}
compare "values that are none" invalid

# ---- Inheriting ----

inheriting() {
    mkdir inherit
    cd inherit
    local spec mask
    for spec in d:u:1001:rwx d:u::rwx,d:g::r,d:o::- d:u:1001:r,d:g:2002:rwx,d:m::rx,d:o::rx \
        d:u::r,d:g::-,d:o::rwx; do
        rm -rf top
        mkdir top
        setfacl -m "$spec" top
        for mask in 077 000 022 777; do
            (
                umask $mask
                mkdir "top/d$mask"
                mkdir -p "top/p$mask/q/r"
                mkdir -m 2751 "top/m$mask"
                echo x >"top/f$mask"
                install -m 640 /etc/hostname "top/i$mask"
                cp /etc/hostname "top/c$mask"
                cp -p "top/f$mask" "top/cp$mask"
                cp -a "top/f$mask" "top/ca$mask"
                mkfifo "top/fifo$mask"
                mknod "top/null$mask" c 1 3
                ln -s nowhere "top/l$mask"
                python3 -c 'import os, sys
fd = os.open("top", os.O_TMPFILE | os.O_WRONLY, 0o664)
os.link(f"/proc/self/fd/{fd}", sys.argv[1], src_dir_fd=fd, follow_symlinks=True)' "top/tmp$mask"
            )
        done
        (cd top && show_all)
        stat -c '%n %A' top/l* # never touched by either
    done
    (umask 027 && mkdir plain && echo x >plain/f && mkfifo plain/p && show plain plain/f plain/p)
}
compare "inheriting" inheriting

# ---- Enforcing ----

prepare_access() {
    umask 022
    mkdir access
    cd access
    local name
    for name in plain named group masked denied other; do
        mkdir $name.d
        echo "contents of $name" >$name.d/file
        printf '#!/bin/sh\necho ran\n' >$name.d/script
        chmod 740 $name.d $name.d/*
    done
    setfacl -R -m u:1001:rwx named.d
    setfacl -R -m g:2002:rwx group.d
    setfacl -R -m u:1001:rwx,g:2002:rwx,m::rx masked.d
    chmod -R o+rx denied.d other.d
    setfacl -R -m u:1001:-,g:2002:- denied.d
    setfacl -R -m u:1001:r,o::rx other.d
    chown -R 1003:3003 other.d
    show_all
}
attempts() { # WHO DIRECTORY; in a shell of that user
    local who=$1 dir=$2 status=0
    echo "$who in $dir"
    cat "$dir/file" || echo "cannot read it"
    echo "$dir"/* # what can be listed
    [ -w "$dir/file" ] || echo "may not write it"
    [ -x "$dir/script" ] || echo "may not run it"
    "$dir/script" || echo "did not run"
    echo "written by $who" 1<>"$dir/file" || echo "cannot write it"
    echo x >"$dir/made$who" || echo "cannot make a file"
    mkdir "$dir/dir$who" || echo "cannot make a directory"
    mv "$dir/file" "$dir/moved" && mv "$dir/moved" "$dir/file" || echo "cannot rename it"
    rm -f "$dir/made$who" || echo "cannot remove it"
    setfacl -m u:1001:rwx "$dir/file" || echo "cannot set its ACL"
    chmod 777 "$dir/file" || echo "cannot chmod it"
}
attempts_everywhere() {
    for dir in plain named group masked denied other; do attempts "$1" "$dir.d"; done
}
access_as() { # UID GID
    as "$1" "$2" bash -c "$(declare -f attempts attempts_everywhere); attempts_everywhere $1-$2" 2>&1 |
        sed 's/^[^ ]*: line [0-9]*: //'
}
enforcing() {
    cd access
    access_as 1001 1001
    access_as 1002 2002
    access_as 1001 2002
    access_as 1003 3003
    access_as 1009 0 # root's group, who owns them
    show_all
    chmod 700 named.d # takes it from all but the owner, at once
    try as 1001 1001 cat named.d/file
    chmod 750 named.d
    try as 1001 1001 cat named.d/file
    setfacl -m u:1001:- named.d
    try as 1001 1001 cat named.d/file
    setfacl -m u:1001:rwx named.d
    try as 1001 1001 cat named.d/file
}
compare "who may what: made" prepare_access
compare "who may what" enforcing

group_ids() {
    mkdir sgid
    cd sgid
    mkdir d
    echo x >f
    chown 1001:2002 d f
    local who
    for who in 1001:1001 1001:2002 0:0; do
        chmod 6755 d f
        try as ${who%:*} ${who#*:} setfacl -m u:1005:rx d
        try as ${who%:*} ${who#*:} setfacl -m u:1005:rx f
        show d f
        try as ${who%:*} ${who#*:} setfacl -b d f
        show d f
    done
    chmod 2775 d
    setfacl -m d:u:1005:rwx,u:1005:rwx d
    try as 1005 1005 mkdir d/sub
    try as 1005 1005 touch d/file
    show d/sub d/file
    try as 1005 1005 sh -c 'echo more >>d/file'
    try as 1005 1005 chmod g-w d/sub d/file
    try as 1001 1001 rm d/file
    show_all
}
compare "sgid" group_ids

# ---- Tools ----

tools() { # FROM: the tree of the other file system
    mkdir tools
    local copy
    mkdir tools/cp tools/rsync tools/tar tools/restored
    cp -a inherit access sgid tools/cp
    rsync -aAX inherit access sgid tools/rsync
    rsync -aAXn --itemize-changes inherit access sgid tools/rsync
    tar c --acls --xattrs inherit access sgid | tar x --acls --xattrs -C tools/tar
    getfacl -nR inherit access sgid >tools/acls
    cp -r inherit access sgid tools/restored
    (cd tools/restored && setfacl --restore=../acls)
    for copy in tools/*/; do (cd "$copy" && show_all); done
}
compare "cp -a, rsync -aAX, tar --acls, setfacl --restore" tools
rsync -aAX "$EXT4/" "$T/mnt/across/"
across=$(rsync -aAXn --delete --itemize-changes "$EXT4/" "$MNT/across/")
equal "what rsync would change of a copy" "" "$across"
across=$(rsync -aAXn --no-times --size-only --delete --exclude across --itemize-changes "$EXT4/" "$MNT/")
equal "what rsync would change beside times" "" "$across"

# ---- Over remounts ----

state() { (cd "$MNT" && show_all); }
before=$(state)
again() { # WHAT
    step "$1"
    [ "$before" = "$(state)" ] || fail "$1: $(diff <(echo "$before") <(state) | head -n 10)"
}
keg_remount -o allow_other
again "remounted"
enforcing_again() {
    cd access
    access_as 1001 1001
    access_as 1002 2002
}
compare "who may what after it" enforcing_again
mkdir "$MNT/late"
setfacl -m d:u:1001:rwx,u:1001:rwx "$MNT/late"
echo x >"$MNT/late/file"
mkdir "$MNT/late/dir"
chmod 700 "$MNT/late/dir"
before=$(state)
keg_kill
keg_mount -o allow_other
again "killed"
grep -q '^user:1001:rwx' <<<"$before" || fail "there were no ACLs"

step "kegfs put"
echo new | "$KEGFS" put "$STORE" late/put
equal "inherited" "$(getfacl -npc "$MNT/late/file")" "$(getfacl -npc "$MNT/late/put")"
setfacl -b "$MNT/late/put"
mode=$(stat -c %A "$MNT/late/put")
echo newer | "$KEGFS" put "$STORE" late/put
equal "without an ACL, as before" "$mode" "$(stat -c %A "$MNT/late/put")"
equal "no ACL" "" "$(getfattr -d -m - "$MNT/late/put")"
setfacl -m u:1007:rw "$MNT/late/put"
kept=$(getfacl -npc "$MNT/late/put")
echo newest | "$KEGFS" put "$STORE" late/put
equal "replaced through the mount" "$kept" "$(getfacl -npc "$MNT/late/put")"
keg_umount
echo last | "$KEGFS" put "$STORE" late/put
(umask 077 && echo x | "$KEGFS" put "$STORE" late/deep/put)
"$KEGFS" check "$STORE"

step "-o noacl"
keg_mount -o allow_other,noacl
equal "nothing shown" "" "$(getfattr -d -m - "$MNT/late/put")"
refused 1 'not supported' setfacl -m u:1001:r "$MNT/late/put"
equal "contents" last "$(cat "$MNT/late/put")"
keg_remount -o allow_other
equal "kept by all that" "$kept" "$(getfacl -npc "$MNT/late/put")"
equal "inherited by what is put" "user:1001:rwx" "$(getfacl -npc "$MNT/late/deep/put" | sed -n 's/\t.*//; 2p')"

# ---- What it costs ----

getxattrs() {
    python3 -c 'import json, sys
print(json.load(sys.stdin)["requests"].get("GETXATTR", 0))' <"$MNT/.kegfs/stats.json"
}
# By the owner of the directories, no ACLs about.
cost() {
    local before i
    before=$(getxattrs)
    mkdir "$MNT/cost"
    for i in {1..50}; do
        echo x >"$MNT/cost/f$i"
        mkdir "$MNT/cost/d$i"
        mv "$MNT/cost/f$i" "$MNT/cost/g$i"
        rm "$MNT/cost/g$i"
    done
    rm -r "$MNT/cost"
    echo $(($(getxattrs) - before))
}
step "requests"
with=$(cost)
keg_remount -o noacl
without=$(cost)
[ "$with" -le $((without + 25)) ] || fail "ACLs cost the owner $with GETXATTR, without them $without"
keg_umount

# ---- By a user ----

step "a mount of a user's own"
own=$T/own
own_steps() { # DIRECTORY
    set -e
    cd "$1"
    mkdir d
    setfacl -m u:1005:rx,d:u:1005:rwx d
    umask 077
    echo x >d/f
    chmod 750 d
    getfacl -n d d/f
}
own_mount() { # in a mount namespace, where anybody may open /dev/fuse
    set -e
    drop_copies
    mount -t tmpfs -o mode=755 none "$own/dev"
    mknod -m 666 "$own/dev/fuse" c 10 229
    mount --bind "$own/dev/fuse" /dev/fuse
    as 1001 1001 "$own/kegfs" mount "$own/home/store" "$own/home/mnt"
    as 1001 1001 bash -c "$(declare -f own_steps); own_steps $own/home/mnt" >"$own/said"
    as 1001 1001 "$own/kegfs" umount "$own/home/mnt"
}
mkdir -p "$own/dev" "$own/home/mnt" "$EXT4/own"
cp "$KEGFS" "$own/kegfs"
chown -R 1001:1001 "$own/home" "$EXT4/own"
if [ -u "$(command -v fusermount3)" ]; then
    export own
    export -f as own_steps own_mount drop_copies
    unshare -m --propagation private bash -c own_mount
    as 1001 1001 bash -c "$(declare -f own_steps); own_steps $EXT4/own" >"$own/expected"
    diff "$own/expected" "$own/said" || fail "not as on ext4"
    "$KEGFS" check "$own/home/store"
else
    echo "(left out: fusermount3 is not set-user-ID)" >&2
fi
umount "$EXT4"
