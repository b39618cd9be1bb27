/*
 * Reading values out of an open model: all of a part into bound memory, and the hash of the VAE.
 */
#include "io/xxh3.h"
#include "train/model/model_file_internal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* ---- load ---------------------------------------------------------------------------------- */

enum { MAX_LOADERS = 64 };

typedef struct load_job { /* shared by the threads, which take one parameter after the other */
    const dr_model_file *file;
    dr_model_part part;
    const dr_params *set;
    atomic_size_t next;
    atomic_bool failed;
} load_job;

typedef struct loader {
    load_job *job;
    pthread_t thread;
    dr_status status;
    dr_error_copy error;
} loader;

static dr_status load_param(const load_job *j, const dr_param *p)
{
    dr_place place;
    const void *data = NULL;
    DR_CHECK(p->value.data != NULL, "%s is not bound", p->name);
    DR_TRY(dr_model_place(j->file, j->part, p, &place));
    DR_TRY(dr_place_data(&place, &data));
    dr_param_from_file_order(p, data, place.tensor->dtype, p->value.data, p->value.dtype);
    if (place.bytes == place.tensor->bytes) { /* others may be reading their rows of a fused one */
        dr_place_release(&place);
    }
    return DR_OK;
}

static void *run_loader(void *arg)
{
    loader *l = arg;
    load_job *j = l->job;
    for (size_t i = atomic_fetch_add(&j->next, 1);
         i < j->set->n && l->status == DR_OK && !atomic_load(&j->failed);
         i = atomic_fetch_add(&j->next, 1)) {
        l->status = load_param(j, j->set->at[i]);
    }
    if (l->status != DR_OK) {
        atomic_store(&j->failed, true);
        dr_error_export(&l->error);
    }
    return NULL;
}

/* Tensors that several parameters share, when no thread reads them any more. */
static void release_fused(const load_job *j)
{
    for (size_t i = 0; i < j->set->n; i++) {
        dr_place place;
        if (dr_model_place(j->file, j->part, j->set->at[i], &place) == DR_OK &&
            place.bytes != place.tensor->bytes) {
            dr_place_release(&place);
        }
    }
}

dr_status dr_model_file_load(const dr_model_file *f, dr_model_part part, dr_params *set)
{
    load_job job = {.file = f, .part = part, .set = set};
    loader loaders[MAX_LOADERS];
    const int wanted = f->threads < MAX_LOADERS ? f->threads : MAX_LOADERS;
    int n = 1;
    for (int i = 0; i < wanted || i == 0; i++) {
        loaders[i] = (loader){.job = &job};
    }
    while (n < wanted && pthread_create(&loaders[n].thread, NULL, run_loader, &loaders[n]) == 0) {
        n++;
    }
    (void)run_loader(&loaders[0]); /* this thread is the first of them */
    for (int i = 1; i < n; i++) {
        (void)pthread_join(loaders[i].thread, NULL);
    }
    release_fused(&job);
    for (int i = 0; i < n; i++) {
        if (loaders[i].status != DR_OK) {
            dr_error_import(&loaders[i].error);
            return dr_error_frame(loaders[i].status, __FILE__, __LINE__);
        }
    }
    return DR_OK;
}

dr_status dr_model_file_read(const dr_model_file *f, dr_model_part part, const dr_param *p,
                             float *out)
{
    dr_place place;
    const void *data = NULL;
    DR_TRY(dr_model_place(f, part, p, &place));
    DR_TRY(dr_place_data(&place, &data));
    dr_convert(out, DR_F32, data, place.tensor->dtype, (size_t)p->n);
    dr_place_release(&place);
    return DR_OK;
}

/* ---- hash ---------------------------------------------------------------------------------- */

static dr_status hash_encoder(const dr_model_file *f, const dr_params *set, dr_str *facts)
{
    char hex[DR_XXH3_HEX];
    for (size_t i = 0; i < set->n; i++) {
        dr_place place;
        const void *data = NULL;
        DR_TRY(dr_model_place(f, DR_PART_VAE, set->at[i], &place));
        DR_TRY(dr_place_data(&place, &data));
        dr_xxh3_hex(dr_xxh3_bytes(data, place.bytes), hex);
        dr_place_release(&place);
        dr_str_printf(facts, "%s %s %s\n", set->at[i]->name, place.tensor->dtype_name, hex);
    }
    return DR_OK;
}

dr_status dr_model_file_hash_vae(dr_model_file *f)
{
    const dr_autoencoder_config *c = &f->config.vae;
    dr_autoencoder ae;
    dr_arena arena;
    dr_params set;
    dr_str facts = {0};
    dr_arena_init(&arena);
    dr_params_init(&set, &arena);
    dr_autoencoder_init(&ae, c, &set, true, false);
    dr_str_printf(&facts, "%s groups %d\n", c->kind == DR_VAE_KL ? "kl" : "tiny",
                  c->kind == DR_VAE_KL ? c->kl.norm_groups : 0);
    const dr_status st = hash_encoder(f, &set, &facts);
    if (st == DR_OK) {
        dr_xxh3_hex(dr_xxh3_bytes(facts.data, facts.len), f->vae_hash);
    }
    dr_str_free(&facts);
    dr_params_deinit(&set);
    dr_arena_deinit(&arena);
    return st;
}

const char *dr_model_file_vae_hash(dr_model_file *f)
{
    if (f->vae_hash[0] == '\0') {
        const dr_status st = dr_model_file_hash_vae(f);
        DR_CHECK(st == DR_OK, "dr_model_file_hash_vae was not called: %s", dr_error_message());
    }
    return f->vae_hash;
}
