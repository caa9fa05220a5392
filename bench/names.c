/* Named services: registered and looked up, over one connection or over one for each. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "names.h"

enum { ANSWER_ROOM = 1 << 16, STALL_MS = 5000 };

struct service service_of(const struct options *options, uint64_t number)
{
    struct service service = {.name = "service-00000000"};
    number += options->names.first;
    service.port = (uint16_t)(options->ports.first + number % options->ports.count);
    for (size_t at = strlen(service.name); number > 0; number /= 10)
        service.name[--at] = (char)('0' + number % 10);
    return service;
}

static const struct language *language_of(const struct options *options)
{
    return options->port == NULL ? &channel : &epmd;
}

/* One connection and the questions on it, which are answered in order. */
struct dialogue {
    const struct options *options;
    const struct language *language;
    enum question question;
    int fd;
    uint64_t asked, answered;
    uint64_t asked_ns[MAX_IN_FLIGHT];
    unsigned char out[MAX_IN_FLIGHT * QUESTION_ROOM];
    unsigned char in[ANSWER_ROOM];
    size_t in_size;
};

static struct service wanted(const struct dialogue *dialogue, uint64_t turn)
{
    const struct options *options = dialogue->options;
    return service_of(options, dialogue->question == LOOKUP ? scramble(turn) % options->names.count : turn);
}

static void send_all(int fd, const unsigned char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        if (sent < 0)
            die("sending");
        bytes += sent;
        size -= (size_t)sent;
    }
}

/* Asks until the window is full, all in one write. */
static void dialogue_ask(struct dialogue *dialogue, uint64_t most)
{
    size_t size = 0;
    uint64_t now = clock_ns();
    while (dialogue->asked < most && dialogue->asked - dialogue->answered < dialogue->options->in_flight) {
        struct service service = wanted(dialogue, dialogue->asked);
        dialogue->asked_ns[dialogue->asked++ % MAX_IN_FLIGHT] = now;
        size += dialogue->language->ask(dialogue->question, &service, dialogue->out + size);
    }
    send_all(dialogue->fd, dialogue->out, size);
}

/* Takes the answers that are there; false if there is nothing. */
static bool dialogue_hear(struct dialogue *dialogue, struct report *report)
{
    ssize_t got = recv(dialogue->fd, dialogue->in + dialogue->in_size, ANSWER_ROOM - dialogue->in_size,
                       MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return false;
    if (got <= 0)
        fail("the server closed the connection");
    size_t size = dialogue->in_size + (size_t)got, at = 0, span;
    uint64_t now = clock_ns();
    while ((span = dialogue->language->span(dialogue->question, dialogue->in + at, size - at)) > 0) {
        struct service service = wanted(dialogue, dialogue->answered);
        if (dialogue->language->right(dialogue->question, &service, dialogue->in + at, span))
            report->answered++;
        else
            report->wrong++;
        samples_add(&report->latency, now - dialogue->asked_ns[dialogue->answered++ % MAX_IN_FLIGHT]);
        at += span;
    }
    memmove(dialogue->in, dialogue->in + at, size - at);
    dialogue->in_size = size - at;
    return true;
}

/* Asks and hears until `most` questions are answered, or until none are left in flight after
 * `end_ns`. It does not sleep: to be woken would cost more than the server's answer. */
static void dialogue_hold(struct dialogue *dialogue, uint64_t most, uint64_t end_ns, struct report *report)
{
    uint64_t mark = clock_ns(), heard = mark;
    dialogue_ask(dialogue, most);
    while (dialogue->answered < dialogue->asked) {
        mark = gather(dialogue->options, mark);
        bool any = dialogue_hear(dialogue, report);
        if (any && mark < end_ns)
            dialogue_ask(dialogue, most);
        uint64_t now = clock_ns();
        if (any) {
            report->busy_ns += now - mark;
            heard = now;
        }
        if (now - heard > STALL_NS)
            fail("no answer for five seconds");
        mark = now;
    }
}

/* Ends the connection and returns when the server has seen it: what was registered is gone. */
static void leave(int fd)
{
    unsigned char rest[16];
    shutdown(fd, SHUT_WR);
    while (recv(fd, rest, sizeof rest, 0) > 0)
        continue;
    close(fd);
}

static uint64_t end_of(const struct options *options, uint64_t start)
{
    return start + (uint64_t)(options->seconds * NS_PER_SECOND);
}

static void run_one_connection(const struct options *options, enum question question, struct report *report)
{
    static struct dialogue dialogue;
    dialogue.options = options;
    dialogue.language = language_of(options);
    dialogue.question = question;
    dialogue.fd = connect_to(options, SOCK_STREAM);
    /* The first answer comes behind whatever the server did before. */
    dialogue_hold(&dialogue, 1, 0, report);
    *report = (struct report){.wrong = report->wrong, .waited_ns = report->waited_ns};
    uint64_t start = clock_ns();
    dialogue_hold(&dialogue, question == LOOKUP ? UINT64_MAX : options->names.count,
                  end_of(options, start), report);
    report->elapsed_ns = clock_ns() - start;
    leave(dialogue.fd);
}

/* Waits for one whole answer; returns its size, 0 if the server closed the connection. */
static size_t hear(int fd, const struct language *language, enum question question,
                   unsigned char *in, uint64_t *waited)
{
    size_t size = 0, span = 0;
    uint64_t since = clock_ns();
    do {
        ssize_t got = recv(fd, in + size, ANSWER_ROOM - size, MSG_DONTWAIT);
        if (got == 0)
            return 0;
        if (got < 0 && errno != EAGAIN)
            die("receiving");
        size += got > 0 ? (size_t)got : 0;
        if (got > 0)
            span = language->span(question, in, size);
        else if (clock_ns() - since > STALL_NS)
            fail("no answer for five seconds");
    } while (span == 0);
    *waited += clock_ns() - since;
    return span;
}

/* Closes without leaving the port in TIME_WAIT, of which the machine would run out. */
static void hang_up(int fd)
{
    struct linger none = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    close(fd);
}

/* One connection for each question, one after the other. */
static void run_visits(const struct options *options, enum question question, struct report *report)
{
    static struct dialogue visit;
    struct address address = address_of(options);
    uint64_t start = clock_ns(), now = start, end = end_of(options, start), waited = 0;
    visit.options = options;
    visit.language = language_of(options);
    visit.question = question;
    for (; now < end && (question == LOOKUP || visit.asked < options->names.count); visit.asked++) {
        struct service service = wanted(&visit, visit.asked);
        size_t size = visit.language->ask(question, &service, visit.out);
        int fd = connect_at(&address, SOCK_STREAM);
        send_all(fd, visit.out, size);
        size = hear(fd, visit.language, question, visit.in, &waited);
        if (visit.language->right(question, &service, visit.in, size))
            report->answered++;
        else
            report->wrong++;
        hang_up(fd);
        samples_add(&report->latency, clock_ns() - now);
        now = clock_ns();
    }
    report->elapsed_ns = now - start;
    report->busy_ns = report->elapsed_ns - waited;
}

void run_register(const struct options *options, struct report *report)
{
    run_one_connection(options, REGISTERING, report);
}

void run_enter(const struct options *options, struct report *report)
{
    run_visits(options, REGISTERING, report);
}

void run_lookup(const struct options *options, struct report *report)
{
    (options->one_connection ? run_one_connection : run_visits)(options, LOOKUP, report);
}

/* As many descriptors as this process may have. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* Opens the connection of that number and asks for its names, without waiting for answers. */
static int hold_ask(const struct options *options, const struct address *address, uint32_t number)
{
    unsigned char out[QUESTION_ROOM];
    int fd = connect_at(address, SOCK_STREAM);
    for (uint32_t i = 0; i < options->each; i++) {
        struct service service = service_of(options, (uint64_t)number * options->each + i);
        size_t size = language_of(options)->ask(REGISTERING, &service, out);
        if (send(fd, out, size, MSG_NOSIGNAL) < 0)
            break; /* closed by the server: hold_hear will see it */
    }
    return fd;
}

/* Counts what was registered; a connection that the server closed counts its names as lost. */
static void hold_hear(const struct options *options, int fd, struct report *report)
{
    const struct language *language = language_of(options);
    unsigned char in[ANSWER_ROOM];
    size_t size = 0;
    struct pollfd pollfd = {fd, POLLIN, 0};
    for (uint32_t left = options->each; left > 0;) {
        size_t span = language->span(REGISTERING, in, size);
        if (span > 0) {
            if (language->right(REGISTERING, NULL, in, span))
                report->answered++;
            else
                report->wrong++;
            memmove(in, in + span, size -= span);
            left--;
            continue;
        }
        if (poll(&pollfd, 1, STALL_MS) == 0)
            fail("no answer for five seconds");
        ssize_t got = recv(fd, in + size, sizeof in - size, 0);
        if (got <= 0) {
            report->lost += left;
            return;
        }
        size += (size_t)got;
    }
}

/* Registers the names and leaves their connections open; a batch of them at a time, for a few
 * thousand unanswered connections would fill the server's backlog. */
void run_hold(const struct options *options, struct report *report)
{
    int fds[MAX_IN_FLIGHT];
    struct address address = address_of(options);
    uint64_t start = clock_ns();
    raise_descriptor_limit();
    for (uint32_t done = 0; done < options->connections;) {
        uint32_t count = 0;
        for (; count < options->in_flight && done + count < options->connections; count++)
            fds[count] = hold_ask(options, &address, done + count);
        for (uint32_t i = 0; i < count; i++)
            hold_hear(options, fds[i], report);
        done += count;
    }
    report->elapsed_ns = clock_ns() - start;
}
