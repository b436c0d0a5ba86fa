/* Several threads fill a ring, one empties it; under ThreadSanitizer too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "lib/net/quic_ring.h"

#define WRITERS 3
#define PACKETS 20000

static struct relay_quic_ring *ring;

static bool put(uint32_t writer, uint32_t number, bool *wake)
{
    struct relay_quic_ring_packet *packet = relay_quic_ring_claim(ring);
    if (packet == NULL)
        return false;
    packet->len = 8 + number % 1000;
    packet->ecn = (uint8_t)number;
    memcpy(packet->bytes, &writer, sizeof(writer));
    memcpy(packet->bytes + 4, &number, sizeof(number));
    memset(packet->bytes + 8, (int)(number & 0xff), packet->len - 8);
    *wake = relay_quic_ring_publish(ring, packet);
    return true;
}

static void take(uint32_t *writer, uint32_t *number)
{
    struct relay_quic_ring_packet *packet = relay_quic_ring_first(ring);
    assert_non_null(packet);
    memcpy(writer, packet->bytes, sizeof(*writer));
    memcpy(number, packet->bytes + 4, sizeof(*number));
    assert_int_equal(packet->len, 8 + *number % 1000);
    assert_int_equal(packet->ecn, (uint8_t)*number);
    for (size_t i = 8; i < packet->len; i++)
        if (packet->bytes[i] != (*number & 0xff))
            fail_msg("byte %zu of packet %u", i, *number);
    relay_quic_ring_drop_first(ring);
}

static int setup(void **state)
{
    ring = relay_quic_ring_new();
    return ring == NULL;
}

static int teardown(void **state)
{
    relay_quic_ring_free(ring);
    return 0;
}

static void test_full(void **state)
{
    uint32_t writer, number;
    bool wake;
    for (uint32_t round = 0; round < 3; round++) {
        assert_null(relay_quic_ring_first(ring));
        for (uint32_t i = 0; i < RELAY_QUIC_RING_SIZE; i++)
            assert_true(put(round, i, &wake));
        assert_false(put(round, 0, &wake));
        for (uint32_t i = 0; i < RELAY_QUIC_RING_SIZE; i++) {
            take(&writer, &number);
            assert_int_equal(writer, round);
            assert_int_equal(number, i);
        }
    }
}

static void test_wake(void **state)
{
    uint32_t writer, number;
    bool wake = false;
    assert_true(put(0, 0, &wake) && wake);
    assert_true(put(0, 1, &wake) && !wake); /* somebody has woken it already */
    relay_quic_ring_rest(ring);
    take(&writer, &number);
    take(&writer, &number);
    assert_null(relay_quic_ring_first(ring));
    assert_true(put(0, 2, &wake) && wake);
}

/* A packet that is claimed and not yet published hides those behind it, and nothing is lost. */
static void test_slow_writer(void **state)
{
    uint32_t writer, number;
    bool wake = false;
    struct relay_quic_ring_packet *slow = relay_quic_ring_claim(ring);
    assert_true(put(0, 1, &wake) && wake);
    relay_quic_ring_rest(ring);
    assert_null(relay_quic_ring_first(ring));
    memset(slow->bytes, 0, 8);
    slow->len = 8;
    slow->ecn = 0;
    assert_true(relay_quic_ring_publish(ring, slow));
    take(&writer, &number);
    assert_int_equal(number, 0);
    take(&writer, &number);
    assert_int_equal(number, 1);
}

static sem_t bell;
static atomic_uint writing, dropped;

static void *write_all(void *arg)
{
    uint32_t writer = (uint32_t)(uintptr_t)arg;
    for (uint32_t i = 0; i < PACKETS; i++) {
        bool wake = false;
        if (!put(writer, i, &wake))
            atomic_fetch_add(&dropped, 1);
        if (wake)
            sem_post(&bell);
        if (i % 4096 == 0)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    atomic_fetch_sub(&writing, 1);
    return NULL;
}

/* What each writer brought comes in its order; every packet came or was counted; nobody sleeps over one. */
static void test_threads(void **state)
{
    pthread_t threads[WRITERS];
    uint32_t next[WRITERS] = {0}, writer, number, came = 0;
    sem_init(&bell, 0, 0);
    atomic_init(&writing, WRITERS);
    for (uintptr_t i = 0; i < WRITERS; i++)
        pthread_create(&threads[i], NULL, write_all, (void *)i);
    for (bool last = false; !last;) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        last = atomic_load(&writing) == 0;
        bool rung = sem_timedwait(&bell, &until) == 0;
        if (!rung && last)
            assert_null(relay_quic_ring_first(ring));
        relay_quic_ring_rest(ring);
        last = last && !rung;
        while (relay_quic_ring_first(ring) != NULL) {
            take(&writer, &number);
            assert_true(number >= next[writer]);
            next[writer] = number + 1;
            came++;
        }
    }
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(came + atomic_load(&dropped), WRITERS * PACKETS);
    assert_true(came > 0);
    sem_destroy(&bell);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wake, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_writer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
