#include "lib/net/quic_cid.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/wire/error.h"

#define SIZE_FIRST 256

static uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

/* SipHash-1-3 of the connection ID, padded with zeros to whole words; its length is in the last word. */
static uint64_t hash(const struct relay_quic_cids *cids, const uint8_t *cid, size_t len)
{
    uint64_t v[4] = {cids->key[0] ^ 0x736f6d6570736575ull, cids->key[1] ^ 0x646f72616e646f6dull,
                     cids->key[0] ^ 0x6c7967656e657261ull, cids->key[1] ^ 0x7465646279746573ull};
    uint64_t words[4] = {0};
    size_t count = len / 8 + 1;
    memcpy(words, cid, len);
    words[count - 1] |= (uint64_t)len << 56;
    for (size_t i = 0; i < count; i++) {
        v[3] ^= words[i];
        sip_round(v);
        v[0] ^= words[i];
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

int relay_quic_cids_init(struct relay_quic_cids *cids, const uint64_t key[2])
{
    *cids = (struct relay_quic_cids){.size = SIZE_FIRST, .key = {key[0], key[1]}};
    cids->entries = calloc(cids->size, sizeof(*cids->entries));
    return cids->entries != NULL ? 0 : RELAY_ERR_NO_MEMORY;
}

void relay_quic_cids_dispose(struct relay_quic_cids *cids)
{
    free(cids->entries);
    memset(cids, 0, sizeof(*cids));
}

/* Its place, or the free one where it would be. */
static size_t place(const struct relay_quic_cids *cids, const uint8_t *cid, size_t len)
{
    size_t at = hash(cids, cid, len) & (cids->size - 1);
    for (;; at = (at + 1) & (cids->size - 1)) {
        const struct relay_quic_cid_entry *entry = &cids->entries[at];
        if (entry->owner == NULL || (entry->len == len && memcmp(entry->cid, cid, len) == 0))
            return at;
    }
}

void *relay_quic_cids_find(const struct relay_quic_cids *cids, const uint8_t *cid, size_t len)
{
    return len > RELAY_QUIC_CID_MAX ? NULL : cids->entries[place(cids, cid, len)].owner;
}

static int grow(struct relay_quic_cids *cids)
{
    struct relay_quic_cids larger = *cids;
    larger.size = cids->size * 2;
    larger.entries = calloc(larger.size, sizeof(*larger.entries));
    if (larger.entries == NULL)
        return RELAY_ERR_NO_MEMORY;
    for (size_t i = 0; i < cids->size; i++) {
        const struct relay_quic_cid_entry *entry = &cids->entries[i];
        if (entry->owner != NULL)
            larger.entries[place(&larger, entry->cid, entry->len)] = *entry;
    }
    free(cids->entries);
    *cids = larger;
    return 0;
}

int relay_quic_cids_add(struct relay_quic_cids *cids, const uint8_t *cid, size_t len, void *owner)
{
    if (len > RELAY_QUIC_CID_MAX)
        return RELAY_ERR_INVALID;
    if ((cids->used + 1) * 3 > cids->size * 2 && grow(cids) != 0)
        return RELAY_ERR_NO_MEMORY;
    struct relay_quic_cid_entry *entry = &cids->entries[place(cids, cid, len)];
    if (entry->owner != NULL)
        return RELAY_ERR_INVALID;
    entry->owner = owner;
    entry->len = (uint8_t)len;
    memcpy(entry->cid, cid, len);
    cids->used++;
    return 0;
}

void relay_quic_cids_remove(struct relay_quic_cids *cids, const uint8_t *cid, size_t len, const void *owner)
{
    if (len > RELAY_QUIC_CID_MAX)
        return;
    size_t hole = place(cids, cid, len), mask = cids->size - 1;
    if (cids->entries[hole].owner == NULL || cids->entries[hole].owner != owner)
        return;
    cids->used--;
    /* What was pushed behind the hole moves up, so that a search never meets a hole before its entry. */
    for (size_t at = (hole + 1) & mask; cids->entries[at].owner != NULL; at = (at + 1) & mask) {
        size_t home = hash(cids, cids->entries[at].cid, cids->entries[at].len) & mask;
        bool stays = hole <= at ? home > hole && home <= at : home > hole || home <= at;
        if (!stays) {
            cids->entries[hole] = cids->entries[at];
            hole = at;
        }
    }
    cids->entries[hole].owner = NULL;
}
