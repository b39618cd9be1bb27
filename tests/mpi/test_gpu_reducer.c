/*
 * Gradients summed on (emulated) GPUs: by the fixed tree the same bits as on the host, by NCCL's
 * all-reduce the same numbers up to rounding; what a lost rank and one that never comes lead to.
 */
#include "apps/gpu_plane.h"
#include "backend/cuda/backend_cuda.h"
#include "base/arena.h"
#include "base/philox.h"
#include "dist/reducer.h"
#include "mpi_main.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 5003, BUCKET = 1024, STEPS = 2 };

static void leaf_values(int64_t leaf, int step, float *out)
{
    dr_philox random;
    dr_philox_init(&random, 5, DR_RANDOM_NOISE, (uint32_t)step, (uint64_t)leaf);
    dr_philox_normal(&random, out, N);
}

/* One step's sum into total (host). */
static void run_step(dr_reducer *r, const dr_device *device, float *grads, int step, float *total)
{
    static const int64_t cuts[] = {N, 4000, 2048, 700}; /* what is left below is not reported */
    int64_t first, n;
    float *values = dr_xcalloc(N, sizeof *values);
    dr_reducer_leaves(r, &first, &n);
    dr_reducer_begin_step(r);
    for (int64_t i = 0; i < n; i++) {
        leaf_values(first + i, step, values);
        assert_ok(device->upload(grads, values, N * sizeof *values));
        for (size_t k = 1; k < sizeof cuts / sizeof *cuts; k++) {
            dr_reducer_ready(r, cuts[k], cuts[k - 1]);
        }
        dr_reducer_end_leaf(r);
    }
    assert_ok(dr_reducer_wait(r));
    assert_ok(device->download(total, grads, N * sizeof *total));
    free(values);
}

/* Sums of STEPS steps, one after the other; plane NULL: on the host. */
static float *sums(const dr_data_plane *plane, const dr_device *device, int64_t n_leaves)
{
    dr_reducer *r = NULL;
    void *grads = NULL;
    float *totals = dr_xcalloc((size_t)STEPS * N, sizeof *totals);
    assert_ok(device->alloc(N * sizeof(float), &grads));
    const dr_reducer_config c = {
        .n_leaves = n_leaves, .grads = grads, .n_elems = N, .bucket_elems = BUCKET, .plane = plane};
    assert_ok(dr_reducer_create(dr_mpi_ranks, &c, &r));
    for (int step = 0; step < STEPS; step++) {
        run_step(r, device, grads, step, totals + (size_t)step * N);
    }
    dr_reducer_destroy(r);
    device->free(grads);
    return totals;
}

static const dr_backend *cuda;

static void with_plane(bool strict, void (*check)(const float *got, const float *want))
{
    const dr_data_plane *plane = NULL;
    const int world = dr_dist_world(dr_mpi_ranks);
    assert_ok(dr_cuda_open(dr_dist_local_rank(dr_mpi_ranks), DR_CUDA_TF32_OFF, &cuda));
    assert_ok(dr_gpu_plane_open(dr_mpi_ranks, cuda, strict, &plane));
    assert_non_null(plane);
    for (int64_t leaves = world; leaves <= world + 5; leaves++) {
        float *want = sums(NULL, &dr_host_device, leaves);
        float *got = sums(plane, cuda->device, leaves);
        check(got, want);
        free(want);
        free(got);
    }
    dr_gpu_plane_close();
    dr_cuda_close();
}

static void same_bits(const float *got, const float *want)
{
    assert_everywhere(memcmp(got, want, (size_t)STEPS * N * sizeof *got) == 0);
}

/* At most 9 terms of size 1 in another order: 9 roundings of at most 8 x 2^-24. */
static void same_numbers(const float *got, const float *want)
{
    double worst = 0.0;
    for (int i = 0; i < STEPS * N; i++) {
        worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
    }
    assert_everywhere(worst <= 9 * 8 * 0x1p-24);
}

static void the_tree_gives_the_hosts_bits(void **state)
{
    (void)state;
    with_plane(true, same_bits);
}

static void all_reduce_gives_the_same_numbers(void **state)
{
    (void)state;
    with_plane(false, same_numbers);
}

/* Some rank has no library: all of them do without, and the first says why. */
static void without_the_library_there_is_none(void **state)
{
    (void)state;
    const char *library = getenv("DREAMRUN_NCCL");
    char *kept = strdup(library);
    dr_nccl *nccl = NULL;
    char why[256] = "";
    if (dr_dist_rank(dr_mpi_ranks) == dr_dist_world(dr_mpi_ranks) - 1) {
        (void)setenv("DREAMRUN_NCCL", "/nonexistent/libnccl.so.2", 1);
    }
    assert_ok(dr_nccl_open(dr_mpi_ranks, 10.0, &nccl, why));
    (void)setenv("DREAMRUN_NCCL", kept, 1);
    assert_everywhere(nccl == NULL && strstr(why, "/nonexistent/libnccl.so.2") != NULL);
    free(kept);
}

static void a_rank_that_never_comes_is_waited_for_so_long(void **state)
{
    (void)state;
    dr_nccl *nccl = NULL;
    char why[256] = "";
    (void)setenv("DREAMRUN_EMU_NCCL", "never", 1);
    assert_error(dr_nccl_open(dr_mpi_ranks, 0.05, &nccl, why), DR_COMM, "a rank is missing");
    (void)unsetenv("DREAMRUN_EMU_NCCL");
    assert_everywhere(nccl == NULL);
}

static void a_lost_rank_is_told_of(void **state)
{
    (void)state;
    dr_nccl *nccl = NULL;
    char why[256] = "";
    void *data = NULL;
    void *stream = NULL;
    assert_ok(dr_cuda_open(dr_dist_local_rank(dr_mpi_ranks), DR_CUDA_TF32_OFF, &cuda));
    assert_ok(dr_cuda_exchange_open(&stream));
    assert_ok(cuda->device->alloc(64, &data));
    assert_ok(dr_nccl_open(dr_mpi_ranks, 10.0, &nccl, why));
    assert_ok(dr_nccl_poll(nccl));
    (void)setenv("DREAMRUN_EMU_NCCL", "lost 1", 1);
    assert_error(dr_nccl_all_reduce(nccl, data, 16, stream), DR_COMM, "remote process exited");
    assert_error(dr_nccl_poll(nccl), DR_COMM, "an exchange of gradients");
    (void)unsetenv("DREAMRUN_EMU_NCCL");
    dr_nccl_close(nccl);
    cuda->device->free(data);
    dr_cuda_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tree_gives_the_hosts_bits),
        cmocka_unit_test(all_reduce_gives_the_same_numbers),
        cmocka_unit_test(without_the_library_there_is_none),
        cmocka_unit_test(a_rank_that_never_comes_is_waited_for_so_long),
        cmocka_unit_test(a_lost_rank_is_told_of),
    };
    return dr_mpi_run("gpu_reducer", tests, sizeof tests / sizeof *tests);
}
