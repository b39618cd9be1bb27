#include "launcher/verdict.h"

#include "base/stop.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

const char *dr_code_meaning(int code)
{
    for (int st = 0; st < DR_STATUS_COUNT; st++) {
        if (code != 0 && dr_status_exit_code((dr_status)st) == code) {
            return dr_status_text((dr_status)st);
        }
    }
    return code > 128 ? strsignal(code - 128) : "not one of dreamrun's exit codes";
}

static void describe_job(const dr_launch_plan *p, dr_str *out)
{
    dr_str_printf(out, "%s with %d rank%s", p->program, p->n_ranks, p->n_ranks > 1 ? "s" : "");
}

/* --- ends ---------------------------------------------------------------------------------------
 */

/* Ranks leave with that code after they have agreed that the state is saved; mpirun may kill the
 * others while they leave. */
static bool one_ended_with(const dr_ranks *ranks, int code)
{
    bool one = false;
    for (int i = 0; i < ranks->n; i++) {
        one = one || (ranks->at[i].ended && ranks->at[i].code == code);
    }
    return one;
}

static bool all_ended_with(const dr_ranks *ranks, int code)
{
    bool all = ranks->n_ended == ranks->n && ranks->first_failed < 0;
    for (int i = 0; i < ranks->n; i++) {
        all = all && ranks->at[i].code == code;
    }
    return all;
}

static void say_out_of_memory(const dr_memory_use *m, const char *host, dr_str *out)
{
    char limit[24];
    char peak[24];
    dr_str_printf(out, " was killed by the system: out of memory on %s", host);
    if (m->limit > 0) {
        dr_format_bytes((uint64_t)m->limit, limit);
        dr_format_bytes((uint64_t)m->peak, peak);
        dr_str_printf(out, " (limit of the cgroup %s, peak %s)", limit, peak);
    }
}

static void say_rank(const dr_ranks *ranks, int rank, const dr_memory_use *out_of_memory,
                     dr_str *out)
{
    const dr_rank_view *v = &ranks->at[rank];
    dr_str_printf(out, " failed: rank %d (host %s)", rank, v->host);
    if (v->lost) {
        dr_str_add(out, " is gone without a word: its host or its agent was lost");
    } else if (out_of_memory != NULL && v->signal == SIGKILL) {
        say_out_of_memory(out_of_memory, v->host, out);
    } else if (v->signal != 0) {
        dr_str_printf(out, " was ended by signal %d", v->signal);
    }
    if (ranks->step > 0) {
        dr_str_printf(out, " after step %lld", (long long)ranks->step);
    }
    dr_str_printf(out, ": exit code %d (%s)", v->code, dr_code_meaning(v->code));
}

static void say_words(const dr_ranks *ranks, int rank, dr_str *out)
{
    const char *words = dr_console_error(ranks->console, rank);
    if (ranks->hang != NULL && ranks->at[rank].code == dr_status_exit_code(DR_HANG)) {
        words = ranks->hang;
    }
    if (words[0] == '\0') {
        words = dr_console_error(ranks->console, -1);
    }
    if (words[0] == '\0') {
        words = dr_console_words(ranks->console, rank);
    }
    if (words[0] != '\0') {
        dr_str_printf(out, ": %s", words);
    }
    if (dr_console_log(ranks->console, rank) != NULL) {
        dr_str_printf(out, " -> %s", dr_console_log(ranks->console, rank));
    }
}

static void say_stopped(const dr_launch_plan *p, const dr_ranks *ranks, const dr_supervised *r,
                        dr_attempt_end *out)
{
    const int saved = dr_status_exit_code(DR_CANCELLED);
    const bool is_saved = one_ended_with(ranks, saved);
    if (all_ended_with(ranks, 0)) { /* the last step was done already */
        out->code = 0;
        return;
    }
    /* one that could not save says so by its code, unless something killed it */
    const dr_rank_view *failed = ranks->first_failed >= 0 ? &ranks->at[ranks->first_failed] : NULL;
    const bool refused = failed != NULL && !r->killed && failed->signal == 0 && !failed->lost;
    out->code = is_saved ? saved : refused ? failed->code : 128 + r->signal;
    describe_job(p, &out->text);
    dr_str_printf(&out->text, " was stopped by %s",
                  r->signal == SIGHUP ? "SIGHUP" : dr_stop_signal_name(r->signal));
    if (r->killed) {
        dr_str_add(&out->text, "; it did not end in time and was killed");
    } else if (is_saved) {
        dr_str_add(&out->text, "; its state is saved: start it again with --resume auto");
    } else if (refused) {
        dr_str_add(&out->text, " and");
        say_rank(ranks, ranks->first_failed, NULL, &out->text);
        say_words(ranks, ranks->first_failed, &out->text);
    }
}

static void say_failed(const dr_launch_plan *p, const dr_ranks *ranks,
                       const dr_memory_use *out_of_memory, dr_attempt_end *out)
{
    int rank = ranks->first_failed;
    const char *inject = dr_opt_str(&p->settings.options, DR_LAUNCH_inject);
    out->code = ranks->at[rank].code;
    describe_job(p, &out->text);
    say_rank(ranks, rank, out_of_memory, &out->text);
    say_words(ranks, rank, &out->text);
    if (inject != NULL) {
        dr_str_printf(&out->text, " (faults were injected on purpose: %s)", inject);
    }
}

/* No rank failed, but the command did, or ranks never came. */
static void say_not_started(const dr_launch_plan *p, const dr_ranks *ranks, const dr_supervised *r,
                            dr_attempt_end *out)
{
    out->code = r->exit_code != 0 ? r->exit_code : dr_status_exit_code(DR_DEVICE);
    describe_job(p, &out->text);
    if (r->start_timed_out) {
        out->code = dr_status_exit_code(DR_HANG);
        dr_str_printf(&out->text, " failed: after --start_timeout only %d of %d ranks had joined",
                      ranks->n_joined, ranks->n);
    } else if (ranks->n_seen < ranks->n) {
        dr_str_printf(&out->text, " failed: %d of %d ranks were started: exit code %d",
                      ranks->n_seen, ranks->n, out->code);
    } else {
        dr_str_printf(&out->text, " failed: what started the ranks ended with code %d (%s)",
                      out->code, dr_code_meaning(out->code));
    }
    if (!p->debug && r->starter.len > 0) {
        (void)fputs(dr_str_get(&r->starter), stderr);
    }
}

void dr_verdict_of(const dr_launch_plan *p, const dr_ranks *ranks, const dr_supervised *r,
                   const dr_memory_use *out_of_memory, dr_attempt_end *out)
{
    const int saved = dr_status_exit_code(DR_CANCELLED);
    *out = (dr_attempt_end){0};
    if (r->signal != 0) {
        say_stopped(p, ranks, r, out);
    } else if (r->start_timed_out) {
        say_not_started(p, ranks, r, out);
    } else if (ranks->first_failed >= 0) {
        say_failed(p, ranks, out_of_memory, out);
    } else if (ranks->n_ended < ranks->n) {
        say_not_started(p, ranks, r, out);
    } else if (ranks->at[0].code == saved) {
        out->code = saved;
        describe_job(p, &out->text);
        dr_str_add(&out->text,
                   " was stopped; its state is saved: start it again with --resume auto");
    } else {
        out->code = r->exit_code;
        if (out->code != 0) {
            say_not_started(p, ranks, r, out);
        }
    }
}
