/*
 * launcher/wire.h - what agents and the launcher say to each other over a socket.
 *
 * Layer:    launcher.  May include base/ only.
 *
 * Frames: a header and up to DR_WIRE_MAX bytes. On one host the socket has a name in the launch's
 * private folder; over hosts it is TCP, and an agent names itself with the launch's token.
 */
#ifndef DR_LAUNCHER_WIRE_H
#define DR_LAUNCHER_WIRE_H

#include "base/str.h"

enum {
    DR_WIRE_MAX = 16384,
    DR_WIRE_TOKEN = 33 /* bytes of a random token, with the NUL */
};

struct in_addr;

typedef enum dr_wire_kind {
    DR_WIRE_HELLO = 1, /* agent: "TOKEN HOST PID"                                              */
    DR_WIRE_OUT,       /* agent: bytes of the rank's stdout                                    */
    DR_WIRE_ERR,       /* agent: bytes of the rank's stderr                                    */
    DR_WIRE_NOTE,      /* agent: a note of the rank (base/note.h), or "signal N"               */
    DR_WIRE_END,       /* agent: "CODE SIGNAL" of the rank                                     */
    DR_WIRE_SIGNAL     /* launcher: number of the signal that the rank is to get               */
} dr_wire_kind;

typedef struct dr_wire_frame {
    uint32_t kind, rank, n;
    char data[DR_WIRE_MAX + 1]; /* one NUL after the n bytes */
} dr_wire_frame;

typedef struct dr_wire_reader { /* bytes of a frame that has not come whole yet; starts zeroed */
    char *data;
    size_t n;
} dr_wire_reader;

/* Sends a frame whole; false: the other side is gone. */
bool dr_wire_send(int fd, dr_wire_kind kind, int rank, const void *data, size_t n);
/* Reads what is there. 1: bytes came; 0: nothing now; -1: the other side is gone. */
int dr_wire_fill(dr_wire_reader *r, int fd);
/* Takes the next whole frame out; false: none yet, or what came is no frame (*broken). */
bool dr_wire_next(dr_wire_reader *r, dr_wire_frame *f, bool *broken);
void dr_wire_reader_free(dr_wire_reader *r);

/*
 * A socket that listens: in folder dir, or with dir NULL on TCP at any port. address gets what
 * dr_wire_connect takes: "unix:/path" or "tcp:HOST:PORT".
 */
DR_MUST_USE dr_status dr_wire_listen(const char *dir, const char *host, int *fd, dr_str *address);
/* The same on TCP at one of this host's addresses (NULL: all) and a port (0: any); host is its name
 * in address and messages. */
DR_MUST_USE dr_status dr_wire_listen_at(const struct in_addr *ip, const char *host, int port,
                                        int *fd, dr_str *address);
/* Tries for at most 10 s. */
DR_MUST_USE dr_status dr_wire_connect(const char *address, int *fd);
/* The first IPv4 address of a host, by name or number. */
DR_MUST_USE dr_status dr_wire_resolve(const char *host, struct in_addr *out);
/* A peer behind a cut cable is given up after 6 s; done by dr_wire_connect. */
void dr_wire_watch_peer(int fd);
/* A random token, as hexadecimal digits. */
DR_MUST_USE dr_status dr_wire_token(char token[DR_WIRE_TOKEN]);

#endif
