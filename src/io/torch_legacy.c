/*
 * The stream that torch wrote before 1.6, and still writes on request: five pickles (magic number,
 * protocol, machine, object, list of keys), then for each key an int64 count and the raw storage.
 */
#include "io/torch_file_internal.h"

#include "base/checked.h"
#include "io/xxh3.h"

#include <string.h>

enum { COUNT_BYTES = 8, PROTOCOL = 1001, MAGIC_BYTES = 10 };
static const char magic[] = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"; /* little-endian */

typedef struct stream {
    const unsigned char *bytes;
    size_t n, at;
} stream;

static dr_status next_pickle(dr_torch_file *f, stream *s, dr_pickle_result *out)
{
    DR_TRY(dr_pickle_parse(&f->arena, f->source, s->bytes + s->at, s->n - s->at, out));
    s->at += out->used;
    return DR_OK;
}

static dr_status read_head(dr_torch_file *f, stream *s)
{
    dr_pickle_result r;
    DR_TRY(next_pickle(f, s, &r));
    if (r.root->kind != DR_PICKLE_LONG || r.root->n != MAGIC_BYTES ||
        memcmp(r.root->text, magic, MAGIC_BYTES) != 0) {
        DR_FAIL(DR_FORMAT,
                "%s: a Python pickle, but not a file that torch.save wrote: no weights can be read "
                "from it",
                f->source);
    }
    DR_TRY(next_pickle(f, s, &r));
    if (r.root->kind != DR_PICKLE_INT || r.root->i != PROTOCOL) {
        DR_FAIL(DR_FORMAT, "%s: a torch stream of another protocol than %d", f->source, PROTOCOL);
    }
    DR_TRY(next_pickle(f, s, &r));
    const dr_pickle_value *little = dr_pickle_member(r.root, "little_endian");
    if (little != NULL && little->kind == DR_PICKLE_BOOL && little->i == 0) {
        DR_FAIL(DR_UNSUPPORTED, "%s: a big-endian torch stream cannot be read", f->source);
    }
    return DR_OK;
}

/* ---- the table of storages ---- */

static dr_torch_storage *find_slot(const dr_torch_file *f, const char *key, size_t n)
{
    size_t at = (size_t)dr_xxh3_bytes(key, n).low & (f->n_slots - 1);
    while (f->storages[at].key != NULL &&
           (f->storages[at].n_key != n || memcmp(f->storages[at].key, key, n) != 0)) {
        at = (at + 1) & (f->n_slots - 1);
    }
    return &f->storages[at];
}

/* All storages that the object refers to, also those outside the state_dict: only their types tell
 * how long each one in the stream is. */
static dr_status collect_storages(dr_torch_file *f, const dr_pickle_value *last)
{
    size_t n = 0;
    for (const dr_pickle_value *v = last; v != NULL; v = v->previous) {
        n++;
    }
    f->n_slots = 16;
    while (f->n_slots < 2 * n) {
        f->n_slots *= 2;
    }
    f->storages = dr_arena_array(&f->arena, f->n_slots, sizeof *f->storages);
    for (const dr_pickle_value *v = last; v != NULL; v = v->previous) {
        dr_torch_storage_id id;
        DR_TRY(dr_torch_read_id(f, v, &id));
        dr_torch_storage *s = find_slot(f, id.key, id.n_key);
        if (s->key != NULL && (s->elem_bytes != id.elem_bytes || s->numel != id.numel)) {
            DR_FAIL(DR_FORMAT, "%s: storage %.*s is described in two ways", f->source,
                    (int)id.n_key, id.key);
        }
        *s = (dr_torch_storage){
            .key = id.key, .n_key = id.n_key, .elem_bytes = id.elem_bytes, .numel = id.numel};
    }
    return DR_OK;
}

static dr_status read_storage(dr_torch_file *f, stream *s, const dr_pickle_value *key)
{
    dr_torch_storage *found = key->kind == DR_PICKLE_STR ? find_slot(f, key->text, key->n) : NULL;
    if (found == NULL || found->key == NULL || found->at != NULL) {
        DR_FAIL(DR_FORMAT, "%s: the stream lists a storage that no tensor uses, or lists it twice",
                f->source);
    }
    uint64_t count = 0;
    uint64_t bytes = 0;
    if (s->n - s->at >= COUNT_BYTES) {
        for (int i = COUNT_BYTES - 1; i >= 0; i--) {
            count = count << 8 | s->bytes[s->at + (size_t)i];
        }
        s->at += COUNT_BYTES;
        if (count != (uint64_t)found->numel) {
            DR_FAIL(DR_FORMAT, "%s: a storage of %llu elements in the stream, %lld were announced",
                    f->source, (unsigned long long)count, (long long)found->numel);
        }
    }
    if (!dr_mul_u64((uint64_t)found->numel, found->elem_bytes, &bytes) || bytes > s->n - s->at) {
        DR_FAIL(DR_FORMAT,
                "%s: the file is truncated: a storage of %lld elements of %zu bytes begins at byte "
                "%zu of %zu; download it again",
                f->source, (long long)found->numel, found->elem_bytes, s->at, s->n);
    }
    found->at = s->bytes + s->at;
    s->at += (size_t)bytes;
    return DR_OK;
}

const dr_torch_storage *dr_torch_stream_storage(const dr_torch_file *f,
                                                const dr_torch_storage_id *id)
{
    const dr_torch_storage *s = find_slot(f, id->key, id->n_key);
    return s->key == NULL ? NULL : s;
}

dr_status dr_torch_read_stream(dr_torch_file *f, const void *bytes, size_t n)
{
    stream s = {.bytes = bytes, .n = n};
    dr_pickle_result object;
    dr_pickle_result keys;
    DR_TRY(read_head(f, &s));
    DR_TRY(next_pickle(f, &s, &object));
    DR_TRY(next_pickle(f, &s, &keys));
    if (keys.root->kind != DR_PICKLE_LIST) {
        DR_FAIL(DR_FORMAT, "%s: the torch stream has no list of its storages", f->source);
    }
    DR_TRY(collect_storages(f, object.last_persistent));
    for (size_t i = 0; i < keys.root->n; i++) {
        DR_TRY(read_storage(f, &s, keys.root->items[i]));
    }
    f->root = object.root;
    return dr_torch_collect(f);
}
