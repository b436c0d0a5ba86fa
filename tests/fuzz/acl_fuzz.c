/* Lines of rules, then judgements of a fixed name and of addresses taken from the input. A verdict after DNS
 * that allows must agree with the verdict before DNS, and a special-purpose address needs an allow rule with
 * a prefix. */
#include <stdlib.h>
#include <string.h>

#include "lib/wire/acl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static bool has_literal_allow(const struct relay_acl *acl)
{
    for (size_t i = 0; i < acl->count; i++)
        if (acl->rules[i].allow && acl->rules[i].kind == RELAY_ACL_ADDRESS && acl->rules[i].prefix.length > 0)
            return true;
    return false;
}

static void judge(const struct relay_acl *acl, const struct relay_address *address, uint16_t port)
{
    static const struct relay_acl_context context;
    for (int transport = RELAY_TRANSPORT_TCP; transport <= RELAY_TRANSPORT_UDP; transport++) {
        int before = relay_acl_judge_name(acl, &context, "www.example", port, transport);
        int named = relay_acl_judge_address(acl, &context, "www.example", address, port, transport);
        int literal = relay_acl_judge_address(acl, &context, NULL, address, port, transport);
        require(named != 0 || before == 0);
        if (relay_address_is_special(address))
            require((named != 0 && literal != 0) || has_literal_allow(acl));
        require(port != 0 || (named != 0 && literal != 0));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct relay_acl acl = {0};
    struct relay_address address = {.family = 4};
    uint16_t port = 443;
    if (size >= 18) {
        address.family = data[16] & 1 ? 4 : 6;
        memcpy(address.bytes, data, address.family == 4 ? 4 : 16);
        port = (uint16_t)(data[16] << 8 | data[17]);
        data += 18;
        size -= 18;
    }
    char *text = strndup((const char *)data, size), *rest = text, *line;
    while ((line = strsep(&rest, "\n")) != NULL) {
        const char *why;
        require(relay_acl_add(&acl, line, &why) == 0 || why != NULL);
    }
    judge(&acl, &address, port);
    for (size_t i = 0; i < acl.count; i++)
        judge(&acl, &acl.rules[i].prefix.address, acl.rules[i].last_port);
    relay_acl_dispose(&acl);
    free(text);
    return 0;
}
