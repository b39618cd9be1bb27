#include "train/save_plan.h"

void dr_save_name(const dr_save_options *o, dr_save_kind kind, int64_t number, dr_str *out)
{
    static const char *const unnamed[] = {"epoch", "at", "last"};
    const char *base = o->name != NULL ? o->name : unnamed[kind];
    switch (kind) {
    case DR_SAVE_EPOCH:
        dr_str_printf(out, "%s-%06lld", base, (long long)number);
        break;
    case DR_SAVE_STEP:
        dr_str_printf(out, "%s-step%08lld", base, (long long)number);
        break;
    case DR_SAVE_LAST:
        dr_str_add(out, base);
        break;
    }
}

int64_t dr_save_epoch_interval(const dr_save_options *o, int64_t n_epochs)
{
    if (o->n_epoch_ratio > 0) {
        const int64_t every = n_epochs / o->n_epoch_ratio;
        return every > 0 ? every : 1;
    }
    return o->every_n_epochs;
}

bool dr_save_due_at_epoch(const dr_save_options *o, int64_t epoch, int64_t n_epochs)
{
    const int64_t every = dr_save_epoch_interval(o, n_epochs);
    return every > 0 && epoch < n_epochs && epoch % every == 0;
}

bool dr_save_due_at_step(const dr_save_options *o, int64_t step)
{
    return o->every_n_steps > 0 && step % o->every_n_steps == 0;
}

int64_t dr_save_next_step(const dr_save_options *o, int64_t step, int64_t steps_per_epoch,
                          int64_t n_steps)
{
    const int64_t n_epochs = (n_steps + steps_per_epoch - 1) / steps_per_epoch;
    const int64_t every = dr_save_epoch_interval(o, n_epochs);
    int64_t next = n_steps;
    if (o->every_n_steps > 0) {
        const int64_t by_step = (step / o->every_n_steps + 1) * o->every_n_steps;
        next = by_step < next ? by_step : next;
    }
    if (every > 0) {
        const int64_t epoch = (step / steps_per_epoch / every + 1) * every;
        const int64_t by_epoch = epoch * steps_per_epoch;
        next = epoch < n_epochs && by_epoch < next ? by_epoch : next;
    }
    return next;
}

int64_t dr_save_expired_epoch(const dr_save_options *o, int64_t epoch, int64_t n_epochs, bool state)
{
    const int64_t keep =
        state && o->last_n_epochs_state > 0 ? o->last_n_epochs_state : o->last_n_epochs;
    const int64_t every = dr_save_epoch_interval(o, n_epochs);
    if (keep == 0 || every == 0 || epoch / every <= keep) { /* no epoch 0 was saved */
        return -1;
    }
    return epoch - every * keep;
}

int64_t dr_save_expired_step(const dr_save_options *o, int64_t step, bool state)
{
    const int64_t keep =
        state && o->last_n_steps_state > 0 ? o->last_n_steps_state : o->last_n_steps;
    if (keep == 0 || o->every_n_steps == 0 || step <= keep) {
        return -1;
    }
    int64_t gone = step - keep - 1;
    gone -= gone % o->every_n_steps;
    return gone > 0 ? gone : -1; /* no step 0 was saved */
}
