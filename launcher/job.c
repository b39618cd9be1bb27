#include "launcher/job.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/tree.h"
#include "launcher/decide.h"
#include "launcher/journal.h"
#include "launcher/machine.h"
#include "launcher/machines.h"
#include "launcher/requeue.h"
#include "launcher/run_dir.h"
#include "launcher/supervise.h"
#include "launcher/verdict.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct job {
    const dr_optset *options;
    dr_launch_facts facts;
    int argc;
    const char *const *argv;
    dr_str run_dir, address, log_dir;
    int listener;
    char token[DR_WIRE_TOKEN];
    dr_journal journal;
    dr_strv lost; /* hosts */
    dr_restart_rules rules;
    dr_history history;
    dr_str end;   /* of the last attempt, for the verdict */
    bool unbegun; /* it was asked to end before its first step */
} job;

/* --- set-up -------------------------------------------------------------------------------------
 */

static dr_restart_rules rules_of(const dr_optset *o)
{
    bool elastic =
        dr_opt_has(o, DR_LAUNCH_min_processes) && !dr_opt_is(o, DR_LAUNCH_elastic, "off");
    return (dr_restart_rules){
        .policy = dr_opt_is(o, DR_LAUNCH_restart_policy, "always")  ? DR_RESTART_ALWAYS
                  : dr_opt_is(o, DR_LAUNCH_restart_policy, "never") ? DR_RESTART_NEVER
                                                                    : DR_RESTART_PROGRESS,
        .max_restarts = (int)dr_opt_int(o, DR_LAUNCH_max_restarts),
        .delay_s = dr_opt_float(o, DR_LAUNCH_restart_delay),
        .least_ranks = elastic ? (int)dr_opt_int(o, DR_LAUNCH_min_processes) : 0};
}

/* Logs without --log_dir lie in a new folder of the system's temporary one. */
static dr_status choose_log_dir(job *j)
{
    const char *asked = dr_opt_str(j->options, DR_LAUNCH_log_dir);
    const char *tmp = getenv("TMPDIR");
    if (asked != NULL) {
        dr_str_add(&j->log_dir, asked);
        return DR_OK;
    }
    if (strcmp(dr_opt_str(j->options, DR_LAUNCH_tee), "0") == 0) {
        return DR_OK;
    }
    dr_str_printf(&j->log_dir, "%s/dreamrun_logs_XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(j->log_dir.data) == NULL) {
        DR_FAIL(DR_OUTPUT, "%s: cannot create: %s", dr_str_get(&j->log_dir), strerror(errno));
    }
    dr_info("--tee: the ranks' output also goes to %s", dr_str_get(&j->log_dir));
    return DR_OK;
}

static dr_status prepare(job *j, const dr_launch_plan *p)
{
    bool far =
        p->hosts.n > 1 || (p->hosts.n == 1 && strcmp(p->hosts.at[0].name, j->facts.host) != 0);
    (void)dr_run_dir_sweep();
    DR_TRY(dr_run_dir_create(&j->run_dir));
    DR_TRY(dr_wire_token(j->token));
    DR_TRY(choose_log_dir(j));
    j->facts.run_dir = dr_str_get(&j->run_dir);
    j->facts.lost = &j->lost;
    if (j->facts.machines != NULL) {
        const dr_machines *m = j->facts.machines;
        return dr_wire_listen_at(&m->ip, m->at[0].ip, 0, &j->listener, &j->address);
    }
    return dr_wire_listen(far ? NULL : dr_str_get(&j->run_dir), j->facts.host, &j->listener,
                          &j->address);
}

/* --- one attempt --------------------------------------------------------------------------------
 */

static uint64_t save_signals(const dr_optset *o)
{
    static const struct {
        const char *name;
        int sig;
    } known[] = {{"USR1", SIGUSR1}, {"TERM", SIGTERM}, {"INT", SIGINT}, {"HUP", SIGHUP}};
    const char *list = dr_opt_str(o, DR_LAUNCH_signal_save);
    uint64_t bits = 0;
    for (const char *at = list; *at != '\0';) {
        size_t n = strcspn(at, ",");
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
            if (strlen(known[i].name) == n && strncmp(at, known[i].name, n) == 0) {
                bits |= (uint64_t)1 << (unsigned)known[i].sig;
            }
        }
        at += n + (at[n] == ',');
    }
    return bits;
}

static dr_status create_console(const job *j, const dr_launch_plan *p, dr_console **out)
{
    const char *tee = dr_opt_str(j->options, DR_LAUNCH_tee);
    bool unset = strcmp(tee, "0") == 0 && !dr_opt_given(j->options, DR_LAUNCH_tee);
    return dr_console_create(
        &(dr_console_options){.n_ranks = p->n_ranks,
                              .quiet = p->quiet,
                              .log_dir = j->log_dir.len > 0 ? dr_str_get(&j->log_dir) : NULL,
                              .tee = unset ? "3" : tee,
                              .attempt = j->facts.attempt},
        out);
}

/* The strings of v and those of more, with NULL at the end; the caller frees the array. */
static const char **joined(const dr_strv *v, const dr_strv *more)
{
    const char **out = dr_xcalloc(v->n + more->n + 1, sizeof *out);
    for (size_t i = 0; i < v->n + more->n; i++) {
        out[i] = i < v->n ? v->at[i] : more->at[i - v->n];
    }
    return out;
}

/* What agents and relays need to find us, and the other machines. */
static void add_addresses(const job *j, dr_strv *out)
{
    dr_push_setting(out, "DREAMRUN_SUPERVISOR", dr_str_get(&j->address));
    dr_push_setting(out, "DREAMRUN_TOKEN", j->token);
    if (j->facts.machines != NULL) {
        dr_str list = {0};
        dr_machines_addresses(j->facts.machines, &list);
        dr_push_setting(out, "DREAMRUN_MACHINES", dr_str_get(&list));
        dr_str_free(&list);
    }
}

static dr_status supervise(const job *j, const dr_launch_plan *p, dr_ranks *ranks, dr_supervised *r)
{
    dr_strv addresses = {0};
    add_addresses(j, &addresses);
    const char **argv = joined(&p->argv, &(dr_strv){0});
    const char **env = joined(&p->env, &addresses);
    dr_status st = dr_supervise(
        argv, env,
        &(dr_supervise_options){.grace_s = dr_opt_float(j->options, DR_LAUNCH_grace),
                                .start_timeout_s = dr_settings_start_timeout(j->options),
                                .save_signals = save_signals(j->options),
                                .ranks = ranks,
                                .machines = j->facts.machines,
                                .show_starter = p->debug},
        r);
    free(argv);
    free(env);
    dr_strv_free(&addresses);
    return st;
}

static void note_start(job *j, const dr_launch_plan *p)
{
    dr_str fields = {0};
    dr_str_printf(&fields,
                  "\"attempt\": %d, \"ranks\": %d, \"threads\": %d, \"pid\": %ld, \"host\": ",
                  j->facts.attempt + 1, p->n_ranks, p->n_threads, (long)getpid());
    dr_json_text(&fields, j->facts.host);
    dr_str_add(&fields, ", \"program\": ");
    dr_json_text(&fields, p->program);
    dr_journal_add(&j->journal, "start", dr_str_get(&fields));
    dr_str_free(&fields);
}

static void note_end(job *j, const dr_attempt_end *e, const dr_ranks *ranks)
{
    dr_str fields = {0};
    dr_str_printf(&fields, "\"attempt\": %d, \"code\": %d, \"step\": %lld, \"state_step\": %lld",
                  j->facts.attempt + 1, e->code, (long long)ranks->step,
                  (long long)ranks->state_step);
    if (ranks->first_failed >= 0) {
        dr_str_printf(&fields, ", \"rank\": %d, \"host\": ", ranks->first_failed);
        dr_json_text(&fields, ranks->at[ranks->first_failed].host);
    }
    dr_str_add(&fields, ", \"text\": ");
    dr_json_text(&fields, dr_str_get(&e->text));
    dr_journal_open(&j->journal, ranks->output_dir);
    dr_journal_add(&j->journal, "end", dr_str_get(&fields));
    dr_str_free(&fields);
}

/* Ranks on a machine whose launch is gone are lost, whoever killed them. */
static void lose_machines(const job *j, dr_ranks *ranks)
{
    const dr_machines *m = j->facts.machines;
    for (int i = 0; m != NULL && i < m->n; i++) {
        for (int r = 0; r < ranks->n && !m->at[i].here; r++) {
            ranks->at[r].lost |= strcmp(ranks->at[r].host, m->at[i].label) == 0;
        }
    }
}

/* Hosts all of whose ranks went without a word, when there are others. */
static int add_lost_hosts(job *j, const dr_launch_plan *p, const dr_ranks *ranks)
{
    int n_lost = 0;
    for (size_t h = 0; p->hosts.n > 1 && h < p->hosts.n; h++) {
        int of_host = 0;
        int lost = 0;
        for (int r = 0; r < ranks->n; r++) {
            bool here = strcmp(ranks->at[r].host, dr_host_label(&p->hosts.at[h])) == 0;
            of_host += here;
            lost += here && ranks->at[r].lost;
        }
        if (lost > 0 && lost == of_host && p->hosts.n > 1) {
            dr_strv_push(&j->lost, p->hosts.at[h].name);
            n_lost += lost;
        }
    }
    return n_lost;
}

static dr_status attempt(job *j, const dr_launch_plan *p, dr_decision *next)
{
    dr_console *console = NULL;
    dr_ranks ranks;
    dr_supervised r = {0};
    dr_attempt_end end = {0};
    int64_t oom = dr_machine_memory().oom_kills;
    DR_TRY(create_console(j, p, &console));
    dr_ranks_init(&ranks, p->n_ranks, j->listener, j->token, console);
    note_start(j, p);
    dr_status st = supervise(j, p, &ranks, &r);
    if (st == DR_OK) {
        lose_machines(j, &ranks);
        dr_console_flush(console);
        const dr_memory_use memory = dr_machine_memory();
        bool oom_killed = r.signal == 0 && memory.oom_kills > oom;
        dr_verdict_of(p, &ranks, &r, oom_killed ? &memory : NULL, &end);
        note_end(j, &end, &ranks);
        const dr_outcome outcome = {.code = end.code,
                                    .n_ranks = p->n_ranks,
                                    .n_lost = add_lost_hosts(j, p, &ranks),
                                    .stopped = r.signal != 0,
                                    .joined = ranks.n_joined == p->n_ranks,
                                    .out_of_memory = oom_killed,
                                    .step = ranks.step,
                                    .state_step = ranks.state_step};
        *next = dr_decide(&j->rules, &j->history, &outcome);
        j->unbegun = r.signal != 0 && ranks.step == 0;
        j->facts.first_ranks = j->facts.first_ranks > 0 ? j->facts.first_ranks : p->n_ranks;
        dr_str_free(&j->end);
        dr_str_add(&j->end, dr_str_get(&end.text));
    }
    dr_str_free(&end.text);
    dr_str_free(&r.starter);
    dr_ranks_deinit(&ranks);
    dr_console_destroy(console);
    return st;
}

/* --- restarts -----------------------------------------------------------------------------------
 */

/* Waits before a restart; a signal that asks to stop ends the wait and the job: its number. */
static int wait_between(double seconds)
{
    static const int watched[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1};
    sigset_t set;
    sigset_t before;
    (void)sigemptyset(&set);
    for (size_t i = 0; i < sizeof watched / sizeof *watched; i++) {
        (void)sigaddset(&set, watched[i]);
    }
    (void)sigprocmask(SIG_BLOCK, &set, &before);
    struct timespec t = {.tv_sec = (time_t)seconds};
    t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
    int sig = sigtimedwait(&set, NULL, &t);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    return sig > 0 ? sig : 0;
}

static void announce_restart(job *j, const dr_decision *d)
{
    dr_str fields = {0};
    (void)fprintf(stderr,
                  "dreamrun: %s; starting again (attempt %d) with %d rank%s in %.3g s: %s\n",
                  dr_str_get(&j->end), j->facts.attempt + 2, d->n_ranks, d->n_ranks > 1 ? "s" : "",
                  d->delay_s, d->why);
    dr_str_printf(&fields, "\"attempt\": %d, \"ranks\": %d, \"why\": ", j->facts.attempt + 2,
                  d->n_ranks);
    dr_json_text(&fields, d->why);
    dr_journal_add(&j->journal, "restart", dr_str_get(&fields));
    dr_str_free(&fields);
}

/* Plans an attempt, and runs it. */
static dr_status plan_and_run(job *j, dr_decision *next)
{
    dr_launch_plan p;
    dr_status st = dr_launch_plan_make(&p, &j->facts, j->argc, j->argv);
    if (st == DR_OK && j->facts.attempt > 0 && p.debug) {
        dr_str line = {0};
        dr_launch_plan_print(&p, &line);
        (void)fputs(dr_str_get(&line), stderr);
        dr_str_free(&line);
    }
    if (st == DR_OK) {
        st = attempt(j, &p, next);
    }
    dr_launch_plan_deinit(&p);
    return st;
}

static dr_status run(job *j, const dr_launch_plan *p, int *code)
{
    dr_decision d = {0};
    DR_TRY(prepare(j, p));
    DR_TRY(plan_and_run(j, &d));
    while (d.restart) {
        announce_restart(j, &d);
        int sig = wait_between(d.delay_s);
        if (sig != 0) {
            d = (dr_decision){.code = 128 + sig, .why = "stopped while waiting to start again"};
        } else {
            j->facts.attempt++;
            j->facts.n_ranks = d.n_ranks;
            DR_TRY(plan_and_run(j, &d));
        }
    }
    if (j->end.len > 0) {
        (void)fprintf(stderr, "dreamrun: %s%s%s\n", dr_str_get(&j->end),
                      d.why[0] != '\0' ? "; " : "", d.why);
    }
    *code = d.code;
    bool saved = d.code == dr_status_exit_code(DR_CANCELLED);
    if ((saved || j->unbegun) && p->where.job != NULL &&
        dr_opt_flag(j->options, DR_LAUNCH_requeue)) {
        const char *array = dr_env_find(j->facts.env, "SLURM_ARRAY_JOB_ID");
        const char *task = dr_env_find(j->facts.env, "SLURM_ARRAY_TASK_ID");
        dr_str id = {0};
        dr_str_add(&id, array != NULL && task != NULL ? array : p->where.job);
        if (array != NULL && task != NULL) {
            dr_str_printf(&id, "_%s", task);
        }
        (void)dr_requeue(dr_str_get(&id));
        dr_str_free(&id);
    }
    return DR_OK;
}

dr_status dr_job_run(const dr_launch_plan *p, const dr_launch_facts *f, int argc,
                     const char *const *argv, int *code)
{
    job j = {.options = &p->settings.options,
             .facts = *f,
             .argc = argc,
             .argv = argv,
             .listener = -1,
             .rules = rules_of(&p->settings.options)};
    dr_status st = run(&j, p, code);
    if (f->machines != NULL) {
        dr_machines_end(f->machines, st == DR_OK ? *code : dr_status_exit_code(st),
                        st == DR_OK ? dr_str_get(&j.end) : dr_error_message());
    }
    if (j.listener >= 0) {
        (void)close(j.listener);
    }
    if (j.run_dir.len > 0) {
        dr_tree_remove(dr_str_get(&j.run_dir));
    }
    dr_journal_close(&j.journal);
    dr_strv_free(&j.lost);
    dr_str_free(&j.run_dir);
    dr_str_free(&j.address);
    dr_str_free(&j.log_dir);
    dr_str_free(&j.end);
    return st;
}
