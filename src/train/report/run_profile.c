/*
 * --profile: the timeline of the first steps, from the start of the run on, in one file for all
 * ranks. Names stand in docs/performance.md.
 */
#include "train/report/run_profile.h"

#include "base/arena.h"
#include "base/file.h"
#include "base/log.h"
#include "base/profile.h"

#include <stdlib.h>

/* A file that could not be written is found out before the first step. */
static dr_status check_target(const char *path)
{
    dr_outfile probe;
    DR_TRY(dr_outfile_open(&probe, path));
    dr_outfile_abort(&probe);
    return DR_OK;
}

dr_status dr_run_profile_begin(dr_run *r)
{
    const char *path = r->c->profile;
    if (path == NULL) {
        return DR_OK;
    }
    DR_TRY(dr_dist_agree(r->dist, dr_dist_rank(r->dist) == 0 ? check_target(path) : DR_OK));
    dr_profile_start();
    dr_profile_thread("main");
    return DR_OK;
}

typedef struct share { /* what every rank tells of its spans */
    double started_s;
    uint64_t bytes;
    int64_t lost;
} share;

/* The earliest start: no time of any rank lies before it. */
static dr_status find_zero(const dr_run *r, share *all, double *zero_s)
{
    const share mine = {.started_s = dr_profile_started_s()};
    DR_TRY(dr_dist_allgather(r->dist, &mine, all, sizeof mine));
    *zero_s = all[0].started_s;
    for (int q = 1; q < dr_dist_world(r->dist); q++) {
        *zero_s = all[q].started_s < *zero_s ? all[q].started_s : *zero_s;
    }
    return DR_OK;
}

/* All ranks' events, on rank 0; the caller frees them. */
static dr_status gather(const dr_run *r, const dr_str *mine, share *all, char **events, size_t *n)
{
    const int world = dr_dist_world(r->dist);
    const share own = {.bytes = mine->len, .lost = all[dr_dist_rank(r->dist)].lost};
    DR_TRY(dr_dist_allgather(r->dist, &own, all, sizeof own));
    size_t *bytes = dr_xcalloc((size_t)world, sizeof *bytes);
    *n = 0;
    for (int q = 0; q < world; q++) {
        bytes[q] = (size_t)all[q].bytes;
        *n += bytes[q];
    }
    *events = dr_dist_rank(r->dist) == 0 ? dr_xcalloc(1, *n + 1) : NULL;
    const dr_status st = dr_dist_gatherv(r->dist, mine->data, mine->len, *events, bytes);
    free(bytes);
    return st;
}

/* Rank 0. A profile that cannot be written is no reason to lose a run. */
static void write_file(const dr_run *r, const char *events, size_t n, const share *all)
{
    dr_str file = {0};
    int64_t lost = 0;
    for (int q = 0; q < dr_dist_world(r->dist); q++) {
        lost += all[q].lost;
    }
    dr_str_add(&file, "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n");
    dr_str_add_n(&file, events, n - 2); /* the last event has no comma */
    dr_str_add(&file, "\n]}\n");
    if (dr_file_write(r->c->profile, file.data, file.len) == DR_OK) {
        dr_info("profile: %s", r->c->profile);
    } else {
        dr_warn("profile: not written: %s", dr_error_message());
        dr_error_clear();
    }
    if (lost > 0) {
        dr_warn("profile: %lld spans found no room: a smaller --profile_steps", (long long)lost);
    }
    dr_str_free(&file);
}

dr_status dr_run_profile_end(dr_run *r)
{
    if (!dr_profile_is_on()) {
        return DR_OK;
    }
    dr_profile_stop();
    const int rank = dr_dist_rank(r->dist);
    share *all = dr_xcalloc((size_t)dr_dist_world(r->dist), sizeof *all);
    double zero_s = 0.0;
    char *events = NULL;
    size_t n = 0;
    dr_str mine = {0};
    dr_status st = find_zero(r, all, &zero_s);
    if (st == DR_OK) {
        all[rank].lost = dr_profile_write(&mine, rank, zero_s);
        st = gather(r, &mine, all, &events, &n);
    }
    if (st == DR_OK && rank == 0) {
        write_file(r, events, n, all);
    }
    dr_str_free(&mine);
    free(events);
    free(all);
    return st;
}

dr_status dr_run_profile_step(dr_run *r)
{
    return dr_profile_is_on() && ++r->n_profiled == r->c->profile_steps ? dr_run_profile_end(r)
                                                                        : DR_OK;
}
