#include "lib/net/quic_run.h"

#include <stdlib.h>
#include <string.h>

#include "lib/net/udp_batch.h"

#define BUFFER_SIZE (RELAY_UDP_RUN_MAX + 4 * RELAY_QUIC_PACKET_MAX)
#define POOL_SIZE   16

static _Thread_local uint8_t *pool[POOL_SIZE];
static _Thread_local size_t pool_len, pool_users;

void relay_quic_runs_init(struct relay_quic_runs *runs)
{
    memset(runs, 0, sizeof(*runs));
    pool_users++;
}

static void release(struct relay_quic_runs *runs)
{
    if (runs->buffer != NULL && pool_len < POOL_SIZE)
        pool[pool_len++] = runs->buffer;
    else
        free(runs->buffer);
    runs->buffer = NULL;
    runs->end = runs->num_runs = runs->bytes = 0;
}

void relay_quic_runs_dispose(struct relay_quic_runs *runs)
{
    release(runs);
    if (--pool_users == 0)
        while (pool_len > 0)
            free(pool[--pool_len]);
}

uint8_t *relay_quic_runs_room(struct relay_quic_runs *runs)
{
    if (runs->buffer == NULL)
        runs->buffer = pool_len > 0 ? pool[--pool_len] : malloc(BUFFER_SIZE);
    if (runs->buffer == NULL || runs->num_runs == RELAY_QUIC_RUNS ||
        runs->end + RELAY_QUIC_PACKET_MAX > BUFFER_SIZE)
        return NULL;
    return runs->buffer + runs->end;
}

static bool same_address(const ngtcp2_addr *a, const ngtcp2_addr *b)
{
    return a->addrlen == b->addrlen && memcmp(a->addr, b->addr, (size_t)a->addrlen) == 0;
}

void relay_quic_runs_append(struct relay_quic_runs *runs, const ngtcp2_path *path, size_t len)
{
    struct relay_quic_run *last = runs->num_runs > 0 ? &runs->runs[runs->num_runs - 1] : NULL;
    if (last != NULL && !last->is_full && len <= last->segment && last->count < RELAY_UDP_SEGMENTS_MAX &&
        last->len + len <= RELAY_UDP_RUN_MAX && same_address(&last->path.path.remote, &path->remote) &&
        same_address(&last->path.path.local, &path->local)) {
        last->len += len;
        last->count++;
    } else {
        if (last != NULL)
            last->is_full = true;
        last = &runs->runs[runs->num_runs++];
        last->at = runs->end;
        last->len = last->segment = len;
        last->count = 1;
        last->is_full = false;
        ngtcp2_path_storage_init(&last->path, path->local.addr, path->local.addrlen, path->remote.addr,
                                 path->remote.addrlen, NULL);
    }
    if (len < last->segment || last->count == RELAY_UDP_SEGMENTS_MAX ||
        last->len + last->segment > RELAY_UDP_RUN_MAX)
        last->is_full = true;
    runs->end += len;
    runs->bytes += len;
}

bool relay_quic_runs_is_due(const struct relay_quic_runs *runs)
{
    return runs->num_runs > 1 || (runs->num_runs == 1 && runs->runs[0].is_full);
}

static size_t send_one(const struct relay_quic_runs *runs, struct relay_quic_run *run,
                       struct relay_packet_path *path, bool follow)
{
    const ngtcp2_path *to = &run->path.path;
    if (follow) {
        memcpy(&path->peer, to->remote.addr, (size_t)to->remote.addrlen);
        memcpy(&path->local, to->local.addr, (size_t)to->local.addrlen);
    } else if (memcmp(&path->local, to->local.addr, (size_t)to->local.addrlen) != 0) {
        return run->len;
    }
    return path->ops->send(path, runs->buffer + run->at, run->len, run->segment);
}

bool relay_quic_runs_send(struct relay_quic_runs *runs, struct relay_packet_path *path, bool follow)
{
    size_t done = 0;
    while (done < runs->num_runs) {
        struct relay_quic_run *run = &runs->runs[done];
        size_t taken = send_one(runs, run, path, follow);
        runs->bytes -= taken;
        if (taken < run->len) {
            run->at += taken;
            run->len -= taken;
            run->count -= taken / run->segment;
            break;
        }
        done++;
    }
    if (done == runs->num_runs) {
        release(runs);
        return true;
    }
    memmove(runs->runs, runs->runs + done, (runs->num_runs - done) * sizeof(runs->runs[0]));
    runs->num_runs -= done;
    /* ngtcp2's path points into its own storage. */
    for (size_t i = 0; done > 0 && i < runs->num_runs; i++) {
        ngtcp2_path_storage *ps = &runs->runs[i].path;
        ps->path.local.addr = (ngtcp2_sockaddr *)&ps->local_addrbuf;
        ps->path.remote.addr = (ngtcp2_sockaddr *)&ps->remote_addrbuf;
    }
    return false;
}
