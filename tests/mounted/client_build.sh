#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# git with worktrees and many files; a C project built with make -j2 and ccache
. "$(dirname "$0")/lib.sh"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@example

keg_mount

files=$(scaled 200 2000 10000)
step "git, $files files"
git init -q -b main "$T/origin"
for revision in 1 2; do
    echo "commit refs/heads/main"
    echo "committer A <a@example> 170000000$revision +0000"
    printf 'data 8\nrevision\n'
    for ((i = revision - 1; i < files; i += revision)); do # the second changes every other file
        text="revision $revision of file $i"
        printf 'M 100644 inline d%d/e%d/f%d\ndata %d\n%s\n' \
            $((i % 10)) $((i % 97)) "$i" ${#text} "$text"
    done
done | git -C "$T/origin" fast-import --quiet
clone=$MNT/clone work=$MNT/work
git clone -q --no-local "$T/origin" "$clone"
equal "files checked out" "$files" "$(find "$clone/d"? -type f | wc -l)"
git -C "$clone" worktree add -q "$work" HEAD~1
git -C "$work" diff --quiet HEAD~0
equal "files that differ" $((files / 2)) \
    "$(diff -rq -x .git "$clone" "$work" | wc -l)"
# Two worktrees commit at once, and gc runs beside them; all fsync what they write.
git -C "$clone" config core.fsync all
# They lock the same references for a moment, which git waits for no longer than 0.1 s.
git -C "$clone" config core.filesRefLockTimeout 60000
git -C "$clone" config core.packedRefsTimeout 60000
commits() { # DIR BRANCH
    local i
    git -C "$1" checkout -q -b "$2"
    for i in $(seq "$(scaled 3 15 100)"); do
        echo "$i" >>"$1/$2"
        git -C "$1" add "$2"
        git -C "$1" commit -q -m "$2 $i"
    done
}
commits "$clone" one &
one=$!
commits "$work" two &
two=$!
git -C "$clone" -c gc.auto=0 gc -q
wait "$one" && wait "$two"
git -C "$clone" merge -q -m merge two
git -C "$clone" gc -q --prune=now
git -C "$clone" fsck --full --strict
lasting
# Raw diff-files does not look into files; it names those that stat does not know again.
equal "files git does not know after a remount" "" \
    "$(git -C "$clone" diff-files; git -C "$work" diff-files)"
git -C "$clone" fsck --full --strict
git -C "$clone" worktree remove "$work"
rm -r "$clone"

step "make and ccache"
# The project is the library of this one.
export CCACHE_DIR=$MNT/ccache
project=$MNT/project
mkdir "$project"
cp "$top"/store/*.[ch] "$project"
cat >"$project/hello.c" <<'C'
#include <stdio.h>
int main(void)
{
    puts("hello from the mount");
}
C
cat >"$project/Makefile" <<'MAKE'
sources := $(filter-out env_fault.c env_mem.c hello.c,$(wildcard *.c))
objects := $(sources:.c=.o)
all: libkeg.a hello
libkeg.a: $(objects)
	$(AR) rcs $@ $^
hello: hello.o
	$(CC) -o $@ $^
%.o: %.c
	@echo compiling $<
	@$(CC) -D_GNU_SOURCE -std=gnu17 -MMD -c -o $@ $<
clean:
	rm -f *.o *.d *.a hello
-include $(wildcard *.d)
MAKE
build() { make -s -j2 -C "$project" CC='ccache gcc' "$@"; }
counted() { ccache --print-stats | awk -v name="$1" '$1 == name { print $2 }'; }
compiled=$(build | grep -c '^compiling ')
[ "$compiled" -gt 20 ] || fail "only $compiled files compiled"
equal "output" "hello from the mount" "$("$project/hello")"
equal "misses of the first build" "$compiled" "$(counted cache_miss)"
sha256sum "$project/"*.o >"$T/objects"
lasting
build -q || fail "make would build again after a remount"
build clean
equal "files of the second build" "$compiled" "$(build | grep -c '^compiling ')"
equal "hits of the second build" "$compiled" \
    $(($(counted direct_cache_hit) + $(counted preprocessed_cache_hit)))
equal "misses in all" "$compiled" "$(counted cache_miss)"
sha256sum --quiet -c "$T/objects"
touch "$project/hint.h"
users=$(grep -lw hint.h "$project/"*.d | wc -l)
equal "files compiled after a header was touched" "$users" "$(build | grep -c '^compiling ')"
equal "errors in the cache" "" "$(counted internal_error | grep -vx 0 || true)"
lasting
keg_umount
