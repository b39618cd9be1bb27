#include "train/sample/sample_prompts.h"

#include "base/arena.h"
#include "base/file.h"
#include "base/log.h"
#include "io/config_doc.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_FILE_BYTES = 16 << 20, MOST_STEPS = 1000 };

/* ---- one setting --------------------------------------------------------------------------- */

typedef enum setting {
    PROMPT,
    NEGATIVE,
    WIDTH,
    HEIGHT,
    SEED,
    STEPS,
    SCALE,
    SAMPLER,
    N_SETTINGS
} setting;

static const struct {
    const char *letter, *key; /* in lines, in tables */
} names[N_SETTINGS] = {
    [PROMPT] = {NULL, "prompt"}, [NEGATIVE] = {"n", "negative_prompt"},
    [WIDTH] = {"w", "width"},    [HEIGHT] = {"h", "height"},
    [SEED] = {"d", "seed"},      [STEPS] = {"s", "sample_steps"},
    [SCALE] = {"l", "scale"},    [SAMPLER] = {"ss", "sample_sampler"},
};

static size_t add_text(dr_sample_prompts *p, const char *text, size_t n)
{
    const size_t at = p->texts.len;
    dr_str_add_n(&p->texts, text, n);
    dr_str_add_n(&p->texts, "", 1);
    return at;
}

static dr_sample_prompt *add_prompt(dr_sample_prompts *p, dr_sampler_kind sampler)
{
    if (p->n == p->cap) {
        p->cap = p->cap > 0 ? p->cap * 2 : 8;
        p->at = dr_xrealloc(p->at, p->cap, sizeof *p->at);
    }
    if (p->texts.len == 0) {
        (void)add_text(p, "", 0); /* at 0: no text */
    }
    p->at[p->n] = (dr_sample_prompt){.sampler = sampler,
                                     .n_steps = 30,
                                     .width = 512,
                                     .height = 512,
                                     .seed = -1,
                                     .cfg_scale = 7.5};
    return &p->at[p->n++];
}

static int64_t *number_of(dr_sample_prompt *q, setting what)
{
    return what == WIDTH    ? &q->width
           : what == HEIGHT ? &q->height
           : what == SEED   ? &q->seed
                            : &q->n_steps;
}

/* A whole number as text or value: in [least, most]. */
static dr_status set_number(dr_sample_prompt *q, setting what, const char *place, int64_t value)
{
    const int64_t least = what == SEED ? 0 : 1;
    const int64_t most = what == SEED ? INT64_MAX : what == STEPS ? MOST_STEPS : 16384;
    if (value < least || value > most) {
        DR_FAIL(DR_FORMAT, "%s: %s: found %lld, expected %lld to %lld", place, names[what].key,
                (long long)value, (long long)least, (long long)most);
    }
    *number_of(q, what) = value;
    return DR_OK;
}

static dr_status set_scale(dr_sample_prompt *q, const char *place, double value)
{
    if (!(value >= 0.0 && value <= 1000.0)) {
        DR_FAIL(DR_FORMAT, "%s: scale: found %g, expected 0 to 1000", place, value);
    }
    q->cfg_scale = value;
    return DR_OK;
}

static dr_status set_sampler(dr_sample_prompt *q, const char *place, const char *name)
{
    if (dr_sampler_kind_from_name(name, &q->sampler) != DR_OK) {
        DR_FAIL(DR_FORMAT, "%s: sampler \"%s\": expected one of %s", place, name, DR_SAMPLER_NAMES);
    }
    return DR_OK;
}

/* ---- lines --------------------------------------------------------------------------------- */

static dr_status set_from_text(dr_sample_prompts *p, setting what, const char *place,
                               const char *text)
{
    dr_sample_prompt *q = &p->at[p->n - 1];
    int64_t number = 0;
    double real = 0.0;
    if (what == NEGATIVE) {
        q->negative = add_text(p, text, strlen(text));
        return DR_OK;
    }
    if (what == SAMPLER) {
        return set_sampler(q, place, text);
    }
    if (what == SCALE ? !dr_parse_f64(text, &real) : !dr_parse_i64(text, &number)) {
        DR_FAIL(DR_FORMAT, "%s: --%s: found '%s', expected a %s", place, names[what].letter, text,
                what == SCALE ? "number" : "whole number");
    }
    if (what == STEPS) { /* as sd-scripts, in lines only */
        number = number < 1 ? 1 : number > MOST_STEPS ? MOST_STEPS : number;
    }
    return what == SCALE ? set_scale(q, place, real) : set_number(q, what, place, number);
}

/* "w 512", without the dashes; text is changed. */
static dr_status take_option(dr_sample_prompts *p, const char *place, char *text)
{
    const size_t n = strcspn(text, " \t");
    char *value = text + n;
    value += strspn(value, " \t");
    for (size_t end = strlen(value); end > 0 && isspace((unsigned char)value[end - 1]);) {
        value[--end] = '\0';
    }
    text[n] = '\0';
    for (int i = 0; i < N_SETTINGS; i++) {
        if (names[i].letter != NULL && strcasecmp(text, names[i].letter) == 0) {
            return set_from_text(p, (setting)i, place, value);
        }
    }
    dr_warn("%s: --%s is not known here and is left out; known are --n --w --h --d --s --l --ss",
            place, text);
    return DR_OK;
}

/* A prompt with its options; line is changed. */
static dr_status take_line(dr_sample_prompts *p, dr_sampler_kind sampler, const char *place,
                           char *line)
{
    dr_sample_prompt *q = add_prompt(p, sampler);
    char *option = strstr(line, " --");
    q->prompt = add_text(p, line, option != NULL ? (size_t)(option - line) : strlen(line));
    while (option != NULL) {
        char *next = strstr(option + 3, " --");
        if (next != NULL) {
            *next = '\0';
        }
        DR_TRY(take_option(p, place, option + 3));
        option = next;
    }
    return DR_OK;
}

static dr_status read_lines(const char *path, dr_sampler_kind sampler, dr_sample_prompts *out)
{
    char *text = NULL;
    size_t n = 0;
    DR_TRY(dr_file_read(path, MAX_FILE_BYTES, &text, &n));
    dr_status st = DR_OK;
    char *line = strncmp(text, "\xEF\xBB\xBF", 3) == 0 ? text + 3 : text;
    for (int number = 1; st == DR_OK && line != NULL; number++) {
        char *end = strchr(line, '\n');
        if (end != NULL) {
            *end = '\0';
        }
        const bool comment = line[0] == '#';
        line += strspn(line, " \t\r\v\f");
        for (size_t len = strlen(line); len > 0 && isspace((unsigned char)line[len - 1]);) {
            line[--len] = '\0';
        }
        if (!comment && line[0] != '\0') {
            dr_str place = {0};
            dr_str_printf(&place, "%s:%d", path, number);
            st = take_line(out, sampler, dr_str_get(&place), line);
            dr_str_free(&place);
        }
        line = end != NULL ? end + 1 : NULL;
    }
    free(text);
    return st;
}

/* ---- tables -------------------------------------------------------------------------------- */

static dr_status wrong_kind(const char *place, const char *key, const dr_config_value *v,
                            const char *expected)
{
    DR_FAIL(DR_FORMAT, "%s: %s: found %s, expected %s", place, key, dr_config_kind_name(v->kind),
            expected);
}

static dr_status set_from_value(dr_sample_prompts *p, setting what, const char *place,
                                const dr_config_value *v)
{
    dr_sample_prompt *q = &p->at[p->n - 1];
    const char *key = names[what].key;
    if (what == PROMPT || what == NEGATIVE || what == SAMPLER) {
        if (v->kind != DR_CONFIG_STRING || !dr_config_is_plain(v)) {
            return wrong_kind(place, key, v, "text");
        }
        if (what == SAMPLER) {
            return set_sampler(q, place, v->text);
        }
        const size_t at = add_text(p, v->text, v->n);
        *(what == PROMPT ? &q->prompt : &q->negative) = at;
        return DR_OK;
    }
    if (what == SCALE) {
        return v->kind == DR_CONFIG_REAL || v->kind == DR_CONFIG_INT
                   ? set_scale(q, place, v->f)
                   : wrong_kind(place, key, v, "a number");
    }
    return v->kind == DR_CONFIG_INT ? set_number(q, what, place, v->i)
                                    : wrong_kind(place, key, v, "a whole number");
}

/* The settings of a table for the newest prompt. */
static dr_status take_table(dr_sample_prompts *p, const char *place, const dr_config_value *table)
{
    for (size_t i = 0; i < table->n; i++) {
        const dr_config_member *m = &table->members[i];
        int what = 0;
        while (what < N_SETTINGS && strcmp(m->name, names[what].key) != 0) {
            what++;
        }
        if (what < N_SETTINGS && m->value->kind != DR_CONFIG_NULL) {
            DR_TRY(set_from_value(p, (setting)what, place, m->value));
        } else if (what == N_SETTINGS && strcmp(m->name, "subset") != 0) {
            dr_warn("%s: the key %s is not known here and is left out", place, m->name);
        }
    }
    return DR_OK;
}

static void place_of(const char *path, size_t i, dr_str *out)
{
    out->len = 0;
    dr_str_printf(out, "%s: prompt %zu", path, i + 1);
}

static dr_status read_toml(const char *path, const dr_config_value *root, dr_sampler_kind sampler,
                           dr_sample_prompts *out)
{
    const dr_config_value *prompt = dr_config_find(root, "prompt");
    const dr_config_value *subsets =
        prompt != NULL && prompt->kind == DR_CONFIG_TABLE ? dr_config_find(prompt, "subset") : NULL;
    if (subsets == NULL || subsets->kind != DR_CONFIG_LIST) {
        DR_FAIL(DR_FORMAT, "%s: expected a table [prompt] and one [[prompt.subset]] per prompt",
                path);
    }
    dr_str place = {0};
    dr_status st = DR_OK;
    for (size_t i = 0; st == DR_OK && i < subsets->n; i++) {
        place_of(path, i, &place);
        (void)add_prompt(out, sampler);
        if (subsets->items[i]->kind != DR_CONFIG_TABLE) {
            st = wrong_kind(dr_str_get(&place), "subset", subsets->items[i], "a table");
        }
        if (st == DR_OK) {
            st = take_table(out, dr_str_get(&place), prompt);
        }
        if (st == DR_OK) {
            st = take_table(out, dr_str_get(&place), subsets->items[i]);
        }
    }
    dr_str_free(&place);
    return st;
}

static dr_status take_json_item(const char *place, const dr_config_value *v,
                                dr_sampler_kind sampler, dr_sample_prompts *out)
{
    if (v->kind == DR_CONFIG_TABLE) {
        (void)add_prompt(out, sampler);
        return take_table(out, place, v);
    }
    if (v->kind != DR_CONFIG_STRING || !dr_config_is_plain(v)) {
        return wrong_kind(place, "item", v, "text or a table");
    }
    dr_str line = {0};
    dr_str_add(&line, v->text);
    const dr_status st = take_line(out, sampler, place, line.data);
    dr_str_free(&line);
    return st;
}

static dr_status read_json(const char *path, const dr_config_value *root, dr_sampler_kind sampler,
                           dr_sample_prompts *out)
{
    if (root->kind != DR_CONFIG_LIST) {
        return wrong_kind(path, "the document", root, "a list of prompts");
    }
    dr_str place = {0};
    dr_status st = DR_OK;
    for (size_t i = 0; st == DR_OK && i < root->n; i++) {
        place_of(path, i, &place);
        st = take_json_item(dr_str_get(&place), root->items[i], sampler, out);
    }
    dr_str_free(&place);
    return st;
}

/* ---- files --------------------------------------------------------------------------------- */

static bool ends(const char *path, const char *ending)
{
    const size_t n = strlen(path);
    const size_t m = strlen(ending);
    return n >= m && strcasecmp(path + n - m, ending) == 0;
}

static dr_status read_document(const char *path, dr_sampler_kind sampler, dr_sample_prompts *out)
{
    dr_config_doc *doc = NULL;
    DR_TRY(dr_config_open(&doc, path));
    const dr_status st = ends(path, ".toml") ? read_toml(path, dr_config_root(doc), sampler, out)
                                             : read_json(path, dr_config_root(doc), sampler, out);
    dr_config_close(doc);
    return st;
}

dr_status dr_sample_prompts_read(const char *path, dr_sampler_kind sampler, dr_sample_prompts *out)
{
    const bool lines = ends(path, ".txt");
    *out = (dr_sample_prompts){0};
    if (!lines && !ends(path, ".toml") && !ends(path, ".json")) {
        DR_FAIL(DR_INVALID, "%s: expected a file of prompts that ends in .txt, .toml or .json",
                path);
    }
    DR_TRY(lines ? read_lines(path, sampler, out) : read_document(path, sampler, out));
    if (out->n == 0) {
        DR_FAIL(DR_FORMAT, "%s: the file has no prompt", path);
    }
    return DR_OK;
}

void dr_sample_prompts_free(dr_sample_prompts *p)
{
    free(p->at);
    dr_str_free(&p->texts);
    *p = (dr_sample_prompts){0};
}

dr_status dr_sample_prompts_share(dr_dist *d, dr_sample_prompts *p)
{
    uint64_t sizes[2] = {p->n, p->texts.len};
    DR_TRY(dr_dist_bcast(d, sizes, sizeof sizes, 0));
    if (dr_dist_rank(d) != 0) {
        p->n = p->cap = (size_t)sizes[0];
        p->at = dr_xcalloc(p->n, sizeof *p->at);
        p->texts.data = dr_xcalloc((size_t)sizes[1] + 1, 1);
        p->texts.len = (size_t)sizes[1];
        p->texts.cap = (size_t)sizes[1] + 1;
    }
    DR_TRY(dr_dist_bcast(d, p->at, p->n * sizeof *p->at, 0));
    return dr_dist_bcast(d, p->texts.data, p->texts.len, 0);
}

const char *dr_sample_prompts_text(const dr_sample_prompts *p, size_t i)
{
    return p->texts.data + p->at[i].prompt;
}

const char *dr_sample_prompts_negative(const dr_sample_prompts *p, size_t i)
{
    return p->texts.data + p->at[i].negative;
}

int64_t dr_sample_prompts_side(int64_t side, int64_t multiple)
{
    return side < multiple ? multiple : side - side % multiple;
}

void dr_sample_prompts_request(const dr_sample_prompts *p, size_t i, int64_t multiple,
                               dr_sample_request *q)
{
    const dr_sample_prompt *from = &p->at[i];
    q->prompt = dr_sample_prompts_text(p, i);
    q->negative_prompt = dr_sample_prompts_negative(p, i);
    q->sampler = from->sampler;
    q->n_steps = (int)from->n_steps;
    q->cfg_scale = (float)from->cfg_scale;
    q->width = dr_sample_prompts_side(from->width, multiple);
    q->height = dr_sample_prompts_side(from->height, multiple);
    if (from->seed >= 0) {
        q->seed = (uint64_t)from->seed;
    }
}
