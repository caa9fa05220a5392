/* Named services on portmapd's local channel: AMP boxes, pairs of key and value that an empty key
 * ends, each behind its length in two bytes. */
#include <stdio.h>
#include <string.h>

#include "names.h"

enum { PORT_ROOM = 8 };

/* Where a box is written. */
struct pen {
    unsigned char *at;
};

static void text(struct pen *pen, const void *bytes, size_t size)
{
    short_put(pen->at, size);
    memcpy(pen->at + 2, bytes, size);
    pen->at += 2 + size;
}

static void pair(struct pen *pen, const char *key, const char *value)
{
    text(pen, key, strlen(key));
    text(pen, value, strlen(value));
}

static void end(struct pen *pen)
{
    short_put(pen->at, 0);
    pen->at += 2;
}

/* Where a value begins whose length is known only once it is written. */
static unsigned char *begin(struct pen *pen, const char *key)
{
    text(pen, key, strlen(key));
    unsigned char *length = pen->at;
    pen->at += 2;
    return length;
}

static void finish(const struct pen *pen, unsigned char *length)
{
    short_put(length, (size_t)(pen->at - length) - 2);
}

static size_t digits(uint16_t number, char *out)
{
    char reversed[PORT_ROOM];
    size_t size = 0;
    do
        reversed[size++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    for (size_t i = 0; i < size; i++)
        out[i] = reversed[size - 1 - i];
    out[size] = '\0';
    return size;
}

static void services(struct pen *pen, const struct service *service)
{
    char port[PORT_ROOM];
    digits(service->port, port);
    unsigned char *length = begin(pen, "services");
    pair(pen, "name", service->name);
    pair(pen, "port", port);
    pair(pen, "flags", "0");
    end(pen);
    finish(pen, length);
}

static void names(struct pen *pen, const struct service *service)
{
    unsigned char *length = begin(pen, "names");
    text(pen, service->name, strlen(service->name));
    finish(pen, length);
}

static size_t ask(enum question question, const struct service *service, unsigned char *out)
{
    struct pen pen = {out};
    pair(&pen, "_ask", "1");
    pair(&pen, "_command", question == REGISTERING ? "Register" : "List");
    (question == REGISTERING ? services : names)(&pen, service);
    end(&pen);
    return (size_t)(pen.at - out);
}

/* The pair at `at` within `size` bytes: where its value begins and the next pair does. False if it
 * is not whole. */
static bool pair_at(const unsigned char *in, size_t size, size_t at, size_t *value, size_t *next)
{
    if (at + 2 > size)
        return false;
    *value = at + 2 + short_at(in + at) + 2;
    if (*value > size)
        return false;
    *next = *value + short_at(in + *value - 2);
    return *next <= size;
}

static size_t span(enum question question, const unsigned char *in, size_t size)
{
    size_t at = 0, value;
    (void)question;
    while (at + 2 <= size && short_at(in + at) > 0)
        if (!pair_at(in, size, at, &value, &at))
            return 0;
    return at + 2 <= size ? at + 2 : 0;
}

/* The value behind a key of the box at `in`; NULL without that key. */
static const unsigned char *value_of(const char *key, const unsigned char *in, size_t size, size_t *length)
{
    size_t at = 0, value, next;
    while (at + 2 <= size && short_at(in + at) > 0 && pair_at(in, size, at, &value, &next)) {
        if (short_at(in + at) == strlen(key) && memcmp(in + at + 2, key, strlen(key)) == 0) {
            *length = next - value;
            return in + value;
        }
        at = next;
    }
    return NULL;
}

static bool right(enum question question, const struct service *service,
                  const unsigned char *in, size_t size)
{
    static const char answer[] = "\0\7_answer";
    char wanted[PORT_ROOM];
    size_t length;
    if (size < sizeof answer || memcmp(in, answer, sizeof answer - 1) != 0)
        return false;
    if (question == REGISTERING)
        return true;
    const unsigned char *found = value_of("services", in, size, &length);
    const unsigned char *port = found == NULL ? NULL : value_of("port", found, length, &length);
    return port != NULL && length == digits(service->port, wanted) && memcmp(port, wanted, length) == 0;
}

const struct language channel = {ask, span, right};
