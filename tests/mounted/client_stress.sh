#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# stress-ng's file-system stressors with --verify, alone and together
. "$(dirname "$0")/lib.sh"

# The class "filesystem" of stress-ng 0.15.06. Left out: bind-mount (may hang the machine), binderfs,
# eventfd, ioprio and procfs (nothing of the mount in them), and fiemap and verity, which FUSE has
# not and stress-ng skips.
stressors=(access chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify dup
    fallocate fanotify fcntl file-ioctl filename flock fpunch fsize fstat getdent handle hdd
    inode-flags inotify io iomix lease link locka lockf lockofd mknod open rename symlink sync-file
    touch utime xattr)
# Of other classes, those that work on files in --temp-path.
stressors+=(aio aiol fault msync readahead revio seek sendfile splice)
dir=$MNT/stress

stress() { # OPTION...
    local status=0
    # The open stressor leaves a file where it was started when it is stopped between two calls.
    (cd "$T" && exec timeout -k 10 900 stress-ng --verify --temp-path "$dir" --hdd-bytes 8m \
        --fallocate-bytes 8m --iomix-bytes 8m --readahead-bytes 8m \
        "$@") >"$T/stress.log" 2>&1 || status=$?
    if [ "$status" -ne 0 ] || grep -q 'stress-ng: fail' "$T/stress.log"; then
        cat "$T/stress.log" >&2
        fail "stress-ng $* ends with $status"
    fi
    grep -q 'successful run completed' "$T/stress.log" || fail "nothing was run: $*"
    equal "what stress-ng $* leaves behind" "" "$(find "$dir" -mindepth 1 | head)"
}

keg_mount
mkdir "$dir"
together() { # COUNT SECONDS STRESSOR...: all at once, COUNT workers of each
    local count=$1 seconds=$2 options=() stressor
    shift 2
    for stressor; do options+=("--$stressor" "$count"); done
    step "$*"
    stress "${options[@]}" -t "$seconds"
}
batch=$(scaled 8 8 1)
for ((i = 0; i < ${#stressors[@]}; i += batch)); do
    together "$(scaled 1 1 4)" "$(scaled 1 2 10)" "${stressors[@]:i:batch}"
done
lasting
if [ "$SCALE" = full ]; then
    together 1 60 "${stressors[@]}"
    lasting
fi
keg_umount
