/* SPDX-License-Identifier: MIT */
#include "env_fault.h"
#include "hintfile.h"
#include "random.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t store_id[FORMAT_ID_SIZE] = "0123456789abcdef";
enum { SEGMENT = 7, LENGTH = 1 << 30, KEY_MAX = 40 };

/* Entry i of a hint: its key is a function of i, in ascending order, and with gaps between. */
struct sample {
    char key[KEY_MAX];
    struct hint_entry entry;
};

static const struct hint_entry *sample(struct sample *s, unsigned i)
{
    /* Keys of several lengths with much in common, one the beginning of the next. */
    int len = snprintf(s->key, sizeof(s->key), "tile/%04u/%s", i / 2, i % 2 ? "z.png" : "z");
    bool put = i % 7 != 3;

    s->entry = (struct hint_entry){
        .type = put ? FORMAT_PUT : FORMAT_TOMBSTONE,
        .value_len = put ? i % 5 * 1000 : 0,
        .crc = put && i % 5 ? 0x1000 + i : 0,
        .sequence = 100 + (i * 37u) % 1000,
        .offset = put ? 104 + (uint64_t)i * 4096 : 0,
        .key = {s->key, (size_t)len},
        .meta = {s->key, put ? i % 6 : 0},
    };
    return &s->entry;
}

static struct hint_info info_of(unsigned count)
{
    struct hint_info info = {
        .segment = SEGMENT,
        .kind = FORMAT_LOG,
        .length = LENGTH,
        .records = count ? count + 5 : 0,
        .first_sequence = count ? 100 : 0,
        .last_sequence = count ? 1099 : 0,
    };
    memcpy(info.store, store_id, FORMAT_ID_SIZE);
    return info;
}

static int write_hint(struct keg_env *env, unsigned count, uint64_t *size)
{
    struct hint_info info = info_of(count);
    struct hintfile_writer *writer;
    struct sample s;
    int err = hintfile_create(env, store_id, SEGMENT, &writer);

    for (unsigned i = 0; !err && i < count; i++) {
        err = hintfile_add(writer, sample(&s, i));
        if (err) {
            hintfile_abandon(writer);
            return err;
        }
    }
    return err ? err : hintfile_finish(writer, &info, size);
}

static struct keg_env *env_with_hint(unsigned count, uint64_t *size)
{
    struct keg_env *env;
    assert_int_equal(env_mem(0, &env), 0);
    assert_int_equal(write_hint(env, count, size), 0);
    return env;
}

static int open_hint(struct keg_env *env, struct hintfile_reader **reader)
{
    struct hint_info info;
    return hintfile_open(env, store_id, SEGMENT, &info, reader);
}

static bool entry_equal(const struct hint_entry *a, const struct hint_entry *b)
{
    return a->type == b->type && a->value_len == b->value_len && a->crc == b->crc &&
           a->sequence == b->sequence && a->offset == b->offset && a->key.len == b->key.len &&
           memcmp(a->key.data, b->key.data, a->key.len) == 0 && a->meta.len == b->meta.len &&
           (a->meta.len == 0 || memcmp(a->meta.data, b->meta.data, a->meta.len) == 0);
}

/* Opens and walks. 0: all `count` were there; else the error. What it gives before that is right.
 */
static int walk(struct keg_env *env, unsigned count)
{
    struct hintfile_reader *reader;
    struct hint_entry entry;
    struct sample s;
    unsigned i = 0;
    int err = open_hint(env, &reader), n;

    if (err)
        return err;
    while ((n = hintfile_next(reader, &entry)) == 1) {
        assert_true(i < count);
        assert_true(entry_equal(&entry, sample(&s, i++)));
    }
    assert_int_equal(hintfile_next(reader, &entry), n); /* the end and an error stay */
    if (n == 0)
        assert_int_equal(i, count);
    hintfile_close(reader);
    return n;
}

static int count_names(void *arg, const char *name)
{
    (void)name;
    ++*(unsigned *)arg;
    return 0;
}

static unsigned names(struct keg_env *env)
{
    unsigned count = 0;
    assert_int_equal(env_list(env, count_names, &count), 0);
    return count;
}

/* ---- Writing and walking ---- */

static void names_have_eight_digits(void **state)
{
    (void)state;
    char name[ENV_NAME_MAX + 1];

    hintfile_name(7, name);
    assert_string_equal(name, "00000007.hint");
    hintfile_name(123456789, name);
    assert_string_equal(name, "123456789.hint");
    hintfile_name(UINT64_MAX, name);
    assert_string_equal(name, "18446744073709551615.hint");
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    static const unsigned counts[] = {0, 1, 2, 100, 4000, 20000};

    for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        uint64_t size, found;
        struct keg_env *env = env_with_hint(counts[i], &size);
        struct hintfile_reader *reader;
        struct hint_info info, expect = info_of(counts[i]);
        struct keg_file *file;
        assert_int_equal(walk(env, counts[i]), 0);
        assert_int_equal(hintfile_open(env, store_id, SEGMENT, &info, &reader), 0);
        assert_memory_equal(info.store, expect.store, FORMAT_ID_SIZE);
        assert_true(info.segment == SEGMENT && info.kind == FORMAT_LOG && info.length == LENGTH &&
                    info.records == expect.records &&
                    info.first_sequence == expect.first_sequence &&
                    info.last_sequence == expect.last_sequence);
        assert_int_equal(env_open(env, "00000007.hint", ENV_READ, &file), 0);
        assert_int_equal(env_size(file, &found), 0);
        env_close(file);
        assert_true(hintfile_size(reader) == size && found == size);
        hintfile_close(reader);
        assert_int_equal(names(env), 1);
        keg_env_free(env);
    }
}

static void a_hint_is_replaced_and_leftovers_do_not_matter(void **state)
{
    (void)state;
    uint64_t size;
    struct keg_env *env = env_with_hint(50, &size);
    struct hintfile_writer *writer;
    struct sample s;

    assert_int_equal(env_replace(env, "00000007.hint.tmp", "junk", 4), 0);
    assert_int_equal(hintfile_create(env, store_id, SEGMENT, &writer), 0);
    assert_int_equal(hintfile_add(writer, sample(&s, 0)), 0);
    assert_int_equal(walk(env, 50), 0);
    hintfile_abandon(writer);
    assert_int_equal(names(env), 1);
    assert_int_equal(walk(env, 50), 0);
    assert_int_equal(write_hint(env, 60, &size), 0);
    assert_int_equal(walk(env, 60), 0);
    hintfile_abandon(NULL);
    hintfile_close(NULL);
    keg_env_free(env);
}

static void the_writer_refuses_what_no_reader_would_take(void **state)
{
    (void)state;
    static const char long_key[KEG_KEY_MAX + 1];
    struct sample s;
    struct hint_entry bad[8];
    uint64_t size;

    for (size_t i = 0; i < 8; i++)
        bad[i] = *sample(&s, 5);
    bad[0].key.len = 0;
    bad[1].key = (struct keg_bytes){long_key, sizeof(long_key)};
    bad[2].meta = (struct keg_bytes){long_key, KEG_META_MAX + 1};
    bad[3].value_len = KEG_VALUE_MAX + 1;
    bad[4].sequence = 0;
    bad[5].key = (struct keg_bytes){"tile/0001/z", 11}; /* i = 2, which is there */
    bad[6].key = (struct keg_bytes){"tile/0001/", 10};
    bad[7].key = (struct keg_bytes){"a", 1};
    for (size_t i = 0; i < 8; i++) {
        struct hint_info info = info_of(1);
        struct hintfile_writer *writer;
        struct keg_env *env;
        struct sample fine;
        assert_int_equal(env_mem(0, &env), 0);
        assert_int_equal(hintfile_create(env, store_id, SEGMENT, &writer), 0);
        assert_int_equal(hintfile_add(writer, sample(&fine, 2)), 0);
        assert_int_equal(hintfile_add(writer, &bad[i]), -EINVAL);
        assert_int_equal(hintfile_add(writer, sample(&fine, 6)), -EINVAL);
        assert_int_equal(hintfile_finish(writer, &info, &size), -EINVAL);
        assert_int_equal(names(env), 0);
        keg_env_free(env);
    }
}

/* ---- Seeking ---- */

/* The first of count samples whose key is >= key. */
static unsigned lower_bound(struct keg_bytes key, unsigned count)
{
    struct sample s;
    unsigned low = 0, high = count;

    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        struct keg_bytes have = sample(&s, middle)->key;
        int order = memcmp(have.data, key.data, have.len < key.len ? have.len : key.len);
        if (order < 0 || (order == 0 && have.len < key.len))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void seeks_and_steps_in_any_order(void **state)
{
    (void)state;
    enum { COUNT = 6000 };
    uint64_t size;
    struct keg_env *env = env_with_hint(COUNT, &size);
    struct random random = random_seeded();

    for (int round = 0; round < 300; round++) {
        struct hintfile_reader *reader;
        struct hint_entry entry;
        struct sample s;
        unsigned next = 0; /* the sample that must come next */
        unsigned stride = 1 + (unsigned)random_width(&random) % 400;
        assert_int_equal(open_hint(env, &reader), 0);
        for (int step = 0; step < 60; step++) {
            if (random_below(&random, 2)) {
                unsigned target = next + (unsigned)random_below(&random, stride);
                char key[KEY_MAX];
                int len = snprintf(key, sizeof(key), "tile/%04u/%s", target / 2,
                                   target % 2 ? "z.p" : "z"); /* every other one is in a gap */
                struct keg_bytes at = {key, (size_t)len};
                unsigned found = lower_bound(at, COUNT);
                if (found < next)
                    continue;
                assert_int_equal(hintfile_seek(reader, at), 0);
                next = found;
            } else {
                int n = hintfile_next(reader, &entry);
                assert_int_equal(n, next < COUNT);
                if (n)
                    assert_true(entry_equal(&entry, sample(&s, next++)));
            }
        }
        hintfile_close(reader);
    }
    keg_env_free(env);
}

static void every_key_is_found_by_a_fresh_seek(void **state)
{
    (void)state;
    enum { COUNT = 1500 };
    uint64_t size;
    struct keg_env *env = env_with_hint(COUNT, &size);

    for (unsigned i = 0; i <= COUNT; i++) {
        struct hintfile_reader *reader;
        struct hint_entry entry;
        struct sample s;
        assert_int_equal(open_hint(env, &reader), 0);
        assert_int_equal(hintfile_seek(reader, sample(&s, i)->key), 0);
        assert_int_equal(hintfile_next(reader, &entry), i < COUNT);
        if (i < COUNT) { /* and a seek to where it stands stays there */
            assert_true(entry_equal(&entry, &s.entry));
            assert_int_equal(hintfile_seek(reader, s.entry.key), 0);
            assert_int_equal(hintfile_next(reader, &entry), 1);
            assert_true(entry_equal(&entry, &s.entry));
        }
        hintfile_close(reader);
    }
    keg_env_free(env);
}

static void seeking_in_an_empty_hint(void **state)
{
    (void)state;
    uint64_t size;
    struct keg_env *env = env_with_hint(0, &size);
    struct hintfile_reader *reader;
    struct hint_entry entry;

    assert_int_equal(open_hint(env, &reader), 0);
    assert_int_equal(hintfile_seek(reader, (struct keg_bytes){"k", 1}), 0);
    assert_int_equal(hintfile_seek(reader, (struct keg_bytes){NULL, 0}), 0);
    assert_int_equal(hintfile_next(reader, &entry), 0);
    hintfile_close(reader);
    keg_env_free(env);
}

/* ---- Damage ---- */

static void no_hint_and_hints_of_others(void **state)
{
    (void)state;
    static const uint8_t other_id[FORMAT_ID_SIZE] = "0123456789abcdeF";
    uint64_t size;
    struct keg_env *env = env_with_hint(10, &size);
    struct hintfile_reader *reader;
    struct hint_info info;
    uint8_t *bytes;
    size_t len;

    assert_int_equal(hintfile_open(env, store_id, 8, &info, &reader), -ENOENT);
    assert_int_equal(hintfile_open(env, other_id, SEGMENT, &info, &reader), -EBADMSG);
    assert_int_equal(env_slurp(env, "00000007.hint", 1 << 20, &bytes, &len), 0);
    assert_int_equal(env_replace(env, "00000008.hint", bytes, len), 0);
    assert_int_equal(hintfile_open(env, store_id, 8, &info, &reader), -EBADMSG);
    free(bytes);
    keg_env_free(env);
}

static int walk_bytes(struct keg_env *env, const uint8_t *bytes, size_t len, unsigned count)
{
    assert_int_equal(env_replace(env, "00000007.hint", bytes, len), 0);
    return walk(env, count);
}

static void every_flipped_bit_and_every_cut_is_found(void **state)
{
    (void)state;
    enum { COUNT = 300 }; /* a few blocks */
    uint64_t size;
    struct keg_env *env = env_with_hint(COUNT, &size);
    uint8_t *bytes, *longer;
    size_t len;

    assert_int_equal(env_slurp(env, "00000007.hint", 1 << 20, &bytes, &len), 0);
    assert_true(len > 5000);
    for (size_t bit = 0; bit < len * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(walk_bytes(env, bytes, len, COUNT), -EBADMSG);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(walk_bytes(env, bytes, cut, COUNT), -EBADMSG);
    longer = calloc(1, len + 4096);
    assert_non_null(longer);
    memcpy(longer, bytes, len);
    assert_int_equal(walk_bytes(env, longer, len, COUNT), 0);
    assert_int_equal(walk_bytes(env, longer, len + 1, COUNT), -EBADMSG);
    assert_int_equal(walk_bytes(env, longer, len + 4096, COUNT), -EBADMSG);
    free(longer);
    free(bytes);
    keg_env_free(env);
}

/* ---- Failing I/O ---- */

static int walk_any(struct keg_env *env)
{
    struct hintfile_reader *reader;
    struct hint_entry entry;
    int n = open_hint(env, &reader);

    if (n == 0) {
        while ((n = hintfile_next(reader, &entry)) == 1)
            ;
        hintfile_close(reader);
    }
    return n;
}

/* The n-th operation of replacing a hint fails, for every n: the hint is the old or the new one,
 * and nothing stays open. */
static void replace_under(enum env_fault_kind kind)
{
    struct keg_env *env;
    bool more = true;
    unsigned failures = 0;

    for (uint64_t at = 1; more; at++) {
        struct env_fault_plan plan = {.kind = kind, .at = at, .seed = at * 7919};
        uint64_t size;
        assert_int_equal(env_fault(0, &env), 0);
        assert_int_equal(write_hint(env, 20, &size), 0);
        env_fault_set(env, &plan);
        int err = write_hint(env, 7000, &size);
        more = env_fault_operations(env) >= at;
        assert_true(err == 0 || env_fault_struck(env));
        assert_int_equal(env_fault_open_files(env), 0);
        if (kind == ENV_FAULT_CUT)
            env_fault_restart(env);
        else
            env_fault_revive(env);
        env_fault_set(env, NULL);
        assert_int_equal(walk_any(env), 0);
        failures += err != 0;
        struct hintfile_reader *reader;
        struct hint_info info;
        assert_int_equal(hintfile_open(env, store_id, SEGMENT, &info, &reader), 0);
        hintfile_close(reader);
        assert_true(info.records == 7005 || (err && info.records == 25));
        assert_int_equal(write_hint(env, 30, &size), 0); /* leftovers are no obstacle */
        assert_int_equal(walk(env, 30), 0);
        keg_env_free(env);
    }
    assert_true(failures >= 5); /* create, three appends, publish */
}

static void replaced_under_errors(void **state)
{
    (void)state;
    replace_under(ENV_FAULT_EIO);
    replace_under(ENV_FAULT_ENOSPC);
}

static void replaced_under_power_cuts(void **state)
{
    (void)state;
    replace_under(ENV_FAULT_CUT);
}

static void reads_that_fail_are_not_the_end(void **state)
{
    (void)state;
    struct keg_env *env;
    uint64_t size;
    bool struck = true;

    assert_int_equal(env_fault(0, &env), 0);
    assert_int_equal(write_hint(env, 500, &size), 0);
    for (uint64_t at = 1; struck; at++) {
        struct env_fault_plan plan = {.kind = ENV_FAULT_EIO, .at = at, .seed = at};
        env_fault_set(env, &plan);
        int err = walk(env, 500);
        struck = env_fault_struck(env);
        assert_int_equal(err, struck ? -EIO : 0);
        assert_int_equal(env_fault_open_files(env), 0);
        assert_true(at > 4 || struck); /* open, size, ends, index, blocks */
    }
    keg_env_free(env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_have_eight_digits),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(a_hint_is_replaced_and_leftovers_do_not_matter),
        cmocka_unit_test(the_writer_refuses_what_no_reader_would_take),
        cmocka_unit_test(seeks_and_steps_in_any_order),
        cmocka_unit_test(every_key_is_found_by_a_fresh_seek),
        cmocka_unit_test(seeking_in_an_empty_hint),
        cmocka_unit_test(no_hint_and_hints_of_others),
        cmocka_unit_test(every_flipped_bit_and_every_cut_is_found),
        cmocka_unit_test(replaced_under_errors),
        cmocka_unit_test(replaced_under_power_cuts),
        cmocka_unit_test(reads_that_fail_are_not_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
