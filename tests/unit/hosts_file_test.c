/* hosts_file.c on a file of the test's making. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/net/hosts_file.h"

static char path[] = "/tmp/twohop-hosts-XXXXXX";

static int setup(void **state)
{
    static const char text[] = "# comment\n"
                               "127.0.0.1\tlocalhost\n"
                               "192.0.2.1 relay.example relay # egress.example\n"
                               "\n"
                               "   2001:db8::1   Relay.Example\r\n"
                               "192.0.2.300 junk.example\n"
                               "fe80::1%eth0 junk.example\n"
                               "junk.example\n"
                               "192.0.2.2\n"
                               "192.0.2.3 last.example";
    int fd = mkstemp(path);
    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? close(fd) : -1;
}

static int teardown(void **state)
{
    return unlink(path);
}

/* The addresses, separated by spaces. */
static const char *find(const char *name, size_t size)
{
    static char answer[256];
    struct relay_address found[4];
    size_t num = relay_hosts_file_find(path, name, found, size);
    answer[0] = '\0';
    for (size_t i = 0; i < num; i++) {
        char text[RELAY_ADDRESS_TEXT_SIZE];
        snprintf(answer + strlen(answer), sizeof(answer) - strlen(answer), "%s%s", i > 0 ? " " : "",
                 relay_address_print(&found[i], text));
    }
    return answer;
}

static void test_names(void **state)
{
    assert_string_equal(find("relay.example", 4), "192.0.2.1 2001:db8::1");
    assert_string_equal(find("RELAY.EXAMPLE", 1), "192.0.2.1");
    assert_string_equal(find("relay", 4), "192.0.2.1");
    assert_string_equal(find("last.example", 4), "192.0.2.3");
    static const char *const none[] = {"egress.example", "junk.example", "192.0.2.2", "", "elay.example"};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        assert_string_equal(find(none[i], 4), "");
}

static void test_no_file(void **state)
{
    struct relay_address found[1];
    assert_int_equal(relay_hosts_file_find("/nonexistent/hosts", "relay.example", found, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_names), cmocka_unit_test(test_no_file)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
