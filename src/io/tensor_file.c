/*
 * The table of all tensors of one file or of all shards, with a hash table over their names. What
 * the bytes mean is the business of each container's own reader.
 */
#include "io/tensor_file.h"

#include "base/arena.h"
#include "base/file.h"
#include "io/json.h"
#include "io/torch_file.h"
#include "io/xxh3.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SNIFF_BYTES = 64, MAX_SHARDS = 1000 };

typedef struct part { /* one file of weights */
    const char *path;
    dr_safetensors *safetensors; /* one of the two */
    dr_torch_file *torch;
} part;

struct dr_tensor_file {
    dr_arena arena;
    const char *path;
    const char *kind;
    part *parts;
    size_t n_parts;
    dr_file_tensor *tensors;
    size_t n;
    uint32_t *slots; /* hash table: index + 1 of a tensor, 0 for empty; n_slots a power of two */
    size_t n_slots;
};

/* ---- what a file is ---- */

static dr_container sniff_bytes(const unsigned char *head, size_t n)
{
    size_t i = 0;
    if (dr_safetensors_sniff_bytes(head, n)) { /* first: a header's length may begin with '{' */
        return DR_CONTAINER_SAFETENSORS;
    }
    if (dr_torch_sniff_bytes(head, n) != DR_CONTAINER_NONE) {
        return dr_torch_sniff_bytes(head, n);
    }
    while (i < n && (head[i] == ' ' || head[i] == '\n' || head[i] == '\r' || head[i] == '\t')) {
        i++;
    }
    return i < n && head[i] == '{' ? DR_CONTAINER_SHARDS : DR_CONTAINER_NONE;
}

dr_container dr_tensor_file_sniff(const char *path)
{
    unsigned char head[SNIFF_BYTES];
    FILE *f = dr_path_is_dir(path) ? NULL : fopen(path, "rbe");
    if (f == NULL) {
        return DR_CONTAINER_NONE;
    }
    const size_t n = fread(head, 1, sizeof head, f);
    (void)fclose(f);
    return sniff_bytes(head, n);
}

/* ---- the table ---- */

static size_t part_count(const part *p)
{
    return p->torch != NULL ? dr_torch_count(p->torch) : dr_safetensors_count(p->safetensors);
}

static dr_file_tensor part_tensor(const part *p, size_t i)
{
    if (p->torch != NULL) {
        return *dr_torch_at(p->torch, i);
    }
    const dr_safetensors_tensor *t = dr_safetensors_at(p->safetensors, i);
    return (dr_file_tensor){.name = t->name,
                            .dtype_name = t->dtype_name,
                            .readable = t->readable,
                            .dtype = t->dtype,
                            .rank = t->rank,
                            .shape = t->shape,
                            .n_elems = t->n_elems,
                            .bytes = t->bytes,
                            .i_inside = i};
}

static size_t slot_of(const dr_tensor_file *f, const char *name)
{
    return (size_t)dr_xxh3_bytes(name, strlen(name)).low & (f->n_slots - 1);
}

/* The slot that holds the name, or the empty one where it belongs. */
static size_t find_slot(const dr_tensor_file *f, const char *name)
{
    size_t at = slot_of(f, name);
    while (f->slots[at] != 0 && strcmp(f->tensors[f->slots[at] - 1].name, name) != 0) {
        at = (at + 1) & (f->n_slots - 1);
    }
    return at;
}

/* Whether the index gives the tensor to another shard than i: an old copy, which nobody loads. */
static bool belongs_elsewhere(const dr_tensor_file *f, const dr_json_value *map, const char *name,
                              size_t i)
{
    const dr_json_value *home = map == NULL ? NULL : dr_json_member(map, name);
    return home != NULL && strcmp(dr_json_string_value(home), dr_path_base(f->parts[i].path)) != 0;
}

static dr_status add_part(dr_tensor_file *f, size_t i_part, const dr_json_value *map)
{
    const part *p = &f->parts[i_part];
    for (size_t i = 0; i < part_count(p); i++) {
        dr_file_tensor t = part_tensor(p, i);
        if (belongs_elsewhere(f, map, t.name, i_part)) {
            continue;
        }
        const size_t at = find_slot(f, t.name);
        if (f->slots[at] != 0) {
            DR_FAIL(DR_FORMAT, "%s: tensor '%s' is also in %s, and the index does not say which",
                    p->path, t.name, dr_tensor_file_path_of(f, &f->tensors[f->slots[at] - 1]));
        }
        t.i_file = i_part;
        f->tensors[f->n] = t;
        f->slots[at] = (uint32_t)++f->n;
    }
    return DR_OK;
}

static dr_status build_table(dr_tensor_file *f, const dr_json_value *map)
{
    size_t most = 0;
    for (size_t i = 0; i < f->n_parts; i++) {
        most += part_count(&f->parts[i]); /* headers of 100 MB hold far fewer than 2^32 */
    }
    f->tensors = dr_arena_array(&f->arena, most, sizeof *f->tensors);
    f->n_slots = 16;
    while (f->n_slots < 2 * most) {
        f->n_slots *= 2;
    }
    f->slots = dr_arena_array(&f->arena, f->n_slots, sizeof *f->slots);
    for (size_t i = 0; i < f->n_parts; i++) {
        DR_TRY(add_part(f, i, map));
    }
    return DR_OK;
}

/* ---- one file ---- */

static const char *container_name(const part *p)
{
    if (p->torch == NULL) {
        return "safetensors";
    }
    return dr_torch_container(p->torch) == DR_CONTAINER_TORCH_ZIP
               ? "ckpt (torch zip)"
               : "ckpt (torch stream, before 1.6)";
}

/* A pickle of protocol 0 or 1 has no magic bytes. torch.save never made one, but a file that wants
 * to be called by its name may be one: true when the pickle machine refused it. */
static bool is_refused_text(const unsigned char *bytes, size_t n)
{
    if (n == 0 || strchr("c(}]", bytes[0]) == NULL || bytes[0] == '\0') {
        return false;
    }
    dr_torch_file *f = NULL;
    const dr_status st = dr_torch_parse(&f, "", bytes, n);
    dr_torch_close(f);
    return st != DR_OK && strstr(dr_error_message(), ": refused: ") != NULL;
}

static dr_status parse_part(part *p, const void *bytes, size_t n)
{
    const dr_container c = sniff_bytes(bytes, n < SNIFF_BYTES ? n : SNIFF_BYTES);
    if (c == DR_CONTAINER_TORCH_ZIP || c == DR_CONTAINER_TORCH_STREAM ||
        (c == DR_CONTAINER_NONE && is_refused_text(bytes, n))) {
        return dr_torch_parse(&p->torch, p->path, bytes, n);
    }
    return dr_safetensors_parse(&p->safetensors, p->path, bytes, n);
}

static dr_status open_part(part *p)
{
    const dr_container c = dr_tensor_file_sniff(p->path);
    if (c == DR_CONTAINER_TORCH_ZIP || c == DR_CONTAINER_TORCH_STREAM) {
        return dr_torch_open(&p->torch, p->path);
    }
    if (c == DR_CONTAINER_NONE) {
        dr_map m = {0};
        DR_TRY(dr_map_open(&m, p->path));
        const dr_status st = parse_part(p, m.data, m.size);
        dr_map_close(&m);
        DR_CHECK(st != DR_OK, "%s: sniffed as nothing, yet read", p->path);
        return dr_error_frame(st, __FILE__, __LINE__);
    }
    return dr_safetensors_open(&p->safetensors, p->path);
}

static dr_status open_single(dr_tensor_file *f)
{
    f->parts = dr_arena_alloc(&f->arena, sizeof *f->parts);
    f->n_parts = 1;
    f->parts[0].path = f->path;
    DR_TRY(open_part(&f->parts[0]));
    f->kind = container_name(&f->parts[0]);
    return build_table(f, NULL);
}

/* ---- a set of shards ---- */

static bool is_plain_name(const char *name)
{
    return name[0] != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

static bool has_part(const dr_tensor_file *f, const char *name)
{
    for (size_t i = 0; i < f->n_parts; i++) {
        if (strcmp(dr_path_base(f->parts[i].path), name) == 0) {
            return true;
        }
    }
    return false;
}

/* The shards' names in the order in which the index mentions them first. */
static dr_status collect_parts(dr_tensor_file *f, const dr_json_value *map)
{
    const size_t dir_len = (size_t)(dr_path_base(f->path) - f->path);
    f->parts = dr_arena_array(&f->arena, MAX_SHARDS, sizeof *f->parts);
    for (dr_json_iter it = {0}; dr_json_next(map, &it);) {
        const char *name = dr_json_string_value(it.value);
        if (dr_json_kind_of_value(it.value) != DR_JSON_STRING || !is_plain_name(name)) {
            DR_FAIL(DR_FORMAT,
                    "%s: weight_map gives tensor '%s' no name of a file beside the index", f->path,
                    it.name);
        }
        if (has_part(f, name)) {
            continue;
        }
        if (f->n_parts == MAX_SHARDS) {
            DR_FAIL(DR_FORMAT, "%s: weight_map names more than %d files", f->path, MAX_SHARDS);
        }
        f->parts[f->n_parts++].path =
            dr_arena_printf(&f->arena, "%.*s%s", (int)dir_len, f->path, name);
    }
    return DR_OK;
}

static dr_status open_parts(dr_tensor_file *f, const dr_json_value *map)
{
    for (size_t i = 0; i < f->n_parts; i++) {
        part *p = &f->parts[i];
        if (!dr_path_exists(p->path)) {
            DR_FAIL(DR_FORMAT, "%s: this shard is missing: %s names it; download the whole set",
                    p->path, f->path);
        }
        DR_TRY(open_part(p));
    }
    DR_TRY(build_table(f, map));
    for (dr_json_iter it = {0}; dr_json_next(map, &it);) {
        if (dr_tensor_file_find(f, it.name) == NULL) {
            DR_FAIL(DR_FORMAT,
                    "%s: tensor '%s' should be in %s but is not there: index and shards are not "
                    "of one set",
                    f->path, it.name, dr_json_string_value(it.value));
        }
    }
    return DR_OK;
}

static dr_status open_index(dr_tensor_file *f)
{
    dr_json_doc *doc = NULL;
    DR_TRY(dr_json_open(&doc, f->path));
    const dr_json_value *map = dr_json_member(dr_json_root(doc), "weight_map");
    dr_status st = DR_OK;
    if (dr_json_kind_of_value(map) != DR_JSON_OBJECT || dr_json_size(map) == 0) {
        st = dr_error_set(DR_FORMAT, __FILE__, __LINE__,
                          "%s: JSON, but not the index of a set of shards: no object weight_map",
                          f->path);
    }
    if (st == DR_OK) {
        st = collect_parts(f, map);
    }
    if (st == DR_OK) {
        st = open_parts(f, map);
    }
    dr_json_close(doc);
    DR_TRY(st);
    f->kind = dr_arena_printf(&f->arena, "%zu shard%s of %s", f->n_parts,
                              f->n_parts == 1 ? "" : "s", container_name(&f->parts[0]));
    return DR_OK;
}

/* ---- open and close ---- */

static dr_tensor_file *create(const char *path)
{
    dr_tensor_file *f = dr_xcalloc(1, sizeof *f);
    dr_arena_init(&f->arena);
    f->path = dr_arena_strdup(&f->arena, path);
    return f;
}

static dr_status finish(dr_tensor_file **out, dr_tensor_file *f, dr_status st)
{
    if (st != DR_OK) {
        dr_tensor_file_close(f);
        return dr_error_frame(st, __FILE__, __LINE__);
    }
    *out = f;
    return DR_OK;
}

dr_status dr_tensor_file_open(dr_tensor_file **out, const char *path)
{
    *out = NULL;
    dr_tensor_file *f = create(path);
    const bool is_index = dr_tensor_file_sniff(path) == DR_CONTAINER_SHARDS;
    return finish(out, f, is_index ? open_index(f) : open_single(f));
}

dr_status dr_tensor_file_parse(dr_tensor_file **out, const char *source, const void *bytes,
                               size_t n)
{
    *out = NULL;
    dr_tensor_file *f = create(source);
    f->parts = dr_arena_alloc(&f->arena, sizeof *f->parts);
    f->n_parts = 1;
    f->parts[0].path = f->path;
    dr_status st = parse_part(&f->parts[0], bytes, n);
    if (st == DR_OK) {
        f->kind = container_name(&f->parts[0]);
        st = build_table(f, NULL);
    }
    return finish(out, f, st);
}

void dr_tensor_file_close(dr_tensor_file *f)
{
    if (f == NULL) {
        return;
    }
    for (size_t i = 0; i < f->n_parts; i++) {
        dr_safetensors_close(f->parts[i].safetensors);
        dr_torch_close(f->parts[i].torch);
    }
    dr_arena_deinit(&f->arena);
    free(f);
}

/* ---- questions ---- */

size_t dr_tensor_file_count(const dr_tensor_file *f)
{
    return f->n;
}

const dr_file_tensor *dr_tensor_file_at(const dr_tensor_file *f, size_t i)
{
    DR_CHECK(i < f->n, "%s: tensor %zu of %zu", f->path, i, f->n);
    return &f->tensors[i];
}

const dr_file_tensor *dr_tensor_file_find(const dr_tensor_file *f, const char *name)
{
    const uint32_t slot = f->slots[find_slot(f, name)];
    return slot == 0 ? NULL : &f->tensors[slot - 1];
}

dr_status dr_tensor_file_data(const dr_tensor_file *f, const dr_file_tensor *t, const void **data)
{
    const part *p = &f->parts[t->i_file];
    if (p->torch != NULL) {
        return dr_torch_data(p->torch, t->i_inside, data);
    }
    return dr_safetensors_data(p->safetensors, dr_safetensors_at(p->safetensors, t->i_inside),
                               data);
}

void dr_tensor_file_release(const dr_tensor_file *f, const dr_file_tensor *t)
{
    const part *p = &f->parts[t->i_file];
    if (p->torch != NULL) {
        dr_torch_release(p->torch, t->i_inside);
        return;
    }
    dr_safetensors_release(p->safetensors, dr_safetensors_at(p->safetensors, t->i_inside));
}

size_t dr_tensor_file_meta_count(const dr_tensor_file *f)
{
    const part *p = &f->parts[0];
    return p->torch != NULL ? dr_torch_meta_count(p->torch)
                            : dr_safetensors_meta_count(p->safetensors);
}

dr_safetensors_meta dr_tensor_file_meta_at(const dr_tensor_file *f, size_t i)
{
    const part *p = &f->parts[0];
    DR_CHECK(i < dr_tensor_file_meta_count(f), "%s: metadata %zu", f->path, i);
    return p->torch != NULL ? dr_torch_meta_at(p->torch, i)
                            : dr_safetensors_meta_at(p->safetensors, i);
}

const char *dr_tensor_file_meta_get(const dr_tensor_file *f, const char *key)
{
    for (size_t i = 0; i < dr_tensor_file_meta_count(f); i++) {
        const dr_safetensors_meta m = dr_tensor_file_meta_at(f, i);
        if (strcmp(m.key, key) == 0) {
            return m.value;
        }
    }
    return NULL;
}

bool dr_tensor_file_number(const dr_tensor_file *f, const char *key, int64_t *out)
{
    return f->parts[0].torch != NULL && dr_torch_number(f->parts[0].torch, key, out);
}

const char *dr_tensor_file_path(const dr_tensor_file *f)
{
    return f->path;
}

const char *dr_tensor_file_path_of(const dr_tensor_file *f, const dr_file_tensor *t)
{
    return f->parts[t->i_file].path;
}

const char *dr_tensor_file_kind(const dr_tensor_file *f)
{
    return f->kind;
}

dr_container dr_tensor_file_container(const dr_tensor_file *f)
{
    return f->parts[0].torch != NULL ? dr_torch_container(f->parts[0].torch)
                                     : DR_CONTAINER_SAFETENSORS;
}
