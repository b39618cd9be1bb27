/*
 * Driver of io_peers.py: one command per process, results on stdout, the error record on stderr.
 *
 *   io_driver list FILE                  any file of weights: name, dtype, shape, bytes' XXH3, one
 *                                        tensor per line; then the metadata
 *   io_driver copy FROM TO               writes FROM's tensors and metadata as safetensors
 *   io_driver ckpt FROM TO NUMBER        writes FROM's tensors as a checkpoint of torch, epoch and
 *                                        global_step NUMBER; NUMBER -1: a bare state_dict
 *   io_driver cache_fill DIR COUNT       a latent cache of COUNT entries; values see latent_value
 *   io_driver cache_check DIR COUNT      reads the same entries back
 *   io_driver events DIR PNG TEXT        a TensorBoard event file with a picture, a text, numbers
 */
#include "base/arena.h"
#include "base/file.h"
#include "base/log.h"
#include "io/event_file.h"
#include "io/json.h"
#include "io/latent_cache.h"
#include "io/tensor_file.h"
#include "io/torch_writer.h"
#include "io/xxh3.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const dr_latent_shape shape = {4, 6, 8};
enum { N_LATENT = 4 * 6 * 8 };

static void print_tensor(const dr_file_tensor *t, const void *data)
{
    char hash[DR_XXH3_HEX] = "-";
    dr_str line = {0};
    dr_str_add(&line, "{\"name\":");
    dr_json_add_string(&line, t->name);
    dr_str_printf(&line, ",\"dtype\":\"%s\",\"shape\":[", t->dtype_name);
    for (int i = 0; i < t->rank; i++) {
        dr_str_printf(&line, "%s%lld", i > 0 ? "," : "", (long long)t->shape[i]);
    }
    dr_str_printf(&line, "],\"hex\":\"");
    for (size_t i = 0; data != NULL && i < t->bytes && i < 256; i++) {
        dr_str_printf(&line, "%02x", ((const unsigned char *)data)[i]);
    }
    if (data != NULL) {
        dr_xxh3_hex(dr_xxh3_bytes(data, t->bytes), hash);
    }
    (void)printf("%s\",\"xxh3\":\"%s\"}\n", dr_str_get(&line), hash);
    dr_str_free(&line);
}

static dr_status list_file(const char *path)
{
    dr_tensor_file *s = NULL;
    DR_TRY(dr_tensor_file_open(&s, path));
    for (size_t i = 0; i < dr_tensor_file_count(s); i++) {
        const dr_file_tensor *t = dr_tensor_file_at(s, i);
        const void *data = NULL;
        if (t->readable) {
            DR_TRY(dr_tensor_file_data(s, t, &data));
        }
        print_tensor(t, data);
    }
    dr_str line = {0};
    for (size_t i = 0; i < dr_tensor_file_meta_count(s); i++) {
        dr_safetensors_meta m = dr_tensor_file_meta_at(s, i);
        dr_str_add(&line, i > 0 ? "," : "{\"metadata\":{");
        dr_json_add_string(&line, m.key);
        dr_str_add(&line, ":");
        dr_json_add_string(&line, m.value);
    }
    (void)printf("%s}", line.len > 0 ? dr_str_get(&line) : "{\"metadata\":{");
    static const char *const numbers[] = {"epoch", "global_step"};
    for (size_t i = 0; i < 2; i++) {
        int64_t v = 0;
        if (dr_tensor_file_number(s, numbers[i], &v)) {
            (void)printf(",\"%s\":%lld", numbers[i], (long long)v);
        }
    }
    (void)printf(",\"kind\":\"%s\"}\n", dr_tensor_file_kind(s));
    dr_str_free(&line);
    dr_tensor_file_close(s);
    return DR_OK;
}

static dr_status copy_file(const char *from, const char *to)
{
    dr_tensor_file *s = NULL;
    DR_TRY(dr_tensor_file_open(&s, from));
    size_t n = dr_tensor_file_count(s);
    dr_safetensors_content c = {.n_entries = n, .n_meta = dr_tensor_file_meta_count(s)};
    dr_safetensors_entry *entries = dr_xcalloc(n, sizeof *entries);
    dr_safetensors_meta *meta = dr_xcalloc(c.n_meta, sizeof *meta);
    const void **data = dr_xcalloc(n, sizeof *data);
    for (size_t i = 0; i < n; i++) { /* backwards, so that the writer has to sort */
        const dr_file_tensor *t = dr_tensor_file_at(s, n - 1 - i);
        entries[i] = (dr_safetensors_entry){t->name, t->dtype, t->rank, t->shape};
        DR_TRY(dr_tensor_file_data(s, t, &data[i]));
    }
    for (size_t i = 0; i < c.n_meta; i++) {
        meta[i] = dr_tensor_file_meta_at(s, i);
    }
    c.entries = entries;
    c.meta = meta;
    dr_status st = dr_safetensors_save(to, &c, data);
    free(entries);
    free(meta);
    free((void *)data);
    dr_tensor_file_close(s);
    return st;
}

/* In pieces of 1000 bytes. */
static dr_status emit_tensor(void *ctx, dr_torch_writer *w, size_t i)
{
    const dr_tensor_file *f = ctx;
    const dr_file_tensor *t = dr_tensor_file_at(f, i);
    const void *data = NULL;
    DR_TRY(dr_tensor_file_data(f, t, &data));
    for (size_t at = 0; at < t->bytes; at += 1000) {
        const size_t n = t->bytes - at < 1000 ? t->bytes - at : 1000;
        DR_TRY(dr_torch_writer_write(w, (const char *)data + at, n));
    }
    dr_tensor_file_release(f, t);
    return DR_OK;
}

static dr_status write_ckpt(const char *from, const char *to, int64_t number)
{
    dr_tensor_file *f = NULL;
    DR_TRY(dr_tensor_file_open(&f, from));
    const size_t n = dr_tensor_file_count(f);
    const dr_torch_number numbers[] = {{"epoch", number}, {"global_step", number}};
    dr_safetensors_entry *entries = dr_xcalloc(n, sizeof *entries);
    for (size_t i = 0; i < n; i++) {
        const dr_file_tensor *t = dr_tensor_file_at(f, i);
        entries[i] = (dr_safetensors_entry){t->name, t->dtype, t->rank, t->shape};
    }
    const dr_torch_content content = {.entries = entries,
                                      .n_entries = n,
                                      .numbers = numbers,
                                      .n_numbers = number == -1 ? 0 : 2,
                                      .bare = number == -1};
    const dr_status st = dr_torch_write(to, &content, emit_tensor, f);
    free(entries);
    dr_tensor_file_close(f);
    return st;
}

/* Exact in f32, so that Python can compute the same: (entry * 1000 + index) / 8. */
static void make_entry(int i, char key[DR_XXH3_HEX], float latent[N_LATENT])
{
    dr_xxh3_hex(dr_xxh3_bytes(&i, sizeof i), key);
    for (int k = 0; k < N_LATENT; k++) {
        latent[k] = (float)(i * 1000 + k) / 8.0f;
    }
}

static dr_status fill_cache(const char *dir, int n)
{
    dr_latent_cache *c = NULL;
    DR_TRY(dr_latent_cache_open(&c, dir, DR_LATENT_CACHE_WRITE));
    for (int i = 0; i < n; i++) {
        char key[DR_XXH3_HEX];
        char image[64];
        float latent[N_LATENT];
        make_entry(i, key, latent);
        (void)snprintf(image, sizeof image, "10_sks dog/b\xc3\xa4r %d.png", i);
        const dr_latent_desc desc = {.image = image,
                                     .bucket = "64x48",
                                     .crop = "0,3",
                                     .vae = "",
                                     .content = "",
                                     .kind = "latent",
                                     .dtype = "f32",
                                     .stored = DR_F32,
                                     .flip = i % 2 == 1};
        DR_TRY(dr_latent_cache_put(c, key, &desc, shape, latent));
        if (i == n / 2) {
            DR_TRY(dr_latent_cache_commit(c));
        }
    }
    return dr_latent_cache_close(c);
}

static dr_status check_cache(const char *dir, int n)
{
    dr_latent_cache *c = NULL;
    DR_TRY(dr_latent_cache_open(&c, dir, DR_LATENT_CACHE_READ));
    for (int i = 0; i < n; i++) {
        char key[DR_XXH3_HEX];
        float want[N_LATENT];
        float got[N_LATENT];
        make_entry(i, key, want);
        DR_TRY(dr_latent_cache_get(c, key, shape, got));
        if (memcmp(got, want, sizeof got) != 0) {
            DR_FAIL(DR_FORMAT, "%s: entry %d differs", dir, i);
        }
    }
    (void)printf("%zu\n", dr_latent_cache_count(c));
    return dr_latent_cache_close(c);
}

/* One event file in dir with a picture, a text and odd numbers. */
static dr_status write_events(const char *dir, const char *png, const char *text)
{
    enum { MAX_BYTES = 1 << 20 };
    dr_event_file *f = NULL;
    char *data = NULL;
    dr_event_png picture = {.width = 56, .height = 40};
    DR_TRY(dr_file_read(png, MAX_BYTES, &data, &picture.n));
    picture.data = data;
    dr_status st = dr_event_file_create(dir, 1.75e9, -1, &f);
    if (st == DR_OK) {
        dr_event_file_png(f, &(dr_event_at){1.75e9, 7, "sample/0"}, &picture);
        dr_event_file_text(f, &(dr_event_at){1.75e9, 7, "words"}, text);
        dr_event_file_scalar(f, &(dr_event_at){1.75e9, 0, "odd"}, -1.5);
        dr_event_file_scalar(f, &(dr_event_at){1.75e9, INT64_C(1) << 40, "odd"}, 1e-30);
        dr_event_file_scalar(f, &(dr_event_at){1.75e9, INT64_C(1) << 62, "odd"}, 3.4e38);
        dr_event_file_scalar(f, &(dr_event_at){1.75e9, 1, "nan"}, (double)NAN);
        st = dr_event_file_flush(f);
    }
    dr_event_file_close(f);
    free(data);
    return st;
}

static dr_status run(int argc, char **argv)
{
    int64_t n = 0;
    if (argc == 3 && strcmp(argv[1], "list") == 0) {
        return list_file(argv[2]);
    }
    if (argc == 4 && strcmp(argv[1], "copy") == 0) {
        return copy_file(argv[2], argv[3]);
    }
    if (argc == 5 && strcmp(argv[1], "ckpt") == 0 && dr_parse_i64(argv[4], &n)) {
        return write_ckpt(argv[2], argv[3], n);
    }
    if (argc == 5 && strcmp(argv[1], "events") == 0) {
        return write_events(argv[2], argv[3], argv[4]);
    }
    bool counted = argc == 4 && dr_parse_i64(argv[3], &n) && n >= 0 && n < 100000;
    if (counted && strcmp(argv[1], "cache_fill") == 0) {
        return fill_cache(argv[2], (int)n);
    }
    if (counted && strcmp(argv[1], "cache_check") == 0) {
        return check_cache(argv[2], (int)n);
    }
    DR_FAIL(
        DR_INVALID,
        "usage: io_driver list FILE | copy FROM TO | ckpt FROM TO NUMBER | cache_fill DIR COUNT | "
        "cache_check DIR COUNT | events DIR PNG TEXT");
}

int main(int argc, char **argv)
{
    dr_status st = run(argc, argv);
    if (st != DR_OK) {
        dr_log_error_record();
    }
    return dr_status_exit_code(st);
}
