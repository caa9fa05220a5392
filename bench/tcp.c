/* Calls over TCP connections, each with a window of calls in flight. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

enum { MARK_SIZE = 4, EVENTS = 64, TICK_MS = 10 };

#define LAST_FRAGMENT 0x80000000u /* RFC 5531, section 11 */

struct connection {
    int fd;
    struct window window;
    unsigned char *out;      /* room for the whole window */
    size_t out_size;
    unsigned char *in;
    size_t in_size, in_room;
};

static struct connection connection_open(const struct options *options, uint64_t *asked, uint64_t end)
{
    struct connection connection = {
        .fd = connect_to(options, SOCK_STREAM),
        .window = window_new(options, asked, end),
        .out = malloc(options->in_flight * (size_t)(MARK_SIZE + CALL_SIZE)),
        .in = malloc(1 << 16),
        .in_room = 1 << 16,
    };
    if (connection.out == NULL || connection.in == NULL)
        die("memory");
    return connection;
}

static void connection_ask(struct connection *connection, struct slot *slot, uint64_t now)
{
    if (!window_ask(&connection->window, slot, now))
        return;
    size_t size = call_size(connection->window.options);
    word_put(connection->out + connection->out_size, LAST_FRAGMENT | (uint32_t)size);
    memcpy(connection->out + connection->out_size + MARK_SIZE, slot->call, size);
    connection->out_size += MARK_SIZE + size;
}

static void connection_flush(struct connection *connection)
{
    size_t sent = 0;
    while (sent < connection->out_size) {
        ssize_t n = send(connection->fd, connection->out + sent, connection->out_size - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            die("sending");
        sent += n < 0 ? 0 : (size_t)n;
    }
    connection->out_size = 0;
}

/* Reads what there is now, at most the room there is; false when there was nothing. */
static bool connection_read(struct connection *connection)
{
    if (connection->in_size == connection->in_room) {
        connection->in_room *= 2;
        connection->in = realloc(connection->in, connection->in_room);
        if (connection->in == NULL)
            die("memory");
    }
    ssize_t n = recv(connection->fd, connection->in + connection->in_size,
                     connection->in_room - connection->in_size, MSG_DONTWAIT);
    if (n == 0)
        errno = ECONNRESET;
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        die("receiving");
    if (n > 0)
        connection->in_size += (size_t)n;
    return n > 0;
}

/* The bytes that the record at `bytes` takes with its marks, 0 while it is incomplete. */
static size_t record_span(const unsigned char *bytes, size_t size)
{
    size_t at = 0;
    while (at + MARK_SIZE <= size) {
        uint32_t mark = word_at(bytes + at);
        at += MARK_SIZE + (mark & ~LAST_FRAGMENT);
        if (mark & LAST_FRAGMENT)
            return at <= size ? at : 0;
    }
    return 0;
}

/* Joins the record's fragments where they are, behind the first mark; returns the record's size. */
static size_t record_join(unsigned char *bytes, size_t span)
{
    size_t at = 0, joined = 0;
    while (at < span) {
        size_t size = word_at(bytes + at) & ~LAST_FRAGMENT;
        memmove(bytes + MARK_SIZE + joined, bytes + at + MARK_SIZE, size);
        at += MARK_SIZE + size;
        joined += size;
    }
    return joined;
}

static void connection_handle(struct connection *connection, uint64_t now, struct report *report)
{
    size_t at = 0, span;
    while ((span = record_span(connection->in + at, connection->in_size - at)) > 0) {
        size_t size = record_join(connection->in + at, span);
        const unsigned char *reply = connection->in + at + MARK_SIZE;
        struct slot *slot = window_match(&connection->window, reply, size);
        at += span;
        if (slot == NULL)
            continue;
        window_count(&connection->window, slot, reply, size, now, report);
        connection_ask(connection, slot, now);
    }
    memmove(connection->in, connection->in + at, connection->in_size - at);
    connection->in_size -= at;
    connection_flush(connection);
}

static void watch(int epoll, struct connection *connection)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event) < 0)
        die("watching a connection");
}

/* Opens every connection before the first call, so that connecting is not measured. */
static struct connection *open_all(const struct options *options, int epoll, uint64_t *asked)
{
    struct connection *all = calloc(options->connections, sizeof *all);
    if (all == NULL)
        die("memory");
    for (uint32_t i = 0; i < options->connections; i++) {
        all[i] = connection_open(options, asked, 0);
        watch(epoll, &all[i]);
    }
    return all;
}

static void ask_all(const struct options *options, struct connection *all, uint64_t start)
{
    for (uint32_t i = 0; i < options->connections; i++) {
        all[i].window.end_ns = start + (uint64_t)(options->seconds * NS_PER_SECOND);
        for (uint32_t j = 0; j < options->in_flight; j++)
            connection_ask(&all[i], &all[i].window.slots[j], start);
        connection_flush(&all[i]);
    }
}

static bool waiting(const struct options *options, const struct connection *all)
{
    for (uint32_t i = 0; i < options->connections; i++)
        if (all[i].window.waiting > 0)
            return true;
    return false;
}

/* Answers the readable connections; false when there were none. */
static bool serve(int epoll, int wait_ms, struct report *report)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll, events, EVENTS, wait_ms);
    for (int i = 0; i < count; i++)
        if (connection_read(events[i].data.ptr))
            connection_handle(events[i].data.ptr, clock_ns(), report);
    return count > 0;
}

void run_tcp(const struct options *options, struct report *report)
{
    uint64_t asked = 0;
    int epoll = epoll_create1(0);
    struct connection *all = open_all(options, epoll, &asked);
    uint64_t start = clock_ns(), mark = start, heard = start;
    ask_all(options, all, start);
    while (waiting(options, all)) {
        mark = gather(options, mark);
        bool served = serve(epoll, mark - heard > SPIN_NS ? TICK_MS : 0, report);
        uint64_t now = clock_ns();
        if (served) {
            heard = now;
            report->busy_ns += now - mark;
        }
        if (now - heard > STALL_NS)
            fail("no answer for five seconds");
        mark = now;
    }
    report->elapsed_ns = mark - start;
    for (uint32_t i = 0; i < options->connections; i++)
        close(all[i].fd);
}
