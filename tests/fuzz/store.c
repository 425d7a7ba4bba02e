/* SPDX-License-Identifier: MIT */
/*
 * The input is a whole store: behind the first byte, files one after the other, each as a byte that
 * says which (0: MANIFEST; n: 0000000n.data; 128 + n: 0000000n.hint), a u24 for its length, and its
 * bytes. It is opened for reading, then for writing, checked, compacted; another copy of it is
 * repaired, store and tree, after which both checks have to find nothing.
 */
#include "env.h"
#include "fuzz.h"
#include "hintfile.h"
#include "mend.h"
#include "segment.h"
#include "volume.h"
#include <errno.h>

enum { FILES_MAX = 24, KEYS_READ = 2000 };

static struct keg_env *unpack(const uint8_t *data, size_t len, bool mend)
{
    struct keg_env *env;

    FUZZ_CHECK(env_mem(64 << 20, &env) == 0);
    for (size_t at = 0, files = 0; at + 4 <= len && files < FILES_MAX; files++) {
        uint8_t which = data[at];
        size_t size = (size_t)data[at + 1] | (size_t)data[at + 2] << 8 | (size_t)data[at + 3] << 16;
        char name[ENV_NAME_MAX + 1] = SEGMENT_MANIFEST;

        at += 4;
        size = size < len - at ? size : len - at;
        uint8_t *bytes = fuzz_copy(data + at, size);
        if (which >= 128)
            hintfile_name(which - 128u, name);
        else if (which)
            segment_name(which, name);
        if (mend)
            (which >= 128 ? mend_hint : which ? mend_segment : mend_manifest)(bytes, size);
        FUZZ_CHECK(env_replace(env, name, bytes, size) == 0);
        free(bytes);
        at += size;
    }
    return env;
}

static void read_all(struct keg *keg)
{
    struct keg_iter *iter;
    struct keg_entry entry;
    int keys = 0;

    FUZZ_CHECK(keg_iter_open(keg, (struct keg_bytes){"", 0}, &iter) == 0);
    while (keg_iter_next(iter, &entry) == 1 && keys++ < KEYS_READ) {
        uint8_t *value = malloc((size_t)entry.value_len + 1);
        FUZZ_CHECK(value);
        ssize_t n = keg_read(keg, entry.key, 0, value, (size_t)entry.value_len + 1);
        FUZZ_CHECK(n == (ssize_t)entry.value_len || n == -EBADMSG);
        free(value);
    }
    keg_iter_close(iter);
}

static void print_line(void *arg, enum keg_level level, const char *line)
{
    (void)arg;
    if (level == KEG_LOG_ERROR && getenv("FUZZ_LOG"))
        fprintf(stderr, "log: %s\n", line);
}

static struct keg *open_store(struct keg_env *env, unsigned flags)
{
    struct keg_options options = {
        .flags = flags | KEG_NO_BACKGROUND, .segment_size = 64 << 10, .log = print_line};
    struct keg *keg;
    int err = keg_open(env, &options, &keg);

    FUZZ_CHECK(err == 0 || err == -EBADMSG || err == -ENOENT || err == -EPROTONOSUPPORT);
    return err ? NULL : keg;
}

static void use(struct keg_env *env, unsigned flags)
{
    struct keg_bytes key = {"fuzz", 4};
    struct keg *keg = open_store(env, flags);

    if (!keg)
        return;
    read_all(keg);
    FUZZ_CHECK(keg_check(keg, NULL, NULL, NULL) >= 0);
    if (!keg_readonly_reason(keg)) {
        FUZZ_CHECK(keg_put(keg, key, key, key, 0) == 0);
        int err = keg_compact(keg, NULL, NULL);
        FUZZ_CHECK(err == 0 || err == -EBADMSG || err == -EIO);
        read_all(keg);
        FUZZ_CHECK(keg_delete(keg, key, KEG_SYNC) == 0);
    }
    int err = keg_close(keg);
    FUZZ_CHECK(err == 0 || err == -EBADMSG || err == -EIO || err == -ENOENT);
}

static void print_finding(void *arg, const char *text)
{
    (void)arg;
    fprintf(stderr, "check of the tree: %s\n", text);
}

/* The tree: only what volume_repair can say something of; a newer version is left alone. */
static void repair_tree(struct keg *keg)
{
    struct volume_options options = {.flags = VOLUME_NO_BACKGROUND | VOLUME_CREATE};
    struct volume *volume;
    ssize_t done = volume_repair(keg, NULL, NULL);

    FUZZ_CHECK(done >= 0 || done == -EPROTO);
    if (done < 0 || volume_open(keg, &options, &volume))
        return;
    FUZZ_CHECK(volume_check(volume, print_finding, NULL) == 0);
    FUZZ_CHECK(volume_close(volume) == 0);
}

/* A forged number that is just low enough to be kept: nothing more can be put. */
static bool numbers_used_up(struct keg *keg)
{
    struct keg_stats stats;
    keg_stats(keg, &stats);
    return stats.sequence > (uint64_t)INT64_MAX - (UINT64_C(1) << 56);
}

static void repair(struct keg_env *env)
{
    struct keg_options options = {.segment_size = 64 << 10};
    int done = keg_repair(env, &options, NULL, NULL, NULL);
    struct keg *keg;

    FUZZ_CHECK(done >= 0 || done == -EBADMSG || done == -ENOENT || done == -EPROTONOSUPPORT);
    if (done < 0)
        return;
    keg = open_store(env, 0);
    FUZZ_CHECK(keg);
    if (numbers_used_up(keg)) {
        FUZZ_CHECK(keg_readonly_reason(keg));
        FUZZ_CHECK(keg_close(keg) == 0);
        return;
    }
    if (keg_readonly_reason(keg))
        fprintf(stderr, "after repair: %s\n", keg_readonly_reason(keg));
    FUZZ_CHECK(!keg_readonly_reason(keg));
    FUZZ_CHECK(keg_check(keg, NULL, NULL, NULL) == 0);
    read_all(keg);
    repair_tree(keg);
    FUZZ_CHECK(keg_close(keg) == 0);
    FUZZ_CHECK(keg_repair(env, &options, NULL, NULL, NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 1 || len > FUZZ_MAX)
        return 0;
    struct keg_env *env = unpack(data + 1, len - 1, data[0] & FUZZ_REPAIR);
    use(env, KEG_READONLY);
    use(env, 0);
    keg_env_free(env);
    env = unpack(data + 1, len - 1, data[0] & FUZZ_REPAIR);
    repair(env);
    keg_env_free(env);
    return 0;
}
