/*
 * dreamrun_selftest [--stop] [DIR]: what `dreamrun test` starts on every rank: are they all there,
 * do their sums come out right and equal, how fast; can DIR be written. With --stop: does a request
 * to save and leave (USR1) reach every rank; then DIR is written and all leave with 75. Lines "ok
 * ..." on stdout by rank 0.
 */
#include "base/arena.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "base/note.h"
#include "base/stop.h"
#include "dist/reducer.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_ELEMS = 4 << 20, N_STEPS = 4 };

static void say(const dr_dist *d, const char *line)
{
    if (dr_dist_rank(d) == 0) {
        (void)printf("%s\n", line);
        (void)fflush(stdout);
    }
}

/* --- who is there -------------------------------------------------------------------------------
 */

typedef struct place {
    char host[128];
    int local, pid;
} place;

static dr_status check_layout(dr_dist *d)
{
    int world = dr_dist_world(d);
    place mine = {.local = dr_dist_local_rank(d), .pid = (int)getpid()};
    place *all = dr_xcalloc((size_t)world, sizeof *all);
    (void)gethostname(mine.host, sizeof mine.host - 1);
    dr_status st = dr_dist_allgather(d, &mine, all, sizeof mine);
    for (int r = 0; st == DR_OK && r < world; r++) {
        char line[256];
        (void)snprintf(line, sizeof line, "ok rank %d: host %s, %d there", r, all[r].host,
                       all[r].local);
        say(d, line);
        for (int q = 0; st == DR_OK && q < r; q++) {
            if (all[q].local == all[r].local && strcmp(all[q].host, all[r].host) == 0) {
                st = dr_error_set(DR_DEVICE, __FILE__, __LINE__,
                                  "ranks %d and %d both are number %d on %s", q, r, all[r].local,
                                  all[r].host);
            }
        }
    }
    free(all);
    return st;
}

/* --- sums ---------------------------------------------------------------------------------------
 */

/* Sums of small whole numbers are exact in f32: element i gets the sum over leaves of leaf + i % 7.
 */
static dr_status check_sum(dr_dist *d, const float *sums, int64_t n_leaves)
{
    for (int64_t i = 0; i < N_ELEMS; i++) {
        float want = (float)(n_leaves * (n_leaves - 1) / 2 + n_leaves * (i % 7));
        if (sums[i] < want || sums[i] > want) {
            DR_FAIL(DR_NUMERIC, "rank %d: element %lld of the sum is %g, expected %g",
                    dr_dist_rank(d), (long long)i, (double)sums[i], (double)want);
        }
    }
    return DR_OK;
}

static dr_status sum_once(dr_reducer *r, float *values)
{
    int64_t first, n;
    dr_reducer_leaves(r, &first, &n);
    dr_reducer_begin_step(r);
    for (int64_t leaf = first; leaf < first + n; leaf++) {
        for (int64_t i = 0; i < N_ELEMS; i++) {
            values[i] = (float)(leaf + i % 7);
        }
        dr_reducer_ready(r, 0, N_ELEMS);
        dr_reducer_end_leaf(r);
    }
    return dr_reducer_wait(r);
}

static dr_status check_sums(dr_dist *d)
{
    const int64_t n_leaves = dr_dist_world(d);
    float *values = dr_xcalloc(N_ELEMS, sizeof *values);
    dr_reducer *r = NULL;
    char line[128];
    double spent_s = 0.0;
    dr_status st = dr_reducer_create(
        d, &(dr_reducer_config){.n_leaves = n_leaves, .grads = values, .n_elems = N_ELEMS}, &r);
    st = dr_dist_agree(d, st);
    for (int step = 1; st == DR_OK && step <= N_STEPS; step++) {
        dr_fault_at_step(step);
        double t0 = dr_now_s();
        st = sum_once(r, values);
        spent_s += dr_now_s() - t0;
        if (st == DR_OK) {
            st = dr_dist_agree(d, check_sum(d, values, n_leaves));
        }
        if (dr_dist_rank(d) == 0) {
            dr_note("step %d", step);
        }
    }
    if (st == DR_OK) {
        st = dr_dist_check_equal(d, values, N_ELEMS * sizeof *values, "sum of gradients");
    }
    (void)snprintf(line, sizeof line,
                   "ok sums of %d MiB: right and the same on all ranks, %.0f ms each",
                   (int)(N_ELEMS * sizeof *values >> 20), 1e3 * spent_s / N_STEPS);
    if (st == DR_OK) {
        say(d, line);
    }
    dr_reducer_destroy(r);
    free(values);
    return st;
}

/* --- files --------------------------------------------------------------------------------------
 */

static dr_status check_folder(dr_dist *d, const char *dir)
{
    enum { BYTES = 16 << 20 };
    dr_status st = DR_OK;
    if (dr_dist_rank(d) == 0) {
        char *data = dr_xcalloc(BYTES, 1);
        char *path = dr_path_join(dir, ".dreamrun-test");
        double t0 = dr_now_s();
        char line[256];
        st = dr_mkdirs(dir);
        if (st == DR_OK) {
            st = dr_file_write(path, data, BYTES);
        }
        (void)snprintf(line, sizeof line, "ok %s: a file written, synced and renamed at %.0f MiB/s",
                       dir, (double)(BYTES >> 20) / (dr_now_s() - t0));
        (void)unlink(path);
        if (st == DR_OK) {
            say(d, line);
        }
        free(path);
        free(data);
    }
    return dr_dist_agree(d, st);
}

/* --- a request to stop ---------------------------------------------------------------------------
 */

/* As Slurm does it: the signal goes to what stands above a rank; without that, to the rank. */
static void ask_to_stop(void)
{
    (void)kill(getenv("DREAMRUN_SUPERVISOR") != NULL ? getppid() : getpid(), SIGUSR1);
}

/* Whether the first rank alone has heard of it, as a step's end would find. */
static dr_status agree_to_stop(dr_dist *d)
{
    return dr_dist_agree(d, dr_stop_signal() == 0
                                ? DR_OK
                                : dr_error_set(DR_CANCELLED, __FILE__, __LINE__, "stopped by %s",
                                               dr_stop_signal_name(dr_stop_signal())));
}

static dr_status check_stop(dr_dist *d, const char *dir)
{
    const double patience_s = 30.0;
    char line[128];
    dr_stop_take_notes(true);
    DR_TRY(dr_dist_barrier(d));
    double t0 = dr_now_s();
    if (dr_dist_rank(d) == 0) {
        ask_to_stop();
    }
    dr_status st = agree_to_stop(d);
    for (int step = 1; st == DR_OK; step++) {
        if (dr_dist_rank(d) == 0) {
            dr_note("step %d", step);
        }
        (void)poll(NULL, 0, 10); /* a short step */
        bool late = dr_now_s() > t0 + patience_s;
        DR_TRY(dr_dist_agree(d, !late ? DR_OK
                                      : dr_error_set(DR_HANG, __FILE__, __LINE__,
                                                     "no request to stop came back in %g s",
                                                     patience_s)));
        st = agree_to_stop(d);
    }
    if (st == DR_CANCELLED && dir != NULL) {
        DR_TRY(check_folder(d, dir));
    }
    (void)snprintf(line, sizeof line, "ok a request to stop: all ranks leave after %.0f ms",
                   1e3 * (dr_now_s() - t0));
    if (st == DR_CANCELLED) {
        say(d, line);
    }
    return st;
}

static dr_status run(dr_dist *d, bool stop, const char *dir)
{
    if (stop) {
        return check_stop(d, dir);
    }
    DR_TRY(check_layout(d));
    DR_TRY(check_sums(d));
    return dir != NULL ? check_folder(d, dir) : DR_OK;
}

int main(int argc, char **argv)
{
    dr_dist *d = NULL;
    bool stop = argc > 1 && strcmp(argv[1], "--stop") == 0;
    dr_status st = dr_stop_watch(); /* before MPI starts threads */
    if (st == DR_OK) {
        st = dr_dist_init(&d);
    }
    if (st != DR_OK) {
        dr_log_error_record();
        return dr_status_exit_code(st);
    }
    dr_log_configure(DR_LOG_INFO, dr_dist_rank(d));
    st = dr_dist_agree(d, dr_fault_setup(NULL, dr_dist_rank(d)));
    if (st == DR_OK) {
        st = run(d, stop, argc > 1 + stop ? argv[1 + stop] : NULL);
    }
    if (st != DR_OK && st != DR_CANCELLED && dr_dist_rank(d) == 0) {
        dr_log_error_record();
    }
    dr_dist_finalize(d);
    return dr_status_exit_code(st);
}
