#include "apps/save_meter.h"

#include "base/clock.h"
#include "base/str.h"

#include <stdio.h>
#include <unistd.h>

dr_save_meter dr_save_meter_begin(void)
{
    const double now = dr_now_s();
    return (dr_save_meter){.terminal = isatty(STDERR_FILENO) != 0, .start_s = now, .said_s = now};
}

void dr_save_meter_show(void *user, uint64_t done, uint64_t all)
{
    const double every_s = 0.2;  /* of a terminal: smooth to the eye */
    const double plain_s = 10.0; /* of a log */
    dr_save_meter *m = user;
    const double now = dr_now_s();
    char of[24];
    if (all == 0 || now - m->said_s < (m->terminal ? every_s : plain_s)) {
        return;
    }
    m->said_s = now;
    dr_format_bytes(all, of);
    const double left_s = (double)(all - done) * (now - m->start_s) / (double)(done > 0 ? done : 1);
    (void)fprintf(stderr, "%s%3llu%% of %s, %.0f s left%s", m->terminal ? "\r" : "",
                  (unsigned long long)(done * 100 / all), of, left_s, m->terminal ? "   " : "\n");
    (void)fflush(stderr);
}

void dr_save_meter_end(const dr_save_meter *m)
{
    if (m->terminal && m->said_s > m->start_s) {
        (void)fputs("\r                                        \r", stderr);
    }
}
