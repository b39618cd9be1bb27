/*
 * IDs and lists of files. Names come from the network: only names of known forms are ever used.
 */
#include "base/str.h"
#include "io/json.h"
#include "train/hub/hub_internal.h"

#include <stdio.h>
#include <string.h>

/* ---- IDs ----------------------------------------------------------------------------------- */

static bool is_word_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* A part of a repository's name: letters, digits, '_', '-', '.', neither of these two at an end. */
static bool is_name(const char *s, size_t n)
{
    if (n == 0 || n > 96 || !is_word_char(s[0]) || !is_word_char(s[n - 1])) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const bool twice = i > 0 && s[i] == s[i - 1] && (s[i] == '-' || s[i] == '.');
        if (twice || (!is_word_char(s[i]) && s[i] != '-' && s[i] != '.')) {
            return false;
        }
    }
    return true;
}

/* A relative path of plain names, none of them hidden or "..": branches, files of a repository. */
static bool is_plain_path(const char *s)
{
    bool at_start = true;
    for (; *s != '\0'; s++) {
        const bool start_char = is_word_char(*s);
        if (at_start ? !start_char : !start_char && strchr("-+./ ", *s) == NULL) {
            return false;
        }
        at_start = *s == '/';
    }
    return !at_start;
}

static bool is_weights(const char *name)
{
    return dr_str_ends(name, ".safetensors") || dr_str_ends(name, ".ckpt") ||
           dr_str_ends(name, ".pt") || dr_str_ends(name, ".bin");
}

bool dr_hub_id_parse(dr_hub_id *id, const char *text)
{
    *id = (dr_hub_id){.revision = "main"};
    const size_t owner = strcspn(text, "/");
    if (text[owner] != '/' || !is_name(text, owner)) {
        return false;
    }
    const char *name = text + owner + 1;
    const size_t n = strcspn(name, "@/");
    const char *rest = name + n;
    if (!is_name(name, n) || dr_str_ends(name, ".git")) {
        return false;
    }
    (void)snprintf(id->repo, sizeof id->repo, "%.*s", (int)(owner + 1 + n), text);
    if (*rest == '@') { /* of a file's path the revision is the part before the first slash */
        const size_t len = is_weights(rest) ? strcspn(rest, "/") : strlen(rest);
        if (len < 2 || len >= sizeof id->revision) {
            return false;
        }
        (void)snprintf(id->revision, sizeof id->revision, "%.*s", (int)len - 1, rest + 1);
        rest += len;
    }
    if (*rest == '/') {
        if (strlen(rest) > sizeof id->file || !is_weights(rest) || !is_plain_path(rest + 1)) {
            return false;
        }
        (void)snprintf(id->file, sizeof id->file, "%s", rest + 1);
    }
    return is_plain_path(id->revision) && (id->file[0] != '\0' || !is_weights(id->repo));
}

bool dr_hub_is_commit(const char *text)
{
    return strlen(text) == DR_HUB_COMMIT - 1 &&
           strspn(text, "0123456789abcdef") == DR_HUB_COMMIT - 1;
}

/* ---- the hub's answer ---------------------------------------------------------------------- */

static dr_status read_index(const char *source, const dr_json_doc *doc, char *commit,
                            dr_strv *names)
{
    const char *sha = NULL;
    DR_TRY(dr_json_get_string(doc, "sha", &sha, NULL));
    if (!dr_hub_is_commit(sha)) {
        DR_FAIL(DR_FORMAT, "%s: key 'sha': found '%.60s', expected a commit of 40 hex digits",
                source, sha);
    }
    const dr_json_value *files = dr_json_member(dr_json_root(doc), "siblings");
    if (dr_json_kind_of_value(files) != DR_JSON_LIST) {
        DR_FAIL(DR_FORMAT, "%s: no list 'siblings' of the repository's files", source);
    }
    for (size_t i = 0; i < dr_json_size(files); i++) {
        const dr_json_value *name = dr_json_member(dr_json_item(files, i), "rfilename");
        if (dr_json_kind_of_value(name) != DR_JSON_STRING) {
            DR_FAIL(DR_FORMAT, "%s: siblings/%zu has no text 'rfilename'", source, i);
        }
        dr_strv_push(names, dr_json_string_value(name));
    }
    memcpy(commit, sha, DR_HUB_COMMIT);
    return DR_OK;
}

dr_status dr_hub_index_parse(const char *source, const void *text, size_t n,
                             char commit[DR_HUB_COMMIT], dr_strv *names)
{
    dr_json_doc *doc = NULL;
    DR_TRY(dr_json_parse(&doc, source, text, n));
    const dr_status st = read_index(source, doc, commit, names);
    dr_json_close(doc);
    return st == DR_OK ? DR_OK : dr_error_frame(st, __FILE__, __LINE__);
}

/* ---- which files --------------------------------------------------------------------------- */

static bool has(const dr_strv *names, const char *name)
{
    for (size_t i = 0; i < names->n; i++) {
        if (strcmp(names->at[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* The number N of a first shard "<start>-00001-of-N<end>", 0 when name is none. */
static int shards_of(const char *name, const char *start, const char *end)
{
    enum { MAX_SHARDS = 64 }; /* an SD model's largest part has 5 GB */
    static const char first[] = "-00001-of-";
    const size_t n = strlen(start);
    if (!dr_str_starts(name, start) || !dr_str_starts(name + n, first)) {
        return 0;
    }
    const char *total = name + n + sizeof first - 1;
    char digits[6] = "";
    int64_t count = 0;
    if (strspn(total, "0123456789") != 5 || strcmp(total + 5, end) != 0) {
        return 0;
    }
    memcpy(digits, total, 5);
    return dr_parse_i64(digits, &count) && count <= MAX_SHARDS ? (int)count : 0;
}

/* Adds the shards 1 to n, or nothing when one is not there. */
static bool take_set(const dr_strv *names, const char *start, const char *end, int n,
                     dr_strv *needed)
{
    dr_strv set = {0};
    bool whole = true;
    for (int k = 1; whole && k <= n; k++) {
        dr_str one = {0};
        dr_str_printf(&one, "%s-%05d-of-%05d%s", start, k, n, end);
        whole = has(names, dr_str_get(&one));
        dr_strv_push(&set, dr_str_get(&one));
        dr_str_free(&one);
    }
    for (size_t k = 0; whole && k < set.n; k++) {
        dr_strv_push(needed, set.at[k]);
    }
    dr_strv_free(&set);
    return whole;
}

static bool take_shards(const dr_strv *names, const char *start, const char *end, dr_strv *needed)
{
    for (size_t i = 0; i < names->n; i++) {
        const int n = shards_of(names->at[i], start, end);
        if (n > 0 && take_set(names, start, end, n, needed)) {
            return true;
        }
    }
    return false;
}

/*
 * Adds the weights "<stem><variant><end>", or the set of shards with its index. A variant's shards
 * are spelled stem.fp16-00001-of-00002.end, by older programs stem-00001-of-00002.fp16.end.
 */
static bool take_form(const dr_strv *names, const char *stem, const char *variant, const char *end,
                      dr_strv *needed)
{
    dr_str one = {0};
    dr_str index = {0};
    dr_str start = {0};
    dr_str tail = {0};
    dr_str_printf(&one, "%s%s%s", stem, variant, end);
    dr_str_printf(&index, "%s%s.index%s.json", stem, end, variant);
    dr_str_printf(&start, "%s%s", stem, variant);
    dr_str_printf(&tail, "%s%s", variant, end);
    bool taken = has(names, dr_str_get(&one));
    if (taken) {
        dr_strv_push(needed, dr_str_get(&one));
    } else if (has(names, dr_str_get(&index))) {
        taken = take_shards(names, dr_str_get(&start), end, needed) ||
                take_shards(names, stem, dr_str_get(&tail), needed);
        if (taken) {
            dr_strv_push(needed, dr_str_get(&index));
        }
    }
    dr_str_free(&one);
    dr_str_free(&index);
    dr_str_free(&start);
    dr_str_free(&tail);
    return taken;
}

/* The config and one form of the weights of a folder ("unet/", or "" for the top). */
static bool take_part(const dr_strv *names, const char *folder, bool text_encoder, dr_strv *needed,
                      dr_str *missing)
{
    static const char *const variants[] = {"", ".fp16", ".bf16"};
    dr_str config = {0};
    dr_str safe = {0};
    dr_str bin = {0};
    dr_str_printf(&config, "%sconfig.json", folder);
    dr_str_printf(&safe, "%s%s", folder, text_encoder ? "model" : "diffusion_pytorch_model");
    dr_str_printf(&bin, "%s%s", folder, text_encoder ? "pytorch_model" : "diffusion_pytorch_model");
    const bool configured = has(names, dr_str_get(&config));
    if (configured) {
        dr_strv_push(needed, dr_str_get(&config));
    }
    bool taken = false;
    for (size_t i = 0; !taken && i < sizeof variants / sizeof *variants; i++) {
        taken = take_form(names, dr_str_get(&safe), variants[i], ".safetensors", needed) ||
                take_form(names, dr_str_get(&bin), variants[i], ".bin", needed);
    }
    if (!configured || !taken) {
        dr_str_printf(missing, "%s%s%s", missing->len > 0 ? ", " : "",
                      configured ? dr_str_get(&safe) : dr_str_get(&config),
                      configured ? ".safetensors" : "");
    }
    dr_str_free(&config);
    dr_str_free(&safe);
    dr_str_free(&bin);
    return configured && taken;
}

/* Small files of a model's folders that diffusers reads and a saved model keeps; none is required
 * but the scheduler's. */
static bool take_small(const dr_strv *names, dr_strv *needed, dr_str *missing)
{
    static const char *const small[] = {"tokenizer/vocab.json",
                                        "tokenizer/merges.txt",
                                        "tokenizer/tokenizer_config.json",
                                        "tokenizer/special_tokens_map.json",
                                        "tokenizer/added_tokens.json",
                                        "tokenizer/tokenizer.json",
                                        "feature_extractor/preprocessor_config.json"};
    static const char *const required[] = {"model_index.json", "scheduler/scheduler_config.json"};
    bool good = true;
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        if (has(names, required[i])) {
            dr_strv_push(needed, required[i]);
        } else {
            dr_str_printf(missing, "%s%s", missing->len > 0 ? ", " : "", required[i]);
            good = false;
        }
    }
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        if (has(names, small[i])) {
            dr_strv_push(needed, small[i]);
        }
    }
    return good;
}

bool dr_hub_choose(const dr_strv *names, dr_hub_use use, const dr_hub_id *id, dr_strv *needed,
                   dr_str *missing)
{
    if (id->file[0] != '\0') {
        if (!has(names, id->file)) {
            dr_str_add(missing, id->file);
            return false;
        }
        dr_strv_push(needed, id->file);
        return true;
    }
    if (use == DR_HUB_VAE) {
        return take_part(names, has(names, "vae/config.json") ? "vae/" : "", false, needed,
                         missing);
    }
    bool good = take_small(names, needed, missing);
    good = take_part(names, "unet/", false, needed, missing) && good;
    good = take_part(names, "text_encoder/", true, needed, missing) && good;
    return take_part(names, "vae/", false, needed, missing) && good;
}
