/* SPDX-License-Identifier: MIT */
/* What the operations of an environment give together; the same for every implementation. */
#include "env.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void keg_env_free(struct keg_env *env)
{
    if (env)
        env->ops->destroy(env);
}

int keg_holder(struct keg_env *env, char *text, size_t size)
{
    return env->ops->holder(env, text, size);
}

int env_read_all(struct keg_file *file, uint64_t offset, void *buf, size_t len)
{
    ssize_t got = env_read(file, offset, buf, len);

    if (got < 0)
        return (int)got;
    return (size_t)got == len ? 0 : -EBADMSG;
}

static int write_whole(struct keg_env *env, const char *name, const void *data, size_t len)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    struct keg_file *file;
    int rc = env_create(env, name, &file);

    if (rc)
        return rc;
    if (len)
        rc = env_append(file, 0, &iov, 1);
    if (!rc)
        rc = env_sync(file);
    env_close(file);
    return rc;
}

int env_replace(struct keg_env *env, const char *name, const void *data, size_t len)
{
    char temp[ENV_NAME_MAX + 1];
    int n = snprintf(temp, sizeof temp, "%s.tmp", name);
    int rc;

    if (n < 0 || (size_t)n >= sizeof temp)
        return -ENAMETOOLONG;
    rc = env_remove(env, temp); /* what a crash may have left */
    if (rc && rc != -ENOENT)
        return rc;
    rc = write_whole(env, temp, data, len);
    if (!rc)
        rc = env_publish(env, temp, name);
    if (rc && env_remove(env, temp)) {
        /* The next call, or the next open of the store, removes it. */
    }
    return rc;
}

int env_slurp(struct keg_env *env, const char *name, size_t limit, uint8_t **data, size_t *len)
{
    struct keg_file *file;
    uint64_t size;
    uint8_t *buf;
    int rc = env_open(env, name, ENV_READ, &file);

    if (rc)
        return rc;
    rc = env_size(file, &size);
    if (!rc && size > limit)
        rc = -EFBIG;
    buf = rc ? NULL : malloc(size ? (size_t)size : 1);
    if (!rc && !buf)
        rc = -ENOMEM;
    if (!rc)
        rc = env_read_all(file, 0, buf, (size_t)size);
    env_close(file);
    if (rc) {
        free(buf);
        return rc;
    }
    *data = buf;
    *len = (size_t)size;
    return 0;
}

bool env_name_ok(const char *name)
{
    size_t len = 0;

    while (len <= ENV_NAME_MAX && name[len] && name[len] != '/')
        len++;
    if (len == 0 || len > ENV_NAME_MAX || name[len] == '/')
        return false;
    return name[0] != '.' && strcmp(name, ENV_LOCK_NAME) != 0;
}
