#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# vim saving with a backup, and a maildir that many processes deliver into
. "$(dirname "$0")/lib.sh"

keg_mount

step "vim"
vim_save() { # FILE BACKUPCOPY LINE: appends it; a swap file and the backup are beside the file
    vim -e -s -N -u NONE -i NONE -c "normal Go$3" -c "wq" "$1" </dev/null --cmd \
        "set backup backupcopy=$2 backupdir=. backupskip= directory=. swapsync=fsync fsync"
}
for how in yes no auto; do
    dir=$MNT/vim-$how
    mkdir "$dir"
    seq 20000 >"$dir/file"
    chmod 640 "$dir/file"
    setfattr -n user.colour -v blue "$dir/file"
    cp "$dir/file" "$T/expected"
    for i in 1 2 3; do
        mv "$T/expected" "$T/before"
        (cat "$T/before" && echo "line $i") >"$T/expected"
        inode=$(stat -c %i "$dir/file")
        (cd "$dir" && vim_save file "$how" "line $i")
        cmp "$dir/file" "$T/expected"
        equal "files there" 2 "$(find "$dir" -mindepth 1 -printf x | wc -c)"
        cmp "$(find "$dir" -name '*~')" "$T/before"
        equal "mode" 640 "$(stat -c %a "$dir/file")"
        case $how in
        yes)
            equal "inode" "$inode" "$(stat -c %i "$dir/file")"
            equal "attribute" blue "$(getfattr -n user.colour --only-values "$dir/file")"
            ;;
        no) [ "$inode" != "$(stat -c %i "$dir/file")" ] || fail "not a new file" ;;
        esac
    done
done
lasting

step "maildir"
# Deliverers write into tmp, fsync, and bring the message into new: half of them by link and
# unlink, half by rename. A reader meanwhile moves what is in new to cur, and must find each message
# whole. Each message is its name and a text that follows from it.
cat >"$T/maildir.py" <<'PYTHON'
import errno, hashlib, os, socket, sys, time

box, deliverers, messages = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def text(name):
    line = hashlib.sha256(name.encode()).hexdigest() + "\n"
    return (name + "\n" + line * (1 + int(line[:2], 16))).encode()

def deliver(who):
    for i in range(messages):
        name = f"{time.time():.6f}.P{who}Q{i}.host"
        tmp, new = f"{box}/tmp/{name}", f"{box}/new/{name}"
        file = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        body = text(name)
        assert os.write(file, body[:100]) + os.write(file, body[100:]) == len(body)
        os.fsync(file)
        os.close(file)
        if who % 2:
            os.link(tmp, new)
            assert os.stat(tmp).st_nlink == 2 # under the new name it may have been collected
            os.unlink(tmp)
        else:
            os.rename(tmp, new)

def collect():
    seen = set()
    while len(seen) < deliverers * messages:
        for name in os.listdir(box + "/new"):
            cur = f"{box}/cur/{name}:2,S"
            os.rename(f"{box}/new/{name}", cur)
            assert open(cur, "rb").read() == text(name), name
            assert name not in seen, name + " was delivered twice"
            seen.add(name)

for part in ("tmp", "new", "cur"):
    os.makedirs(f"{box}/{part}")
children = []
for who in range(deliverers + 1):
    pid = os.fork()
    if pid == 0:
        collect() if who == deliverers else deliver(who)
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
PYTHON
deliverers=$(scaled 4 16 50)
each=$(scaled 10 100 1000)
timeout 600 python3 "$T/maildir.py" "$MNT/mail" "$deliverers" "$each"
equal "messages" $((deliverers * each)) "$(find "$MNT/mail/cur" -type f -links 1 | wc -l)"
equal "left in tmp and new" "" "$(find "$MNT/mail/tmp" "$MNT/mail/new" -type f)"
lasting
keg_umount
