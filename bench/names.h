/* Named services: what is asked, in the languages of the servers that know them. */
#ifndef BENCH_NAMES_H
#define BENCH_NAMES_H

#include "load.h"

enum {
    QUESTION_ROOM = 192,     /* the most that one question takes */
    NAME_ROOM = 24,
    SIGNS_OF_TAG = 8,
};

enum question { REGISTERING, LOOKUP };

/* A name and where it is served. */
struct service {
    char name[NAME_ROOM];
    uint16_t port;
};

struct service service_of(const struct options *options, uint64_t number);

struct language {
    /* Writes the question; returns its size, QUESTION_ROOM at most. */
    size_t (*ask)(enum question question, const struct service *service, unsigned char *out);
    /* The size of the answer at `in`, 0 while it is incomplete. */
    size_t (*span)(enum question question, const unsigned char *in, size_t size);
    /* Whether that answer is the one wanted: registered, or found at its port. */
    bool (*right)(enum question question, const struct service *service,
                  const unsigned char *in, size_t span);
};

/* AMP boxes of portmapd's local channel, version 1. */
extern const struct language channel;
/* ALIVE2_REQ and PORT_PLEASE2_REQ of epmd (Erlang's distribution protocol). */
extern const struct language epmd;

static inline uint16_t short_at(const unsigned char *bytes)
{
    return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

static inline void short_put(unsigned char *bytes, size_t value)
{
    bytes[0] = (unsigned char)(value >> 8);
    bytes[1] = (unsigned char)value;
}

#endif
