/*
 * A model as a Diffusers directory: built under a temporary name, then swapped in by renames.
 */
#include "base/fault.h"
#include "base/file.h"
#include "base/tree.h"
#include "text/tokenizer.h"
#include "train/model/model_output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TEXT_FILE = 64 << 20 }; /* bytes; tokenizer.json has 4 MB */

static dr_status copy_file(const char *from, const char *to)
{
    char *data = NULL;
    size_t n = 0;
    DR_TRY(dr_file_read(from, MAX_TEXT_FILE, &data, &n));
    const dr_status st = dr_file_write(to, data, n);
    free(data);
    return st;
}

/* All regular files of a folder that holds small files only. */
static dr_status copy_folder(const char *from, const char *to)
{
    dr_strv names = {0};
    dr_status st = dr_list_dir(from, &names);
    for (size_t i = 0; st == DR_OK && i < names.n; i++) {
        char *source = dr_path_join(from, names.at[i]);
        char *target = dr_path_join(to, names.at[i]);
        if (!dr_path_is_dir(source)) {
            st = copy_file(source, target);
        }
        free(source);
        free(target);
    }
    dr_strv_free(&names);
    return st;
}

/* A subfolder of the directory being written, created; the caller frees it. */
static dr_status make_folder(const char *dir, const char *name, char **out)
{
    char *path = dr_path_join(dir, name);
    const dr_status st = dr_mkdirs(path);
    if (st != DR_OK) {
        free(path);
        return st;
    }
    *out = path;
    return DR_OK;
}

/* ---- the parts ----------------------------------------------------------------------------- */

static dr_status write_config(const dr_model_job *job, dr_model_part part, const char *path)
{
    const dr_part_source *s = job->source != NULL ? &job->source->part[part] : NULL;
    if (s != NULL && s->form == DR_FORM_DIFFUSERS && s->dir != NULL) {
        char *from = dr_path_join(s->dir, "config.json");
        const dr_status st = copy_file(from, path);
        free(from);
        return st;
    }
    switch (part) {
    case DR_PART_UNET:
        return dr_unet_config_write(job->config, path);
    case DR_PART_TEXT_ENCODER:
        return dr_clip_config_write(job->config, path);
    default:
        return dr_autoencoder_config_write(job->config, path);
    }
}

/* The name of the part's weights in its folder. */
static const char *weights_name(dr_model_part part, dr_save_format format)
{
    if (format == DR_SAVE_DIFFUSERS_BIN) {
        return part == DR_PART_TEXT_ENCODER ? "pytorch_model.bin" : "diffusion_pytorch_model.bin";
    }
    return part == DR_PART_TEXT_ENCODER ? "model.safetensors"
                                        : "diffusion_pytorch_model.safetensors";
}

static dr_status write_part(dr_model_job *job, dr_model_part part, const dr_out_list *list,
                            const char *dir)
{
    char *folder = NULL;
    DR_TRY(make_folder(dir, dr_model_part_name(part), &folder));
    char *config = dr_path_join(folder, "config.json");
    char *weights = dr_path_join(folder, weights_name(part, job->format));
    dr_status st = write_config(job, part, config);
    if (st == DR_OK) {
        const dr_out_file file = {.path = weights,
                                  .container = job->format == DR_SAVE_DIFFUSERS_BIN
                                                   ? DR_OUT_STATE_DICT
                                                   : DR_OUT_SAFETENSORS,
                                  .progress = &job->progress};
        st = dr_out_write(list, &file);
    }
    free(config);
    free(weights);
    free(folder);
    return st;
}

/* The source's folder, or NULL when it is no directory or lacks it; the caller frees it. */
static char *source_folder(const dr_model_job *job, const char *name)
{
    if (job->source == NULL || !job->source->directory) {
        return NULL;
    }
    char *path = dr_path_join(job->source->path, name);
    if (!dr_path_is_dir(path)) {
        free(path);
        return NULL;
    }
    return path;
}

static dr_status write_tokenizer(const dr_model_job *job, const char *dir)
{
    char *folder = NULL;
    DR_TRY(make_folder(dir, "tokenizer", &folder));
    char *from = source_folder(job, "tokenizer");
    const dr_status st =
        from != NULL
            ? copy_folder(from, folder)
            : dr_tokenizer_save(job->config->v2 ? DR_TOKENIZER_SD2 : DR_TOKENIZER_SD1, folder);
    free(from);
    free(folder);
    return st;
}

static dr_status write_scheduler(const dr_model_job *job, const char *dir)
{
    char *folder = NULL;
    DR_TRY(make_folder(dir, "scheduler", &folder));
    const bool told = job->source != NULL && /* otherwise the flags correct the directory */
                      job->source->told_v_prediction == job->config->v_prediction;
    char *from = told ? source_folder(job, "scheduler") : NULL;
    char *config = dr_path_join(folder, "scheduler_config.json");
    const dr_status st =
        from != NULL ? copy_folder(from, folder) : dr_scheduler_config_write(job->config, config);
    free(config);
    free(from);
    free(folder);
    return st;
}

/* A class name out of a JSON file of the source, else the given one; lives in the arena. */
static const char *class_of(const dr_model_job *job, dr_arena *arena, const char *file,
                            const char *key, const char *otherwise)
{
    const char *name = otherwise;
    dr_json_doc *d = NULL;
    bool found = false;
    if (job->source == NULL || !job->source->directory) {
        return otherwise;
    }
    char *path = dr_path_join(job->source->path, file);
    if (dr_path_exists(path) && dr_json_open(&d, path) == DR_OK &&
        dr_json_kind_of(d, key) == DR_JSON_STRING &&
        dr_json_get_string(d, key, &name, &found) == DR_OK) {
        name = dr_arena_strdup(arena, name);
    }
    dr_json_close(d);
    free(path);
    return name;
}

static dr_status write_index(const dr_model_job *job, const char *dir)
{
    dr_arena arena;
    dr_arena_init(&arena);
    const char *scheduler =
        class_of(job, &arena, "scheduler/scheduler_config.json", "_class_name", "DDIMScheduler");
    if (job->source != NULL && job->source->told_v_prediction != job->config->v_prediction) {
        scheduler = "DDIMScheduler"; /* as write_scheduler */
    }
    const char *tokenizer =
        class_of(job, &arena, "model_index.json", "tokenizer/1", "CLIPTokenizer");
    char *path = dr_path_join(dir, "model_index.json");
    const dr_status st = dr_model_index_write(job->config, scheduler, tokenizer, path);
    free(path);
    dr_arena_deinit(&arena);
    return st;
}

static dr_status write_parts(dr_model_job *job, const dr_out_list *lists, const char *dir)
{
    DR_TRY(dr_mkdirs(dir));
    DR_TRY(write_tokenizer(job, dir));
    DR_TRY(write_scheduler(job, dir));
    for (int i = 0; i < DR_MODEL_PARTS; i++) {
        DR_TRY(write_part(job, (dr_model_part)i, &lists[i], dir));
    }
    return write_index(job, dir); /* last: without it the directory is no model */
}

/* Everything, after a look at the room that it takes. */
static dr_status write_all(dr_model_job *job, const char *dir)
{
    enum { SMALL_FILES = 4 << 20 }; /* bytes: tokenizer, configs, headers */
    dr_out_list lists[DR_MODEL_PARTS];
    dr_status st = DR_OK;
    job->progress.all = 0;
    for (int i = 0; i < DR_MODEL_PARTS; i++) {
        dr_out_init(&lists[i], job->config, job->values);
        if (st == DR_OK) {
            st = dr_out_add_diffusers(&lists[i], (dr_model_part)i);
        }
        job->progress.all += dr_out_bytes(&lists[i]);
    }
    if (st == DR_OK) {
        st = dr_check_free_space(dir, job->progress.all + SMALL_FILES);
    }
    if (st == DR_OK) {
        st = write_parts(job, lists, dir);
    }
    for (int i = 0; i < DR_MODEL_PARTS; i++) {
        dr_out_deinit(&lists[i]);
    }
    return st;
}

/* ---- replacing ----------------------------------------------------------------------------- */

dr_status dr_model_check_directory(const char *path)
{
    if (!dr_path_exists(path)) {
        return DR_OK;
    }
    if (!dr_path_is_dir(path)) {
        DR_FAIL(DR_OUTPUT,
                "%s: a file is in the way of the directory to write; remove it or choose another "
                "name",
                path);
    }
    dr_strv names = {0};
    DR_TRY(dr_list_dir(path, &names));
    bool is_model = names.n == 0;
    for (size_t i = 0; i < names.n; i++) {
        is_model = is_model || strcmp(names.at[i], "model_index.json") == 0;
    }
    dr_strv_free(&names);
    if (!is_model) {
        DR_FAIL(DR_OUTPUT,
                "%s: the directory exists and is no model (no model_index.json), so it is not "
                "replaced; remove it or choose another name",
                path);
    }
    return DR_OK;
}

/* Files of the old directory that the new one lacks move over; the rest goes. Its index goes first,
 * so that what a kill leaves is no model. */
static void retire(const char *old, const char *path)
{
    dr_strv names = {0};
    char *index = dr_path_join(old, "model_index.json");
    (void)unlink(index);
    free(index);
    if (dr_list_dir(old, &names) == DR_OK) {
        for (size_t i = 0; i < names.n; i++) {
            char *from = dr_path_join(old, names.at[i]);
            char *to = dr_path_join(path, names.at[i]);
            if (!dr_path_exists(to)) {
                (void)rename(from, to);
            }
            free(from);
            free(to);
        }
    }
    dr_strv_free(&names);
    dr_tree_remove(old);
}

static dr_status swap_in(const char *tmp, const char *path)
{
    bool swapped = false;
    DR_TRY(dr_tree_swap(tmp, path, &swapped));
    if (swapped) {
        retire(tmp, path);
    }
    return DR_OK;
}

dr_status dr_model_write_directory(dr_model_job *job)
{
    dr_str path = {0};
    dr_str tmp = {0};
    dr_str_add(&path, job->path);
    while (path.len > 1 && path.data[path.len - 1] == '/') {
        path.data[--path.len] = '\0';
    }
    dr_str_printf(&tmp, "%s.tmp.%ld", path.data, (long)getpid());
    dr_status st = dr_model_check_directory(path.data);
    if (st == DR_OK) {
        st = write_all(job, dr_str_get(&tmp));
        if (st == DR_OK) {
            st = swap_in(dr_str_get(&tmp), path.data);
            dr_sync_parent(path.data);
        }
        if (st != DR_OK) {
            dr_tree_remove(dr_str_get(&tmp));
        }
    }
    dr_str_free(&path);
    dr_str_free(&tmp);
    return st;
}
