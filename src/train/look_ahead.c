/*
 * Announces the pictures of coming steps, so that loader threads decode them while steps run; at
 * the end of an epoch those of the next one.
 */
#include "base/arena.h"
#include "train/run_internal.h"

#include <stdlib.h>

struct dr_look_ahead {
    uint32_t epoch, step; /* the next sample to announce */
    int64_t leaf;         /* counts this rank's leaves of the step */
    uint32_t sample;
    int64_t global_step; /* of that step */
    dr_epoch_plan next;  /* of next_epoch, once it was needed */
    uint32_t next_epoch; /* 0: none */
};

dr_look_ahead *dr_look_ahead_create(void)
{
    return dr_xcalloc(1, sizeof(dr_look_ahead));
}

void dr_look_ahead_destroy(dr_look_ahead *a)
{
    if (a != NULL) {
        dr_epoch_plan_deinit(&a->next);
        free(a);
    }
}

/* The plan of the epoch that a stands in; NULL: not to be looked at yet. */
static const dr_epoch_plan *find_plan(dr_run *r, dr_look_ahead *a, const dr_epoch_plan *plan,
                                      uint32_t epoch)
{
    if (a->epoch != epoch + 1) {
        return a->epoch == epoch ? plan : NULL;
    }
    if (a->next_epoch != a->epoch) {
        dr_epoch_plan_deinit(&a->next);
        a->next_epoch = 0;
        if (dr_run_plan_epoch(r, a->epoch, &a->next) != DR_OK) {
            dr_error_clear();
            return NULL;
        }
        a->next_epoch = a->epoch;
    }
    return &a->next;
}

static void next_step(dr_look_ahead *a, uint32_t n_steps)
{
    a->leaf = 0;
    a->sample = 0;
    a->global_step++;
    if (++a->step == n_steps) {
        a->step = 0;
        a->epoch++;
    }
}

/* Announces what is left of a's step; false: no place. */
static bool announce_step(dr_run *r, dr_look_ahead *a, const dr_step *step)
{
    int64_t first, n;
    dr_reducer_leaves(r->reducer, &first, &n);
    for (; a->leaf < n && first + a->leaf < (int64_t)step->n_leaves; a->leaf++, a->sample = 0) {
        const dr_leaf *leaf = &step->leaves[first + a->leaf];
        for (; a->sample < leaf->n; a->sample++) {
            const dr_sample_ref *ref = &leaf->samples[a->sample];
            if (!dr_latents_announce(r->latents, ref->image, a->epoch, ref->sample)) {
                return false;
            }
        }
    }
    return true;
}

void dr_run_look_ahead(dr_run *r, const dr_epoch_plan *plan, uint32_t epoch, uint32_t step,
                       int64_t global_step)
{
    dr_look_ahead *a = r->ahead;
    if (!dr_latents_reads_ahead(r->latents)) {
        return;
    }
    if (a->global_step < global_step || a->epoch == 0) { /* the beginning, or it fell behind */
        a->epoch = epoch;
        a->step = step;
        a->leaf = 0;
        a->sample = 0;
        a->global_step = global_step;
    }
    while (a->global_step < r->n_steps) {
        const dr_epoch_plan *at = find_plan(r, a, plan, epoch);
        if (at == NULL || !announce_step(r, a, &at->steps[a->step])) {
            break;
        }
        next_step(a, at->n_steps);
    }
}
