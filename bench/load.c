/* A load generator for port mappers: keeps a fixed number of calls in flight and prints, as one
 * JSON object, how many were answered and how fast. See usage() below and README.md. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

/* Below the ports that Linux hands out by itself (32768 and up): a mapping whose port the load
 * generator happened to be bound to would look like a service that ends with it. */
#define DEFAULT_PORTS {1024, 31744}

void die(const char *tried)
{
    fprintf(stderr, "load: %s: %s\n", tried, strerror(errno));
    exit(1);
}

void fail(const char *sentence)
{
    fprintf(stderr, "load: %s\n", sentence);
    exit(1);
}

uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

uint64_t gather(const struct options *options, uint64_t since)
{
    uint64_t now = clock_ns();
    while (options->in_flight * options->connections > 1 && now - since < GATHER_NS)
        now = clock_ns();
    return now;
}

static struct address address_of_path(const char *path)
{
    struct address address = {.size = sizeof(struct sockaddr_un)};
    struct sockaddr_un *local = (struct sockaddr_un *)&address.storage;
    if (strlen(path) >= sizeof local->sun_path)
        fail("PATH is too long");
    local->sun_family = AF_UNIX;
    strcpy(local->sun_path, path);
    return address;
}

struct address address_of(const struct options *options)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found;
    struct address address;
    if (options->port == NULL)
        return address_of_path(options->host);
    if (getaddrinfo(options->host, options->port, &hints, &found) != 0)
        fail("HOST and PORT must be numbers");
    memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
    address.size = found->ai_addrlen;
    freeaddrinfo(found);
    return address;
}

int connect_at(const struct address *address, int socktype)
{
    int fd = socket(address->storage.ss_family, socktype, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address->storage, address->size) < 0)
        die("connecting");
    return fd;
}

int connect_to(const struct options *options, int socktype)
{
    struct address address = address_of(options);
    int one = 1, fd = connect_at(&address, socktype);
    if (socktype == SOCK_STREAM && options->port != NULL)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void usage(void)
{
    fputs("usage: load udp|tcp|dump|set HOST PORT [option...]\n"
          "       load register|enter|lookup|hold PATH|HOST PORT [option...]\n"
          "A port mapper:\n"
          "  udp   GETPORT over one UDP socket\n"
          "  tcp   GETPORT over TCP connections\n"
          "  dump  DUMP over one TCP connection\n"
          "  set   SET over UDP, once a program\n"
          "portmapd's local channel at PATH, or an epmd at HOST PORT:\n"
          "  register  names, over one connection\n"
          "  enter     for each name: connect, register, close\n"
          "  lookup    for a name at random: connect, ask, close\n"
          "  hold      connections with names, until it is killed\n"
          "options:\n"
          "  --seconds S                     how long to ask (2)\n"
          "  --in-flight N                   calls in flight, for each connection (32, dump: 1)\n"
          "  --connections N                 of tcp and hold (1)\n"
          "  --rate N                        of udp: calls a second, answered or not; SIGTERM ends it\n"
          "  --programs FIRST:COUNT[:random] which programs, in turn or at random\n"
          "  --ports FIRST:COUNT             program P is at port FIRST + P % COUNT (1024:31744)\n"
          "  --check-ports                   a GETPORT answer is right only with that port\n"
          "  --protocol 6|17                 of the mappings (17)\n"
          "  --names FIRST:COUNT             which names; name N is at port FIRST + N % COUNT\n"
          "  --each N                        names on each connection of hold (1)\n"
          "  --one-connection                lookup over one connection\n", stderr);
    exit(2);
}

static struct range parse_range(const char *text, char **rest)
{
    struct range range = {(uint32_t)strtoul(text, rest, 0), 0};
    if (**rest == ':')
        range.count = (uint32_t)strtoul(*rest + 1, rest, 0);
    if (range.count == 0)
        usage();
    return range;
}

static void parse_option(int option, struct options *options)
{
    char *rest = "";
    switch (option) {
    case 's': options->seconds = strtod(optarg, &rest); break;
    case 'n': options->in_flight = (uint32_t)strtoul(optarg, &rest, 10); break;
    case 'c': options->connections = (uint32_t)strtoul(optarg, &rest, 10); break;
    case 'p': options->programs = parse_range(optarg, &rest); break;
    case 'o': options->ports = parse_range(optarg, &rest); break;
    case 'k': options->check_ports = true; break;
    case 't': options->protocol = (uint32_t)strtoul(optarg, &rest, 10); break;
    case 'r': options->rate = strtod(optarg, &rest); break;
    case 'm': options->names = parse_range(optarg, &rest); break;
    case 'e': options->each = (uint32_t)strtoul(optarg, &rest, 10); break;
    case 'l': options->one_connection = true; break;
    default: usage();
    }
    if (option == 'p' && strcmp(rest, ":random") == 0)
        options->random = true;
    else if (*rest != '\0')
        usage();
}

static void parse_options(int argc, char **argv, struct options *options)
{
    static const struct option known[] = {
        {"seconds", required_argument, NULL, 's'},   {"in-flight", required_argument, NULL, 'n'},
        {"connections", required_argument, NULL, 'c'}, {"programs", required_argument, NULL, 'p'},
        {"ports", required_argument, NULL, 'o'},     {"check-ports", no_argument, NULL, 'k'},
        {"protocol", required_argument, NULL, 't'},  {"rate", required_argument, NULL, 'r'},
        {"names", required_argument, NULL, 'm'},     {"each", required_argument, NULL, 'e'},
        {"one-connection", no_argument, NULL, 'l'},  {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1)
        parse_option(option, options);
    if (optind >= argc || argc - optind != (argv[optind][0] == '/' ? 1 : 2)
        || options->in_flight - 1 >= MAX_IN_FLIGHT || options->connections - 1 >= MAX_CONNECTIONS)
        usage();
    options->host = argv[optind];
    options->port = argv[optind + 1]; /* NULL behind a path */
}

static void print_report(const struct options *options, struct report *report)
{
    double seconds = (double)report->elapsed_ns / NS_PER_SECOND;
    samples_sort(&report->latency);
    printf("{\"answered\": %llu, \"lost\": %llu, \"wrong\": %llu, ", (unsigned long long)report->answered,
           (unsigned long long)report->lost, (unsigned long long)report->wrong);
    printf("\"seconds\": %.6f, \"rate\": %.1f, \"busy\": %.4f, ", seconds, (double)report->answered / seconds,
           (double)report->busy_ns / (double)report->elapsed_ns);
    printf("\"waited\": %.6f, ", (double)report->waited_ns / NS_PER_SECOND);
    printf("\"p50_us\": %.2f, \"p99_us\": %.2f, ", (double)samples_quantile(&report->latency, 0.5) / 1000,
           (double)samples_quantile(&report->latency, 0.99) / 1000);
    printf("\"max_us\": %.2f", (double)samples_quantile(&report->latency, 1) / 1000);
    if (options->procedure == DUMP)
        printf(", \"mappings\": %llu", (unsigned long long)report->mappings);
    printf("}\n");
    fflush(stdout);
}

/* Nanoseconds that this process could have run and had no processor (Linux, schedstat). */
static unsigned long long waited_ns(void)
{
    unsigned long long ran = 0, waited = 0;
    FILE *file = fopen("/proc/self/schedstat", "r");
    if (file == NULL || fscanf(file, "%llu %llu", &ran, &waited) != 2)
        die("/proc/self/schedstat");
    fclose(file);
    return waited;
}

struct mode {
    const char *name;
    enum procedure procedure;
    uint32_t in_flight;
    void (*run)(const struct options *, struct report *);
    bool stays;              /* after its report, until it is killed */
};

static const struct mode *mode_of(const char *name)
{
    static const struct mode modes[] = {
        {"udp", GETPORT, 32, run_udp, false},
        {"tcp", GETPORT, 32, run_tcp, false},
        {"dump", DUMP, 1, run_tcp, false},
        {"set", SET, 32, run_udp, false},
        {"register", 0, 1, run_register, false},
        {"enter", 0, 1, run_enter, false},
        {"lookup", 0, 1, run_lookup, false},
        {"hold", 0, 64, run_hold, true},
    };
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (strcmp(name, modes[i].name) == 0)
            return &modes[i];
    usage();
    return NULL;
}

int main(int argc, char **argv)
{
    struct options options = {.seconds = 2, .connections = 1, .programs = {0x20000000, 10},
                              .ports = DEFAULT_PORTS, .protocol = IPPROTO_UDP,
                              .names = {0, 10}, .each = 1};
    struct report report = {0};
    if (argc < 2)
        usage();
    const struct mode *mode = mode_of(argv[1]);
    options.procedure = mode->procedure;
    options.in_flight = mode->in_flight;
    parse_options(argc - 1, argv + 1, &options);
    report.waited_ns = waited_ns();
    mode->run(&options, &report);
    report.waited_ns = waited_ns() - report.waited_ns;
    print_report(&options, &report);
    while (mode->stays)
        pause();
    return report.wrong > 0 ? 3 : 0;
}
