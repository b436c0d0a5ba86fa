/* standard_fds.c, in a child, whose descriptors may go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/net/standard_fds.h"

static bool is_same(int fd, const struct stat *file)
{
    struct stat own;
    return fstat(fd, &own) == 0 && own.st_dev == file->st_dev && own.st_ino == file->st_ino &&
           own.st_rdev == file->st_rdev;
}

/* Bit i of `closed`: descriptor i is. The others stay what they are. */
static bool fills(unsigned closed)
{
    struct stat before[3], null;
    const int next = dup(STDIN_FILENO);
    close(next);
    if (stat("/dev/null", &null) != 0)
        return false;
    for (int fd = 0; fd < 3; fd++) {
        if (fstat(fd, &before[fd]) != 0)
            return false;
        if (closed >> fd & 1)
            close(fd);
    }
    if (relay_standard_fds_fill() != 0)
        return false;
    for (int fd = 0; fd < 3; fd++)
        if (!is_same(fd, closed >> fd & 1 ? &null : &before[fd]))
            return false;
    return dup(STDIN_FILENO) == next; /* none is left over */
}

static void those_that_are_closed_are_filled(void **state)
{
    for (unsigned closed = 0; closed < 8; closed++) {
        int status = 0;
        pid_t child = fork();
        if (child == 0)
            _exit(fills(closed) ? 0 : 1);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (status != 0)
            fail_msg("closed: %u", closed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(those_that_are_closed_are_filled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
