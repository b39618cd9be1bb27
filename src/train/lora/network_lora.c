/*
 * A network with adapters: the networks themselves are frozen.
 */
#include "base/log.h"
#include "train/lora/lora_merge.h"
#include "train/network.h"

#include <stdlib.h>

/* The file whose ranks are taken, if that is asked for; else *file stays NULL. */
static dr_status open_ranks(const dr_lora_settings *s, dr_lora_file **file)
{
    return s->dim_from_weights ? dr_lora_file_open(file, s->weights) : DR_OK;
}

/* Adapters whose rate is 0, and those of layers that do not run, are no part of the training. */
static void choose_trained(dr_network *n)
{
    const dr_lora_settings *s = n->o.lora;
    const double rate[2] = {
        [DR_PART_UNET] = s->lr_unet, [DR_PART_TEXT_ENCODER] = s->lr_text_encoder};
    for (int pass = 0; pass < 2; pass++) { /* first what is not trained: the rest is a suffix */
        for (int part = DR_PART_TEXT_ENCODER; part >= DR_PART_UNET; part--) {
            dr_params *set = &n->lora->set[part];
            const bool trained = set->n > 0 && rate[part] != 0.0;
            if (trained != (pass == 1)) {
                continue;
            }
            n->lora_at[part] = n->n_values;
            n->n_values += set->n_elems;
            n->trained[part].set = trained ? set : NULL;
            dr_params_set_trainable(set, trained);
        }
    }
}

static void freeze_scalars(dr_network *n)
{
    for (size_t i = 0; i < n->lora->n_sites; i++) {
        const dr_lora_site *site = &n->lora->site[i];
        if (site->scalar_is_fixed) {
            site->adapter.scalar->trainable = false;
        }
    }
}

static void freeze_skipped(dr_network *n)
{
    dr_params *set = &n->lora->set[DR_PART_TEXT_ENCODER];
    const int end = n->clip.first_segment + 1 + n->clip.config.layers - (n->o.clip_skip - 1);
    for (size_t i = 0; i < set->n; i++) {
        set->at[i]->trainable = set->at[i]->trainable && set->at[i]->segment < end;
    }
}

dr_status dr_network_add_lora(dr_network *n)
{
    dr_lora_file *file = NULL;
    n->lora = dr_arena_alloc(&n->arena, sizeof *n->lora);
    DR_TRY(open_ranks(n->o.lora, &file));
    const dr_status st =
        dr_lora_network_init(n->lora, &n->arena, n->o.lora, file, &n->unet_params, &n->text_params);
    dr_lora_file_close(file);
    DR_TRY(st);
    dr_params_set_trainable(&n->text_params, false);
    dr_params_set_trainable(&n->unet_params, false);
    n->clip.trained = &n->lora->set[DR_PART_TEXT_ENCODER];
    n->unet.trained = &n->lora->set[DR_PART_UNET];
    choose_trained(n);
    freeze_skipped(n);
    freeze_scalars(n);
    if (n->trained[DR_PART_UNET].set == NULL && n->trained[DR_PART_TEXT_ENCODER].set == NULL) {
        DR_FAIL(DR_INVALID, "nothing is trained: the learning rates of both parts of the LoRA are "
                            "0, or it has modules in one part only and that part's rate is 0");
    }
    return DR_OK;
}

/* ---- LoRAs merged into the networks
 * -------------------------------------------------------------- */

/* Adds a LoRA to the values of a network, through a host copy where the host cannot reach them. */
static dr_status merge_part(dr_network *n, const dr_lora_file *file, double ratio,
                            dr_model_part part)
{
    const dr_device *device = n->o.backend->device;
    dr_params *set = part == DR_PART_UNET ? &n->unet_params : &n->text_params;
    const dr_dtype dtype = set->at[0]->value.dtype;
    void *values = set->at[0]->value.data; /* the first entry's offset is 0 */
    const size_t bytes = (size_t)set->n_elems * dr_dtype_size(dtype);
    if (device->host_visible) {
        return dr_lora_merge_params(file, ratio, part, set);
    }
    void *host = NULL;
    DR_TRY(dr_try_calloc(bytes, 1, &host));
    dr_status st = device->download(host, values, bytes);
    if (st == DR_OK) {
        dr_params_bind(set, dtype, host, NULL);
        st = dr_lora_merge_params(file, ratio, part, set);
        dr_params_bind(set, dtype, values, NULL);
    }
    if (st == DR_OK) {
        st = device->upload(values, host, bytes);
    }
    free(host);
    return st;
}

dr_status dr_network_merge_lora(dr_network *n, const dr_lora_file *file, double ratio)
{
    DR_TRY(merge_part(n, file, ratio, DR_PART_TEXT_ENCODER));
    return merge_part(n, file, ratio, DR_PART_UNET);
}

dr_status dr_network_merge_base(dr_network *n, const dr_model_config *config)
{
    const dr_lora_settings *s = n->o.lora;
    for (size_t i = 0; i < s->n_base; i++) {
        dr_lora_file *file = NULL;
        DR_TRY(dr_lora_file_open(&file, s->base[i].path));
        dr_status st = dr_lora_check_model(file, config);
        if (st == DR_OK) {
            st = dr_network_merge_lora(n, file, s->base[i].ratio);
        }
        dr_lora_file_close(file);
        DR_TRY(st);
        dr_info("merged %s x %g into the model", s->base[i].path, s->base[i].ratio);
    }
    return DR_OK;
}

/* ---- values of the adapters
 * ---------------------------------------------------------------------- */

static dr_status fill_part(dr_network *n, dr_model_part part, const dr_lora_file *file,
                           size_t *n_missing)
{
    const size_t count = (size_t)n->lora->set[part].n_elems;
    float *host = dr_xcalloc(count + 1, sizeof *host);
    dr_lora_network_start(n->lora, part, n->o.seed, host);
    dr_status st = dr_lora_network_magnitudes(n->lora, part, n->o.backend->device, host);
    if (st == DR_OK && file != NULL) {
        st = dr_lora_network_read(n->lora, part, file, host, n_missing);
    }
    if (st == DR_OK && count > 0) {
        const dr_tensor *first = &n->lora->set[part].at[0]->master;
        void *values = dr_xcalloc(count, dr_dtype_size(first->dtype));
        dr_convert(values, first->dtype, host, DR_F32, count);
        st = n->o.backend->device->upload(first->data, values, count * dr_dtype_size(first->dtype));
        free(values);
    }
    free(host);
    return st;
}

dr_status dr_network_fill_lora(dr_network *n)
{
    const char *path = n->o.lora->weights;
    dr_lora_file *file = NULL;
    size_t n_missing = 0;
    if (path != NULL) {
        DR_TRY(dr_lora_file_open(&file, path));
    }
    dr_status st = fill_part(n, DR_PART_TEXT_ENCODER, file, &n_missing);
    if (st == DR_OK) {
        st = fill_part(n, DR_PART_UNET, file, &n_missing);
    }
    if (st == DR_OK && file != NULL) {
        dr_info("started from %s: %zu modules, %zu new", path, n->lora->n_sites - n_missing,
                n_missing);
    }
    dr_lora_file_close(file);
    return st;
}
