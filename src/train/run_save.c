/*
 * Saving the model of a run: in which form, and what its file says about it.
 */
#include "base/log.h"
#include "train/lora/lora_save.h"
#include "train/model/metadata.h"
#include "train/run_facts.h"
#include "train/zero.h"

#include <string.h>

dr_save_format dr_run_save_format(const dr_run *r)
{
    if (r->c->save_as_given) {
        return r->c->save_format;
    }
    const dr_save_format source = dr_model_file_format(r->file);
    if (r->c->use_safetensors) {
        return dr_save_is_directory(source) ? DR_SAVE_DIFFUSERS : DR_SAVE_SAFETENSORS;
    }
    return source;
}

void dr_run_warn_metadata(const dr_run *r)
{
    const dr_modelspec_texts *t = &r->c->metadata;
    const char *const texts[] = {t->title,
#define TEXT_POINTER(name) t->name,
                                 DR_MODELSPEC_TEXT_LIST(TEXT_POINTER)
#undef TEXT_POINTER
    };
    if (r->c->lora != NULL ? strcmp(r->c->lora->ending, ".safetensors") == 0
                           : dr_run_save_format(r) == DR_SAVE_SAFETENSORS) {
        return;
    }
    const char *saved = r->c->lora != NULL                            ? "a torch file"
                        : dr_save_is_directory(dr_run_save_format(r)) ? "a directory"
                                                                      : "a .ckpt file";
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (texts[i] != NULL) {
            dr_warn("--metadata_*: only single .safetensors files hold metadata; this run saves %s",
                    saved);
            return;
        }
    }
}

static dr_modelspec modelspec_of(const dr_run *r)
{
    const dr_train_config *c = r->c;
    return (dr_modelspec){.v2 = c->model.v2,
                          .v_prediction = c->model.v_parameterization,
                          .lora = c->lora != NULL,
                          .output_name = c->save.name,
                          .width = c->data.buckets.resolution.w,
                          .height = c->data.buckets.resolution.h,
                          .min_timestep = c->min_timestep,
                          .max_timestep = c->max_timestep,
                          .clip_skip = c->clip_skip > 1 ? c->clip_skip : 0,
                          .time_s = dr_metadata_now(),
                          .texts = c->metadata};
}

/* Writes the network's values, which the host can read. */
static dr_status save_values(dr_run *r, const char *path, const dr_metadata *m, int64_t epoch,
                             int64_t global_step)
{
    return dr_model_file_save(
        r->file,
        &(dr_model_save){.path = path,
                         .format = dr_run_save_format(r),
                         .dtype = r->c->save_dtype,
                         .unet = &r->net.unet_params,
                         .text_encoder = r->trains_text_encoder ? &r->net.text_params : NULL,
                         .meta = m->at,
                         .n_meta = m->n,
                         .hash = true,
                         .epoch = epoch,
                         .global_step = global_step});
}

static dr_status save_model(dr_run *r, const char *path, const dr_metadata *m, int64_t epoch,
                            int64_t global_step)
{
    void *copy = NULL;
    dr_status st = dr_network_to_host(&r->net, &copy);
    if (st == DR_OK) {
        st = save_values(r, path, m, epoch, global_step);
    }
    dr_network_from_host(&r->net, copy);
    return st;
}

static dr_status save_lora(const dr_run *r, const char *path, const dr_metadata *m)
{
    return dr_lora_network_save(r->net.lora, &(dr_lora_save){.path = path,
                                                             .dialect = r->c->lora->dialect,
                                                             .dtype = r->c->save_dtype,
                                                             .meta = m,
                                                             .device = r->backend->device});
}

dr_status dr_run_save_model(dr_run *r, const char *path, int64_t epoch, int64_t global_step)
{
    const dr_modelspec spec = modelspec_of(r);
    dr_metadata m;
    dr_metadata_init(&m);
    dr_metadata_add_modelspec(&m, &spec);
    dr_ss_facts facts;
    dr_status st = dr_run_facts(r, &m.arena, epoch, global_step, &facts);
    if (st == DR_OK) {
        dr_metadata_add_ss(&m, &facts, r->c->minimal_metadata);
        st = dr_zero_show_weights(r, true);
    }
    if (st != DR_OK) {
        dr_metadata_deinit(&m);
        return st;
    }
    st = r->c->lora != NULL ? save_lora(r, path, &m) : save_model(r, path, &m, epoch, global_step);
    dr_metadata_deinit(&m);
    const dr_status back = dr_zero_show_weights(r, false);
    return st != DR_OK ? st : back;
}
