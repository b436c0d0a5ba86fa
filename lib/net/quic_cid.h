/* Connection IDs of an endpoint: which connection a packet is for. A hash table with a keyed hash
 * (SipHash-1-3), because clients choose the first Destination Connection ID. It grows as needed; the
 * endpoint's limits bound it. It owns no connection.
 */
#ifndef RELAY_NET_QUIC_CID_H
#define RELAY_NET_QUIC_CID_H

#include <stddef.h>
#include <stdint.h>

#define RELAY_QUIC_CID_MAX 20 /* RFC 9000 section 17.2 */

struct relay_quic_cid_entry {
    void *owner; /* NULL: free */
    uint8_t len, cid[RELAY_QUIC_CID_MAX];
};

struct relay_quic_cids {
    struct relay_quic_cid_entry *entries;
    size_t size, used; /* size is a power of two */
    uint64_t key[2];
};

/* 0 or RELAY_ERR_NO_MEMORY. `key` is random and secret. */
int relay_quic_cids_init(struct relay_quic_cids *cids, const uint64_t key[2]);
void relay_quic_cids_dispose(struct relay_quic_cids *cids);

/* NULL: unknown. A length above RELAY_QUIC_CID_MAX is unknown. */
void *relay_quic_cids_find(const struct relay_quic_cids *cids, const uint8_t *cid, size_t len);
/* 0, RELAY_ERR_NO_MEMORY, or RELAY_ERR_INVALID when it is taken or too long. */
int relay_quic_cids_add(struct relay_quic_cids *cids, const uint8_t *cid, size_t len, void *owner);
/* Nothing happens when it is not there or another's. */
void relay_quic_cids_remove(struct relay_quic_cids *cids, const uint8_t *cid, size_t len, const void *owner);

#endif
