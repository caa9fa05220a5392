/* Named services at epmd: requests behind their length, answers that begin with a number. */
#include <string.h>

#include "names.h"

enum {
    ALIVE2_REQ = 120, ALIVE2_RESP = 121, ALIVE2_RESP_SIZE = 4,
    PORT_PLEASE2_REQ = 122, PORT2_RESP = 119, PORT2_RESP_SIZE = 12, REFUSED_SIZE = 2,
    NORMAL_NODE = 77, DISTRIBUTION = 5, /* with 6 the answer would be two bytes longer */
};

static size_t ask(enum question question, const struct service *service, unsigned char *out)
{
    size_t length = strlen(service->name), size = 3;
    out[2] = question == REGISTERING ? ALIVE2_REQ : PORT_PLEASE2_REQ;
    if (question == REGISTERING) {
        const unsigned char node[] = {
            (unsigned char)(service->port >> 8), (unsigned char)service->port,
            NORMAL_NODE, 0, 0, DISTRIBUTION, 0, DISTRIBUTION, 0, (unsigned char)length,
        };
        memcpy(out + size, node, sizeof node);
        size += sizeof node;
    }
    memcpy(out + size, service->name, length);
    size += length;
    if (question == REGISTERING) { /* no extra data */
        short_put(out + size, 0);
        size += 2;
    }
    short_put(out, size - 2);
    return size;
}

static size_t span(enum question question, const unsigned char *in, size_t size)
{
    size_t whole = REFUSED_SIZE;
    if (size < REFUSED_SIZE)
        return 0;
    if (question == REGISTERING)
        whole = ALIVE2_RESP_SIZE;
    else if (in[1] == 0)
        whole = size < PORT2_RESP_SIZE ? PORT2_RESP_SIZE : PORT2_RESP_SIZE + (size_t)short_at(in + 10) + 2;
    return size >= whole ? whole : 0;
}

static bool right(enum question question, const struct service *service,
                  const unsigned char *in, size_t size)
{
    if (question == REGISTERING)
        return size == ALIVE2_RESP_SIZE && in[0] == ALIVE2_RESP && in[1] == 0;
    return size > PORT2_RESP_SIZE && in[0] == PORT2_RESP && in[1] == 0 && short_at(in + 2) == service->port;
}

const struct language epmd = {ask, span, right};
