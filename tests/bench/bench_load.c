/*
 * bench_load FILE THREADS - reads all floating-point tensors of a file of weights into f32 memory;
 * prints seconds for opening and for reading, and bytes, as JSON. Used by bench_load.py.
 */
#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "io/tensor_file.h"

#include <stdio.h>
#include <stdlib.h>

static dr_status load(const char *path, int n_threads)
{
    dr_tensor_file *f = NULL;
    dr_thread_pool *pool = NULL;
    const double start = dr_now_s();
    DR_TRY(dr_tensor_file_open(&f, path));
    const double opened = dr_now_s();
    const size_t n = dr_tensor_file_count(f);
    dr_tensor_read *items = dr_xcalloc(n, sizeof *items);
    size_t n_items = 0;
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        const dr_file_tensor *t = dr_tensor_file_at(f, i);
        if (t->readable && t->dtype >= DR_F64 && t->dtype != DR_I32 && t->dtype <= DR_F16) {
            dr_tensor_read *item = &items[n_items++];
            *item = (dr_tensor_read){.tensor = t, .dtype = DR_F32};
            DR_TRY(dr_try_calloc((size_t)t->n_elems, sizeof(float), &item->to));
            bytes += t->bytes;
        }
    }
    DR_TRY(dr_thread_pool_create(n_threads - 1, &pool));
    DR_TRY(dr_tensor_file_read(f, pool, items, n_items));
    const double done = dr_now_s();
    (void)printf("{\"open_s\":%.4f,\"total_s\":%.3f,\"tensors\":%zu,\"bytes\":%zu}\n",
                 opened - start, done - start, n_items, bytes);
    for (size_t i = 0; i < n_items; i++) {
        free(items[i].to);
    }
    free(items);
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
