/* log_file.c, on files of a folder of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_owner_and_group_may_read, setup, teardown),
        cmocka_unit_test_setup_teardown(rotation, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failure_keeps_the_old_file, setup, teardown),
        cmocka_unit_test_setup_teardown(check_makes_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
