#include "apps/sample_latents.h"

#include "base/arena.h"
#include "base/str.h"
#include "io/safetensors.h"

#include <stdlib.h>
#include <string.h>

static size_t elems_of_one(const dr_sample_latents *l)
{
    return (size_t)(l->h * l->w * l->c);
}

dr_status dr_sample_latents_alloc(dr_sample_latents *l, int64_t n, int64_t h, int64_t w, int64_t c)
{
    *l = (dr_sample_latents){.n = n, .h = h, .w = w, .c = c};
    DR_TRY(dr_try_calloc((size_t)n, elems_of_one(l) * sizeof(float), (void **)&l->initial));
    return dr_try_calloc((size_t)n, elems_of_one(l) * sizeof(float), (void **)&l->final);
}

void dr_sample_latents_free(dr_sample_latents *l)
{
    free(l->initial);
    free(l->final);
    free(l->noise);
    *l = (dr_sample_latents){0};
}

/* Pictures from (C,H*W) to (H*W,C) and back. */
static void swap_axes(const dr_sample_latents *l, int64_t n, bool to_file, const float *src,
                      float *dst)
{
    int64_t pixels = l->h * l->w;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t p = 0; p < pixels; p++) {
            for (int64_t k = 0; k < l->c; k++) {
                int64_t in_memory = (i * pixels + p) * l->c + k;
                int64_t in_file = (i * l->c + k) * pixels + p;
                dst[to_file ? in_file : in_memory] = src[to_file ? in_memory : in_file];
            }
        }
    }
}

static void describe(const int64_t *shape, int rank, dr_str *out)
{
    for (int i = 0; i < rank; i++) {
        dr_str_printf(out, "%s%lld", i == 0 ? "[" : ",", (long long)shape[i]);
    }
    dr_str_add(out, rank == 0 ? "[]" : "]");
}

static bool is_float(const dr_safetensors_tensor *t)
{
    return t->readable &&
           (t->dtype == DR_F32 || t->dtype == DR_F64 || t->dtype == DR_F16 || t->dtype == DR_BF16);
}

static dr_status check_shape(const dr_sample_latents *l, const dr_safetensors_tensor *t,
                             const char *path)
{
    const int64_t want[] = {l->n, l->c, l->h, l->w};
    if (is_float(t) && t->rank == 4 && memcmp(t->shape, want, sizeof want) == 0) {
        return DR_OK;
    }
    dr_str found = {0};
    dr_str expected = {0};
    describe(t->shape, t->rank, &found);
    describe(want, 4, &expected);
    dr_status st = dr_error_set(DR_FORMAT, __FILE__, __LINE__,
                                "%s: tensor 'initial' is %s %s, expected %s of F32, F64, F16 or "
                                "BF16 (pictures, channels, height/8, width/8)",
                                path, dr_str_get(&found), t->dtype_name, dr_str_get(&expected));
    dr_str_free(&found);
    dr_str_free(&expected);
    return st;
}

static dr_status take_initial(dr_sample_latents *l, const dr_safetensors *file, const char *path)
{
    const dr_safetensors_tensor *t = dr_safetensors_find(file, "initial");
    if (t == NULL) {
        DR_FAIL(DR_FORMAT, "%s: no tensor 'initial', expected the start latents under that name",
                path);
    }
    DR_TRY(check_shape(l, t, path));
    const void *data = NULL;
    void *aligned = NULL;
    float *in_file_order = NULL;
    dr_status st = dr_safetensors_data(file, t, &data);
    if (st == DR_OK) {
        st = dr_try_calloc(t->bytes, 1, &aligned);
    }
    if (st == DR_OK) {
        st = dr_try_calloc((size_t)t->n_elems, sizeof(float), (void **)&in_file_order);
    }
    if (st == DR_OK) {
        memcpy(aligned, data, t->bytes);
        dr_convert(in_file_order, DR_F32, aligned, t->dtype, (size_t)t->n_elems);
        swap_axes(l, l->n, false, in_file_order, l->initial);
    }
    free(aligned);
    free(in_file_order);
    return st;
}

dr_status dr_sample_latents_read(dr_sample_latents *l, const char *path)
{
    dr_safetensors *file = NULL;
    DR_TRY(dr_safetensors_open(&file, path));
    dr_status st = take_initial(l, file, path);
    dr_safetensors_close(file);
    return st;
}

void dr_sample_latents_add_noise(dr_sample_latents *l, const float *noise)
{
    const size_t n = elems_of_one(l);
    l->noise = dr_xrealloc(l->noise, (l->n_noises + 1) * n, sizeof *l->noise);
    memcpy(l->noise + l->n_noises++ * n, noise, n * sizeof *noise);
}

dr_status dr_sample_latents_write(const dr_sample_latents *l, const char *path)
{
    const int64_t n_noises = (int64_t)l->n_noises;
    const int64_t shape[] = {l->n, l->c, l->h, l->w};
    const int64_t noise_shape[] = {n_noises, l->c, l->h, l->w};
    const dr_safetensors_entry entries[] = {
        {.name = "initial", .dtype = DR_F32, .rank = 4, .shape = shape},
        {.name = "final", .dtype = DR_F32, .rank = 4, .shape = shape},
        {.name = "noise", .dtype = DR_F32, .rank = 4, .shape = noise_shape}};
    const dr_safetensors_content content = {.entries = entries, .n_entries = n_noises > 0 ? 3 : 2};
    const size_t n = (size_t)l->n * elems_of_one(l);
    float *all = NULL;
    DR_TRY(dr_try_calloc(2 * n + l->n_noises * elems_of_one(l), sizeof(float), (void **)&all));
    swap_axes(l, l->n, true, l->initial, all);
    swap_axes(l, l->n, true, l->final, all + n);
    swap_axes(l, n_noises, true, l->noise, all + 2 * n);
    const void *const data[] = {all, all + n, all + 2 * n};
    dr_status st = dr_safetensors_save(path, &content, data);
    free(all);
    return st;
}
