/* What the parts of the load generator share. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum {
    CALL_SIZE = 56,        /* a version 2 GETPORT or SET call without credentials */
    DUMP_SIZE = 40,        /* the same without arguments */
    REPLY_SIZE = 28,       /* an accepted reply that carries one number */
    MAX_IN_FLIGHT = 4096,  /* the slot's number is the xid's lower 12 bits */
    MAX_CONNECTIONS = 65536,
};

#define NS_PER_SECOND 1000000000ull
#define RESEND_NS 200000000ull   /* a datagram unanswered for so long counts as lost */
#define STALL_NS 5000000000ull   /* a server silent for so long is not measured */
#define GATHER_NS 10000ull       /* the least time from one look for replies to the next */
#define SPIN_NS 50000ull         /* waiting awake costs less than being woken */

enum procedure { SET = 1, GETPORT = 3, DUMP = 4 };

struct range {
    uint32_t first, count;
};

struct options {
    enum procedure procedure;
    const char *host, *port; /* port NULL: host is the path of a UNIX socket */
    double seconds;          /* how long to ask; SET ignores it and asks once a program */
    uint32_t in_flight;      /* calls, for each connection */
    uint32_t connections;
    struct range programs;
    bool random;             /* programs at random, otherwise in turn */
    struct range ports;      /* program P is at port first + P % count */
    bool check_ports;        /* a GETPORT is right only with that port */
    uint32_t protocol;       /* 6 or 17 */
    double rate;             /* calls a second that leave whether others are answered or not; 0: no */
    struct range names;      /* of named services */
    uint32_t each;           /* names that a held connection registers */
    bool one_connection;     /* all calls on one connection */
};

/* Where a server listens. */
struct address {
    struct sockaddr_storage storage;
    socklen_t size;
};

/* Latencies in nanoseconds, one an answered call. */
struct samples {
    uint64_t *values;
    size_t count, room;
};

void samples_add(struct samples *samples, uint64_t value);
void samples_sort(struct samples *samples);
/* The value that `share` (0 to 1) of the sorted samples do not exceed; 0 without samples. */
uint64_t samples_quantile(const struct samples *samples, double share);

struct report {
    uint64_t answered, lost, wrong;
    uint64_t mappings;       /* in the last DUMP */
    uint64_t elapsed_ns;
    uint64_t busy_ns;        /* of elapsed_ns, spent on calls and not on waiting for replies */
    uint64_t waited_ns;      /* for a processor */
    struct samples latency;
};

/* One call in flight. */
struct slot {
    uint32_t xid, program;
    uint64_t asked_ns, sent_ns;
    bool waiting;
    unsigned char call[CALL_SIZE];
};

/* The calls of one socket and what is still to be asked. */
struct window {
    const struct options *options;
    struct slot *slots;
    uint64_t *asked;         /* shared by all windows of a run */
    uint64_t end_ns;         /* no question after this */
    uint32_t waiting;        /* slots whose call is in flight */
};

struct window window_new(const struct options *options, uint64_t *asked, uint64_t end_ns);
/* Puts the next question into the slot; false when there is none left. */
bool window_ask(struct window *window, struct slot *slot, uint64_t now);
/* The slot whose call the reply answers, NULL for a late or foreign one. It is free again. */
struct slot *window_match(struct window *window, const unsigned char *reply, size_t size);
/* Adds an answer to the report: right or wrong, and how long it took. */
void window_count(const struct window *window, const struct slot *slot,
                  const unsigned char *reply, size_t size, uint64_t now, struct report *report);
size_t call_size(const struct options *options);

/* splitmix64: the n-th number of a sequence that looks random and needs no state. */
uint64_t scramble(uint64_t n);
uint32_t word_at(const unsigned char *bytes);
void word_put(unsigned char *bytes, uint32_t word);
uint64_t clock_ns(void);
/* Waits until GATHER_NS after `since`, unless one call is all there is; returns the time. Taking
 * replies some at a time is what makes the generator cheaper than the server. */
uint64_t gather(const struct options *options, uint64_t since);
/* Ends the process with one line: what was tried and errno's text, or a sentence as it is. */
void die(const char *tried) __attribute__((noreturn));
void fail(const char *sentence) __attribute__((noreturn));
struct address address_of(const struct options *options);
/* Connected blocking sockets; they die when the server refuses. */
int connect_at(const struct address *address, int socktype);
int connect_to(const struct options *options, int socktype);

void run_udp(const struct options *options, struct report *report);
void run_tcp(const struct options *options, struct report *report);
void run_register(const struct options *options, struct report *report);
void run_enter(const struct options *options, struct report *report);
void run_lookup(const struct options *options, struct report *report);
void run_hold(const struct options *options, struct report *report);

#endif
