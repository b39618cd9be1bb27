/*
 * Many tensors by one launch: the same bits as one after another, and fewer launches.
 */
#include "backend/cuda/backend_cuda.h"
#include "base/arena.h"
#include "dr_test.h"
#include "emu.h"
#include "ops/optimizer_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TENSORS = 131, LARGEST = 1500, STATES = 5 }; /* more than two launches' worth */

typedef struct tensors {
    dr_tensor p, g, state[4]; /* state1, state2, absmax1, absmax2 */
} tensors;

typedef struct fixture {
    const dr_backend *cuda;
    dr_context cx;
    tensors t[TENSORS];
    dr_blockwise_args a[TENSORS];
} fixture;

static dr_tensor on_gpu(const dr_backend *b, dr_dtype dtype, int64_t n, int seed)
{
    const size_t bytes = (size_t)n * dr_dtype_size(dtype);
    float *numbers = dr_xcalloc((size_t)n, sizeof *numbers);
    void *p = NULL;
    assert_ok(b->device->alloc(bytes, &p));
    for (int64_t i = 0; i < n && seed != 0; i++) {
        numbers[i] = sinf((float)(i * 7 + seed));
    }
    assert_ok(b->device->upload(p, numbers, bytes));
    free(numbers);
    return dr_tensor_of(p, dtype, 1, &n);
}

/* Every third tensor has plain states; sizes from 1. */
static void make(fixture *f, dr_blockwise_kind kind)
{
    for (int i = 0; i < TENSORS; i++) {
        const int64_t n = 1 + i * 37 % LARGEST;
        const int64_t blocks = (n + DR_BLOCKWISE_BLOCK - 1) / DR_BLOCKWISE_BLOCK;
        const bool coded = i % 3 != 0;
        const bool two = kind == DR_BLOCKWISE_ADAM;
        tensors *t = &f->t[i];
        t->p = on_gpu(f->cuda, DR_F32, n, i + 1);
        t->g = on_gpu(f->cuda, DR_F32, n, i + 1000);
        for (int k = 0; k < 4; k++) {
            t->state[k] = on_gpu(f->cuda, k >= 2 || !coded ? DR_F32 : DR_U8, k < 2 ? n : blocks, 0);
        }
        f->a[i] = (dr_blockwise_args){.kind = kind,
                                      .lr = 1e-2,
                                      .beta1 = 0.9,
                                      .beta2 = 0.999,
                                      .eps = 1e-8,
                                      .weight_decay = 0.01,
                                      .grad_scale = 0.5,
                                      .step = 1,
                                      .p = &t->p,
                                      .g = &t->g,
                                      .state1 = &t->state[0],
                                      .state2 = two ? &t->state[1] : NULL,
                                      .absmax1 = coded ? &t->state[2] : NULL,
                                      .absmax2 = coded && two ? &t->state[3] : NULL};
    }
}

static void free_all(fixture *f)
{
    for (int i = 0; i < TENSORS; i++) {
        f->cuda->device->free(f->t[i].p.data);
        f->cuda->device->free(f->t[i].g.data);
        for (int k = 0; k < 4; k++) {
            f->cuda->device->free(f->t[i].state[k].data);
        }
    }
}

/* Everything that changed, one tensor after another; the caller frees it. */
static char *download(const fixture *f, size_t *bytes)
{
    char *all = dr_xcalloc(TENSORS * STATES, LARGEST * sizeof(float));
    *bytes = 0;
    for (int i = 0; i < TENSORS; i++) {
        for (int k = 0; k < STATES; k++) {
            const dr_tensor *t = k == 0 ? &f->t[i].p : &f->t[i].state[k - 1];
            assert_ok(f->cuda->device->download(all + *bytes, t->data, dr_nbytes(t)));
            *bytes += dr_nbytes(t);
        }
    }
    return all;
}

/* Two steps; the number of launches. */
static uint64_t steps(fixture *f, bool at_once)
{
    const uint64_t before = emu_total_launches();
    for (int64_t step = 1; step <= 2; step++) {
        for (int i = 0; i < TENSORS; i++) {
            f->a[i].step = step;
            if (!at_once) {
                assert_ok(dr_blockwise(&f->cx, &f->a[i]));
            }
        }
        if (at_once) {
            assert_ok(dr_blockwise_all(&f->cx, f->a, TENSORS));
        }
    }
    float one;
    assert_ok(f->cuda->device->download(&one, f->t[0].p.data, sizeof one));
    return emu_total_launches() - before;
}

static void the_same_bits(dr_blockwise_kind kind)
{
    fixture f = {0};
    size_t bytes[2] = {0};
    char *result[2] = {NULL};
    assert_ok(dr_cuda_open(0, DR_CUDA_TF32_OFF, &f.cuda));
    f.cx = (dr_context){.backend = f.cuda, .dtype = DR_F32, .threads = 1}; /* no scratch memory */
    for (int at_once = 0; at_once < 2; at_once++) {
        make(&f, kind);
        assert_int_equal(steps(&f, at_once == 1), at_once == 1 ? 2 * 3 : 2 * TENSORS);
        result[at_once] = download(&f, &bytes[at_once]);
        free_all(&f);
    }
    assert_int_equal(bytes[0], bytes[1]);
    assert_memory_equal(result[0], result[1], bytes[0]);
    free(result[0]);
    free(result[1]);
    dr_cuda_close();
}

static void adam_at_once(void **state)
{
    (void)state;
    the_same_bits(DR_BLOCKWISE_ADAM);
}

static void lion_and_momentum_at_once(void **state)
{
    (void)state;
    the_same_bits(DR_BLOCKWISE_LION);
    the_same_bits(DR_BLOCKWISE_MOMENTUM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adam_at_once),
        cmocka_unit_test(lion_and_momentum_at_once),
    };
    return dr_test_run("cuda_many_tensors", tests, sizeof tests / sizeof *tests);
}
