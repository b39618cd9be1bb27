#define _GNU_SOURCE /* SOCK_CLOEXEC */
#include "launcher/wire.h"

#include "base/arena.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { HEADER = 12, BUFFER = HEADER + DR_WIRE_MAX };

/* --- frames -------------------------------------------------------------------------------------
 */

static bool send_all(int fd, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, data, n, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = fd, .events = POLLOUT};
            (void)poll(&p, 1, 1000);
        } else if (sent < 0 && errno != EINTR) {
            return false;
        } else if (sent > 0) {
            data += sent;
            n -= (size_t)sent;
        }
    }
    return true;
}

static void put_u32(char *at, uint32_t v)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (char)(unsigned char)(v >> (8 * i));
    }
}

static uint32_t get_u32(const char *at)
{
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) {
        v |= (uint32_t)(unsigned char)at[i] << (8 * i);
    }
    return v;
}

bool dr_wire_send(int fd, dr_wire_kind kind, int rank, const void *data, size_t n)
{
    char frame[BUFFER];
    n = n < DR_WIRE_MAX ? n : DR_WIRE_MAX;
    put_u32(frame, (uint32_t)kind);
    put_u32(frame + 4, (uint32_t)rank);
    put_u32(frame + 8, (uint32_t)n);
    if (n > 0) {
        memcpy(frame + HEADER, data, n);
    }
    return send_all(fd, frame, HEADER + n);
}

int dr_wire_fill(dr_wire_reader *r, int fd)
{
    if (r->data == NULL) {
        r->data = dr_xcalloc(BUFFER, 1);
    }
    ssize_t n = recv(fd, r->data + r->n, BUFFER - r->n, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return 0;
    }
    if (n <= 0) {
        return -1;
    }
    r->n += (size_t)n;
    return 1;
}

bool dr_wire_next(dr_wire_reader *r, dr_wire_frame *f, bool *broken)
{
    *broken = false;
    if (r->n < HEADER) {
        return false;
    }
    f->kind = get_u32(r->data);
    f->rank = get_u32(r->data + 4);
    f->n = get_u32(r->data + 8);
    if (f->n > DR_WIRE_MAX || f->kind < DR_WIRE_HELLO || f->kind > DR_WIRE_SIGNAL) {
        *broken = true;
        return false;
    }
    size_t whole = HEADER + (size_t)f->n;
    if (r->n < whole) {
        return false;
    }
    memcpy(f->data, r->data + HEADER, f->n);
    f->data[f->n] = '\0';
    memmove(r->data, r->data + whole, r->n - whole);
    r->n -= whole;
    return true;
}

void dr_wire_reader_free(dr_wire_reader *r)
{
    free(r->data);
    *r = (dr_wire_reader){0};
}

/* --- sockets ------------------------------------------------------------------------------------
 */

static dr_status fail_socket(int fd, const char *what, const char *address)
{
    int err = errno;
    if (fd >= 0) {
        (void)close(fd);
    }
    DR_FAIL(DR_IO, "%s %s: %s", what, address, strerror(err));
}

static dr_status unix_name(const char *path, struct sockaddr_un *a)
{
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a->sun_path) {
        DR_FAIL(DR_IO,
                "%s: the path is too long for a socket (at most %zu bytes); set TMPDIR to a "
                "shorter one",
                path, sizeof a->sun_path - 1);
    }
    memcpy(a->sun_path, path, strlen(path));
    return DR_OK;
}

static dr_status listen_unix(const char *dir, int *fd, dr_str *address)
{
    struct sockaddr_un a;
    dr_str_printf(address, "unix:%s/s", dir);
    const char *path = dr_str_get(address) + strlen("unix:");
    DR_TRY(unix_name(path, &a));
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0 || bind(s, (const struct sockaddr *)&a, sizeof a) != 0 || listen(s, 128) != 0) {
        return fail_socket(s, "cannot listen at", path);
    }
    *fd = s;
    return DR_OK;
}

dr_status dr_wire_resolve(const char *host, struct in_addr *out)
{
    struct addrinfo *found = NULL;
    const struct addrinfo want = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    int code = getaddrinfo(host, NULL, &want, &found);
    if (code != 0) {
        DR_FAIL(DR_IO, "%s: no address of it is known: %s", host, gai_strerror(code));
    }
    struct sockaddr_in a;
    memcpy(&a, found->ai_addr, sizeof a);
    freeaddrinfo(found);
    *out = a.sin_addr;
    return DR_OK;
}

dr_status dr_wire_listen_at(const struct in_addr *ip, const char *host, int port, int *fd,
                            dr_str *address)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    const int yes = 1;
    char name[300];
    socklen_t n = sizeof a;
    (void)snprintf(name, sizeof name, "%s:%d", host, port);
    if (ip != NULL) {
        a.sin_addr = *ip;
    }
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0 || setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
        bind(s, (const struct sockaddr *)&a, sizeof a) != 0 || listen(s, 128) != 0 ||
        getsockname(s, (struct sockaddr *)&a, &n) != 0) {
        return fail_socket(s, "cannot listen at", name);
    }
    dr_str_printf(address, "tcp:%s:%u", host, (unsigned)ntohs(a.sin_port));
    *fd = s;
    return DR_OK;
}

dr_status dr_wire_listen(const char *dir, const char *host, int *fd, dr_str *address)
{
    return dir != NULL ? listen_unix(dir, fd, address)
                       : dr_wire_listen_at(NULL, host, 0, fd, address);
}

void dr_wire_watch_peer(int fd)
{
    const int settings[][3] = {{SOL_SOCKET, SO_KEEPALIVE, 1},
                               {IPPROTO_TCP, TCP_KEEPIDLE, 3},
                               {IPPROTO_TCP, TCP_KEEPINTVL, 1},
                               {IPPROTO_TCP, TCP_KEEPCNT, 3},
                               {IPPROTO_TCP, TCP_USER_TIMEOUT, 6000}};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        (void)setsockopt(fd, settings[i][0], settings[i][1], &settings[i][2], sizeof(int));
    }
}

static dr_status connect_tcp(const char *address, int *fd)
{
    char host[256];
    const char *colon = strrchr(address, ':');
    int64_t port = 0;
    struct sockaddr_in a = {.sin_family = AF_INET};
    const struct timeval patience = {.tv_sec = 10};
    if (colon == NULL || (size_t)(colon - address) >= sizeof host ||
        !dr_parse_i64(colon + 1, &port) || port < 1 || port > 65535) {
        DR_FAIL(DR_INVALID, "found the address tcp:%s, expected tcp:HOST:PORT", address);
    }
    (void)snprintf(host, sizeof host, "%.*s", (int)(colon - address), address);
    DR_TRY(dr_wire_resolve(host, &a.sin_addr));
    a.sin_port = htons((uint16_t)port);
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s >= 0) { /* this one bounds connect */
        (void)setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    }
    if (s < 0 || connect(s, (const struct sockaddr *)&a, sizeof a) != 0) {
        errno = errno == EINPROGRESS ? ETIMEDOUT : errno;
        return fail_socket(s, "nobody answers at", address);
    }
    (void)setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){0}, sizeof patience);
    dr_wire_watch_peer(s);
    *fd = s;
    return DR_OK;
}

dr_status dr_wire_connect(const char *address, int *fd)
{
    struct sockaddr_un a;
    if (dr_str_starts(address, "tcp:")) {
        return connect_tcp(address + strlen("tcp:"), fd);
    }
    if (!dr_str_starts(address, "unix:")) {
        DR_FAIL(DR_INVALID, "found the address %s, expected unix:PATH or tcp:HOST:PORT", address);
    }
    DR_TRY(unix_name(address + strlen("unix:"), &a));
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0 || connect(s, (const struct sockaddr *)&a, sizeof a) != 0) {
        return fail_socket(s, "nobody answers at", address);
    }
    *fd = s;
    return DR_OK;
}

dr_status dr_wire_token(char token[DR_WIRE_TOKEN])
{
    unsigned char bytes[(DR_WIRE_TOKEN - 1) / 2];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) {
        DR_FAIL(DR_IO, "getrandom: %s", strerror(errno));
    }
    for (size_t i = 0; i < sizeof bytes; i++) {
        (void)snprintf(token + 2 * i, 3, "%02x", bytes[i]);
    }
    return DR_OK;
}
