/* A checksum of bits (ops/optimizer_ops.h): sums of whole numbers, exact in any order. */
#include "backend/cpu/cpu_internal.h"

#include <string.h>

enum { PARTS = DR_CHECKSUM_PARTS, BLOCK = 65536 }; /* elements of a task */

typedef struct checksum_job {
    const dr_tensor *x;
    int64_t n;
    uint64_t (*part)[PARTS]; /* one per block */
} checksum_job;

/* Of n elements x, the first of which is element `from`, into out. */
#define SUM_BLOCK()                                                                                \
    uint64_t s0 = 0;                                                                               \
    uint64_t s1 = 0;                                                                               \
    uint64_t s2 = 0;                                                                               \
    uint64_t s3 = 0;                                                                               \
    for (int64_t i = 0; i < n; i++) {                                                              \
        uint64_t h = x[i] ^ (uint64_t)(from + i + 1) * 0x9e3779b97f4a7c15U;                        \
        h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9U;                                                   \
        h = (h ^ h >> 27) * 0x94d049bb133111ebU;                                                   \
        h ^= h >> 31;                                                                              \
        s0 += h & 0xffff;                                                                          \
        s1 += h >> 16 & 0xffff;                                                                    \
        s2 += h >> 32 & 0xffff;                                                                    \
        s3 += h >> 48;                                                                             \
    }                                                                                              \
    memcpy(out, (const uint64_t[PARTS]){s0, s1, s2, s3}, sizeof(uint64_t[PARTS]))

DR_CPU_CLONES
static void sum_wide(const uint32_t *restrict x, int64_t from, int64_t n, uint64_t *restrict out)
{
    SUM_BLOCK();
}

DR_CPU_CLONES
static void sum_narrow(const uint16_t *restrict x, int64_t from, int64_t n, uint64_t *restrict out)
{
    SUM_BLOCK();
}

static void sum_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const checksum_job *j = job;
    const int64_t from = i * BLOCK;
    const int64_t n = dr_cpu_min(BLOCK, j->n - from);
    if (dr_dtype_size(j->x->dtype) == 4) {
        sum_wide((const uint32_t *)j->x->data + from, from, n, j->part[i]);
    } else {
        sum_narrow((const uint16_t *)j->x->data + from, from, n, j->part[i]);
    }
}

size_t dr_cpu_checksum_work(const dr_checksum_args *a)
{
    return (size_t)dr_cpu_ceil_div(dr_numel(a->x), BLOCK) * sizeof(uint64_t[PARTS]);
}

dr_status dr_cpu_checksum(dr_context *cx, const dr_checksum_args *a)
{
    const checksum_job j = {a->x, dr_numel(a->x), cx->work};
    const int64_t blocks = dr_cpu_ceil_div(j.n, BLOCK);
    double *out = a->out->data;
    dr_cpu_run(cx, blocks, sum_task, &j);
    for (int k = 0; k < PARTS; k++) {
        uint64_t sum = 0;
        for (int64_t i = 0; i < blocks; i++) {
            sum += j.part[i][k];
        }
        out[k] += (double)sum;
    }
    return DR_OK;
}
