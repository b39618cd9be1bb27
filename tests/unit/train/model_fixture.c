#include "model_fixture.h"

#include "base/arena.h"
#include "base/file.h"
#include "train/model/model_presets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *model_path(const char *name)
{
    enum { RING = 8 };
    static char ring[RING][4096];
    static int next;
    char *buf = ring[next++ % RING];
    (void)snprintf(buf, sizeof ring[0], "%s/%s", dr_test_tmpdir(), name);
    return buf;
}

void model_make(const char *preset, const char *name, dr_save_format format)
{
    dr_model_config config;
    assert_ok(dr_model_preset(preset, &config));
    assert_ok(dr_model_write_random(
        &config, &(dr_model_init){.path = model_path(name), .format = format, .seed = 7}));
}

static void copy_file(const char *from, const char *to)
{
    char *data = NULL;
    size_t n = 0;
    assert_ok(dr_file_read(from, SIZE_MAX, &data, &n));
    assert_ok(dr_file_write(to, data, n));
    free(data);
}

void model_copy(const char *from, const char *to)
{
    if (!dr_path_is_dir(from)) {
        copy_file(from, to);
        return;
    }
    dr_strv names = {0};
    assert_ok(dr_mkdirs(to));
    assert_ok(dr_list_dir(from, &names));
    for (size_t i = 0; i < names.n; i++) {
        char *a = dr_path_join(from, names.at[i]);
        char *b = dr_path_join(to, names.at[i]);
        model_copy(a, b); /* two levels deep */
        free(a);
        free(b);
    }
    dr_strv_free(&names);
}

void model_edit_text(const char *path, const char *from, const char *to)
{
    char *data = NULL;
    size_t n = 0;
    dr_str out = {0};
    assert_ok(dr_file_read(path, 1 << 20, &data, &n));
    const char *at = strstr(data, from);
    assert_non_null(at);
    dr_str_add_n(&out, data, (size_t)(at - data));
    dr_str_add(&out, to);
    dr_str_add(&out, at + strlen(from));
    assert_ok(dr_file_write(path, out.data, out.len));
    dr_str_free(&out);
    free(data);
}

static void write_entries(const char *path, const dr_safetensors *s, dr_safetensors_entry *entries,
                          size_t n, const dr_safetensors_meta *meta, size_t n_meta)
{
    const dr_safetensors_meta *kept_meta = meta;
    dr_safetensors_meta *own = dr_xcalloc(dr_safetensors_meta_count(s) + 1, sizeof *own);
    if (meta == NULL) {
        n_meta = dr_safetensors_meta_count(s);
        for (size_t i = 0; i < n_meta; i++) {
            own[i] = dr_safetensors_meta_at(s, i);
        }
        kept_meta = own;
    }
    const void **data = dr_xcalloc(n, sizeof *data);
    void **zeros = dr_xcalloc(n, sizeof *zeros);
    for (size_t i = 0; i < n; i++) {
        size_t bytes = dr_dtype_size(entries[i].dtype);
        for (int k = 0; k < entries[i].rank; k++) {
            bytes *= (size_t)entries[i].shape[k];
        }
        const dr_safetensors_tensor *t = dr_safetensors_find(s, entries[i].name);
        if (t != NULL && t->bytes == bytes) {
            assert_ok(dr_safetensors_data(s, t, &data[i]));
        } else {
            zeros[i] = dr_xcalloc(bytes + 1, 1);
            data[i] = zeros[i];
        }
    }
    const dr_safetensors_content content = {
        .entries = entries, .n_entries = n, .meta = kept_meta, .n_meta = n_meta};
    assert_ok(dr_safetensors_save(path, &content, data));
    for (size_t i = 0; i < n; i++) {
        free(zeros[i]);
    }
    free((void *)data);
    free((void *)zeros);
    free(own);
}

/* All tensors of a file as entries; room for one more. */
static size_t read_entries(const dr_safetensors *s, model_edit edit, dr_safetensors_entry **out)
{
    dr_safetensors_entry *entries = dr_xcalloc(dr_safetensors_count(s) + 1, sizeof *entries);
    size_t n = 0;
    for (size_t i = 0; i < dr_safetensors_count(s); i++) {
        const dr_safetensors_tensor *t = dr_safetensors_at(s, i);
        entries[n] = (dr_safetensors_entry){t->name, t->dtype, t->rank, t->shape};
        n += edit == NULL || edit(&entries[n]) ? 1 : 0;
    }
    *out = entries;
    return n;
}

void model_rewrite(const char *path, model_edit edit, const dr_safetensors_meta *meta,
                   size_t n_meta)
{
    dr_safetensors *s = NULL;
    dr_safetensors_entry *entries = NULL;
    assert_ok(dr_safetensors_open(&s, path));
    const size_t n = read_entries(s, edit, &entries);
    write_entries(path, s, entries, n, meta, n_meta);
    free(entries);
    dr_safetensors_close(s);
}

void model_add_tensor(const char *path, const char *name, int rank, const int64_t *shape)
{
    dr_safetensors *s = NULL;
    dr_safetensors_entry *entries = NULL;
    assert_ok(dr_safetensors_open(&s, path));
    size_t n = read_entries(s, NULL, &entries);
    entries[n++] = (dr_safetensors_entry){name, DR_F32, rank, shape};
    write_entries(path, s, entries, n, NULL, 0);
    free(entries);
    dr_safetensors_close(s);
}

void assert_same_file(const char *a, const char *b)
{
    dr_map x;
    dr_map y;
    assert_ok(dr_map_open(&x, a));
    assert_ok(dr_map_open(&y, b));
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    dr_map_close(&x);
    dr_map_close(&y);
}

void assert_no_leftovers(void)
{
    dr_strv names = {0};
    assert_ok(dr_list_dir(dr_test_tmpdir(), &names));
    for (size_t i = 0; i < names.n; i++) {
        assert_null(strstr(names.at[i], ".tmp."));
        assert_null(strstr(names.at[i], ".old."));
    }
    dr_strv_free(&names);
}
