/* Questions and answers: version 2 calls of the port mapper (RFC 1833, section 3), AUTH_NONE. */
#include <stdlib.h>
#include <string.h>

#include "load.h"

enum { RPC_VERSION = 2, PORTMAPPER = 100000, PORTMAPPER_VERSION = 2, MAPPING_SIZE = 20 };

uint32_t word_at(const unsigned char *bytes)
{
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return __builtin_bswap32(word);
}

void word_put(unsigned char *bytes, uint32_t word)
{
    word = __builtin_bswap32(word);
    memcpy(bytes, &word, sizeof word);
}

size_t call_size(const struct options *options)
{
    return options->procedure == DUMP ? DUMP_SIZE : CALL_SIZE;
}

static uint32_t port_of(const struct options *options, uint32_t program)
{
    return options->ports.first + program % options->ports.count;
}

/* What is the same in every call; the xid, the program and its port are put in later. */
static void prepare(const struct options *options, unsigned char *call)
{
    const uint32_t words[CALL_SIZE / 4] = {
        0, 0, RPC_VERSION, PORTMAPPER, PORTMAPPER_VERSION, options->procedure,
        0, 0, 0, 0, 0, 1, options->protocol, 0,
    };
    for (size_t i = 0; i < CALL_SIZE / 4; i++)
        word_put(call + 4 * i, words[i]);
}

struct window window_new(const struct options *options, uint64_t *asked, uint64_t end_ns)
{
    struct window window = {.options = options, .asked = asked, .end_ns = end_ns};
    window.slots = calloc(options->in_flight, sizeof(struct slot));
    if (window.slots == NULL)
        die("memory");
    for (uint32_t i = 0; i < options->in_flight; i++) {
        window.slots[i].xid = i;
        prepare(options, window.slots[i].call);
    }
    return window;
}

uint64_t scramble(uint64_t n)
{
    n *= 0x9e3779b97f4a7c15ull;
    n = (n ^ (n >> 30)) * 0xbf58476d1ce4e5b9ull;
    n = (n ^ (n >> 27)) * 0x94d049bb133111ebull;
    return n ^ (n >> 31);
}

bool window_ask(struct window *window, struct slot *slot, uint64_t now)
{
    const struct options *options = window->options;
    uint64_t n = *window->asked;
    bool ended = options->procedure == SET ? n >= options->programs.count : now >= window->end_ns;
    if (ended)
        return false;
    *window->asked = n + 1;
    slot->xid += MAX_IN_FLIGHT;
    slot->program = options->programs.first + (options->random ? scramble(n) : n) % options->programs.count;
    slot->asked_ns = slot->sent_ns = now;
    slot->waiting = true;
    window->waiting++;
    word_put(slot->call, slot->xid);
    if (options->procedure != DUMP)
        word_put(slot->call + 40, slot->program);
    if (options->procedure == SET)
        word_put(slot->call + 52, port_of(options, slot->program));
    return true;
}

struct slot *window_match(struct window *window, const unsigned char *reply, size_t size)
{
    if (size < 4)
        return NULL;
    uint32_t xid = word_at(reply), index = xid % MAX_IN_FLIGHT;
    if (index >= window->options->in_flight)
        return NULL;
    struct slot *slot = &window->slots[index];
    if (!slot->waiting || slot->xid != xid)
        return NULL;
    slot->waiting = false;
    window->waiting--;
    return slot;
}

/* The mappings of a DUMP's results, -1 unless they are well formed to the last byte. */
static int64_t count_mappings(const unsigned char *results, size_t size)
{
    int64_t count = 0;
    size_t at = 0;
    while (at + 4 <= size && word_at(results + at) == 1) {
        at += MAPPING_SIZE;
        count++;
    }
    return at + 4 == size && word_at(results + at) == 0 ? count : -1;
}

static bool right(const struct window *window, const struct slot *slot,
                  const unsigned char *reply, size_t size, struct report *report)
{
    const struct options *options = window->options;
    bool accepted = size >= REPLY_SIZE && word_at(reply + 4) == 1 && word_at(reply + 8) == 0
                    && word_at(reply + 16) == 0 && word_at(reply + 20) == 0;
    if (!accepted)
        return false;
    if (options->procedure == DUMP) {
        int64_t count = count_mappings(reply + 24, size - 24);
        report->mappings = count < 0 ? 0 : (uint64_t)count;
        return count > 0;
    }
    uint32_t value = word_at(reply + 24);
    if (size != REPLY_SIZE)
        return false;
    if (options->procedure == SET)
        return value == 1;
    return options->check_ports ? value == port_of(options, slot->program) : value != 0;
}

void window_count(const struct window *window, const struct slot *slot,
                  const unsigned char *reply, size_t size, uint64_t now, struct report *report)
{
    if (right(window, slot, reply, size, report))
        report->answered++;
    else
        report->wrong++;
    samples_add(&report->latency, now - slot->asked_ns);
}
