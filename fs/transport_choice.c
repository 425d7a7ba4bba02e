/* SPDX-License-Identifier: MIT */
/*
 * FUSE over io_uring takes a kernel that has it (6.14), that has it switched on, a process that may
 * make rings (containers often may not), and a program that was built with liburing. Each of these
 * can be seen before anything is mounted; what only shows later (a ring too many for a limit) makes
 * the transport fall back by itself.
 */
#include "transport_choice.h"
#include "log.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SWITCH "/sys/module/fuse/parameters/enable_uring"

#ifdef IORING_SETUP_SQE128
/* Those that transport_uring.c asks for; the last two by number, for older headers. */
static const unsigned ring_flags = IORING_SETUP_SQE128 | 1U << 12 | 1U << 13;
#else
static const unsigned ring_flags = 1U << 10 | 1U << 12 | 1U << 13;
#endif

const char *transport_choice_name(enum transport_kind kind)
{
    static const char *const names[] = {"auto", "uring", "spin", "libfuse"};
    return names[kind];
}

/* 'Y', 'N', or 0 where there is no such switch. */
static char read_switch(void)
{
    char c = 0;
    int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC); /* loads the module */
    int fd = open(SWITCH, O_RDONLY | O_CLOEXEC);
    if (fuse >= 0)
        close(fuse);
    if (fd >= 0) {
        if (read(fd, &c, 1) != 1)
            c = 0;
        close(fd);
    }
    return c;
}

static int try_ring(void)
{
    struct io_uring_params params = {.flags = ring_flags};
    int fd = (int)syscall(SYS_io_uring_setup, 2, &params);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

/* Why there can be no FUSE over io_uring, "" if there can. *off: it is only switched off. */
static void find_reason(char *reason, size_t size, bool *off)
{
    *off = false;
    *reason = '\0';
#ifdef KEGFS_URING
    char c = read_switch();
    int err = c == 'Y' ? try_ring() : 0;
    if (!c)
        (void)snprintf(reason, size, "the kernel has none (Linux has from 6.14 on)");
    else if (err)
        (void)snprintf(reason, size, "making a ring: %s", strerror(-err));
    else if (c != 'Y')
        (void)snprintf(reason, size, "switched off: as root, echo 1 > " SWITCH);
    *off = c && c != 'Y';
#else
    (void)read_switch;
    (void)try_ring;
    (void)snprintf(reason, size, "this kegfs was built without liburing");
#endif
}

int transport_choose(enum transport_kind *kind)
{
    char reason[256];
    bool off;
    if (*kind == TRANSPORT_SPIN || *kind == TRANSPORT_LIBFUSE)
        return 0;
    find_reason(reason, sizeof reason, &off);
    if (*reason && *kind == TRANSPORT_URING) {
        log_error("no transport=uring here: %s", reason);
        return -EOPNOTSUPP;
    }
    /* To a person, not into the mail of a script. */
    if (off && isatty(STDERR_FILENO))
        log_info("a faster way to the kernel is %s (before mounting; -o transport=spin: do not "
                 "say so)",
                 reason);
    *kind = *reason ? TRANSPORT_SPIN : TRANSPORT_URING;
    return 0;
}

unsigned transport_possible_cpus(void)
{
    unsigned count = 0, first, last;
    char c = ',';
    FILE *file = fopen("/sys/devices/system/cpu/possible", "re");
    while (file && c == ',' && fscanf(file, "%u", &first) == 1) {
        last = first;
        c = (char)fgetc(file);
        if (c == '-' && fscanf(file, "%u", &last) == 1)
            c = (char)fgetc(file);
        count += last >= first && last - first < 1 << 16 ? last - first + 1 : 0;
    }
    if (file)
        (void)fclose(file);
    long configured = sysconf(_SC_NPROCESSORS_CONF);
    return count ? count : configured > 0 ? (unsigned)configured : 1;
}
