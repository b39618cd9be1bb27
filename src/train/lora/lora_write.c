#include "train/lora/lora_write.h"

#include "base/arena.h"
#include "base/str.h"
#include "io/torch_writer.h"

#include <stdlib.h>
#include <string.h>

bool dr_lora_is_torch(const char *path)
{
    static const char *const endings[] = {".ckpt", ".pt", ".pth", ".bin"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        if (dr_str_ends(path, endings[i])) {
            return true;
        }
    }
    return false;
}

static dr_status emit_safetensors(void *user, dr_safetensors_writer *out, size_t i_entry)
{
    const dr_lora_content *c = user;
    void *bytes = NULL;
    size_t n = 0;
    dr_status st = c->bytes(c->user, i_entry, &bytes, &n);
    if (st == DR_OK) {
        st = dr_safetensors_writer_write(out, bytes, n);
    }
    free(bytes);
    return st;
}

static dr_status emit_torch(void *user, dr_torch_writer *out, size_t i_entry)
{
    const dr_lora_content *c = user;
    void *bytes = NULL;
    size_t n = 0;
    dr_status st = c->bytes(c->user, i_entry, &bytes, &n);
    if (st == DR_OK) {
        st = dr_torch_writer_write(out, bytes, n);
    }
    free(bytes);
    return st;
}

/*
 * sd-scripts computes both hashes on a file in memory whose header has the ss_* keys alone; the
 * legacy one is of the 64 KiB at 1 MiB of that file, so it depends on that header's length. A
 * header that reaches beyond 1 MiB (a great many tags) has no such hash here: it would be of the
 * header.
 */
static dr_status write_safetensors(const char *path, dr_lora_content *lora, dr_arena *arena)
{
    enum { LEGACY_AT = 1 << 20, LEGACY_BYTES = 1 << 16 };
    const dr_metadata *m = lora->meta;
    dr_safetensors_meta *ss = dr_arena_array(arena, m->n + 1, sizeof *ss);
    dr_safetensors_content c = {.entries = lora->entries, .n_entries = lora->n_entries, .meta = ss};
    for (size_t i = 0; i < m->n; i++) {
        if (dr_str_starts(m->at[i].key, "ss_")) {
            ss[c.n_meta++] = m->at[i];
        }
    }
    uint64_t header = 0;
    DR_TRY(dr_safetensors_header_bytes(path, &c, &header));
    const bool has_legacy = header <= LEGACY_AT;
    const dr_safetensors_hash hashes[] = {
        {"sshs_model_hash", "", 0, UINT64_MAX, 64},
        {"sshs_legacy_hash", "", has_legacy ? LEGACY_AT - header : 0, LEGACY_BYTES, 8}};
    dr_safetensors_meta *all = dr_arena_array(arena, m->n + 1, sizeof *all);
    if (m->n > 0) {
        memcpy(all, m->at, m->n * sizeof *all);
    }
    c.meta = all;
    c.n_meta = m->n;
    if (lora->adapter_metadata != NULL) {
        all[c.n_meta++] = (dr_safetensors_meta){"lora_adapter_metadata", lora->adapter_metadata};
    }
    c.hashes = hashes;
    c.n_hashes = has_legacy ? 2 : 1;
    return dr_safetensors_write(path, &c, emit_safetensors, lora);
}

dr_status dr_lora_write(const char *path, const dr_lora_content *c)
{
    dr_lora_content content = *c;
    if (dr_lora_is_torch(path)) {
        const dr_torch_content t = {.entries = c->entries, .n_entries = c->n_entries, .bare = true};
        return dr_torch_write(path, &t, emit_torch, &content);
    }
    dr_arena arena;
    dr_arena_init(&arena);
    const dr_status st = write_safetensors(path, &content, &arena);
    dr_arena_deinit(&arena);
    return st;
}
