/* SPDX-License-Identifier: MIT */
/* Stands in for libFuzzer: gives the target each file named, and each file of each directory
 * named. A target that finds something aborts. No file at all is a failure. */
#include "fuzz.h"
#include <dirent.h>
#include <errno.h>

static unsigned long run;

static int run_file(const char *path)
{
    uint8_t *bytes = malloc(FUZZ_MAX + 1);
    FILE *file = fopen(path, "rb");
    int err = !bytes || !file;

    if (!err) {
        size_t len = fread(bytes, 1, FUZZ_MAX + 1, file);
        err = ferror(file);
        uint8_t *exact = fuzz_copy(bytes, len);
        fprintf(stderr, "%s\n", path);
        LLVMFuzzerTestOneInput(exact, len);
        free(exact);
        run++;
    }
    if (err)
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
    if (file)
        fclose(file);
    free(bytes);
    return err;
}

static int run_path(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    int err = 0;

    if (!dir)
        return run_file(path);
    while ((entry = readdir(dir))) {
        char name[4096];
        if (entry->d_name[0] == '.')
            continue;
        int len = snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        err |= len < 0 || (size_t)len >= sizeof(name) || run_file(name);
    }
    closedir(dir);
    return err;
}

int main(int argc, char **argv)
{
    int err = 0;

    for (int i = 1; i < argc; i++)
        err |= run_path(argv[i]);
    printf("%lu inputs\n", run);
    return err || run == 0;
}
