/*
 * bench_load FILE THREADS - reads all floating-point tensors of a file of weights into f32 memory;
 * prints the
 * seconds for opening, for all, and of CPU time as JSON. Used by bench_load.py.
 */
#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "io/tensor_file.h"
#include "tensor/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* The floating-point tensors, side by side in one block as trainers have their weights. */
static dr_status plan(const dr_tensor_file *f, dr_tensor_read *items, size_t *n_items, void **block)
{
    size_t elems = 0;
    for (size_t i = 0; i < dr_tensor_file_count(f); i++) {
        const dr_file_tensor *t = dr_tensor_file_at(f, i);
        const dr_dtype d = t->dtype;
        if (t->readable && (d == DR_F64 || d == DR_F32 || d == DR_F16 || d == DR_BF16)) {
            items[(*n_items)++] = (dr_tensor_read){.tensor = t, .dtype = DR_F32};
            elems += (size_t)t->n_elems;
        }
    }
    DR_TRY(dr_host_device.alloc(elems * sizeof(float), block));
    float *to = *block;
    for (size_t i = 0; i < *n_items; i++) {
        items[i].to = to;
        to += items[i].tensor->n_elems;
    }
    return DR_OK;
}

static dr_status load(const char *path, int n_threads)
{
    dr_tensor_file *f = NULL;
    dr_thread_pool *pool = NULL;
    void *block = NULL;
    size_t n = 0;
    const double start = dr_now_s();
    DR_TRY(dr_tensor_file_open(&f, path));
    const double opened = dr_now_s();
    dr_tensor_read *items = dr_xcalloc(dr_tensor_file_count(f), sizeof *items);
    DR_TRY(plan(f, items, &n, &block));
    DR_TRY(dr_thread_pool_create(n_threads - 1, &pool));
    DR_TRY(dr_tensor_file_read(f, pool, items, n));
    (void)printf("{\"open_s\":%.4f,\"total_s\":%.3f,\"cpu_s\":%.3f,\"tensors\":%zu}\n",
                 opened - start, dr_now_s() - start, (double)clock() / CLOCKS_PER_SEC, n);
    free(items);
    dr_host_device.free(block);
    dr_thread_pool_destroy(pool);
    dr_tensor_file_close(f);
    return DR_OK;
}

int main(int argc, char **argv)
{
    int64_t n_threads = 0;
    if (argc != 3 || !dr_parse_i64(argv[2], &n_threads) || n_threads < 1 || n_threads > 64) {
        (void)fprintf(stderr, "usage: bench_load FILE THREADS\n");
        return 64;
    }
    const dr_status st = load(argv[1], (int)n_threads);
    if (st != DR_OK) {
        dr_log_error_record();
    }
    return dr_status_exit_code(st);
}
