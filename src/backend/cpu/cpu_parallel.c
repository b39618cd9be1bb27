/*
 * The only place where threads are started. Tasks are handed out dynamically: which thread runs a
 * task never matters for its result.
 */
#include "backend/cpu/cpu_internal.h"

#include <omp.h>

void dr_cpu_run(const dr_context *cx, int64_t n, dr_cpu_task task, const void *job)
{
    if (cx->threads == 1 || n <= 1) {
        for (int64_t i = 0; i < n; i++) {
            task(job, i, 0);
        }
        return;
    }
    const int threads = (int)dr_cpu_min(cx->threads, n);
    const int64_t hand_out = n / 256 + 1; /* taking a task costs about 50 ns */
#pragma omp parallel for schedule(dynamic, hand_out) num_threads(threads)
    for (int64_t i = 0; i < n; i++) {
        task(job, i, omp_get_thread_num());
    }
}
