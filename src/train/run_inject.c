/*
 * Numbers that --inject spoils, so that the alarms can be seen to ring.
 */
#include "base/fault.h"
#include "base/log.h"
#include "train/run_alarms.h"

#include <math.h>
#include <string.h>

/* A NaN into the first element. */
static dr_status spoil(const dr_run *r, const dr_tensor *t)
{
    const double wide = NAN;
    const float single = NAN;
    const uint16_t half = t->dtype == DR_F16 ? 0x7E00U : 0x7FC0U; /* BF16 */
    const void *bad = t->dtype == DR_F64   ? (const void *)&wide
                      : t->dtype == DR_F32 ? (const void *)&single
                                           : (const void *)&half;
    return r->backend->device->upload(t->data, bad, dr_dtype_size(t->dtype));
}

dr_status dr_run_inject_input(dr_run *r, int64_t global_step, const dr_leaf_input *in)
{
    if (!dr_fault_numbers_at(global_step + 1).nan_input) {
        return DR_OK;
    }
    return spoil(r, &in->latents);
}

static const dr_param *find_param(const dr_run *r, const char *name)
{
    for (size_t g = 0; g < r->n_groups; g++) {
        for (size_t i = 0; i < r->groups[g].n; i++) {
            if (strcmp(r->groups[g].at[i]->name, name) == 0) {
                return r->groups[g].at[i];
            }
        }
    }
    return NULL;
}

static dr_status no_param(const char *name)
{
    DR_FAIL(DR_INVALID, "--inject: no parameter '%s' is trained", name);
}

dr_status dr_run_inject_flip(dr_run *r, int64_t global_step)
{
    const dr_fault_numbers faults = dr_fault_numbers_at(global_step + 1);
    if (!faults.flip) {
        return DR_OK;
    }
    const dr_param *p =
        faults.flip_param != NULL ? find_param(r, faults.flip_param) : r->groups[0].at[0];
    if (p == NULL) {
        dr_dist_abort(r->dist, no_param(faults.flip_param)); /* the others do not ask */
    }
    const dr_device *device = r->backend->device;
    unsigned char byte = 0; /* the lowest of the first element */
    DR_TRY(device->download(&byte, p->master.data, 1));
    byte ^= 1;
    return device->upload(p->master.data, &byte, 1);
}

dr_status dr_run_inject_gradients(dr_run *r, int64_t global_step)
{
    const dr_fault_numbers faults = dr_fault_numbers_at(global_step + 1);
    const char *const names[] = {faults.nan_param, faults.dead_param};
    for (int i = 0; i < 2; i++) {
        if (names[i] == NULL) {
            continue;
        }
        const dr_param *p = find_param(r, names[i]);
        if (p == NULL) {
            return no_param(names[i]);
        }
        const size_t bytes = (size_t)p->n * dr_dtype_size(p->grad.dtype);
        DR_TRY(i == 0 ? spoil(r, &p->grad) : r->backend->device->zero(p->grad.data, bytes));
    }
    return DR_OK;
}
