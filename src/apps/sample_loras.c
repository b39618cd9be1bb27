#include "apps/sample_loras.h"

#include "apps/lora_tools.h"
#include "base/file.h"
#include "base/log.h"
#include "io/digest.h"
#include "io/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct dr_sample_lora one;

/* "dog.safetensors:0.8" */
static dr_status split(dr_arena *a, const char *word, const char **path, double *weight)
{
    const char *colon = strrchr(word, ':');
    *path = word;
    *weight = 1.0;
    if (colon == NULL || dr_path_exists(word)) {
        return DR_OK;
    }
    *path = dr_arena_strndup(a, word, (size_t)(colon - word));
    if (dr_path_exists(*path) && (!dr_parse_f64(colon + 1, weight) || !isfinite(*weight))) {
        DR_FAIL(DR_INVALID, "--lora %s: found '%s' behind the file, expected a finite number", word,
                colon + 1);
    }
    return DR_OK;
}

/* The hash of what stands behind the header; trainers write it into that. */
static dr_status find_hash(one *l, const char *path)
{
    const dr_tensor_file *f = dr_lora_file_tensors(l->file);
    const char *told = dr_tensor_file_meta_get(f, "sshs_model_hash");
    char hex[DR_DIGEST_HEX] = "";
    if (told == NULL && dr_tensor_file_container(f) == DR_CONTAINER_SAFETENSORS) {
        dr_map m = {0};
        DR_TRY(dr_map_open(&m, path));
        const size_t at = dr_safetensors_data_at(m.data, m.size);
        dr_digest_bytes(DR_SHA256, m.data + at, m.size - at, hex);
        dr_map_close(&m);
    }
    (void)snprintf(l->hash, sizeof l->hash, "%.12s", told != NULL ? told : hex);
    return DR_OK;
}

static dr_status open_one(dr_sample_loras *l, const char *word, const dr_model_config *config)
{
    const char *path = NULL;
    one *next = &l->at[l->n];
    DR_TRY(split(&l->arena, word, &path, &next->weight));
    DR_TRY(dr_lora_tool_open(path, &next->file));
    l->n++;
    next->title = dr_path_title(&l->arena, path);
    DR_TRY(find_hash(next, path));
    return dr_lora_check_model(next->file, config);
}

dr_status dr_sample_loras_open(dr_sample_loras *l, const dr_strv *words,
                               const dr_model_config *config)
{
    dr_arena_init(&l->arena);
    l->at = dr_arena_array(&l->arena, words->n, sizeof *l->at);
    for (size_t i = 0; i < words->n; i++) {
        DR_TRY(open_one(l, words->at[i], config));
    }
    return DR_OK;
}

dr_status dr_sample_loras_merge(const dr_sample_loras *l, dr_network *net)
{
    for (size_t i = 0; i < l->n; i++) {
        DR_TRY(dr_network_merge_lora(net, l->at[i].file, l->at[i].weight));
    }
    return DR_OK;
}

void dr_sample_loras_tags(const dr_sample_loras *l, dr_str *out)
{
    for (size_t i = 0; i < l->n; i++) {
        dr_str_printf(out, " <lora:%s:%g>", l->at[i].title, l->at[i].weight);
    }
}

void dr_sample_loras_hashes(const dr_sample_loras *l, dr_str *out)
{
    bool any = false;
    for (size_t i = 0; i < l->n; i++) {
        if (l->at[i].hash[0] != '\0') {
            dr_str_printf(out, "%s%s: %s", any ? ", " : ", Lora hashes: \"", l->at[i].title,
                          l->at[i].hash);
            any = true;
        }
    }
    dr_str_add(out, any ? "\"" : "");
}

void dr_sample_loras_close(dr_sample_loras *l)
{
    for (size_t i = 0; i < l->n; i++) {
        dr_lora_file_close(l->at[i].file);
    }
    dr_arena_deinit(&l->arena);
    *l = (dr_sample_loras){0};
}
