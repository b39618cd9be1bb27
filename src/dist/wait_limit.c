#include "dist/wait_limit.h"

#include "base/clock.h"
#include "dist/board.h"
#include "dist/dist_internal.h"

void dr_dist_limit_waits(dr_dist *d, dr_board *board, double seconds)
{
    (void)pthread_mutex_lock(&d->waits.lock);
    d->waits.board = board;
    d->waits.limit_s = seconds;
    (void)pthread_mutex_unlock(&d->waits.lock);
}

double dr_dist_wait_limit(const dr_dist *d)
{
    return d->waits.limit_s;
}

void dr_wait_begin(dr_dist *d, dr_wait_lane lane, const char *name)
{
    dr_waits *w = &d->waits;
    (void)pthread_mutex_lock(&w->lock);
    w->name[lane] = name;
    w->began_s[lane] = dr_now_s();
    if (w->board != NULL) {
        (void)atomic_fetch_add(&w->board->slots[w->board->own].calls[lane], 1);
    }
    (void)pthread_mutex_unlock(&w->lock);
}

void dr_wait_end(dr_dist *d, dr_wait_lane lane)
{
    (void)pthread_mutex_lock(&d->waits.lock);
    d->waits.name[lane] = NULL;
    (void)pthread_mutex_unlock(&d->waits.lock);
}

bool dr_dist_overdue(dr_dist *d, dr_overdue *out)
{
    dr_waits *w = &d->waits;
    bool found = false;
    (void)pthread_mutex_lock(&w->lock);
    const double now = dr_now_s();
    for (int i = 0; i < DR_WAIT_COUNT && !found && w->limit_s > 0.0; i++) {
        const double waited_s = now - w->began_s[i];
        if (w->name[i] != NULL && waited_s > w->limit_s) {
            *out = (dr_overdue){w->name[i], (dr_wait_lane)i, waited_s};
            found = true;
        }
    }
    (void)pthread_mutex_unlock(&w->lock);
    return found;
}

void dr_dist_forgive(dr_dist *d, double seconds)
{
    (void)pthread_mutex_lock(&d->waits.lock);
    for (int i = 0; i < DR_WAIT_COUNT; i++) {
        d->waits.began_s[i] += seconds;
    }
    (void)pthread_mutex_unlock(&d->waits.lock);
}
