/*
 * What a single file predicts, noise or v, which its shapes do not show.
 */
#include "base/file.h"
#include "train/model/model_file_internal.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_YAML = 1 << 20 };

/* "dir/model.ckpt" -> "dir/model.yaml", in the file's arena. */
static const char *yaml_beside(dr_model_file *f)
{
    const char *base = dr_path_base(f->path);
    const char *dot = strrchr(base, '.');
    const size_t n = dot != NULL && dot != base ? (size_t)(dot - f->path) : strlen(f->path);
    return dr_arena_printf(&f->arena, "%.*s.yaml", (int)n, f->path);
}

/* The value behind "key:" at the start of a line, without quotes; false when there is none. */
static bool yaml_value(const char *text, const char *key, char *out, size_t size)
{
    const size_t n_key = strlen(key);
    for (const char *line = text; line != NULL && *line != '\0';) {
        const char *at = line + strspn(line, " \t");
        if (strncmp(at, key, n_key) == 0 && at[n_key] == ':') {
            at += n_key + 1;
            at += strspn(at, " \t\"'");
            (void)snprintf(out, size, "%.*s", (int)strcspn(at, "\"'#\r\n \t"), at);
            return true;
        }
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return false;
}

/* A config of the kind that people keep beside a checkpoint; others tell nothing. */
static bool read_yaml(dr_model_file *f)
{
    const char *path = yaml_beside(f);
    char *text = NULL;
    size_t n = 0;
    char value[16] = "eps"; /* what its reader assumes when the key is absent */
    if (!dr_path_exists(path)) {
        return false;
    }
    if (dr_file_read(path, MAX_YAML, &text, &n) != DR_OK) {
        dr_error_clear();
        return false;
    }
    const bool is_ldm = strstr(text, "LatentDiffusion") != NULL;
    if (is_ldm) {
        (void)yaml_value(text, "parameterization", value, sizeof value);
    }
    free(text);
    if (!is_ldm || (strcmp(value, "v") != 0 && strcmp(value, "eps") != 0)) {
        return false;
    }
    f->config.v_prediction = value[0] == 'v';
    f->prediction_by = path;
    return true;
}

/* Ours, or sd-scripts' modelspec.prediction_type ("epsilon", "v"). */
static bool read_metadata(dr_model_file *f, const dr_tensor_file *s)
{
    static const char *const keys[] = {DR_FACT_PREDICTION, "modelspec.prediction_type"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *text = dr_tensor_file_meta_get(s, keys[i]);
        if (text != NULL && (text[0] == 'v' || strncmp(text, "eps", 3) == 0)) {
            f->config.v_prediction = text[0] == 'v';
            f->prediction_by = dr_arena_printf(&f->arena, "its metadata (%s)", keys[i]);
            return true;
        }
    }
    return false;
}

void dr_model_find_prediction(dr_model_file *f, const dr_tensor_file *s)
{
    f->prediction_by = NULL;
    f->config.v_prediction = false;
    if (read_metadata(f, s)) {
        return;
    }
    if (dr_tensor_file_find(s, "v_pred") != NULL) { /* the mark that people put into v models */
        f->config.v_prediction = true;
        f->prediction_by = "its tensor v_pred";
        return;
    }
    (void)read_yaml(f);
}
