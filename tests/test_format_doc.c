/* SPDX-License-Identifier: MIT */
/*
 * Holds the worked example in FORMAT.md to what the code writes.
 *
 *   test_format_doc FORMAT.md      the test
 *   test_format_doc --print        the example as FORMAT.md should have it
 *   test_format_doc --files DIR    its three files, seeds for a fuzzer
 */
#include "crc.h"
#include "env.h"
#include "hintfile.h"
#include "manifest.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t store_id[FORMAT_ID_SIZE] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                                 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
static const char value[] = "Hello, keg\n";
enum { SEGMENT = 1, VALUE_LEN = sizeof(value) - 1 };

struct field {
    size_t len; /* bytes */
    const char *what;
};

struct example {
    uint8_t bytes[512];
    size_t len;
};

/* ---- The segment ---- */

static const struct field segment_fields[] = {
    {0, "Segment header"},
    {8, "magic \"KEGSEGM\\n\""},
    {4, "version 1"},
    {4, "kind 1: log"},
    {16, "store id"},
    {8, "segment id 1"},
    {8, "predecessor: none"},
    {8, "last sequence before: none"},
    {4, "zero"},
    {4, "CRC of the 60 bytes before"},
    {0, "Frame header, at 64"},
    {4, "magic \"KFRM\""},
    {4, "length 89: 40 + 38 + 11"},
    {4, "3 records"},
    {4, "38 bytes of heads"},
    {8, "lowest sequence 1"},
    {8, "durable: the header's 64 bytes"},
    {4, "CRC of the heads, salted"},
    {4, "CRC of the 36 bytes before, salted"},
    {0, "Record heads, at 104"},
    {1, "put"},
    {1, "meta of 1 byte"},
    {2, "key of 8 bytes"},
    {1, "sequence 1 + 0"},
    {1, "value of 11 bytes"},
    {4, "CRC of the value"},
    {8, "key \"greeting\""},
    {1, "meta \"m\""},
    {1, "put"},
    {1, "no meta"},
    {2, "key of 5 bytes"},
    {1, "sequence 1 + 1"},
    {1, "empty value, so no CRC"},
    {5, "key \"empty\""},
    {1, "tombstone"},
    {1, "no meta"},
    {2, "key of 3 bytes"},
    {1, "sequence 1 + 2"},
    {3, "key \"old\""},
    {0, "Values, at 142"},
    {11, "\"Hello, keg\\n\""},
    {7, "padding to a multiple of 8"},
    {0, "Footer, at 160"},
    {4, "magic \"KFTR\""},
    {4, "zero"},
    {8, "160 bytes before it"},
    {8, "3 records"},
    {8, "lowest sequence 1"},
    {8, "highest sequence 3"},
    {12, "zero"},
    {4, "CRC of the 52 bytes before, salted"},
};

static const struct format_record records[] = {
    {FORMAT_PUT, VALUE_LEN, 0, 1, {"greeting", 8}, {"m", 1}},
    {FORMAT_PUT, 0, 0, 2, {"empty", 5}, {"", 0}},
    {FORMAT_TOMBSTONE, 0, 0, 3, {"old", 3}, {"", 0}},
};

static struct example segment_example(void)
{
    struct example e = {.len = 0};
    struct format_salt salt = format_salt(store_id, SEGMENT);
    struct format_segment header = {.id = SEGMENT, .kind = FORMAT_LOG};
    uint8_t *heads = e.bytes + FORMAT_SEGMENT_SIZE + FORMAT_FRAME_SIZE;
    size_t len = 0;

    memcpy(header.store, store_id, FORMAT_ID_SIZE);
    format_segment_encode(e.bytes, &header);
    for (size_t i = 0; i < 3; i++) {
        struct format_record record = records[i];
        record.crc = record.value_len ? crc_update(0, value, record.value_len) : 0;
        len += format_record_encode(heads + len, &record, 1);
    }
    memcpy(heads + len, value, VALUE_LEN);
    struct format_frame frame = {
        .length = (uint32_t)(FORMAT_FRAME_SIZE + len + VALUE_LEN),
        .heads_len = (uint32_t)len,
        .count = 3,
        .heads_crc = format_heads_crc(salt, FORMAT_SEGMENT_SIZE, heads, len),
        .sequence = 1,
        .durable = FORMAT_SEGMENT_SIZE,
    };
    format_frame_encode(e.bytes + FORMAT_SEGMENT_SIZE, salt, FORMAT_SEGMENT_SIZE, &frame);
    struct format_footer footer = {
        .length = FORMAT_SEGMENT_SIZE + format_frame_span(&frame),
        .records = 3,
        .first_sequence = 1,
        .last_sequence = 3,
    };
    format_footer_encode(e.bytes + footer.length, salt, &footer);
    e.len = (size_t)footer.length + FORMAT_FOOTER_SIZE;
    return e;
}

/* ---- Its hint ---- */

static const struct field hint_fields[] = {
    {0, "Preamble"},
    {8, "magic \"KEGHINT\\n\""},
    {4, "version 1"},
    {4, "CRC of the 12 bytes before"},
    {0, "Block, at 16"},
    {1, "shares 0 bytes"},
    {1, "5 more"},
    {1, "put"},
    {1, "no meta"},
    {1, "sequence 2"},
    {2, "value at 153, where it would begin"},
    {1, "empty value, so no CRC"},
    {5, "key \"empty\""},
    {1, "shares 0 bytes"},
    {1, "8 more"},
    {1, "put"},
    {1, "meta of 1 byte"},
    {1, "sequence 1"},
    {2, "value at 142"},
    {1, "11 bytes"},
    {4, "CRC of the value"},
    {8, "key \"greeting\""},
    {1, "meta \"m\""},
    {1, "shares 0 bytes"},
    {1, "3 more"},
    {1, "tombstone"},
    {1, "no meta"},
    {1, "sequence 3"},
    {3, "key \"old\""},
    {4, "CRC of the block, salted with 16"},
    {0, "Block index, at 62"},
    {1, "block at 16"},
    {1, "of 46 bytes"},
    {1, "first key of 5 bytes"},
    {5, "\"empty\""},
    {4, "CRC of the refs, salted with 62"},
    {0, "Trailer, at 74"},
    {8, "magic \"KEGHEND\\n\""},
    {4, "kind 1: log"},
    {4, "zero"},
    {16, "store id"},
    {8, "segment 1"},
    {8, "covers 216 bytes of it"},
    {8, "3 records"},
    {8, "lowest sequence 1"},
    {8, "highest sequence 3"},
    {8, "block index at 62"},
    {8, "of 12 bytes"},
    {8, "3 entries"},
    {8, "1 block"},
    {20, "zero"},
    {4, "CRC of the 124 bytes before"},
};

static struct example hint_example(void)
{
    struct example e = {.len = 0};
    static const size_t order[] = {1, 0, 2};
    static const uint64_t offsets[] = {142, 153, 0};
    struct hint_info info = {.segment = SEGMENT,
                             .kind = FORMAT_LOG,
                             .length = 216,
                             .records = 3,
                             .first_sequence = 1,
                             .last_sequence = 3};
    struct hintfile_writer *writer;
    struct keg_env *env;
    char name[ENV_NAME_MAX + 1];
    uint64_t size;
    uint8_t *bytes;

    memcpy(info.store, store_id, FORMAT_ID_SIZE);
    assert_int_equal(env_mem(0, &env), 0);
    assert_int_equal(hintfile_create(env, store_id, SEGMENT, &writer), 0);
    for (size_t i = 0; i < 3; i++) {
        const struct format_record *record = &records[order[i]];
        struct hint_entry entry = {
            .type = record->type,
            .value_len = record->value_len,
            .crc = record->value_len ? crc_update(0, value, record->value_len) : 0,
            .sequence = record->sequence,
            .offset = offsets[order[i]],
            .key = record->key,
            .meta = record->meta,
        };
        assert_int_equal(hintfile_add(writer, &entry), 0);
    }
    assert_int_equal(hintfile_finish(writer, &info, &size), 0);
    hintfile_name(SEGMENT, name);
    assert_int_equal(env_slurp(env, name, sizeof(e.bytes), &bytes, &e.len), 0);
    memcpy(e.bytes, bytes, e.len);
    free(bytes);
    keg_env_free(env);
    return e;
}

/* ---- The manifest ---- */

static const struct field manifest_fields[] = {
    {0, "First copy"},
    {8, "magic \"KEGMANI\\n\""},
    {4, "version 1"},
    {4, "104 bytes in this copy"},
    {16, "store id"},
    {8, "next segment 2"},
    {8, "last sequence 3"},
    {4, "1 segment"},
    {4, "zero"},
    {8, "segment 1"},
    {4, "kind 1: log"},
    {4, "sealed"},
    {8, "216 bytes"},
    {8, "lowest sequence 1"},
    {8, "highest sequence 3"},
    {4, "zero"},
    {4, "CRC of the 100 bytes before"},
    {0, "Second copy, at 104: the same again"},
};

static struct example manifest_example(void)
{
    struct example e = {.len = manifest_size(1)};
    struct manifest_segment segment = {SEGMENT, FORMAT_LOG, true, 216, 1, 3};
    struct manifest manifest = {
        .next_segment = 2, .last_sequence = 3, .segments = &segment, .count = 1};

    memcpy(manifest.store, store_id, FORMAT_ID_SIZE);
    manifest_encode(e.bytes, &manifest);
    return e;
}

/* ---- Printing, comparing ---- */

/* One field: its place, its bytes eight to a line, its meaning beside the first line. */
static void print_field(FILE *out, const uint8_t *bytes, size_t at, const struct field *field)
{
    for (size_t i = 0; i < field->len; i += 8) {
        fprintf(out, "%04zx ", at + i);
        for (size_t j = i; j < i + 8; j++)
            if (j < field->len)
                fprintf(out, " %02x", bytes[at + j]);
            else if (i == 0)
                fputs("   ", out);
        fprintf(out, "%s%s\n", i ? "" : "  ", i ? "" : field->what);
    }
}

static size_t print_fields(FILE *out, const struct example *e, const struct field *fields,
                           size_t count)
{
    size_t at = 0;

    fputs("```\n", out);
    for (size_t i = 0; i < count; i++) {
        if (fields[i].len == 0)
            fprintf(out, "%s%s\n", i ? "\n" : "", fields[i].what);
        print_field(out, e->bytes, at, &fields[i]);
        at += fields[i].len;
    }
    fputs("```\n", out);
    return at;
}

static const struct part {
    const char *name;
    struct example (*make)(void);
    const struct field *fields;
    size_t count, copies;
} parts[] = {
    {"segment", segment_example, segment_fields, sizeof(segment_fields) / sizeof(struct field), 1},
    {"hint", hint_example, hint_fields, sizeof(hint_fields) / sizeof(struct field), 1},
    {"manifest", manifest_example, manifest_fields, sizeof(manifest_fields) / sizeof(struct field),
     2},
};

/* The part as text, which the caller frees; its fields must add up to its bytes. */
static char *part_text(const struct part *part)
{
    struct example e = part->make();
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    assert_non_null(out);
    size_t shown = print_fields(out, &e, part->fields, part->count);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(shown * part->copies, e.len);
    return text;
}

static char *slurp(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = NULL;
    size_t len = 0;

    if (!file || getdelim(&text, &len, '\0', file) < 0) {
        perror(path);
        exit(1);
    }
    fclose(file);
    return text;
}

static void the_document_shows_what_is_written(void **state)
{
    char *doc = slurp(*state);

    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
        char *text = part_text(&parts[i]);
        if (!strstr(doc, text))
            fail_msg("FORMAT.md does not have this %s:\n%s", parts[i].name, text);
        free(text);
    }
    free(doc);
}

/* The example is a sound store as far as this layer can tell. */
static void the_example_decodes(void **state)
{
    (void)state;
    struct example e = segment_example();
    struct format_salt salt = format_salt(store_id, SEGMENT);
    struct format_segment header;
    struct format_frame frame;
    struct format_footer footer;
    struct manifest manifest;
    size_t count;

    assert_int_equal(format_segment_decode(e.bytes, &header), 0);
    assert_int_equal(format_frame_decode(e.bytes + 64, salt, 64, &frame), 0);
    assert_int_equal(frame.heads_crc, format_heads_crc(salt, 64, e.bytes + 104, frame.heads_len));
    assert_int_equal(format_footer_decode(e.bytes + 160, salt, 160, &footer), 0);
    e = manifest_example();
    assert_int_equal(manifest_decode(e.bytes, e.len, &manifest, &count), 0);
}

static int write_files(const char *dir)
{
    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
        struct example e = parts[i].make();
        char path[4096];
        snprintf(path, sizeof(path), "%s/%s", dir, parts[i].name);
        FILE *file = fopen(path, "wb");
        if (!file || fwrite(e.bytes, 1, e.len, file) != e.len || fclose(file)) {
            perror(path);
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--files") == 0)
        return write_files(argv[2]);
    if (argc != 2)
        return 2;
    if (strcmp(argv[1], "--print") == 0) {
        for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
            char *text = part_text(&parts[i]);
            printf("%s\n", text);
            free(text);
        }
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(the_document_shows_what_is_written, argv[1]),
        cmocka_unit_test(the_example_decodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
