/*
 * launcher/ranks.h - the ranks of one attempt as their agents show them.
 *
 * Layer:    launcher.  May include base/ only.
 */
#ifndef DR_LAUNCHER_RANKS_H
#define DR_LAUNCHER_RANKS_H

#include "launcher/console.h"
#include "launcher/wire.h"

typedef struct dr_rank_view {
    int fd; /* of its agent; -1: none now                                                      */
    dr_wire_reader reader;
    char host[128];
    bool seen, joined, ended;
    int code, signal; /* once ended; the code of a lost agent is 137                            */
    bool lost;        /* its agent went without a word: the host is gone, or somebody killed it */
} dr_rank_view;

typedef struct dr_ranks {
    dr_rank_view *at;
    int n;
    int listener; /* -1: no agents */
    const char *token;
    dr_console *console;
    struct dr_newcomer *newcomers; /* connections that have not said who they are */
    int n_newcomers;
    int n_seen, n_joined, n_ended;
    int first_failed; /* the rank that failed first; -1: none                                   */
    int stop_signal;  /* that an agent got, to be treated as our own; 0: none                   */
    int64_t step;     /* the last one that was done; 0: none                                    */
    int64_t state_step;
    char *state;      /* newest whole state that was announced; NULL: none                      */
    char *output_dir; /* of the run; NULL: not known                                            */
    char *hang;       /* what the first watchdog said; NULL: nothing                            */
} dr_ranks;

/* A table of n ranks whose agents come to the listener. */
void dr_ranks_init(dr_ranks *r, int n, int listener, const char *token, dr_console *console);
void dr_ranks_deinit(dr_ranks *r);
/* Sends a signal to all ranks that have an agent and have not ended; returns their number. */
int dr_ranks_signal(dr_ranks *r, int sig);
/* File descriptors to wait for, at most cap of them. */
struct pollfd;
int dr_ranks_poll(const dr_ranks *r, struct pollfd *p, int cap);
/* Takes whatever came: new agents, output, notes, ends. */
void dr_ranks_take(dr_ranks *r);
/* The command is over: ranks that were there and have not said how they ended are lost. When they
 * are on other hosts than the rank that failed first, they are the cause. */
void dr_ranks_give_up(dr_ranks *r);
/* Ranks that were there and have not ended. */
int dr_ranks_open(const dr_ranks *r);
/* Most descriptors that dr_ranks_poll fills in. */
int dr_ranks_poll_size(const dr_ranks *r);

#endif
