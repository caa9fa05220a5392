/* Calls over one connected UDP socket: a window of them in flight, or at a constant rate.
 *
 * All calls that are due leave in one write: the kernel cuts it into datagrams (UDP_SEGMENT), which
 * costs the sender a fraction of a system call for each. The receiver sees ordinary datagrams. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "load.h"

enum { BATCH = 64, DATAGRAM_ROOM = 128, TICK_MS = 10 };

struct udp {
    int fd;
    struct window window;
    struct iovec out_parts[BATCH];
    int out_count;
    unsigned char replies[BATCH][DATAGRAM_ROOM];
    struct iovec in_parts[BATCH];
    struct mmsghdr in[BATCH];
};

static void udp_open(struct udp *udp, const struct options *options)
{
    udp->fd = connect_to(options, SOCK_DGRAM);
    int size = CALL_SIZE;
    if (setsockopt(udp->fd, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size) < 0)
        fail("no UDP_SEGMENT: Linux 4.18 or later is needed");
    for (int i = 0; i < BATCH; i++) {
        udp->in_parts[i] = (struct iovec){udp->replies[i], DATAGRAM_ROOM};
        udp->in[i].msg_hdr.msg_iov = &udp->in_parts[i];
        udp->in[i].msg_hdr.msg_iovlen = 1;
    }
}

static void udp_flush(struct udp *udp)
{
    while (udp->out_count > 0 && writev(udp->fd, udp->out_parts, udp->out_count) < 0)
        if (errno != ENOBUFS && errno != EINTR)
            die("sending");
    udp->out_count = 0;
}

static void udp_queue(struct udp *udp, struct slot *slot)
{
    udp->out_parts[udp->out_count++] = (struct iovec){slot->call, CALL_SIZE};
    if (udp->out_count == BATCH)
        udp_flush(udp);
}

static void udp_ask(struct udp *udp, struct slot *slot, uint64_t now)
{
    if (window_ask(&udp->window, slot, now))
        udp_queue(udp, slot);
}

/* The number of replies there are now, 0 without waiting for any. */
static int udp_receive(struct udp *udp)
{
    int n = recvmmsg(udp->fd, udp->in, BATCH, MSG_DONTWAIT, NULL);
    if (n >= 0)
        return n;
    if (errno != EAGAIN && errno != EINTR)
        die("receiving");
    return 0;
}

static void udp_handle(struct udp *udp, int count, uint64_t now, struct report *report)
{
    for (int i = 0; i < count; i++) {
        size_t size = udp->in[i].msg_len;
        struct slot *slot = window_match(&udp->window, udp->replies[i], size);
        if (slot == NULL)
            continue;
        window_count(&udp->window, slot, udp->replies[i], size, now, report);
        udp_ask(udp, slot, now);
    }
    udp_flush(udp);
}

static void udp_resend(struct udp *udp, uint64_t now, struct report *report)
{
    for (uint32_t i = 0; i < udp->window.options->in_flight; i++) {
        struct slot *slot = &udp->window.slots[i];
        if (!slot->waiting || now - slot->sent_ns < RESEND_NS)
            continue;
        if (now - slot->asked_ns > STALL_NS)
            fail("no answer for five seconds");
        slot->sent_ns = now;
        report->lost++;
        udp_queue(udp, slot);
    }
    udp_flush(udp);
}

static void udp_wait(const struct udp *udp)
{
    struct pollfd pollfd = {udp->fd, POLLIN, 0};
    poll(&pollfd, 1, TICK_MS);
}

static void udp_loop(struct udp *udp, uint64_t start, struct report *report)
{
    uint64_t mark = start, heard = start, swept = start;
    while (udp->window.waiting > 0) {
        mark = gather(udp->window.options, mark);
        int count = udp_receive(udp);
        uint64_t now = clock_ns();
        if (count > 0) {
            udp_handle(udp, count, now, report);
            heard = now;
            now = clock_ns();
            report->busy_ns += now - mark;
        } else if (now - heard > SPIN_NS) {
            udp_wait(udp);
        }
        if (now - swept > TICK_MS * NS_PER_SECOND / 1000) {
            udp_resend(udp, now, report);
            swept = now;
        }
        mark = now;
    }
    report->elapsed_ns = mark - start;
}

static volatile sig_atomic_t ended;

static void end(int signal)
{
    (void)signal;
    ended = 1;
}

/* Asks what is due. A call that had to wait for a slot was asked when it was due, nevertheless. */
static void udp_ask_due(struct udp *udp, uint64_t start, uint64_t now)
{
    const struct options *options = udp->window.options;
    for (;;) {
        uint64_t due = start + (uint64_t)((double)*udp->window.asked * NS_PER_SECOND / options->rate);
        struct slot *slot = &udp->window.slots[*udp->window.asked % options->in_flight];
        if (ended || due > now || slot->waiting)
            break;
        if (!window_ask(&udp->window, slot, due))
            break;
        udp_queue(udp, slot);
    }
    udp_flush(udp);
}

static void udp_wait_due(const struct udp *udp, uint64_t start, uint64_t now)
{
    double rate = udp->window.options->rate;
    uint64_t due = start + (uint64_t)((double)*udp->window.asked * NS_PER_SECOND / rate);
    struct timespec rest = {0, due > now ? (long)(due - now) % (long)NS_PER_SECOND : 0};
    struct pollfd pollfd = {udp->fd, POLLIN, 0};
    ppoll(&pollfd, 1, &rest, NULL);
}

/* At a constant rate the calls that a stall of the server delays are all counted. */
static void udp_loop_paced(struct udp *udp, uint64_t start, struct report *report)
{
    uint64_t now = start, swept = start;
    prctl(PR_SET_TIMERSLACK, 1);
    signal(SIGTERM, end);
    while (udp->window.waiting > 0 || (!ended && now < udp->window.end_ns)) {
        udp_ask_due(udp, start, now);
        udp_wait_due(udp, start, now);
        int count = udp_receive(udp);
        now = clock_ns();
        for (int i = 0; i < count; i++) {
            struct slot *slot = window_match(&udp->window, udp->replies[i], udp->in[i].msg_len);
            if (slot != NULL)
                window_count(&udp->window, slot, udp->replies[i], udp->in[i].msg_len, now, report);
        }
        if (now - swept > TICK_MS * NS_PER_SECOND / 1000) {
            udp_resend(udp, now, report);
            swept = now;
        }
    }
    report->elapsed_ns = now - start;
}

void run_udp(const struct options *options, struct report *report)
{
    static struct udp udp;
    uint64_t asked = 0, start = clock_ns();
    udp.window = window_new(options, &asked, start + (uint64_t)(options->seconds * NS_PER_SECOND));
    udp_open(&udp, options);
    if (options->rate > 0) {
        udp_loop_paced(&udp, start, report);
    } else {
        for (uint32_t i = 0; i < options->in_flight; i++)
            udp_ask(&udp, &udp.window.slots[i], start);
        udp_flush(&udp);
        udp_loop(&udp, start, report);
    }
    close(udp.fd);
}
