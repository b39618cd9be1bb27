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
#include <sys/socket.h>
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

static dr_status listen_tcp(const char *host, int *fd, dr_str *address)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t n = sizeof a;
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0 || bind(s, (const struct sockaddr *)&a, sizeof a) != 0 || listen(s, 128) != 0 ||
        getsockname(s, (struct sockaddr *)&a, &n) != 0) {
        return fail_socket(s, "cannot listen on", host);
    }
    dr_str_printf(address, "tcp:%s:%u", host, (unsigned)ntohs(a.sin_port));
    *fd = s;
    return DR_OK;
}

dr_status dr_wire_listen(const char *dir, const char *host, int *fd, dr_str *address)
{
    return dir != NULL ? listen_unix(dir, fd, address) : listen_tcp(host, fd, address);
}

/* A peer behind a cut cable is given up after 6 s. */
static void watch_peer(int fd)
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
    struct addrinfo *found = NULL;
    const struct addrinfo want = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    if (colon == NULL || (size_t)(colon - address) >= sizeof host) {
        DR_FAIL(DR_INVALID, "DREAMRUN_SUPERVISOR: found tcp:%s, expected tcp:HOST:PORT", address);
    }
    (void)snprintf(host, sizeof host, "%.*s", (int)(colon - address), address);
    int code = getaddrinfo(host, colon + 1, &want, &found);
    if (code != 0) {
        DR_FAIL(DR_IO, "the launcher's host %s: %s", host, gai_strerror(code));
    }
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0 || connect(s, found->ai_addr, found->ai_addrlen) != 0) {
        dr_status st = fail_socket(s, "the launcher cannot be reached at", address);
        freeaddrinfo(found);
        return st;
    }
    freeaddrinfo(found);
    watch_peer(s);
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
        DR_FAIL(DR_INVALID, "DREAMRUN_SUPERVISOR: found %s, expected unix:PATH or tcp:HOST:PORT",
                address);
    }
    DR_TRY(unix_name(address + strlen("unix:"), &a));
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0 || connect(s, (const struct sockaddr *)&a, sizeof a) != 0) {
        return fail_socket(s, "the launcher cannot be reached at", address);
    }
    *fd = s;
    return DR_OK;
}
