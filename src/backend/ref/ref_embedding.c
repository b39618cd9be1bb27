#include "ops/embedding.h"
#include "backend/ref/ref_internal.h"

static const int32_t *checked_ids(const dr_tensor *ids, const dr_tensor *table)
{
    const int32_t *id = ids->data;
    for (int64_t r = 0; r < dr_numel(ids) && table != NULL; r++) {
        DR_CHECK(id[r] >= 0 && id[r] < table->dim[0],
                 "embedding: token id %d at position %lld, the table has %lld rows", (int)id[r],
                 (long long)r, (long long)table->dim[0]);
    }
    return id;
}

dr_status DR_REF(embedding)(dr_context *cx, const dr_embedding_args *a)
{
    const int64_t channels = dr_cols(a->y);
    const int32_t *id = checked_ids(a->ids, a->tokens);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t r = 0; r < dr_rows(a->y); r++) {
        const int64_t token = id[r] * channels;
        const int64_t position = r % a->y->dim[1] * channels;
        for (int64_t c = 0; c < channels; c++) {
            dr_ref_store(a->y, r * channels + c,
                         dr_ref_get(a->tokens, token + c) + dr_ref_get(a->positions, position + c));
        }
    }
    return DR_OK;
}

static void add_to(const dr_tensor *sums, int64_t i, dr_real value)
{
    dr_ref_store(sums, i, dr_ref_get(sums, i) + value);
}

/* One thread: several rows may hold the same id, and they are added in their order. */
dr_status DR_REF(embedding_backward)(dr_context *cx, const dr_embedding_backward_args *a)
{
    (void)cx;
    const int64_t channels = dr_cols(a->dy);
    const int32_t *id = checked_ids(a->ids, a->dtokens);
    for (int64_t r = 0; r < dr_rows(a->dy); r++) {
        for (int64_t c = 0; c < channels; c++) {
            const dr_real dy = dr_ref_get(a->dy, r * channels + c);
            if (a->dtokens != NULL) {
                add_to(a->dtokens, id[r] * channels + c, dy);
            }
            if (a->dpositions != NULL) {
                add_to(a->dpositions, r % a->dy->dim[1] * channels + c, dy);
            }
        }
    }
    return DR_OK;
}

/* f32 in both builds: the training peers compute it so, whatever the model's type. */
dr_status DR_REF(timestep_embedding)(dr_context *cx, const dr_timestep_embedding_args *a)
{
    (void)cx;
    const int64_t half = a->y->dim[1] / 2;
    const float log_period = 9.21034037197618f; /* ln(10000) */
    const float *t = a->t->data;
    for (int64_t n = 0; n < a->y->dim[0]; n++) {
        dr_real *cosines = dr_ref_data(a->y) + n * 2 * half;
        dr_real *sines = cosines + half;
        for (int64_t i = 0; i < half; i++) {
            const float frequency = expf(-log_period * (float)i / (float)half);
            const float angle = t[n] * frequency;
            cosines[i] = (dr_real)cosf(angle);
            sines[i] = (dr_real)sinf(angle);
        }
    }
    return DR_OK;
}
