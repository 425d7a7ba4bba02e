/* SPDX-License-Identifier: MIT */
#include "env.h"
#include "report.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static requests_transport transport = "none";

static char *text_of(void (*write)(FILE *out, const void *arg), const void *arg)
{
    char *data = NULL;
    size_t size;
    FILE *out = open_memstream(&data, &size);
    assert_non_null(out);
    write(out, arg);
    assert_int_equal(fclose(out), 0);
    return data;
}

static void write_string(FILE *out, const void *arg)
{
    report_json_string(out, arg);
}

static void test_json_string(void **state)
{
    static const char *const cases[][2] = {
        {"", "\"\""},
        {"a b", "\"a b\""},
        {"\"\\", "\"\\\"\\\\\""},
        {"\n\x01\x7f", "\"\\u000a\\u0001\\u007f\""},
        {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x8d\xba", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x8d\xba\""},
        {"\xff", "\"\\ufffd\""},
        {"\xc3", "\"\\ufffd\""},                                  /* cut off */
        {"\xc0\xaf", "\"\\ufffd\\ufffd\""},                       /* overlong */
        {"\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\""},            /* a surrogate */
        {"\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""}, /* past the last */
        {"\xe2\x82z", "\"\\ufffd\\ufffdz\""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = text_of(write_string, cases[i][0]);
        assert_string_equal(text, cases[i][1]);
        free(text);
    }
}

static struct requests requests;

static void write_json(FILE *out, const void *arg)
{
    report_stats_json(arg, out);
}

static void write_metrics(FILE *out, const void *arg)
{
    report_metrics(arg, out);
}

static void write_text(FILE *out, const void *arg)
{
    report_stats(arg, out);
}

static void write_segments(FILE *out, const void *arg)
{
    assert_int_equal(report_segments_json(arg, out), 0);
}

static void has(char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" is not in:\n%s", part, text);
    free(text);
}

static void test_formats(void **state)
{
    const struct keg_options keg_options = {.flags = KEG_CREATE | KEG_NO_BACKGROUND};
    const struct volume_options options = {.flags = VOLUME_CREATE | VOLUME_NO_BACKGROUND};
    struct keg_env *env;
    struct report r = {
        .store = "/a\"b", .mountpoint = "/m", .transport = &transport, .requests = &requests};
    (void)state;
    assert_int_equal(env_mem(0, &env), 0);
    assert_int_equal(keg_open(env, &keg_options, &r.keg), 0);
    assert_int_equal(volume_open(r.keg, &options, &r.volume), 0);
    requests_count(&requests, 1);
    requests_count(&requests, 1);
    requests_count(&requests, 1000000);
    has(text_of(write_json, &r), "\"store\": \"/a\\\"b\"");
    has(text_of(write_json, &r), "\"requests\": {\"OTHER\": 1, \"LOOKUP\": 2}\n}\n");
    has(text_of(write_json, &r), "\"segments\": 1,");
    has(text_of(write_metrics, &r), "\nkegfs_requests_total{opcode=\"LOOKUP\"} 2\n");
    has(text_of(write_metrics, &r), "\n# TYPE kegfs_live_bytes gauge\nkegfs_live_bytes ");
    has(text_of(write_text, &r), "mounted at           /m (pid ");
    has(text_of(write_segments, &r), "[\n  {\"id\": 1, \"kind\": \"active\", ");
    r.requests = NULL;
    r.mountpoint = NULL;
    has(text_of(write_json, &r), "\"mountpoint\": null,");
    has(text_of(write_json, &r), "\"requests\": {}\n}\n");
    assert_int_equal(volume_close(r.volume), 0);
    assert_int_equal(keg_close(r.keg), 0);
    keg_env_free(env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_string),
        cmocka_unit_test(test_formats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
