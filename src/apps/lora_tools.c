#include "apps/lora_tools.h"

#include "base/file.h"
#include "base/log.h"

#include <string.h>

dr_dtype dr_precision_option(const dr_optset *o, int id, dr_dtype unset)
{
    return dr_opt_is(o, id, "float")  ? DR_F32
           : dr_opt_is(o, id, "fp16") ? DR_F16
           : dr_opt_is(o, id, "bf16") ? DR_BF16
                                      : unset;
}

dr_status dr_lora_tool_open(const char *path, dr_lora_file **out)
{
    size_t n = 0;
    const dr_lora_module *first = NULL;
    DR_TRY(dr_lora_file_open(out, path));
    const dr_status st = dr_lora_file_count_zero(*out, &n, &first);
    if (st != DR_OK) {
        dr_lora_file_close(*out);
        *out = NULL;
        return st;
    }
    if (n > 0) {
        dr_warn("%s: %zu of its %zu modules are zero and change nothing; the first is %s", path, n,
                dr_lora_file_count(*out), first->source);
    }
    return DR_OK;
}

dr_status dr_lora_check_factors(const dr_lora_module *m)
{
    if (dr_lora_has_vector(m)) {
        DR_FAIL(DR_UNSUPPORTED,
                "module %s changes a %s, which no LoRA of two factors can; merge it into a model "
                "with merge_lora --sd_model",
                m->source, m->part[DR_LORA_BIAS] != NULL ? "bias" : "norm");
    }
    return DR_OK;
}

bool dr_lora_told_family(const dr_lora_file *f, bool *v2, bool *v_prediction)
{
    const char *told = dr_tensor_file_meta_get(dr_lora_file_tensors(f), "ss_base_model_version");
    if (told == NULL || !dr_str_starts(told, "sd_v")) {
        return false;
    }
    *v2 = dr_str_starts(told, "sd_v2");
    *v_prediction = dr_str_ends(told, "_v");
    return true;
}

void dr_lora_family(const dr_lora_file *f, bool *v2, bool *v_prediction)
{
    const char *shown = dr_lora_file_facts(f)->family;
    if (!dr_lora_told_family(f, v2, v_prediction)) {
        *v2 = shown != NULL && strcmp(shown, "SD 2.x") == 0;
        *v_prediction = false;
    }
}

const char *dr_path_title(dr_arena *a, const char *path)
{
    const char *base = dr_path_base(path);
    const char *dot = strrchr(base, '.');
    return dr_arena_strndup(a, base, dot != NULL ? (size_t)(dot - base) : strlen(base));
}

const char *dr_model_title(dr_arena *a, const char *path)
{
    dr_tensor_file *f = NULL;
    const char *title = NULL;
    if (!dr_path_is_dir(path) && dr_tensor_file_open(&f, path) == DR_OK) {
        const char *told = dr_tensor_file_meta_get(f, "modelspec.title");
        title = told != NULL ? dr_arena_strdup(a, told) : NULL;
        dr_tensor_file_close(f);
    } else {
        dr_error_clear(); /* whoever uses the file tells what is wrong with it */
    }
    return title != NULL ? title : dr_path_title(a, path);
}

dr_status dr_lora_add_svd(dr_lora_set *set, const char *name, const dr_lora_shape *shape,
                          const dr_svd *svd, int64_t rank, dr_lora_factors **out)
{
    DR_CHECK(rank <= svd->k && shape->out == svd->m && dr_lora_columns(shape) == svd->n,
             "%s: rank %lld of %lld", name, (long long)rank, (long long)svd->k);
    DR_TRY(dr_lora_set_add(set, name, shape, rank, out));
    for (int64_t i = 0; i < svd->m; i++) {
        for (int64_t k = 0; k < rank; k++) {
            (*out)->up[i * rank + k] = (float)((double)svd->u[i * svd->k + k] * svd->s[k]);
        }
    }
    memcpy((*out)->down, svd->vt, (size_t)(rank * svd->n) * sizeof(float));
    return DR_OK;
}

double dr_svd_squares(const dr_svd *svd, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += svd->s[i] * svd->s[i];
    }
    return sum;
}
