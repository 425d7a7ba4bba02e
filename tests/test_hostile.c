/* SPDX-License-Identifier: MIT */
/*
 * Stores that somebody made up, with all checksums right: whatever they claim, opening, checking
 * and repairing them ends soon, and in memory that their files' real size justifies.
 */
#include "crc.h"
#include "env_fault.h"
#include "fixture.h"
#include "hint.h"
#include "manifest.h"
#include "sanitized.h"
#include "segment.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

enum { SEGMENTS = SANITIZED ? 10000 : 50000, MEMORY_MIB = 512, SECONDS = SANITIZED ? 200 : 60 };

/* Opens, checks and repairs what is there; nothing may take longer or more than the limits, which
 * main has set. */
static void endure(struct fixture *fixture)
{
    struct keg_options options = {.segment_size = FIXTURE_SEGMENT};
    int err = fixture_reopen(fixture);

    assert_true(err == 0 || err == -EBADMSG);
    if (!err) {
        assert_true(keg_check(fixture->keg, NULL, NULL, NULL) >= 0);
        (void)!keg_close(fixture->keg);
    }
    err = keg_repair(&fixture->hook.env, &options, NULL, NULL, NULL);
    assert_true(err >= 0 || err == -EBADMSG);
}

static void begin(struct fixture *fixture)
{
    fixture_open(fixture);
    fixture_put_all(fixture->keg, 0, 100);
    assert_int_equal(keg_close(fixture->keg), 0);
}

static void test_a_manifest_of_many_segments(void **state)
{
    struct manifest_segment *segments = calloc(SEGMENTS, sizeof *segments);
    struct manifest manifest = {.next_segment = SEGMENTS + 2, .count = SEGMENTS};
    uint8_t *bytes = malloc(manifest_size(SEGMENTS));
    struct fixture fixture;

    (void)state;
    begin(&fixture);
    assert_true(segments && bytes);
    for (size_t i = 0; i < SEGMENTS; i++)
        segments[i] = (struct manifest_segment){.id = i + 2,
                                                .kind = FORMAT_LOG,
                                                .sealed = true,
                                                .length = 1 << 30,
                                                .first_sequence = 1 + i,
                                                .last_sequence = 1 + i};
    manifest.segments = segments;
    manifest_encode(bytes, &manifest);
    assert_int_equal(env_replace(fixture.disk, SEGMENT_MANIFEST, bytes, manifest_size(SEGMENTS)),
                     0);
    endure(&fixture);
    free(bytes);
    free(segments);
    fixture_free(&fixture);
}

/* Both copies claim more segments than they hold, or a size that reaches far behind the file. */
static void manifest_that_claims(uint32_t more, uint32_t size)
{
    struct fixture fixture;
    uint8_t *bytes;
    size_t len;

    begin(&fixture);
    assert_int_equal(env_slurp(fixture.disk, SEGMENT_MANIFEST, 1 << 24, &bytes, &len), 0);
    for (uint8_t *copy = bytes; copy < bytes + len; copy += len / 2) {
        format_put32(copy + 48, format_get32(copy + 48) + more);
        if (size)
            format_put32(copy + 12, size);
        format_put32(copy + len / 2 - 4, crc_update(0, copy, len / 2 - 4));
    }
    assert_int_equal(env_replace(fixture.disk, SEGMENT_MANIFEST, bytes, len), 0);
    free(bytes);
    endure(&fixture);
    fixture_free(&fixture);
}

static void test_a_manifest_that_claims_more(void **state)
{
    (void)state;
    manifest_that_claims(100000, 0);
    manifest_that_claims(0, UINT32_C(1) << 31);
}

/* A trailer that claims as many entries, records and bytes as there can be. */
static void hint_that_claims(uint64_t entries, uint64_t blocks)
{
    struct hint_trailer trailer;
    struct fixture fixture;
    uint8_t *bytes;
    size_t len;

    begin(&fixture);
    assert_int_equal(env_slurp(fixture.disk, "00000001.hint", 1 << 24, &bytes, &len), 0);
    assert_int_equal(hint_trailer_decode(bytes + len - HINT_TRAILER_SIZE, &trailer), 0);
    trailer.info.records = UINT64_C(1) << 32;
    trailer.entries = entries ? entries : trailer.entries;
    trailer.blocks = blocks ? blocks : trailer.blocks;
    hint_trailer_encode(bytes + len - HINT_TRAILER_SIZE, &trailer);
    assert_int_equal(env_replace(fixture.disk, "00000001.hint", bytes, len), 0);
    free(bytes);
    endure(&fixture);
    fixture_free(&fixture);
}

static void test_a_hint_of_all_keys(void **state)
{
    (void)state;
    hint_that_claims(UINT64_C(1) << 32, 0);
    hint_that_claims(UINT64_C(1) << 32, UINT64_C(1) << 32);
    hint_that_claims(0, 3); /* as many as entries can be, with so few bytes of refs */
}

/* A frame that claims to be as long, and its heads, as they can be; without hints it is read. */
static void test_a_frame_of_all_lengths(void **state)
{
    struct format_frame frame;
    struct fixture fixture;
    struct format_segment header;
    struct format_salt salt;
    uint8_t *bytes;
    size_t len;

    (void)state;
    begin(&fixture);
    fixture_remove_hints(&fixture);
    assert_int_equal(env_slurp(fixture.disk, "00000001.data", 1 << 24, &bytes, &len), 0);
    assert_int_equal(format_segment_decode(bytes, &header), 0);
    salt = format_salt(header.store, header.id);
    assert_int_equal(
        format_frame_decode(bytes + FORMAT_SEGMENT_SIZE, salt, FORMAT_SEGMENT_SIZE, &frame), 0);
    frame.length = FORMAT_FRAME_MAX;
    frame.heads_len = FORMAT_FRAME_MAX - FORMAT_FRAME_SIZE;
    frame.count = frame.heads_len / FORMAT_HEAD_MAX + 1;
    format_frame_encode(bytes + FORMAT_SEGMENT_SIZE, salt, FORMAT_SEGMENT_SIZE, &frame);
    assert_int_equal(env_replace(fixture.disk, "00000001.data", bytes, len), 0);
    endure(&fixture);
    free(bytes);
    fixture_free(&fixture);
}

int main(void)
{
    const struct rlimit memory = {(rlim_t)MEMORY_MIB << 20, (rlim_t)MEMORY_MIB << 20};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_manifest_of_many_segments),
        cmocka_unit_test(test_a_manifest_that_claims_more),
        cmocka_unit_test(test_a_hint_of_all_keys),
        cmocka_unit_test(test_a_frame_of_all_lengths),
    };

    if (!SANITIZED && setrlimit(RLIMIT_AS, &memory)) /* a sanitizer's shadow is larger */
        return 1;
    alarm(SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
