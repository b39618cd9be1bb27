#include "ops/optimizer_ops.h"
#include "backend/ref/ref_internal.h"

typedef struct block_state { /* one state of a block of at most 256 elements */
    const float *code;
    bool is_signed;
    uint8_t *codes; /* NULL: the state is plain */
    float *absmax;
    dr_real *plain;
    dr_real x[DR_BLOCKWISE_BLOCK];
} block_state;

static block_state open_state(const dr_tensor *state, const dr_tensor *absmax, const float *code,
                              bool is_signed, int64_t at)
{
    block_state b = {.code = code, .is_signed = is_signed};
    if (state == NULL) {
        return b;
    }
    if (absmax == NULL) {
        b.plain = dr_ref_data(state) + at;
        return b;
    }
    b.codes = (uint8_t *)state->data + at;
    b.absmax = (float *)absmax->data + at / DR_BLOCKWISE_BLOCK;
    return b;
}

static void read_state(block_state *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (b->codes != NULL) {
            b->x[i] = (dr_real)b->code[b->codes[i]] * (dr_real)*b->absmax;
        } else if (b->plain != NULL) {
            b->x[i] = b->plain[i];
        }
    }
}

static int code_of(const block_state *b, dr_real x)
{
    int c = dr_blockwise_nearest(b->code, (float)x);
    if (b->is_signed && (b->code[c] < 0) != (x < 0)) { /* a code of the other sign */
        c += x > 0 ? 1 : -1;
    }
    return c;
}

static void write_state(block_state *b, int64_t n)
{
    dr_real largest = 0;
    for (int64_t i = 0; i < n; i++) {
        largest = DR_MATH(fmax)(largest, DR_MATH(fabs)(b->x[i]));
        if (b->plain != NULL) {
            b->plain[i] = b->x[i];
        }
    }
    if (b->codes != NULL) {
        *b->absmax = (float)largest;
        for (int64_t i = 0; i < n; i++) {
            b->codes[i] = (uint8_t)code_of(b, largest > 0 ? b->x[i] / largest : 0);
        }
    }
}

/* The new value of p; m and v are updated. */
static dr_real update(const dr_blockwise_args *a, dr_real p, dr_real g, dr_real *m, dr_real *v)
{
    const dr_real b1 = (dr_real)a->beta1;
    const dr_real b2 = (dr_real)a->beta2;
    const dr_real decay = (dr_real)(1.0 - a->lr * a->weight_decay);
    if (a->kind == DR_BLOCKWISE_MOMENTUM) {
        g = g + (dr_real)a->weight_decay * p;
        *m = a->step == 1 ? g : b1 * *m + g;
        return p - (dr_real)a->lr * *m;
    }
    if (a->kind == DR_BLOCKWISE_LION) {
        const dr_real u = b1 * *m + (dr_real)(1.0 - a->beta1) * g;
        *m = b2 * *m + (dr_real)(1.0 - a->beta2) * g;
        return decay * p - (dr_real)a->lr * (dr_real)((u > 0) - (u < 0));
    }
    const double c1 = 1.0 - pow(a->beta1, (double)a->step);
    const double c2 = sqrt(1.0 - pow(a->beta2, (double)a->step));
    if (!isfinite(g)) {
        *m = 0;
        *v = 0;
        return p;
    }
    *m = b1 * *m + (dr_real)(1.0 - a->beta1) * g;
    *v = b2 * *v + (dr_real)(1.0 - a->beta2) * g * g;
    const dr_real ratio = *m / (DR_MATH(sqrt)(*v) + (dr_real)(a->eps * c2));
    return decay * (p + (dr_real)(-a->lr * c2 / c1) * ratio);
}

dr_status DR_REF(blockwise)(dr_context *cx, const dr_blockwise_args *a)
{
    float code_signed[256];
    float code_unsigned[256];
    const int64_t n = dr_numel(a->p);
    dr_blockwise_code(true, code_signed);
    dr_blockwise_code(false, code_unsigned);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t at = 0; at < n; at += DR_BLOCKWISE_BLOCK) {
        const int64_t len = at + DR_BLOCKWISE_BLOCK < n ? DR_BLOCKWISE_BLOCK : n - at;
        block_state m = open_state(a->state1, a->absmax1, code_signed, true, at);
        block_state v = open_state(a->state2, a->absmax2, code_unsigned, false, at);
        read_state(&m, len);
        read_state(&v, len);
        for (int64_t i = 0; i < len; i++) {
            dr_real *p = dr_ref_data(a->p) + at + i;
            const dr_real g = (dr_real)a->grad_scale * dr_ref_data(a->g)[at + i];
            *p = update(a, *p, g, &m.x[i], &v.x[i]);
        }
        write_state(&m, len);
        write_state(&v, len);
    }
    return DR_OK;
}
