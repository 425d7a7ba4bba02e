# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# What quickstart, test, torture and others share: find out what is missing on a Debian, and install
# it; the builds; the fuzzer.

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# A Debian package a line, and how to see that what it gives is there already.
build_needs='
gcc             command gcc
libc6-dev       file /usr/include/stdio.h
meson           command meson
ninja-build     command ninja
pkg-config      command pkg-config
libfuse3-dev    module fuse3
fuse3           command fusermount3
liburing-dev    module liburing
zlib1g-dev      module zlib
libdeflate-dev  module libdeflate
'
# shellcheck disable=SC2034 # used by scripts/test
test_needs="$build_needs
git             command git
python3         command python3
clang           command clang
clang-format    command clang-format
libclang-rt-dev file /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.tsan-*.a
llvm            command llvm-symbolizer
binutils        command nm
libcmocka-dev   module cmocka
shellcheck      command shellcheck
rsync           command rsync
attr            command setfattr
acl             command setfacl
sqlite3         command sqlite3
e2fsprogs       command mkfs.ext4
restic          command restic
borgbackup      command borg
vim             command vim
make            command make
ccache          command ccache
curl            command curl
nginx           command nginx
libnginx-mod-http-dav-ext file /usr/lib/nginx/modules/ngx_http_dav_ext_module.so
xfsprogs        command mkfs.xfs
fio             command fio
stress-ng       command stress-ng
bonnie++        command bonnie++
dbench          command dbench
postmark        command postmark
patch           command patch
valgrind        command valgrind
"

# shellcheck disable=SC2034 # used by scripts/bench
quick_needs="$build_needs
libcmocka-dev   module cmocka
python3         command python3
valgrind        command valgrind
"
# shellcheck disable=SC2034
bench_needs="$quick_needs
gnuplot-nox     command gnuplot
liblmdb-dev     file /usr/include/lmdb.h
rocksdb-tools   command db_bench
e2fsprogs       command mkfs.ext4
git             command git
rsync           command rsync
"

is_there() { # KIND WHAT
    case $1 in
    command) command -v "$2" >/dev/null || [ -x "/usr/sbin/$2" ] || [ -x "/sbin/$2" ] ;;
    module) pkg-config --exists "$2" 2>/dev/null ;;
    file) compgen -G "$2" >/dev/null ;;
    *) die "is_there: $1?" ;;
    esac
}

# Installs what is missing of the packages in the list $1, with one apt-get line that it prints.
install_missing() {
    local package kind what missing=() sudo=
    while read -r package kind what; do
        [ -z "$package" ] || is_there "$kind" "$what" || missing+=("$package")
    done <<<"$1"
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        die "missing, and there is no apt-get to install it (Debian's names): ${missing[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null ||
            die "missing: ${missing[*]}; run this as root, or install them and run it again"
        sudo='sudo '
    fi
    local line="${sudo}apt-get update -q && ${sudo}apt-get install -q -y --no-install-recommends"
    line+=" ${missing[*]}"
    printf '%s\n' "$line"
    DEBIAN_FRONTEND=noninteractive bash -c "$line" || die "the line above failed"
}

# Why nothing can be mounted here; empty if something can.
no_fuse_because() {
    if [ ! -e /dev/fuse ]; then
        echo "there is no /dev/fuse: load the module (modprobe fuse), or give the container" \
            "the device (docker run --device /dev/fuse --cap-add SYS_ADMIN)"
    elif [ ! -r /dev/fuse ] || [ ! -w /dev/fuse ]; then
        echo "/dev/fuse may not be opened by $(id -un): chmod 666 /dev/fuse, or run this as root"
    fi
}

# In a mount namespace of one's own: lets go of mounts of others, whose daemons would live as long as
# their copies here.
drop_copies() {
    local mount
    awk '$3 == "fuse.kegfs" { print $2 }' /proc/self/mounts | tac |
        while IFS= read -r mount; do umount -l "$(printf %b "$mount")" || true; done
}

# ---- Builds: build-test/NAME, each a compiler and its options ----

build() { # NAME
    local options=(-Dwerror=true) CC=gcc
    case $1 in
    gcc) ;;
    clang) CC=clang ;;
    nofuse) options+=(-Dfuse=disabled) ;;
    asan) CC=clang options+=("-Db_sanitize=address,undefined" -Db_lundef=false) ;;
    fuzz) CC=clang options+=(-Dfuzz=true -Db_lundef=false) ;;
    tsan) CC=clang options+=(-Db_sanitize=thread -Db_lundef=false) ;;
    *) die "build $1?" ;;
    esac
    export CC
    [ "$1" = nofuse ] || options+=(-Dfuse=enabled)
    mkdir -p build-test
    exec 9>"build-test/$1.lock"
    flock 9
    [ -f "build-test/$1/build.ninja" ] ||
        meson setup "build-test/$1" -Dtests=enabled "${options[@]}" || return
    ninja -C "build-test/$1" || return
    exec 9>&-
}

# A target on a corpus, which grows; an input that crashed is left in LOGS. Short inputs and no
# weighing of the corpus: many runs. libFuzzer finds the rest by length.
fuzz() { # TARGET CORPUS LOGS OPTION...
    local target=$1 corpus=$2 logs=$3
    shift 3
    "build-test/fuzz/tests/fuzz/fuzz_$target" -max_len=4096 -entropic=0 -print_funcs=0 \
        -print_final_stats=1 -verbosity=0 -artifact_prefix="$logs/crash-$target-" "$@" "$corpus"
}
