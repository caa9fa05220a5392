/* The least a UDP server can do: one recvfrom and one sendto a call, and a reply that is always
 * the same but for its xid. Usage: loop PORT (on 127.0.0.1, until killed). */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { REPLY_SIZE = 28, ROOM = 8192 };

static int listen_on(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        perror("loop");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv)
{
    /* REPLY, MSG_ACCEPTED, no verifier, SUCCESS, port 2049 (RFC 5531, section 9). */
    unsigned char reply[REPLY_SIZE] = {[7] = 1, [26] = 2049 >> 8, [27] = 2049 & 255};
    unsigned char call[ROOM];
    if (argc != 2) {
        fprintf(stderr, "usage: loop PORT\n");
        return 2;
    }
    int fd = listen_on((uint16_t)atoi(argv[1]));
    for (;;) {
        struct sockaddr_storage caller;
        socklen_t length = sizeof caller;
        ssize_t size = recvfrom(fd, call, sizeof call, 0, (struct sockaddr *)&caller, &length);
        if (size < 4)
            continue;
        memcpy(reply, call, 4);
        sendto(fd, reply, sizeof reply, 0, (struct sockaddr *)&caller, length);
    }
}
