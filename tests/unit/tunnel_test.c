/* tunnel.c against a session that only remembers what it was asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/net/metrics.h"
#include "lib/net/tunnel.h"
#include "lib/wire/error.h"

struct fake {
    struct relay_tunnel tunnel; /* first */
    size_t room, consumed, sent_len, max_datagram;
    uint8_t sent[4096];
    int status, aborted, reading;
    bool fin_sent, released;
};

static struct relay_loop loop;
static struct relay_metrics metrics;
static struct fake fake;

/* What the user was told, one letter each. */
static char told[128];
static uint8_t got[4096];
static size_t got_len;
static int close_error, pause_after;

static struct fake *of(struct relay_tunnel *tunnel)
{
    return (struct fake *)tunnel;
}

static int fake_respond(struct relay_tunnel *tunnel, const struct relay_response *response)
{
    of(tunnel)->status = response->status;
    return 0;
}

static size_t fake_room(struct relay_tunnel *tunnel)
{
    return of(tunnel)->room;
}

static bool fake_send(struct relay_tunnel *tunnel, const uint8_t *bytes, size_t len)
{
    struct fake *self = of(tunnel);
    memcpy(self->sent + self->sent_len, bytes, len);
    self->sent_len += len;
    self->room -= len < self->room ? len : self->room;
    return self->room > 0;
}

static void fake_send_fin(struct relay_tunnel *tunnel)
{
    of(tunnel)->fin_sent = true;
}

static enum relay_sent fake_send_datagrams(struct relay_tunnel *tunnel, struct relay_run *run)
{
    if (run->segment > of(tunnel)->max_datagram)
        return RELAY_TOO_BIG;
    run->base += run->len;
    run->len = 0;
    return RELAY_SENT;
}

static size_t fake_max_datagram(struct relay_tunnel *tunnel, uint64_t context_id)
{
    return of(tunnel)->max_datagram;
}

static void fake_consume(struct relay_tunnel *tunnel, size_t len)
{
    of(tunnel)->consumed += len;
}

static void fake_set_reading(struct relay_tunnel *tunnel, bool reading)
{
    of(tunnel)->reading = reading;
}

static void fake_abort(struct relay_tunnel *tunnel, int error)
{
    of(tunnel)->aborted = error;
    relay_tunnel_closed(tunnel, error);
}

static void fake_release(struct relay_tunnel *tunnel)
{
    relay_tunnel_dispose(tunnel);
    of(tunnel)->released = true;
}

static const struct relay_tunnel_ops fake_ops = {
    fake_respond,      fake_room,    fake_send,        fake_send_fin, fake_send_datagrams,
    fake_max_datagram, fake_consume, fake_set_reading, fake_abort,    fake_release,
};

static void tell(char c)
{
    told[strlen(told)] = c;
    if (pause_after > 0 && --pause_after == 0)
        relay_tunnel_pause(&fake.tunnel);
}

static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    memcpy(got + got_len, bytes, len);
    got_len += len;
    tell('b');
}

static void on_fin(void *user)
{
    tell('f');
}

static void on_datagrams(void *user, const struct relay_run *run)
{
    memcpy(got + got_len, run->base, run->len);
    got_len += run->len;
    tell((char)('0' + run->context_id));
}

static void on_writable(void *user)
{
    tell('w');
}

static void on_close(void *user, int error)
{
    close_error = error;
    tell('c');
}

static const struct relay_tunnel_user user_cb = {
    .on_bytes = on_bytes,
    .on_fin = on_fin,
    .on_datagrams = on_datagrams,
    .on_writable = on_writable,
    .on_close = on_close,
};

static void on_accepted(void *host)
{
    tell('A');
}

static void on_closed(void *host)
{
    tell('C');
}

static const struct relay_tunnel_host host_cb = {on_accepted, on_closed};

static void turn(void)
{
    uv_run(&loop.uv, UV_RUN_NOWAIT);
}

static void open_fake(enum relay_kind kind)
{
    memset(&fake, 0, sizeof(fake));
    memset(told, 0, sizeof(told));
    got_len = 0;
    pause_after = 0;
    close_error = 1;
    fake.room = sizeof(fake.sent);
    relay_tunnel_init(&fake.tunnel, &fake_ops, NULL, &loop, kind);
    fake.tunnel.host_cb = &host_cb;
    relay_tunnel_attach(&fake.tunnel, &user_cb, NULL);
}

static int setup(void **state)
{
    return relay_loop_init(&loop, &metrics);
}

static int teardown(void **state)
{
    if (!fake.released) {
        relay_tunnel_abort(&fake.tunnel, RELAY_ERR_CANCELLED);
        turn();
    }
    assert_true(fake.released);
    relay_loop_dispose(&loop);
    return 0;
}

static void deliver(const void *bytes, size_t len)
{
    uint8_t copy[4096];
    memcpy(copy, bytes, len);
    relay_tunnel_deliver(&fake.tunnel, copy, len);
}

static void bytes_are_credited_when_they_are_taken(void **state)
{
    open_fake(RELAY_KIND_BYTES);
    deliver("hello", 5);
    assert_int_equal(fake.consumed, 5);
    pause_after = 1;
    deliver("abc", 3); /* the user pauses inside: credit waits */
    assert_int_equal(fake.consumed, 5);
    deliver("def", 3); /* held */
    relay_tunnel_deliver_fin(&fake.tunnel);
    turn();
    assert_string_equal(told, "bb");
    relay_tunnel_resume(&fake.tunnel);
    assert_string_equal(told, "bb"); /* never from inside resume */
    turn();
    assert_string_equal(told, "bbbf");
    assert_int_equal(fake.consumed, 11);
    assert_memory_equal(got, "helloabcdef", 11);
}

static void a_clean_end_waits_for_what_is_held(void **state)
{
    open_fake(RELAY_KIND_BYTES);
    relay_tunnel_pause(&fake.tunnel);
    deliver("x", 1);
    relay_tunnel_deliver_fin(&fake.tunnel);
    relay_tunnel_closed(&fake.tunnel, RELAY_OK);
    turn();
    assert_string_equal(told, "");
    relay_tunnel_resume(&fake.tunnel);
    turn();
    assert_string_equal(told, "bfcC");
    assert_int_equal(close_error, RELAY_OK);
}

static void a_reset_does_not_wait(void **state)
{
    open_fake(RELAY_KIND_BYTES);
    relay_tunnel_pause(&fake.tunnel);
    deliver("x", 1);
    relay_tunnel_closed(&fake.tunnel, RELAY_ERR_RESET);
    turn();
    assert_string_equal(told, "cC");
    assert_int_equal(close_error, RELAY_ERR_RESET);
}

static void a_reset_is_called_by_whose_it_is(void **state)
{
    open_fake(RELAY_KIND_BYTES);
    relay_tunnel_closed(&fake.tunnel, RELAY_ERR_RESET);
    assert_int_equal(relay_tunnel_verdict(&fake.tunnel, RELAY_ERR_RESET), RELAY_ERR_CANCELLED);
    assert_int_equal(relay_tunnel_verdict(&fake.tunnel, RELAY_ERR_IDLE), RELAY_ERR_IDLE);
    turn();
    open_fake(RELAY_KIND_BYTES);
    relay_tunnel_deliver_fin(&fake.tunnel);
    relay_tunnel_closed(&fake.tunnel, RELAY_ERR_RESET);
    assert_int_equal(relay_tunnel_verdict(&fake.tunnel, RELAY_ERR_RESET), RELAY_OK);
    turn();
    open_fake(RELAY_KIND_BYTES);
    relay_tunnel_deliver_fin(&fake.tunnel);
    relay_tunnel_abort(&fake.tunnel, RELAY_ERR_RESET);
    assert_int_equal(relay_tunnel_verdict(&fake.tunnel, RELAY_ERR_RESET), RELAY_ERR_RESET);
    turn();
}

static void abort_tells_nothing_but_the_close_and_once(void **state)
{
    open_fake(RELAY_KIND_BYTES);
    relay_tunnel_abort(&fake.tunnel, RELAY_ERR_IDLE);
    relay_tunnel_abort(&fake.tunnel, RELAY_ERR_RESET);
    deliver("x", 1);
    relay_tunnel_deliver_fin(&fake.tunnel);
    assert_string_equal(told, "");
    turn();
    assert_string_equal(told, "cC");
    assert_int_equal(fake.aborted, RELAY_ERR_IDLE);
}

#define ENDING 20

static void on_slow_close(void *user, int error)
{
    usleep(1000);
    (*(int *)user)++;
}

/* What one connection's end costs must not keep others waiting. */
static void many_ends_take_many_turns(void **state)
{
    static const struct relay_tunnel_user slow_cb = {.on_close = on_slow_close};
    static struct fake ending[ENDING];
    int closed = 0;
    for (int i = 0; i < ENDING; i++) {
        relay_tunnel_init(&ending[i].tunnel, &fake_ops, NULL, &loop, RELAY_KIND_BYTES);
        relay_tunnel_attach(&ending[i].tunnel, &slow_cb, &closed);
        relay_tunnel_closed(&ending[i].tunnel, RELAY_ERR_RESET);
    }
    for (int turns = 0, before; closed < ENDING; turns++) {
        before = closed;
        turn();
        assert_true(turns == 0 || closed > before); /* the first turn is in uv_prepare or in uv_check */
        assert_true(closed - before < ENDING / 2);
    }
    for (int i = 0; i < ENDING; i++)
        assert_true(ending[i].released);
}

static void accept_tells_the_host_from_a_task(void **state)
{
    open_fake(RELAY_KIND_CAPSULES);
    assert_int_equal(relay_tunnel_accept(&fake.tunnel, NULL, 0), 0);
    assert_int_equal(fake.status, 200);
    assert_string_equal(told, "");
    turn();
    assert_string_equal(told, "A");
}

static void capsules_become_datagrams(void **state)
{
    open_fake(RELAY_KIND_CAPSULES);
    deliver("\x00\x04\x00"
            "abc"
            "\x17\x02xx"
            "\x00\x03\x05"
            "de",
            15);
    assert_string_equal(told, "05");
    assert_memory_equal(got, "abcde", 5);
    assert_int_equal(fake.consumed, 15);
    turn(); /* with a time of its own */
    pause_after = 1;
    deliver("\x00\x02\x00"
            "1"
            "\x00\x02\x00"
            "2",
            8); /* paused between the two */
    assert_int_equal(got_len, 6);
    relay_tunnel_resume(&fake.tunnel);
    turn();
    assert_int_equal(got_len, 7);
    assert_int_equal(fake.consumed, 23);
}

#define TINY 600 /* capsules, of five bytes each */

struct tiny {
    struct fake fake; /* first */
    int count;        /* told, in order */
    int abort_at, more_at;
    bool fin_told;
    int closed; /* the error; 1: not yet */
};

static uint8_t *write_tiny(uint8_t *p, int first, int count)
{
    for (int i = first; i < first + count; i++, p += 5)
        memcpy(p, (uint8_t[]){0, 3, 0, (uint8_t)(i >> 8), (uint8_t)i}, 5);
    return p;
}

static void deliver_tiny(struct tiny *tiny, int first, int count)
{
    uint8_t bytes[5 * TINY];
    relay_tunnel_deliver(&tiny->fake.tunnel, bytes, (size_t)(write_tiny(bytes, first, count) - bytes));
}

static void on_tiny(void *user, const struct relay_run *run)
{
    struct tiny *tiny = user;
    assert_int_equal(run->len, 2);
    assert_int_equal(run->base[0] << 8 | run->base[1], tiny->count);
    tiny->count++;
    usleep(20);
    if (tiny->count == tiny->more_at)
        deliver_tiny(tiny, TINY, 10);
    if (tiny->count == tiny->abort_at)
        relay_tunnel_abort(&tiny->fake.tunnel, RELAY_ERR_IDLE);
}

static void on_tiny_fin(void *user)
{
    struct tiny *tiny = user;
    tiny->fin_told = true;
}

static void on_tiny_close(void *user, int error)
{
    struct tiny *tiny = user;
    tiny->closed = error;
}

static const struct relay_tunnel_user tiny_cb = {
    .on_datagrams = on_tiny, .on_fin = on_tiny_fin, .on_close = on_tiny_close};

static void open_tiny(struct tiny *tiny)
{
    turn(); /* what the last one took of a turn is over */
    memset(tiny, 0, sizeof(*tiny));
    tiny->closed = 1;
    tiny->fake.reading = true;
    relay_tunnel_init(&tiny->fake.tunnel, &fake_ops, NULL, &loop, RELAY_KIND_CAPSULES);
    relay_tunnel_attach(&tiny->fake.tunnel, &tiny_cb, tiny);
}

/* What one read brings is not told in one turn, the peer is to stop meanwhile, and tunnels take turns (T39). */
static void tiny_capsules_take_many_turns(void **state)
{
    static struct tiny tiny[4];
    for (int i = 0; i < 4; i++)
        open_tiny(&tiny[i]);
    for (int i = 0; i < 4; i++) {
        deliver_tiny(&tiny[i], 0, TINY);
        assert_true(tiny[i].count <= (i == 0 ? TINY / 2 : RELAY_CAPSULES_AT_ONCE));
        assert_false(tiny[i].fake.reading);
        assert_true(tiny[i].fake.tunnel.is_unproven);
        assert_int_equal(tiny[i].fake.consumed, 5 * tiny[i].count);
        relay_tunnel_deliver_fin(&tiny[i].fake.tunnel);
        relay_tunnel_closed(&tiny[i].fake.tunnel, RELAY_OK);
    }
    for (bool is_over = false; !is_over;) {
        int before = 0, after = 0, least = TINY;
        for (int i = 0; i < 4; i++)
            before += tiny[i].count;
        turn();
        is_over = true;
        for (int i = 0; i < 4; i++) {
            after += tiny[i].count;
            least = tiny[i].count < least ? tiny[i].count : least;
            assert_true(tiny[i].closed == 1 || (tiny[i].closed == RELAY_OK && tiny[i].fin_told));
            assert_int_equal(tiny[i].fin_told, tiny[i].count == TINY);
            is_over &= tiny[i].closed == RELAY_OK;
        }
        assert_true(after - before <= TINY);
        for (int i = 1; i < 4; i++) /* the first had more when it was alone */
            assert_true(tiny[i].count - least <= 2 * RELAY_CAPSULES_AT_ONCE || least == TINY);
    }
}

static void held_capsules_keep_their_order_and_their_credit(void **state)
{
    static struct tiny tiny;
    open_tiny(&tiny);
    tiny.more_at = TINY - 1; /* comes while the last piece is told */
    deliver_tiny(&tiny, 0, TINY);
    for (int i = 0; i < TINY && tiny.count < TINY + 10; i++)
        turn();
    assert_int_equal(tiny.count, TINY + 10);
    assert_int_equal(tiny.fake.consumed, 5 * (TINY + 10));
    assert_true(tiny.fake.reading);
    turn();
    deliver_tiny(&tiny, TINY + 10, 1); /* in time: it is told at once */
    assert_int_equal(tiny.count, TINY + 11);
    assert_false(tiny.fake.tunnel.is_unproven);
    relay_tunnel_abort(&tiny.fake.tunnel, RELAY_ERR_CANCELLED);
    turn();
}

static void a_pause_stops_held_capsules(void **state)
{
    static struct tiny tiny;
    open_tiny(&tiny);
    deliver_tiny(&tiny, 0, TINY);
    relay_tunnel_pause(&tiny.fake.tunnel);
    int before = tiny.count;
    turn();
    turn();
    assert_int_equal(tiny.count, before);
    relay_tunnel_resume(&tiny.fake.tunnel);
    assert_false(tiny.fake.reading); /* there is enough */
    for (int i = 0; i < TINY && tiny.count < TINY; i++)
        turn();
    assert_int_equal(tiny.count, TINY);
    assert_true(tiny.fake.reading);
    relay_tunnel_abort(&tiny.fake.tunnel, RELAY_ERR_CANCELLED);
    turn();
}

static void held_capsules_go_with_their_tunnel(void **state)
{
    static struct tiny tiny;
    open_tiny(&tiny);
    tiny.abort_at = TINY - 1;
    deliver_tiny(&tiny, 0, TINY);
    for (int i = 0; i < TINY && tiny.closed == 1; i++)
        turn();
    assert_int_equal(tiny.count, TINY - 1);
    assert_int_equal(tiny.closed, RELAY_ERR_IDLE);
    assert_true(tiny.fake.released);
    open_tiny(&tiny);
    deliver_tiny(&tiny, 0, TINY);
    int before = tiny.count;
    relay_tunnel_closed(&tiny.fake.tunnel, RELAY_ERR_RESET);
    for (int i = 0; i < TINY && tiny.closed == 1; i++)
        turn();
    assert_true(before < TINY);
    assert_int_equal(tiny.count, before);
    assert_false(tiny.fin_told);
    assert_int_equal(tiny.closed, RELAY_ERR_RESET);
    assert_true(tiny.fake.released);
}

static void a_cut_capsule_at_the_end_is_malformed(void **state)
{
    open_fake(RELAY_KIND_CAPSULES);
    deliver("\x00\x04\x00", 3);
    relay_tunnel_deliver_fin(&fake.tunnel);
    turn();
    assert_int_equal(fake.aborted, RELAY_ERR_INCOMPLETE);
    assert_string_equal(told, "cC");
}

static void an_empty_datagram_frame_is_malformed(void **state)
{
    open_fake(RELAY_KIND_CAPSULES);
    relay_tunnel_deliver_datagram(&fake.tunnel, (const uint8_t *)"", 0);
    assert_int_equal(fake.aborted, RELAY_ERR_INCOMPLETE);
}

static void without_frames_datagrams_go_as_capsules(void **state)
{
    open_fake(RELAY_KIND_CAPSULES);
    struct relay_run run = {.context_id = 0, .base = (const uint8_t *)"aabbc", .len = 5, .segment = 2};
    assert_int_equal(relay_tunnel_send_datagrams(&fake.tunnel, &run), RELAY_SENT);
    assert_int_equal(fake.sent_len, 14);
    assert_memory_equal(fake.sent,
                        "\x00\x03\x00"
                        "aa"
                        "\x00\x03\x00"
                        "bb"
                        "\x00\x02\x00"
                        "c",
                        14);
    struct relay_run empty = {.base = (const uint8_t *)"", .len = 0, .segment = 0};
    assert_int_equal(relay_tunnel_send_datagrams(&fake.tunnel, &empty), RELAY_SENT);
    assert_memory_equal(fake.sent + 14, "\x00\x01\x00", 3);
}

static void a_full_tunnel_blocks_datagrams_until_it_is_writable(void **state)
{
    open_fake(RELAY_KIND_CAPSULES);
    fake.room = 0;
    struct relay_run run = {.base = (const uint8_t *)"aabb", .len = 4, .segment = 2};
    assert_int_equal(relay_tunnel_send_datagrams(&fake.tunnel, &run), RELAY_BLOCKED);
    assert_int_equal(run.len, 4);
    fake.room = 100;
    relay_tunnel_writable(&fake.tunnel);
    turn();
    assert_string_equal(told, "w");
    relay_tunnel_writable(&fake.tunnel); /* nobody waits */
    turn();
    assert_string_equal(told, "w");
    fake.max_datagram = 1;
    assert_int_equal(relay_tunnel_send_datagrams(&fake.tunnel, &run), RELAY_TOO_BIG);
    relay_run_drop_one(&run);
    assert_int_equal(run.len, 2);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(bytes_are_credited_when_they_are_taken),
        T(a_clean_end_waits_for_what_is_held),
        T(a_reset_does_not_wait),
        T(a_reset_is_called_by_whose_it_is),
        T(abort_tells_nothing_but_the_close_and_once),
        T(many_ends_take_many_turns),
        T(accept_tells_the_host_from_a_task),
        T(capsules_become_datagrams),
        T(tiny_capsules_take_many_turns),
        T(held_capsules_keep_their_order_and_their_credit),
        T(a_pause_stops_held_capsules),
        T(held_capsules_go_with_their_tunnel),
        T(a_cut_capsule_at_the_end_is_malformed),
        T(an_empty_datagram_frame_is_malformed),
        T(without_frames_datagrams_go_as_capsules),
        T(a_full_tunnel_blocks_datagrams_until_it_is_writable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
