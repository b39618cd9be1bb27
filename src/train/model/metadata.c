#include "train/model/metadata.h"

#include "base/file.h"
#include "base/log.h"
#include "io/digest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { MAX_THUMBNAIL = 16 << 20 }; /* bytes of the picture; headers end at 100 MB */

void dr_metadata_init(dr_metadata *m)
{
    *m = (dr_metadata){0};
    dr_arena_init(&m->arena);
}

void dr_metadata_deinit(dr_metadata *m)
{
    free(m->at);
    dr_arena_deinit(&m->arena);
    *m = (dr_metadata){0};
}

void dr_metadata_add(dr_metadata *m, const char *key, const char *value)
{
    const char *kept = dr_arena_strdup(&m->arena, value != NULL ? value : "None");
    for (size_t i = 0; i < m->n; i++) {
        if (strcmp(m->at[i].key, key) == 0) {
            m->at[i].value = kept;
            return;
        }
    }
    if (m->n == m->cap) {
        m->cap = m->cap > 0 ? 2 * m->cap : 64;
        m->at = dr_xrealloc(m->at, m->cap, sizeof *m->at);
    }
    m->at[m->n++] = (dr_safetensors_meta){dr_arena_strdup(&m->arena, key), kept};
}

const char *dr_metadata_get(const dr_metadata *m, const char *key)
{
    for (size_t i = 0; i < m->n; i++) {
        if (strcmp(m->at[i].key, key) == 0) {
            return m->at[i].value;
        }
    }
    return NULL;
}

/* ---- modelspec ----------------------------------------------------------------------------- */

int64_t dr_metadata_now(void)
{
    const char *fixed = getenv("SOURCE_DATE_EPOCH"); /* of reproducible-builds.org */
    int64_t s = 0;
    if (fixed != NULL && dr_parse_i64(fixed, &s) && s >= 0) {
        return s;
    }
    return (int64_t)time(NULL);
}

static const char *picture_type(const char *path)
{
    static const char *const types[][2] = {{"png", "image/png"},   {"jpg", "image/jpeg"},
                                           {"jpeg", "image/jpeg"}, {"webp", "image/webp"},
                                           {"gif", "image/gif"},   {"bmp", "image/bmp"}};
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot != NULL && i < sizeof types / sizeof *types; i++) {
        if (strcasecmp(dot + 1, types[i][0]) == 0) {
            return types[i][1];
        }
    }
    return "application/octet-stream";
}

static void add_thumbnail(dr_metadata *m, const char *text)
{
    char *data = NULL;
    size_t n = 0;
    if (dr_str_starts(text, "data:")) {
        dr_metadata_add(m, "modelspec.thumbnail", text);
        return;
    }
    if (dr_file_read(text, MAX_THUMBNAIL, &data, &n) != DR_OK) {
        dr_warn("--metadata_thumbnail: %s; the model is saved without a thumbnail",
                dr_error_message());
        dr_error_clear();
        return;
    }
    dr_str url = {0};
    dr_str_printf(&url, "data:%s;base64,", picture_type(text));
    dr_str_add_base64(&url, data, n);
    dr_metadata_add(m, "modelspec.thumbnail", dr_str_get(&url));
    dr_str_free(&url);
    free(data);
}

static void add_texts(dr_metadata *m, const dr_modelspec_texts *t)
{
    static const char thumbnail[] = "thumbnail";
    const struct {
        const char *name, *value;
    } texts[] = {
#define TEXT_ROW(name) {#name, t->name},
        DR_MODELSPEC_TEXT_LIST(TEXT_ROW)
#undef TEXT_ROW
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char key[64];
        (void)snprintf(key, sizeof key, "modelspec.%s", texts[i].name);
        if (texts[i].value != NULL && strcmp(texts[i].name, thumbnail) == 0) {
            add_thumbnail(m, texts[i].value);
        } else if (texts[i].value != NULL) {
            dr_metadata_add(m, key, texts[i].value);
        }
    }
}

static void add_title(dr_metadata *m, const dr_modelspec *s)
{
    const char *title = s->texts.title != NULL ? s->texts.title : s->output_name;
    if (title == NULL) {
        title = dr_arena_printf(&m->arena, "%s@%lld", s->lora ? "LoRA" : "Checkpoint",
                                (long long)s->time_s);
    }
    dr_metadata_add(m, "modelspec.title", title);
}

/* Local time to seconds without a zone, as Python's datetime.isoformat(). */
static void add_date(dr_metadata *m, int64_t time_s)
{
    char text[32];
    struct tm tm;
    const time_t t = (time_t)time_s;
    if (localtime_r(&t, &tm) != NULL && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm) > 0) {
        dr_metadata_add(m, "modelspec.date", text);
    }
}

void dr_metadata_add_modelspec(dr_metadata *m, const dr_modelspec *s)
{
    const int64_t side = s->v2 && s->v_prediction ? 768 : 512;
    const char *family = !s->v2            ? "stable-diffusion-v1"
                         : s->v_prediction ? "stable-diffusion-v2-768-v"
                                           : "stable-diffusion-v2-512";
    dr_metadata_add(m, "modelspec.sai_model_spec", "1.0.1");
    dr_metadata_add(m, "modelspec.architecture",
                    dr_arena_printf(&m->arena, "%s%s", family, s->lora ? "/lora" : ""));
    dr_metadata_add(m, "modelspec.implementation",
                    s->lora ? "diffusers" : "https://github.com/Stability-AI/generative-models");
    dr_metadata_add(m, "modelspec.implementation_version", "dreamrun/" DR_VERSION);
    add_title(m, s);
    dr_metadata_add(m, "modelspec.resolution",
                    dr_arena_printf(&m->arena, "%lldx%lld",
                                    (long long)(s->width > 0 ? s->width : side),
                                    (long long)(s->height > 0 ? s->height : side)));
    add_date(m, s->time_s);
    dr_metadata_add(m, "modelspec.prediction_type", s->v_prediction ? "v" : "epsilon");
    if (s->min_timestep >= 0 || s->max_timestep >= 0) {
        dr_metadata_add(
            m, "modelspec.timestep_range",
            dr_arena_printf(&m->arena, "%lld,%lld",
                            (long long)(s->min_timestep >= 0 ? s->min_timestep : 0),
                            (long long)(s->max_timestep >= 0 ? s->max_timestep : 1000)));
    }
    if (s->clip_skip > 0) {
        dr_metadata_add(m, "modelspec.encoder_layer",
                        dr_arena_printf(&m->arena, "%d", s->clip_skip));
    }
    add_texts(m, &s->texts);
}

/* ---- ss_* ---------------------------------------------------------------------------------- */

dr_fact dr_fact_none(void)
{
    return (dr_fact){.kind = DR_FACT_NONE};
}

dr_fact dr_fact_int(int64_t v)
{
    return (dr_fact){.kind = DR_FACT_INT, .i = v};
}

dr_fact dr_fact_float(double v)
{
    return (dr_fact){.kind = DR_FACT_FLOAT, .f = v};
}

dr_fact dr_fact_bool(bool v)
{
    return (dr_fact){.kind = DR_FACT_BOOL, .i = v ? 1 : 0};
}

dr_fact dr_fact_text(const char *text)
{
    return text != NULL ? (dr_fact){.kind = DR_FACT_TEXT, .text = text} : dr_fact_none();
}

static void add_fact(dr_metadata *m, const char *key, const dr_fact *fact)
{
    char text[32];
    switch (fact->kind) {
    case DR_FACT_ABSENT:
        return;
    case DR_FACT_NONE:
        dr_metadata_add(m, key, NULL);
        return;
    case DR_FACT_INT:
        (void)snprintf(text, sizeof text, "%lld", (long long)fact->i);
        break;
    case DR_FACT_FLOAT:
        dr_float_repr(fact->f, text);
        break;
    case DR_FACT_BOOL:
        (void)snprintf(text, sizeof text, "%s", fact->i != 0 ? "True" : "False");
        break;
    case DR_FACT_TEXT:
        dr_metadata_add(m, key, fact->text);
        return;
    }
    dr_metadata_add(m, key, text);
}

static bool is_minimal(const char *key)
{
    static const char *const keys[] = {
        "ss_v2",          "ss_base_model_version", "ss_network_module",
        "ss_network_dim", "ss_network_alpha",      "ss_network_args"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcmp(keys[i], key) == 0) {
            return true;
        }
    }
    return false;
}

void dr_metadata_add_ss(dr_metadata *m, const dr_ss_facts *facts, bool minimal)
{
    const struct {
        const char *key;
        const dr_fact *fact;
    } rows[] = {
#define FACT_ROW(name) {"ss_" #name, &facts->name},
        DR_SS_FACT_LIST(FACT_ROW)
#undef FACT_ROW
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!minimal || is_minimal(rows[i].key)) {
            add_fact(m, rows[i].key, rows[i].fact);
        }
    }
}

const char *dr_base_model_version(bool v2, bool v_prediction)
{
    if (v_prediction) {
        return v2 ? "sd_v2_v" : "sd_v1_v";
    }
    return v2 ? "sd_v2" : "sd_v1";
}

dr_status dr_file_facts_read(dr_arena *arena, const char *path, dr_file_facts *out)
{
    enum { LEGACY_BEGIN = 0x100000, LEGACY_BYTES = 0x10000, LEGACY_DIGITS = 8 };
    char hex[DR_DIGEST_HEX];
    *out = (dr_file_facts){.name = dr_fact_text(dr_arena_strdup(arena, dr_path_base(path)))};
    if (dr_path_is_dir(path)) {
        out->hash = dr_fact_text("IsADirectory");
        out->new_hash = out->hash;
        return DR_OK;
    }
    DR_TRY(dr_digest_file(DR_SHA256, path, LEGACY_BEGIN, LEGACY_BYTES, hex));
    out->hash = dr_fact_text(dr_arena_strndup(arena, hex, LEGACY_DIGITS));
    DR_TRY(dr_digest_file(DR_SHA256, path, 0, UINT64_MAX, hex));
    out->new_hash = dr_fact_text(dr_arena_strdup(arena, hex));
    return DR_OK;
}
