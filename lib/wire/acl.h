/* The access list of proxy.connect and proxy.connect-udp, and the judgement of a target before and after DNS.
 *
 * A rule is `+` (allow) or `-` (deny) and what it matches, optionally with a port or a range of ports:
 *
 *   +*                      every target                      -*:25            every target at port 25
 *   -10.0.0.0/8             an IPv4 prefix                    +192.0.2.1:443   an address and a port
 *   +[2001:db8::1]:80-90    IPv6 with ports needs brackets    +fd00::/8        without ports they may be left
 * out
 *   +[fd00::]/8:443         a prefix and a port; also +[fd00::/8]:443 and, as h2o writes it, +[fd00::]:443/8
 *   +www.example:443        a name, exactly                   -*.example       every name below example, not
 * example
 *
 * Use:  1. relay_acl_add() for each string of the list, in order; with no list nothing is added (or set
 * `given` alone for a list that is there and empty: it denies all).
 *       2. target is a name: relay_acl_judge_name(). An error: refuse, without asking DNS.
 *       3. for each address that DNS gave, or the literal address of the target: relay_acl_judge_address().
 *          0: dial the address that relay_address_unwrap() gives as `dialled`. An error: this address is out;
 *          when all are out the answer is that error (the first one seen).
 * The list is read-only after step 1 and then shared by all threads.
 *
 * How one address is judged. One of our own listeners (relay_acl_context.is_own) is prohibited whatever the
 * list says. Then the rules are walked once for this address, in order; the first that matches decides. A
 * rule matches when its ports cover the port (no ports: all) and
 *   - a `*` rule: always;
 *   - a name rule: the target is a name and this one; a target given as an address never matches;
 *   - an address rule: it covers the judged form of the address; a deny rule also where it covers the dialled
 * form, so
 *     "-64:ff9b::/96" forbids NAT64. This is so for addresses of names as well as for literal targets.
 * Two guards make an allow rule not match, so that the walk goes on to later rules:
 *   - a special-purpose address (relay_address_special()) is only matched by an allow rule with a literal
 * address or prefix; `*`, names, 0.0.0.0/0 and ::/0 are not literal;
 *   - a guarded port is only matched by an allow rule with a literal address or prefix and with ports written
 * in it. Guarded are TCP 25, 119, 135-139, 445, 563; UDP 19, 123, 135-139, 161, 389, 1900, 11211; and 53 on
 * both unless the address is one of the configured resolvers. When no rule matches, the target is denied;
 * with no list at all, the public internet is allowed, within both guards.
 *
 * Examples, a name that resolves to two addresses, one in 10.0.0.0/8 (P) and one on the public internet (Q):
 *   "+db.example"                              Q passes, P is prohibited
 *   "+db.example" "+10.0.0.0/8"                both pass: the second rule names P
 *   "-10.0.0.0/8" "+db.example"                Q passes, P is prohibited: the deny rule comes first
 *   "+db.example" "-*" "+10.0.0.0/8"           Q passes, P is denied: "-*" is met before the rule that names
 * P
 *   "+db.example" "-Q"                         Q passes: the name rule comes first
 *   "+*:443" at port 80                        denied before DNS
 */
#ifndef RELAY_WIRE_ACL_H
#define RELAY_WIRE_ACL_H

#include "lib/wire/address.h"

enum relay_transport { RELAY_TRANSPORT_TCP, RELAY_TRANSPORT_UDP };

enum relay_acl_kind { RELAY_ACL_ANY, RELAY_ACL_ADDRESS, RELAY_ACL_NAME, RELAY_ACL_SUFFIX };

struct relay_acl_rule {
    bool allow;
    bool has_ports; /* ports were written */
    enum relay_acl_kind kind;
    uint16_t first_port, last_port; /* 1-65535; 0-65535 when none were written */
    struct relay_prefix prefix;     /* ADDRESS */
    char *name;                     /* NAME: "www.example"; SUFFIX: ".example"; lower case, ours; else NULL */
};

/* Zeroed memory is no list. Owned by the configuration. */
struct relay_acl {
    bool given; /* a list is there: no match denies. Set by relay_acl_add() */
    struct relay_acl_rule *rules;
    size_t count, capacity;
};

/* What a judgement needs to know beside the list; the same for all requests of a worker. Zeroed: no resolver,
 * no own listener known. */
struct relay_acl_context {
    const struct relay_address
        *resolvers; /* the configured ones, to which port 53 is open; the caller's memory */
    size_t resolver_count;
    /* Whether a listener of this process (the admin one too, wildcard listeners on any own address) is at
     * this address and port. NULL: not asked. Called with the dialled form and, where it differs, with the
     * judged form. */
    bool (*is_own)(void *data, const struct relay_address *address, uint16_t port,
                   enum relay_transport transport);
    void *data;
};

/* Appends one rule. RELAY_ERR_INVALID: *why (never NULL then; static) says what was expected.
 * RELAY_ERR_NO_MEMORY. The list is unchanged on failure. */
int relay_acl_add(struct relay_acl *acl, const char *rule, const char **why);
/* Whether a rule that was taken looks as if more was meant than it says: "+::1:443" is the address ::1:443, at every
 * port. So look rules whose IPv6 address has no brackets and no prefix length, and is one without its last group too,
 * which could be a port. */
bool relay_acl_seems_to_name_port(const char *rule);
void relay_acl_dispose(struct relay_acl *acl);

/* Before DNS: 0 when some address of this name might be admitted, RELAY_ERR_DENIED when none could be,
 * whatever DNS says. `host` is a name, not a literal address; case and one trailing dot do not count. It
 * never allows: every address must be judged too. */
int relay_acl_judge_name(const struct relay_acl *acl, const struct relay_acl_context *context,
                         const char *host, uint16_t port, enum relay_transport transport);

/* After DNS, for each address: 0, or
 *   RELAY_ERR_ADDRESS_PROHIBITED  own listener, special-purpose address that no allow rule names, or a deny
 *                                 rule with an address
 *   RELAY_ERR_DENIED              a guarded port, a deny rule without address, or no rule matches
 * `host` is the name that gave the address, NULL when the target is the address itself. */
int relay_acl_judge_address(const struct relay_acl *acl, const struct relay_acl_context *context,
                            const char *host, const struct relay_address *address, uint16_t port,
                            enum relay_transport transport);

#endif
