#include "launcher/relay.h"

#include "launcher/wire.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "HOST=PORT:SECRET" of the list into address and secret. */
static bool find_machine(const char *list, const char *host, dr_str *address, dr_str *secret)
{
    size_t n = strlen(host);
    for (const char *at = list; at != NULL && *at != '\0';) {
        size_t len = strcspn(at, ",");
        const char *colon = memchr(at, ':', len);
        if (colon != NULL && strncmp(at, host, n) == 0 && at[n] == '=') {
            const char *port = at + n + 1;
            dr_str_printf(address, "tcp:%s:%.*s", host, (int)(colon - port), port);
            dr_str_add_n(secret, colon + 1, (size_t)(at + len - colon - 1));
            return true;
        }
        at += len + (at[len] == ',');
    }
    return false;
}

static dr_status send_command(int fd, const char *secret, int argc, const char *const *argv)
{
    dr_str line = {0};
    for (int i = 0; i < argc; i++) {
        dr_str_printf(&line, "%s%s", i > 0 ? " " : "", argv[i]);
    }
    bool ok = dr_wire_send(fd, DR_WIRE_HELLO, 0, secret, strlen(secret));
    for (size_t at = 0; ok && at < line.len; at += DR_WIRE_MAX) {
        size_t n = line.len - at < DR_WIRE_MAX ? line.len - at : DR_WIRE_MAX;
        ok = dr_wire_send(fd, DR_WIRE_OUT, 0, line.data + at, n);
    }
    ok = ok && dr_wire_send(fd, DR_WIRE_END, 0, "", 0);
    dr_str_free(&line);
    if (!ok) {
        DR_FAIL(DR_IO, "the machine is gone");
    }
    return DR_OK;
}

/* Hands on what the command prints, until its end. */
static dr_status follow(int fd, int *code)
{
    dr_wire_reader reader = {0};
    dr_wire_frame f;
    bool broken = false;
    bool over = false;
    while (!over) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        (void)poll(&p, 1, -1);
        int got = dr_wire_fill(&reader, fd);
        while (!over && dr_wire_next(&reader, &f, &broken)) {
            if (f.kind == DR_WIRE_END) {
                *code = (int)strtol(f.data, NULL, 10);
                over = true;
            } else {
                (void)fwrite(f.data, 1, f.n, stderr);
            }
        }
        if (!over && (got < 0 || broken)) {
            dr_wire_reader_free(&reader);
            DR_FAIL(DR_IO, "the machine's launch went away while its command ran");
        }
    }
    dr_wire_reader_free(&reader);
    return DR_OK;
}

dr_status dr_relay_run(int argc, const char *const *argv, int *code)
{
    dr_str address = {0};
    dr_str secret = {0};
    int fd = -1;
    if (argc < 2 || !find_machine(getenv("DREAMRUN_MACHINES"), argv[0], &address, &secret)) {
        DR_FAIL(DR_INVALID,
                "dreamrun relay is started by dreamrun launch on several machines; "
                "found no machine '%s' in $DREAMRUN_MACHINES",
                argc > 0 ? argv[0] : "");
    }
    dr_status st = dr_wire_connect(dr_str_get(&address), &fd);
    if (st == DR_OK) {
        st = send_command(fd, dr_str_get(&secret), argc - 1, argv + 1);
    }
    if (st == DR_OK) {
        st = follow(fd, code);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    dr_str_free(&address);
    dr_str_free(&secret);
    return st;
}
