/* SPDX-License-Identifier: MIT */
#include "log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

static atomic_bool to_syslog;
static enum keg_level limit = KEG_LOG_INFO; /* set before there is a second thread */

void log_line(enum keg_level level, const char *format, va_list args)
{
    static const int priority[] = {
        [KEG_LOG_ERROR] = LOG_ERR, [KEG_LOG_WARNING] = LOG_WARNING, [KEG_LOG_INFO] = LOG_INFO};
    char line[2048];
    if (level > limit)
        return;
    (void)vsnprintf(line, sizeof line, format, args);
    if (atomic_load(&to_syslog))
        syslog(priority[level], "%s", line);
    else
        fprintf(stderr, "kegfs: %s\n", line);
}

void log_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line(KEG_LOG_ERROR, format, args);
    va_end(args);
}

void log_warning(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line(KEG_LOG_WARNING, format, args);
    va_end(args);
}

void log_info(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line(KEG_LOG_INFO, format, args);
    va_end(args);
}

void log_limit(enum keg_level level)
{
    limit = level;
}

int log_to_syslog(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    for (int i = 0; i <= 2; i++)
        if (dup2(fd, i) < 0) {
            int err = -errno;
            close(fd);
            return err;
        }
    if (fd > 2)
        close(fd);
    openlog("kegfs", LOG_PID | LOG_NDELAY, LOG_DAEMON);
    atomic_store(&to_syslog, true);
    return 0;
}

static void say(enum keg_level level, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line(level, format, args);
    va_end(args);
}

void log_keg(void *arg, enum keg_level level, const char *line)
{
    struct log_keeper *keeper = arg;
    if (keeper && keeper->hold && level == KEG_LOG_ERROR)
        (void)snprintf(keeper->line, sizeof keeper->line, "%s", line);
    else
        say(level, "%s", line);
}
