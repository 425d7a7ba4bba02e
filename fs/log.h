/* SPDX-License-Identifier: MIT */
/*
 * What a person should know: lines to stderr, and to syslog (LOG_DAEMON) once a daemon has let go
 * of its terminal. A line says what, where, and what to do: "kegfs: what: where: what to do".
 * Every function may be called from any thread; log_to_syslog once.
 */
#ifndef LOG_H
#define LOG_H

#include "keg.h"
#include <stdarg.h>

#define LOG_FORMAT(n) __attribute__((format(printf, n, n + 1)))

void log_error(const char *format, ...) LOG_FORMAT(1);
void log_warning(const char *format, ...) LOG_FORMAT(1);
void log_info(const char *format, ...) LOG_FORMAT(1);
void log_line(enum keg_level level, const char *format, va_list args);

/* From now on lines go to syslog, and stdin, stdout and stderr are /dev/null. 0 or -errno. */
KEG_CHECKED int log_to_syslog(void);

/* Lines of less weight than this are dropped; KEG_LOG_INFO (all are said) unless set. */
void log_limit(enum keg_level level);

/*
 * The store's log callback (arg: a struct log_keeper, or NULL). While `hold` is set, error lines
 * are kept in `line` (the last one wins) instead of said: for a call that is tried again.
 */
struct log_keeper {
    bool hold;
    char line[1024];
};
void log_keg(void *arg, enum keg_level level, const char *line);

#endif
