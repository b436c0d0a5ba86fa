/* log_file.c, on files of a folder of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/net/log_file.h"

static char folder[64], path[128], moved[128];

static int setup(void **state)
{
    strcpy(folder, "/tmp/log_file_test_XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof(path), "%s/log", folder);
    snprintf(moved, sizeof(moved), "%s/log.1", folder);
    return 0;
}

static int teardown(void **state)
{
    unlink(path);
    unlink(moved);
    return rmdir(folder);
}

static void write_line(int fd, const char *line)
{
    assert_int_equal(write(fd, line, strlen(line)), strlen(line));
}

static void assert_file(const char *name, const char *expected)
{
    char text[64];
    FILE *file = fopen(name, "re");
    assert_non_null(file);
    size_t len = fread(text, 1, sizeof(text) - 1, file);
    text[len] = '\0';
    fclose(file);
    assert_string_equal(text, expected);
}

static void only_owner_and_group_may_read(void **state)
{
    mode_t before = umask(0);
    int fd = relay_log_file_open(path);
    struct stat status;
    umask(before);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0640);
    close(fd);
}

static void rotation(void **state)
{
    int fd = relay_log_file_open(path);
    write_line(fd, "one\n");
    assert_int_equal(relay_log_file_reopen(path, fd), 0); /* nobody has moved it */
    write_line(fd, "two\n");
    assert_int_equal(rename(path, moved), 0);
    write_line(fd, "three\n");
    assert_int_equal(relay_log_file_reopen(path, fd), 0);
    write_line(fd, "four\n");
    assert_file(moved, "one\ntwo\nthree\n");
    assert_file(path, "four\n");
    close(fd);
}

static void a_failure_keeps_the_old_file(void **state)
{
    int fd = relay_log_file_open(path);
    assert_int_equal(relay_log_file_reopen("/nonexistent/log", fd), -ENOENT);
    write_line(fd, "kept\n");
    assert_file(path, "kept\n");
    close(fd);
}

static void check_makes_nothing(void **state)
{
    assert_int_equal(relay_log_file_check(path), 0);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(relay_log_file_check("/nonexistent/log"), -ENOENT);
    assert_int_equal(relay_log_file_check(folder), -EISDIR);
    assert_int_equal(relay_log_file_check("name-in-the-working-folder"), 0);
    assert_int_equal(relay_log_file_check("/dev/null"), 0);
    assert_int_equal(relay_log_file_check("/dev/null/log"), -ENOTDIR);
}

/* Lines until the pipe is full; then its reader takes all, and the next line stands alone. */
static void fill_and_drain(int fd, int reader)
{
    static char text[1 << 17];
    char line[1000];
    atomic_bool is_torn = false;
    ssize_t written = 0;
    memset(line, 'x', sizeof(line));
    line[sizeof(line) - 1] = '\n';
    while (relay_log_file_write(fd, &is_torn, line, sizeof(line)))
        written += (ssize_t)sizeof(line);
    assert_true(written > 0);
    assert_false(relay_log_file_write(fd, &is_torn, line, sizeof(line)));
    assert_int_equal(read(reader, text, sizeof(text)), written);
    assert_true(relay_log_file_write(fd, &is_torn, "last\n", 5));
    assert_int_equal(read(reader, text, sizeof(text)), 5);
}

static void nobody_waits_for_a_named_pipe(void **state)
{
    assert_int_equal(mkfifo(path, 0600), 0);
    int fd = relay_log_file_open(path); /* before its reader */
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    int reader = open(path, O_RDONLY | O_CLOEXEC);
    fill_and_drain(fd, reader);
    close(reader);
    close(fd);
}

static void nobody_waits_for_an_inherited_pipe(void **state)
{
    int ends[2];
    atomic_bool is_torn = false;
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(pipe(ends), 0);
    fill_and_drain(ends[1], ends[0]);
    int own = relay_log_file_own(ends[1]);
    assert_int_not_equal(own, ends[1]);
    assert_true(fcntl(own, F_GETFL) & O_NONBLOCK);
    assert_false(fcntl(ends[1], F_GETFL) & O_NONBLOCK); /* it may be a shell's, too */
    fill_and_drain(own, ends[0]);
    close(ends[0]);
    assert_false(relay_log_file_write(own, &is_torn, "gone\n", 5));
    close(own);
    close(ends[1]);
    assert_false(relay_log_file_write(ends[1], &is_torn, "closed\n", 7));
    assert_int_equal(relay_log_file_own(ends[1]), ends[1]);
}

/* The disk was full in the middle of a line. */
static void what_follows_half_a_line_begins_a_line(void **state)
{
    struct rlimit limit;
    atomic_bool is_torn = false;
    int fd = relay_log_file_open(path);
    assert_int_equal(relay_log_file_own(fd), fd);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    const struct rlimit full = {8, limit.rlim_max};
    assert_true(relay_log_file_write(fd, &is_torn, "whole\n", 6));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
    assert_false(relay_log_file_write(fd, &is_torn, "torn\n", 5));
    assert_false(relay_log_file_write(fd, &is_torn, "lost\n", 5));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_true(relay_log_file_write(fd, &is_torn, "next\n", 5));
    assert_true(relay_log_file_write(fd, &is_torn, "last\n", 5));
    assert_file(path, "whole\nto\nnext\nlast\n");
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_owner_and_group_may_read, setup, teardown),
        cmocka_unit_test_setup_teardown(rotation, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failure_keeps_the_old_file, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_waits_for_a_named_pipe, setup, teardown),
        cmocka_unit_test(nobody_waits_for_an_inherited_pipe),
        cmocka_unit_test_setup_teardown(what_follows_half_a_line_begins_a_line, setup, teardown),
        cmocka_unit_test_setup_teardown(check_makes_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
