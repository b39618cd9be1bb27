#include "launcher/decide.h"

/* Failures that would come again: wrong options, bad data, taken names, NaN, an inexact resume. */
static bool is_final(int code)
{
    static const dr_status final[] = {DR_INVALID, DR_FORMAT, DR_OUTPUT, DR_NUMERIC, DR_INEXACT};
    for (size_t i = 0; i < sizeof final / sizeof *final; i++) {
        if (dr_status_exit_code(final[i]) == code) {
            return true;
        }
    }
    return false;
}

static dr_decision end_with(int code, const char *why)
{
    return (dr_decision){.code = code, .why = why};
}

/* Ranks that the next attempt may have; 0: too few. */
static int ranks_left(const dr_restart_rules *rules, const dr_outcome *o)
{
    int lost = o->n_lost;
    if (rules->least_ranks == 0) {
        return o->n_ranks;
    }
    if (lost == 0 && (o->code == dr_status_exit_code(DR_DEVICE) || o->out_of_memory)) {
        lost = 1;
    }
    int left = o->n_ranks - lost;
    return left >= rules->least_ranks ? left : 0;
}

static double pause(const dr_restart_rules *rules, int in_vain)
{
    double s = rules->delay_s;
    for (int i = 0; i < in_vain && s < 60.0; i++) {
        s *= 2.0;
    }
    return s < 60.0 || s <= rules->delay_s ? s : 60.0;
}

dr_decision dr_decide(const dr_restart_rules *rules, dr_history *h, const dr_outcome *o)
{
    const int refused = dr_status_exit_code(DR_REFUSED);
    if (o->code == 0 || o->stopped || o->code == dr_status_exit_code(DR_CANCELLED)) {
        return end_with(o->code, "");
    }
    if (rules->max_restarts == 0 || rules->policy == DR_RESTART_NEVER) {
        return end_with(o->code, "");
    }
    if (is_final(o->code)) {
        return end_with(o->code, "not started again: the same would happen");
    }
    int left = ranks_left(rules, o);
    if (left == 0) {
        return end_with(dr_status_exit_code(DR_CANCELLED),
                        "not started again: fewer than --min_processes ranks are left");
    }
    if (o->out_of_memory && left == o->n_ranks) {
        return end_with(o->code, "not started again: it would run out of memory again");
    }
    bool saved = o->state_step > h->state_step;
    bool gained = saved || o->step > h->step;
    bool transient = (!o->joined || o->n_lost > 0) && h->in_vain == 0;
    h->in_vain = gained ? 0 : h->in_vain + 1;
    h->used += !saved;
    h->step = o->step > h->step ? o->step : h->step;
    h->state_step = saved ? o->state_step : h->state_step;
    if (rules->policy == DR_RESTART_PROGRESS && !gained && !transient) {
        return end_with(refused, "restart refused: it came no further than before "
                                 "(--restart_policy progress)");
    }
    if (h->used > rules->max_restarts) {
        return end_with(refused, "restart refused: --max_restarts are used up");
    }
    return (dr_decision){.restart = true,
                         .n_ranks = left,
                         .delay_s = pause(rules, h->in_vain),
                         .why = saved ? "a new state was saved" : "it may help"};
}
