#include "launcher/config_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

typedef enum key_kind {
    OPTION,  /* an option of the same name (or the one named)                   */
    FLAG,    /* the same, true or false                                         */
    IGNORED, /* means nothing here, whatever it says                            */
    REFUSED, /* an error unless it says nothing                                 */
    KIND,    /* distributed_type                                                */
    PLACE,   /* compute_environment                                             */
    MPIRUN,  /* mpirun_config: a map                                            */
    OWN      /* dreamrun: a map of our own options                              */
} key_kind;

static const struct {
    const char *key;
    key_kind kind;
    const char *option; /* NULL: the key's own name; REFUSED: what to use instead */
} keys[] = {
    {"compute_environment", PLACE, NULL},
    {"distributed_type", KIND, NULL},
    {"mixed_precision", OPTION, NULL},
    {"use_cpu", FLAG, "cpu"},
    {"debug", FLAG, NULL},
    {"num_processes", OPTION, NULL},
    {"num_machines", OPTION, NULL},
    {"machine_rank", OPTION, NULL},
    {"gpu_ids", OPTION, NULL},
    {"main_process_ip", OPTION, NULL},
    {"main_process_port", OPTION, NULL},
    {"rdzv_backend", IGNORED, NULL},
    {"same_network", IGNORED, NULL},
    {"main_training_function", IGNORED, NULL},
    {"enable_cpu_affinity", FLAG, NULL},
    {"mpirun_config", MPIRUN, NULL},
    {"dreamrun", OWN, NULL},
    {"downcast_bf16", REFUSED, "it concerns TPUs"},
    {"deepspeed_config", REFUSED, "there is no DeepSpeed here"},
    {"fsdp_config", REFUSED, "there is no FSDP here"},
    {"megatron_lm_config", REFUSED, "there is no Megatron-LM here"},
    {"parallelism_config", REFUSED, "ranks are data-parallel here"},
    {"fp8_config", REFUSED, "there is no fp8 arithmetic here"},
    {"dynamo_config", REFUSED, "there is no graph compiler here"},
    {"tpu_name", REFUSED, "there are no TPUs here"},
    {"tpu_zone", REFUSED, "there are no TPUs here"},
    {"tpu_use_cluster", REFUSED, "there are no TPUs here"},
    {"tpu_use_sudo", REFUSED, "there are no TPUs here"},
    {"tpu_vm", REFUSED, "there are no TPUs here"},
    {"tpu_env", REFUSED, "there are no TPUs here"},
    {"command_file", REFUSED, "it concerns TPUs"},
    {"commands", REFUSED, "it concerns TPUs"},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

typedef struct reader {
    const char *path;
    yaml_document_t doc;
    dr_config_take take;
    void *user;
} reader;

/* --- values ------------------------------------------------------------------------------------
 */

static const char *text_of(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

static bool is_word(const char *text, const char *const *words)
{
    for (size_t i = 0; words[i] != NULL; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_false(const char *text)
{
    static const char *const words[] = {"false", "no", "off", "n", NULL};
    return is_word(text, words);
}

static bool is_true(const char *text)
{
    static const char *const words[] = {"true", "yes", "on", "y", NULL};
    return is_word(text, words);
}

/* null, an empty text, an empty list or map */
static bool is_nothing(const yaml_node_t *node)
{
    const char *text = text_of(node);
    if (text != NULL) {
        static const char *const words[] = {"null", "~", "", NULL};
        return is_word(text, words);
    }
    return node->type == YAML_SEQUENCE_NODE
               ? node->data.sequence.items.top == node->data.sequence.items.start
               : node->data.mapping.pairs.top == node->data.mapping.pairs.start;
}

static size_t line_of(const yaml_node_t *node)
{
    return node->start_mark.line + 1;
}

static dr_status want_text(const reader *r, const char *key, const yaml_node_t *node,
                           const char **out)
{
    *out = text_of(node);
    if (*out == NULL) {
        DR_FAIL(DR_INVALID, "%s line %zu: %s: found a list or a map, expected one value", r->path,
                line_of(node), key);
    }
    return DR_OK;
}

static dr_status give(const reader *r, const char *option, const yaml_node_t *node)
{
    const char *text = NULL;
    DR_TRY(want_text(r, option, node, &text));
    dr_status st = r->take(r->user, option, text);
    return st == DR_OK ? st : dr_error_prefix(st, "%s line %zu", r->path, line_of(node));
}

static dr_status give_flag(const reader *r, const char *key, const char *option,
                           const yaml_node_t *node)
{
    const char *text = NULL;
    DR_TRY(want_text(r, key, node, &text));
    if (!is_true(text) && !is_false(text)) {
        DR_FAIL(DR_INVALID, "%s line %zu: %s: found '%s', expected true or false", r->path,
                line_of(node), key, text);
    }
    return r->take(r->user, option, is_true(text) ? "true" : "false");
}

/* --- keys --------------------------------------------------------------------------------------
 */

static dr_status take_kind(const reader *r, const yaml_node_t *node)
{
    const char *text = NULL;
    DR_TRY(want_text(r, "distributed_type", node, &text));
    if (strcmp(text, "MULTI_GPU") == 0) {
        return r->take(r->user, "multi_gpu", "true");
    }
    if (strcmp(text, "MULTI_CPU") == 0) {
        return r->take(r->user, "cpu", "true");
    }
    if (strcmp(text, "NO") == 0 || is_false(text)) {
        return DR_OK;
    }
    DR_FAIL(DR_UNSUPPORTED,
            "%s line %zu: distributed_type %s is not supported; expected NO, MULTI_GPU or "
            "MULTI_CPU",
            r->path, line_of(node), text);
}

static dr_status take_place(const reader *r, const yaml_node_t *node)
{
    const char *text = NULL;
    DR_TRY(want_text(r, "compute_environment", node, &text));
    if (strcmp(text, "LOCAL_MACHINE") == 0) {
        return DR_OK;
    }
    DR_FAIL(DR_UNSUPPORTED,
            "%s line %zu: compute_environment %s is not supported; expected LOCAL_MACHINE", r->path,
            line_of(node), text);
}

static dr_status take_refused(const reader *r, const char *key, const char *why,
                              const yaml_node_t *node)
{
    const char *text = text_of(node);
    if (text != NULL && is_false(text)) {
        return DR_OK;
    }
    DR_FAIL(DR_UNSUPPORTED, "%s line %zu: %s is not supported: %s; remove it", r->path,
            line_of(node), key, why);
}

static dr_status take_key(reader *r, const char *key, const yaml_node_t *node);

/* The members of a map inside the file: mpirun_config, dreamrun. */
static dr_status take_members(reader *r, const char *key, bool own, const yaml_node_t *map)
{
    if (map->type != YAML_MAPPING_NODE) {
        DR_FAIL(DR_INVALID, "%s line %zu: %s: expected a map of keys and values", r->path,
                line_of(map), key);
    }
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top;
         p++) {
        const char *name = text_of(yaml_document_get_node(&r->doc, p->key));
        const yaml_node_t *value = yaml_document_get_node(&r->doc, p->value);
        if (name == NULL || is_nothing(value)) {
            continue;
        }
        const char *text = text_of(value);
        if (own && text != NULL && (is_true(text) || is_false(text))) {
            DR_TRY(give_flag(r, name, name, value));
        } else if (own || strcmp(name, "mpirun_hostfile") == 0) {
            DR_TRY(give(r, name, value));
        } else if (strcmp(name, "mpirun_ccl") != 0) { /* Intel's library: nothing to set here */
            DR_FAIL(DR_INVALID, "%s line %zu: unknown key %s.%s", r->path, line_of(value), key,
                    name);
        }
    }
    return DR_OK;
}

static dr_status take_key(reader *r, const char *key, const yaml_node_t *node)
{
    for (int i = 0; i < N_KEYS; i++) {
        if (strcmp(keys[i].key, key) != 0) {
            continue;
        }
        const char *option = keys[i].option != NULL ? keys[i].option : key;
        if (is_nothing(node)) {
            return DR_OK;
        }
        switch (keys[i].kind) {
        case OPTION:
            return give(r, option, node);
        case FLAG:
            return give_flag(r, key, option, node);
        case IGNORED:
            return DR_OK;
        case REFUSED:
            return take_refused(r, key, keys[i].option, node);
        case KIND:
            return take_kind(r, node);
        case PLACE:
            return take_place(r, node);
        case MPIRUN:
        case OWN:
            return take_members(r, key, keys[i].kind == OWN, node);
        }
    }
    DR_FAIL(DR_INVALID,
            "%s line %zu: unknown key %s; dreamrun's own options stand below the key dreamrun",
            r->path, line_of(node), key);
}

static dr_status take_document(reader *r)
{
    yaml_node_t *root = yaml_document_get_root_node(&r->doc);
    if (root == NULL || root->type != YAML_MAPPING_NODE) {
        DR_FAIL(DR_INVALID, "%s: expected keys and values, as accelerate config writes them",
                r->path);
    }
    for (yaml_node_pair_t *p = root->data.mapping.pairs.start; p < root->data.mapping.pairs.top;
         p++) {
        const yaml_node_t *key = yaml_document_get_node(&r->doc, p->key);
        if (text_of(key) == NULL) {
            DR_FAIL(DR_INVALID, "%s line %zu: a key is no text", r->path, line_of(key));
        }
        DR_TRY(take_key(r, text_of(key), yaml_document_get_node(&r->doc, p->value)));
    }
    return DR_OK;
}

dr_status dr_config_file_each(const char *path, dr_config_take take, void *user)
{
    yaml_parser_t parser;
    reader r = {.path = path, .take = take, .user = user};
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        DR_FAIL(DR_IO, "%s: %s", path, strerror(errno));
    }
    if (yaml_parser_initialize(&parser) == 0) {
        (void)fclose(f);
        DR_FAIL(DR_NOMEM, "%s: no memory for its parser", path);
    }
    yaml_parser_set_input_file(&parser, f);
    dr_status st = DR_OK;
    if (yaml_parser_load(&parser, &r.doc) == 0) {
        st = dr_error_set(DR_FORMAT, __FILE__, __LINE__, "%s line %zu: no YAML or JSON: %s", path,
                          parser.problem_mark.line + 1,
                          parser.problem != NULL ? parser.problem : "unreadable");
    } else {
        st = take_document(&r);
        yaml_document_delete(&r.doc);
    }
    yaml_parser_delete(&parser);
    (void)fclose(f);
    return st;
}
