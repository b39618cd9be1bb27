#include "train/run_facts.h"

#include "base/file.h"
#include "io/xxh3.h"
#include "train/check/dataset_facts.h"

/* Of train_db's checkpoints, where sd-scripts writes none: those that name no file or folder and do
 * not depend on when and on how many ranks it was. */
static dr_ss_facts of_checkpoint(const dr_run *r, dr_arena *arena)
{
    const dr_train_config *c = r->c;
    return (dr_ss_facts){
        .output_name = dr_fact_text(c->save.name),
        .learning_rate = dr_fact_float(c->lr),
        .text_encoder_lr =
            r->trains_text_encoder ? dr_fact_float(c->lr_text_encoder) : dr_fact_none(),
        .unet_lr = dr_fact_float(c->lr),
        .v2 = dr_fact_bool(c->model.v2),
        .clip_skip = c->clip_skip > 1 ? dr_fact_int(c->clip_skip) : dr_fact_none(),
        .max_token_length =
            c->n_token_rows > 1 ? dr_fact_int(75 * c->n_token_rows) : dr_fact_none(),
        .cache_latents = dr_fact_bool(c->cache_latents),
        .max_grad_norm = dr_fact_float(c->max_grad_norm),
        .resolution =
            dr_fact_text(dr_arena_printf(arena, "(%d, %d)", (int)c->data.buckets.resolution.w,
                                         (int)c->data.buckets.resolution.h)),
    };
}

/* The files trained from, by name and hash; they are read once, at the first save. */
static dr_status read_files(dr_run *r)
{
    const char *paths[2] = {r->c->model.path, r->c->model.vae};
    dr_file_facts *facts[2] = {&r->model_facts, &r->vae_facts};
    for (int i = 0; i < 2 && !r->has_file_facts; i++) {
        if (paths[i] != NULL && dr_path_exists(paths[i])) {
            DR_TRY(dr_file_facts_read(&r->arena, paths[i], facts[i]));
        } else if (paths[i] != NULL) {
            facts[i]->name = dr_fact_text(paths[i]);
        }
    }
    r->has_file_facts = true;
    return DR_OK;
}

/* A number for this run: the same for the same command at the same time. */
static int64_t session_id(const dr_run *r)
{
    dr_str s = {0};
    dr_str_printf(&s, "%lld %llu %s", (long long)r->started_s, (unsigned long long)r->c->seed,
                  r->c->save.name != NULL ? r->c->save.name : "");
    const dr_xxh3 hash = dr_xxh3_bytes(dr_str_get(&s), s.len);
    dr_str_free(&s);
    return (int64_t)(hash.low & 0xFFFFFFFFU);
}

static dr_status of_lora(dr_run *r, dr_arena *arena, dr_ss_facts *f)
{
    const dr_train_config *c = r->c;
    DR_TRY(read_files(r));
    *f = *c->ss;
    f->session_id = dr_fact_int(session_id(r));
    f->training_started_at = dr_fact_float((double)r->started_s);
    f->training_finished_at = dr_fact_float((double)dr_metadata_now());
    f->num_batches_per_epoch = dr_fact_int((int64_t)r->steps_per_epoch * c->accumulation);
    f->sd_scripts_commit_hash = dr_fact_text("(unknown)");
    f->sd_model_name = r->model_facts.name;
    f->sd_model_hash = r->model_facts.hash;
    f->new_sd_model_hash = r->model_facts.new_hash;
    f->vae_name = r->vae_facts.name;
    f->vae_hash = r->vae_facts.hash;
    f->new_vae_hash = r->vae_facts.new_hash;
    dr_dataset_facts(&r->dataset, &c->data, c->batch_size, arena, f);
    return DR_OK;
}

dr_status dr_run_facts(dr_run *r, dr_arena *arena, int64_t epoch, int64_t global_step,
                       dr_ss_facts *f)
{
    const dr_train_config *c = r->c;
    if (c->lora != NULL) {
        DR_TRY(of_lora(r, arena, f));
    } else {
        *f = of_checkpoint(r, arena);
    }
    f->num_train_images = dr_fact_int(r->dataset.n_train_samples);
    f->num_validation_images = dr_fact_int((int64_t)r->dataset.n_validation_images);
    f->num_reg_images = dr_fact_int(r->dataset.n_reg_reported);
    f->num_epochs = dr_fact_int(dr_run_n_epochs(r));
    f->gradient_accumulation_steps = dr_fact_int(c->accumulation);
    f->max_train_steps = dr_fact_int(r->n_steps);
    f->lr_warmup_steps = dr_fact_int(r->lr.warmup_steps);
    f->base_model_version =
        dr_fact_text(dr_base_model_version(c->model.v2, c->model.v_parameterization));
    f->seed = dr_fact_int((int64_t)c->seed);
    if (c->data.n_parts == 0 || c->lora == NULL) {
        f->total_batch_size = dr_fact_int((int64_t)c->batch_size * r->n_leaves);
    }
    f->steps = dr_fact_int(global_step);
    f->epoch = dr_fact_int(epoch);
    return DR_OK;
}
