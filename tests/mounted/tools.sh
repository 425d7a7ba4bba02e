#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# git, tar, sqlite in both journal modes and rm -rf of many files
. "$(dirname "$0")/lib.sh"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@example

keg_mount

step "git"
commits=$(scaled 20 200 1000)
git init -q -b main "$T/origin"
python3 - "$commits" <<'PYTHON' | git -C "$T/origin" fast-import --quiet
import random, sys
numbers = random.Random(11)
for i in range(int(sys.argv[1])):
    print(f"commit refs/heads/main\ncommitter A <a@example> {1700000000 + i} +0000")
    print("data 8\ncommit\n")
    for _ in range(10):
        text = "".join(f"{numbers.random()}\n" for _ in range(numbers.randrange(1, 200)))
        print(f"M 100644 inline d{numbers.randrange(20)}/f{numbers.randrange(30)}.c")
        print(f"data {len(text)}\n{text}")
PYTHON
git -C "$T/origin" reset -q --hard
git clone -q --no-local "$T/origin" "$MNT/clone"
cd "$MNT/clone"
git fsck --full --strict
equal "git status" "" "$(git status --porcelain)"
git checkout -q -b work
for i in 1 2 3; do echo "$i" >>d1/new && git add d1/new && git commit -q -m "commit $i"; done
git checkout -q main && git merge -q work
git gc -q --aggressive --prune=now
git fsck --full --strict
equal "git status after gc" "" "$(git status --porcelain)"
git checkout -q "HEAD~$((commits / 2))" && git checkout -q main
equal "git status after checkouts" "" "$(git status --porcelain)"
equal "commits" $((commits + 3)) "$(git rev-list --count HEAD)"
git push -q "$T/origin" main:pushed
cd "$T"
keg_remount
git -C "$MNT/clone" fsck --full
equal "git status after a remount" "" "$(git -C "$MNT/clone" status --porcelain)"

step "tar"
tar -C "$T" -cf "$T/origin.tar" origin
mkdir "$MNT/tar"
tar -C "$MNT/tar" -xpf "$T/origin.tar"
same_tree "$T/origin" "$MNT/tar/origin"
tar -C "$MNT/tar" -cf "$MNT/back.tar" origin
mkdir "$T/back"
tar -C "$T/back" -xpf "$MNT/back.tar"
same_tree "$T/origin" "$T/back/origin"

for mode in wal delete; do
    step "sqlite, journal mode $mode"
    db=$MNT/$mode.db
    rows=$(scaled 1000 20000 100000)
    equal "journal mode" "$mode" "$(sqlite3 "$db" "PRAGMA journal_mode=$mode")"
    sqlite3 "$db" "CREATE TABLE t(i INTEGER PRIMARY KEY, x TEXT);
        WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < $rows)
        INSERT INTO t SELECT i, hex(randomblob(50)) FROM c;
        CREATE INDEX x ON t(x); DELETE FROM t WHERE i % 3 = 0; VACUUM;"
    # Two writers at once, each statement a transaction.
    each=$(scaled 20 100 500)
    for writer in 1 2; do
        for i in $(seq "$each"); do
            echo "INSERT INTO t VALUES($writer * 1000000 + $i, hex(randomblob(50)));"
        done | sqlite3 -cmd '.timeout 60000' "$db" &
        pids[writer]=$!
    done
    wait "${pids[1]}" && wait "${pids[2]}"
    want=$((rows - rows / 3 + 2 * each))
    equal integrity ok "$(sqlite3 "$db" 'PRAGMA integrity_check')"
    equal rows "$want" "$(sqlite3 "$db" 'SELECT count(*) FROM t')"
    sqlite3 "$db" 'PRAGMA synchronous=FULL; UPDATE t SET x = upper(x) WHERE i < 100;'
    keg_kill
    keg_mount
    equal "integrity after kill -9" ok "$(sqlite3 "$db" 'PRAGMA integrity_check')"
    equal "rows after kill -9" "$want" "$(sqlite3 "$db" 'SELECT count(*) FROM t')"
done

many=$(scaled 1000 10000 100000)
step "rm -rf of $many files"
mkdir -p "$MNT/many/"{0..9}
(cd "$MNT/many" && for ((i = 0; i < many; i++)); do echo "$i" >"$((i % 10))/$i"; done)
equal "files made" "$many" "$(find "$MNT/many" -type f | wc -l)"
rm -rf "$MNT/many"
[ ! -e "$MNT/many" ] || fail "still there"
keg_remount
[ ! -e "$MNT/many" ] || fail "there again"
keg_umount
"$KEGFS" check "$STORE"
