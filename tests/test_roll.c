/* SPDX-License-Identifier: MIT */
/* What a roll does with the segment that it has sealed, it does before anybody else may take it: a
 * compaction could free it. */
#include "fixture.h"
#include "store.h"
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

static struct keg *rolling; /* NULL: whoever else may unpin */
static atomic_uint unpinned, late;

void __real_segment_unpin(struct keg *keg, struct segment *segment);
void __wrap_segment_unpin(struct keg *keg, struct segment *segment);

/* Compactions choose among the members, under manifest_lock. */
void __wrap_segment_unpin(struct keg *keg, struct segment *segment)
{
    if (keg == rolling) {
        atomic_fetch_add(&unpinned, 1);
        if (pthread_mutex_trylock(&keg->manifest_lock) == 0) {
            atomic_fetch_add(&late, 1);
            pthread_mutex_unlock(&keg->manifest_lock);
        }
    }
    __real_segment_unpin(keg, segment);
}

static void test_compaction_cannot_take_it_yet(void **state)
{
    struct fixture f;

    (void)state;
    fixture_open(&f);
    rolling = f.keg;
    for (unsigned i = 0; atomic_load(&unpinned) < 3; i++)
        fixture_put_all(f.keg, i * 100, i * 100 + 100);
    assert_int_equal(atomic_load(&late), 0);
    rolling = NULL;
    assert_int_equal(keg_close(f.keg), 0);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_compaction_cannot_take_it_yet)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
