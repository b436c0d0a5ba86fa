/* plain_file.c: what may stand where a file is expected. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/net/plain_file.h"

static void expect(const char *path, enum relay_plain_file_use use, const char *expected)
{
    const char *refusal = relay_plain_file_refusal(path, use);
    if ((refusal == NULL) != (expected == NULL) ||
        (refusal != NULL && strncmp(refusal, expected, strlen(expected)) != 0))
        fail_msg("%s: %s", path, refusal != NULL ? refusal : "taken");
}

static void expect_always(const char *path, const char *expected)
{
    expect(path, RELAY_PLAIN_FILE_ONLY, expected);
    expect(path, RELAY_PLAIN_FILE_OR_GIVEN_PIPE, expected);
}

static void what_has_a_name(void **state)
{
    char folder[] = "/tmp/plain_file_test.XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/x", folder);
    expect_always(path, NULL); /* open() says it */
    expect_always("", NULL);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_always(path, "a named pipe");
    unlink(path);
    assert_int_equal(symlink("/dev/null", path), 0);
    expect_always(path, "a device");
    unlink(path);
    expect_always(folder, "a folder");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    expect_always(path, NULL);
    unlink(path);
    rmdir(folder);
}

static void what_was_given(void **state)
{
    int pipes[2], sockets[2];
    char path[64];
    assert_int_equal(pipe(pipes), 0);
    snprintf(path, sizeof(path), "/dev/fd/%d", pipes[0]);
    expect(path, RELAY_PLAIN_FILE_ONLY, "a pipe");
    expect(path, RELAY_PLAIN_FILE_OR_GIVEN_PIPE, NULL);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    snprintf(path, sizeof(path), "/dev/fd/%d", sockets[0]);
    expect_always(path, "a socket");
    for (int i = 0; i < 2; i++) {
        close(pipes[i]);
        close(sockets[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_has_a_name),
        cmocka_unit_test(what_was_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
