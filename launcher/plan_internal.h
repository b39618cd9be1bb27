/*
 * launcher/plan_internal.h - the steps of a plan; plan.c calls them in this order.
 *
 * Layer:    launcher, private to plan*.c.
 */
#ifndef DR_LAUNCHER_PLAN_INTERNAL_H
#define DR_LAUNCHER_PLAN_INTERNAL_H

#include "launcher/plan.h"

typedef struct dr_words { /* the program's own options */
    int n;
    const char *const *at;
} dr_words;

/* The value of the program's option --NAME among its words, which may be shortened down to
 * `shortest` (with "--"); NULL: not given. */
const char *dr_word_value(const dr_words *w, const char *name, const char *shortest);

/* ---- plan_ranks.c: place, hosts, ranks, threads, starter ---- */
DR_MUST_USE dr_status dr_plan_ranks(dr_launch_plan *p, const dr_launch_facts *f,
                                    const dr_words *words);

/* ---- plan_command.c: argv up to the program's path ---- */
DR_MUST_USE dr_status dr_plan_command(dr_launch_plan *p, const dr_launch_facts *f);

/* ---- plan_env.c: set, unset, env; before the command, which exports what is set ---- */
DR_MUST_USE dr_status dr_plan_environment(dr_launch_plan *p, const dr_launch_facts *f);

#endif
