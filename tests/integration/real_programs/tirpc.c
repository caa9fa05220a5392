/* tirpc MODE ARGUMENTS...: every port mapper entry point of libtirpc, one a mode.
 *
 * cc -I/usr/include/tirpc -o tirpc tirpc.c -ltirpc
 *
 * Each client mode prints "NAME -> RESULT ..." and ends with 0 if the call succeeded. Each server
 * mode prints what it registered, serves until SIGTERM, unregisters and ends with 0. The service:
 * procedure 0 answers nothing, procedure 1 the number it was given and one more, 2 never answers.
 */
#include <arpa/inet.h>
#include <netconfig.h>
#include <rpc/pmap_clnt.h>
#include <rpc/pmap_prot.h>
#include <rpc/pmap_rmt.h>
#include <rpc/rpc.h>
#include <rpc/rpcb_clnt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { NUL, INCREMENT, SILENCE };

static const struct timeval patience = {8, 0};

static unsigned long number(const char *text) { return strtoul(text, NULL, 0); }

static struct netconfig *transport(const char *netid)
{
    struct netconfig *found = getnetconfigent(netid);
    if (!found) {
        fprintf(stderr, "no such netid: %s\n", netid);
        exit(2);
    }
    return found;
}

static struct netbuf *address(struct netconfig *netid, const char *universal)
{
    struct netbuf *found = uaddr2taddr(netid, universal);
    if (!found) {
        fprintf(stderr, "no universal address: %s\n", universal);
        exit(2);
    }
    return found;
}

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return sin;
}

/* What a call of procedure INCREMENT came to. */
static int called(const char *name, enum clnt_stat status, const unsigned *result)
{
    printf("%s -> %s, %u\n", name, clnt_sperrno(status), *result);
    return status != RPC_SUCCESS;
}

/* What a call that answers a number, 0 for failure, came to. */
static int answered(const char *name, unsigned long result)
{
    printf("%s -> %lu", name, result);
    if (!result && rpc_createerr.cf_stat != RPC_SUCCESS)
        printf(", %s", clnt_sperrno(rpc_createerr.cf_stat));
    putchar('\n');
    return !result;
}

/* Servers */

static unsigned long served_program, served_version;
static int by_pmap;

static void serve(struct svc_req *request, SVCXPRT *caller)
{
    unsigned value = 0;

    switch (request->rq_proc) {
    case NUL:
        svc_sendreply(caller, (xdrproc_t)xdr_void, NULL);
        break;
    case INCREMENT:
        if (!svc_getargs(caller, (xdrproc_t)xdr_u_int, (caddr_t)&value)) {
            svcerr_decode(caller);
            break;
        }
        value++;
        svc_sendreply(caller, (xdrproc_t)xdr_u_int, (caddr_t)&value);
        break;
    case SILENCE:
        break;
    default:
        svcerr_noproc(caller);
    }
}

static void unregister(int number)
{
    (void)number;
    if (by_pmap)
        pmap_unset(served_program, served_version);
    else
        svc_unreg(served_program, served_version);
    _exit(0);
}

static void prepare(char **args)
{
    served_program = number(args[0]);
    served_version = number(args[1]);
    signal(SIGTERM, unregister);
    signal(SIGPIPE, SIG_IGN);
}

/* PROGRAM VERSION NETTYPE */
static int server(char **args)
{
    prepare(args);
    rpcb_unset(served_program, served_version, NULL);
    if (answered("svc_create", svc_create(serve, served_program, served_version, args[2])))
        return 1;
    svc_run();
    return 1;
}

/* PROGRAM VERSION NETID */
static int server1(char **args)
{
    SVCXPRT *made;

    prepare(args);
    made = svc_tp_create(serve, served_program, served_version, transport(args[2]));
    if (answered("svc_tp_create", made != NULL))
        return 1;
    svc_run();
    return 1;
}

/* PROGRAM VERSION udp|tcp|both */
static int oldserver(char **args)
{
    int both = !strcmp(args[2], "both");

    prepare(args);
    by_pmap = 1;
    pmap_unset(served_program, served_version);
    if (both || !strcmp(args[2], "udp"))
        answered("svc_register", svc_register(svcudp_create(RPC_ANYSOCK), served_program,
                                              served_version, serve, IPPROTO_UDP));
    if (both || !strcmp(args[2], "tcp"))
        answered("svc_register", svc_register(svctcp_create(RPC_ANYSOCK, 0, 0), served_program,
                                              served_version, serve, IPPROTO_TCP));
    svc_run();
    return 1;
}

/* Version 2 */

/* PROGRAM VERSION PROTOCOL PORT */
static int m_pmap_set(char **args)
{
    return answered("pmap_set", pmap_set(number(args[0]), number(args[1]), number(args[2]),
                                         number(args[3])));
}

/* PROGRAM VERSION */
static int m_pmap_unset(char **args)
{
    return answered("pmap_unset", pmap_unset(number(args[0]), number(args[1])));
}

/* PROGRAM VERSION PROTOCOL */
static int m_pmap_getport(char **args)
{
    struct sockaddr_in host = loopback(PMAPPORT);

    return answered("pmap_getport",
                    pmap_getport(&host, number(args[0]), number(args[1]), number(args[2])));
}

static int m_pmap_getmaps(char **args)
{
    struct sockaddr_in host = loopback(PMAPPORT);
    struct pmaplist *each;

    (void)args;
    for (each = pmap_getmaps(&host); each; each = each->pml_next)
        printf("%lu %lu %lu %lu\n", each->pml_map.pm_prog, each->pml_map.pm_vers,
               each->pml_map.pm_prot, each->pml_map.pm_port);
    return 0;
}

/* PROGRAM VERSION PROCEDURE NUMBER */
static int m_pmap_rmtcall(char **args)
{
    struct sockaddr_in host = loopback(PMAPPORT);
    unsigned argument = number(args[3]), result = 0;
    u_long port = 0;

    return called("pmap_rmtcall",
                  pmap_rmtcall(&host, number(args[0]), number(args[1]), number(args[2]),
                               (xdrproc_t)xdr_u_int, (caddr_t)&argument, (xdrproc_t)xdr_u_int,
                               (caddr_t)&result, patience, &port),
                  &result);
}

static bool_t first_old(caddr_t result, struct sockaddr_in *from)
{
    printf("from %s: %u\n", inet_ntoa(from->sin_addr), *(unsigned *)result);
    return TRUE;
}

/* PROGRAM VERSION PROCEDURE NUMBER */
static int m_clnt_broadcast(char **args)
{
    unsigned argument = number(args[3]), result = 0;

    return called("clnt_broadcast",
                  clnt_broadcast(number(args[0]), number(args[1]), number(args[2]),
                                 (xdrproc_t)xdr_u_int, (caddr_t)&argument, (xdrproc_t)xdr_u_int,
                                 (caddr_t)&result, (resultproc_t)first_old),
                  &result);
}

/* PROGRAM VERSION PROCEDURE NUMBER */
static int m_clntudp_create(char **args)
{
    struct sockaddr_in host = loopback(0);
    unsigned argument = number(args[3]), result = 0;
    int sock = RPC_ANYSOCK;
    const struct timeval again = {1, 0};
    CLIENT *client = clntudp_create(&host, number(args[0]), number(args[1]), again, &sock);

    if (!client)
        return answered("clntudp_create", 0);
    return called("clntudp_create",
                  clnt_call(client, number(args[2]), (xdrproc_t)xdr_u_int, (caddr_t)&argument,
                            (xdrproc_t)xdr_u_int, (caddr_t)&result, patience),
                  &result);
}

/* PROGRAM VERSION PROCEDURE NUMBER */
static int m_clnttcp_create(char **args)
{
    struct sockaddr_in host = loopback(0);
    unsigned argument = number(args[3]), result = 0;
    int sock = RPC_ANYSOCK;
    CLIENT *client = clnttcp_create(&host, number(args[0]), number(args[1]), &sock, 0, 0);

    if (!client)
        return answered("clnttcp_create", 0);
    return called("clnttcp_create",
                  clnt_call(client, number(args[2]), (xdrproc_t)xdr_u_int, (caddr_t)&argument,
                            (xdrproc_t)xdr_u_int, (caddr_t)&result, patience),
                  &result);
}

/* HOST PROGRAM VERSION PROCEDURE NUMBER */
static int m_callrpc(char **args)
{
    unsigned argument = number(args[4]), result = 0;

    return called("callrpc",
                  callrpc(args[0], number(args[1]), number(args[2]), number(args[3]),
                          (xdrproc_t)xdr_u_int, (char *)&argument, (xdrproc_t)xdr_u_int,
                          (char *)&result),
                  &result);
}

/* Versions 3 and 4 */

/* PROGRAM VERSION NETID ADDRESS */
static int m_rpcb_set(char **args)
{
    struct netconfig *netid = transport(args[2]);

    return answered("rpcb_set", rpcb_set(number(args[0]), number(args[1]), netid,
                                         address(netid, args[3])));
}

/* PROGRAM VERSION NETID; an empty netid: all of them */
static int m_rpcb_unset(char **args)
{
    return answered("rpcb_unset", rpcb_unset(number(args[0]), number(args[1]),
                                             *args[2] ? transport(args[2]) : NULL));
}

/* PROGRAM VERSION NETID HOST */
static int m_rpcb_getaddr(char **args)
{
    struct netconfig *netid = transport(args[2]);
    char space[200];
    struct netbuf found = {sizeof space, 0, space};

    if (!rpcb_getaddr(number(args[0]), number(args[1]), netid, &found, args[3]))
        return answered("rpcb_getaddr", 0);
    printf("rpcb_getaddr -> %s\n", taddr2uaddr(netid, &found));
    return 0;
}

/* NETID HOST */
static int m_rpcb_getmaps(char **args)
{
    rpcblist *each;

    for (each = rpcb_getmaps(transport(args[0]), args[1]); each; each = each->rpcb_next)
        printf("%u %u %s %s %s\n", (unsigned)each->rpcb_map.r_prog,
               (unsigned)each->rpcb_map.r_vers, each->rpcb_map.r_netid, each->rpcb_map.r_addr,
               each->rpcb_map.r_owner);
    return 0;
}

/* HOST */
static int m_rpcb_gettime(char **args)
{
    time_t now = 0;
    int done = rpcb_gettime(args[0], &now);

    printf("rpcb_gettime -> %d, %ld seconds off\n", done, labs((long)(now - time(NULL))));
    return !done;
}

/* NETID HOST PROGRAM VERSION PROCEDURE NUMBER */
static int m_rpcb_rmtcall(char **args)
{
    char space[200];
    struct netbuf found = {sizeof space, 0, space};
    unsigned argument = number(args[5]), result = 0;

    return called("rpcb_rmtcall",
                  rpcb_rmtcall(transport(args[0]), args[1], number(args[2]), number(args[3]),
                               number(args[4]), (xdrproc_t)xdr_u_int, (caddr_t)&argument,
                               (xdrproc_t)xdr_u_int, (caddr_t)&result, patience, &found),
                  &result);
}

/* NETID ADDRESS */
static int m_rpcb_uaddr2taddr(char **args)
{
    struct netbuf *found = rpcb_uaddr2taddr(transport(args[0]), args[1]);
    unsigned each;

    if (!found)
        return answered("rpcb_uaddr2taddr", 0);
    printf("rpcb_uaddr2taddr -> ");
    for (each = 0; each < found->len; each++)
        printf("%02x", ((unsigned char *)found->buf)[each]);
    putchar('\n');
    return 0;
}

/* NETID ADDRESS */
static int m_rpcb_taddr2uaddr(char **args)
{
    struct netconfig *netid = transport(args[0]);
    char *found = rpcb_taddr2uaddr(netid, address(netid, args[1]));

    if (!found)
        return answered("rpcb_taddr2uaddr", 0);
    printf("rpcb_taddr2uaddr -> %s\n", found);
    return 0;
}

static bool_t first_new(caddr_t result, struct netbuf *from, struct netconfig *netid)
{
    printf("from %s: %u\n", taddr2uaddr(netid, from), *(unsigned *)result);
    return TRUE;
}

/* PROGRAM VERSION PROCEDURE NUMBER NETTYPE */
static int m_rpc_broadcast(char **args)
{
    unsigned argument = number(args[3]), result = 0;

    return called("rpc_broadcast",
                  rpc_broadcast(number(args[0]), number(args[1]), number(args[2]),
                                (xdrproc_t)xdr_u_int, (caddr_t)&argument, (xdrproc_t)xdr_u_int,
                                (caddr_t)&result, (resultproc_t)first_new, args[4]),
                  &result);
}

static int call_client(const char *name, CLIENT *client, char **args)
{
    unsigned argument = number(args[1]), result = 0;

    if (!client)
        return answered(name, 0);
    return called(name,
                  clnt_call(client, number(args[0]), (xdrproc_t)xdr_u_int, (caddr_t)&argument,
                            (xdrproc_t)xdr_u_int, (caddr_t)&result, patience),
                  &result);
}

/* HOST PROGRAM VERSION NETTYPE PROCEDURE NUMBER */
static int m_clnt_create(char **args)
{
    return call_client("clnt_create",
                       clnt_create(args[0], number(args[1]), number(args[2]), args[3]), args + 4);
}

/* HOST PROGRAM NETTYPE PROCEDURE NUMBER: of any version from 1 to 9 */
static int m_clnt_create_vers(char **args)
{
    rpcvers_t version = 0;

    return call_client("clnt_create_vers",
                       clnt_create_vers(args[0], number(args[1]), &version, 1, 9, args[2]),
                       args + 3);
}

static const struct {
    const char *name;
    int arguments;
    int (*run)(char **);
} modes[] = {
    {"server", 3, server},
    {"server1", 3, server1},
    {"oldserver", 3, oldserver},
    {"pmap_set", 4, m_pmap_set},
    {"pmap_unset", 2, m_pmap_unset},
    {"pmap_getport", 3, m_pmap_getport},
    {"pmap_getmaps", 0, m_pmap_getmaps},
    {"pmap_rmtcall", 4, m_pmap_rmtcall},
    {"clnt_broadcast", 4, m_clnt_broadcast},
    {"clntudp_create", 4, m_clntudp_create},
    {"clnttcp_create", 4, m_clnttcp_create},
    {"callrpc", 5, m_callrpc},
    {"rpcb_set", 4, m_rpcb_set},
    {"rpcb_unset", 3, m_rpcb_unset},
    {"rpcb_getaddr", 4, m_rpcb_getaddr},
    {"rpcb_getmaps", 2, m_rpcb_getmaps},
    {"rpcb_gettime", 1, m_rpcb_gettime},
    {"rpcb_rmtcall", 6, m_rpcb_rmtcall},
    {"rpcb_uaddr2taddr", 2, m_rpcb_uaddr2taddr},
    {"rpcb_taddr2uaddr", 2, m_rpcb_taddr2uaddr},
    {"rpc_broadcast", 5, m_rpc_broadcast},
    {"clnt_create", 6, m_clnt_create},
    {"clnt_create_vers", 5, m_clnt_create_vers},
};

int main(int count, char **args)
{
    size_t each;

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (each = 0; each < sizeof modes / sizeof *modes; each++)
        if (count == modes[each].arguments + 2 && !strcmp(args[1], modes[each].name))
            return modes[each].run(args + 2);
    fprintf(stderr, "no such mode, or not with %d arguments\n", count - 2);
    return 2;
}
