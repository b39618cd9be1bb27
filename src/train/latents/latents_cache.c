#include "train/latents/latents_cache.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"
#include "data/latent_key.h"
#include "train/latents/latents_cache_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FACTOR = 8, PROGRESS_SECONDS = 5 };

static const char vae_dtype[] = "f32"; /* what the VAE computes in */

const dr_dataset_image *dr_latents_image(const dr_cached_latents *l, size_t entry)
{
    return &l->c.dataset->images[entry / l->c.n_sides];
}

bool dr_latents_is_flipped(const dr_cached_latents *l, size_t entry)
{
    return entry % l->c.n_sides == 1;
}

dr_latent_shape dr_latents_shape(const dr_cached_latents *l, size_t entry, int64_t channels)
{
    const dr_bucket *b = &l->c.dataset->buckets[dr_latents_image(l, entry)->bucket];
    return (dr_latent_shape){.c = channels, .h = b->size.h / FACTOR, .w = b->size.w / FACTOR};
}

static size_t values_of(const dr_cached_latents *l, size_t entry, int64_t channels)
{
    dr_latent_shape s = dr_latents_shape(l, entry, channels);
    return (size_t)(s.c * s.h * s.w);
}

size_t dr_cached_latents_max_values(const dr_cached_latents *l)
{
    size_t most = 0;
    for (size_t i = 0; i < l->n; i += l->c.n_sides) {
        size_t n = values_of(l, i, 8);
        most = n > most ? n : most;
    }
    return most;
}

dr_xxh3 dr_latents_key(const dr_cached_latents *l, size_t entry, const char *kind)
{
    char hex[DR_XXH3_HEX];
    dr_xxh3 key = {0};
    dr_latent_key(&(dr_latent_key_parts){.image = l->content[entry / l->c.n_sides],
                                         .fit = dr_latents_image(l, entry)->fit,
                                         .picture = dr_latents_image(l, entry)->picture,
                                         .flip = dr_latents_is_flipped(l, entry),
                                         .vae_hash = l->c.vae_hash,
                                         .dtype = vae_dtype,
                                         .kind = kind,
                                         .stored = dr_dtype_name(l->c.stored)},
                  hex);
    DR_CHECK(dr_xxh3_parse(hex, &key), "latent key %s", hex);
    return key;
}

void dr_latents_words(const dr_cached_latents *l, size_t entry, char bucket[32], char crop[32])
{
    const dr_bucket_fit *fit = &dr_latents_image(l, entry)->fit;
    (void)snprintf(bucket, 32, "%dx%d", (int)fit->bucket.w, (int)fit->bucket.h);
    (void)snprintf(crop, 32, "%d,%d", (int)fit->crop_x, (int)fit->crop_y);
}

/* The cache stores (c,h,w), as other programs expect it; memory holds (h,w,c). */
void dr_latents_chw_to_hwc(const float *chw, dr_latent_shape s, float *hwc)
{
    for (int64_t c = 0; c < s.c; c++) {
        for (int64_t i = 0; i < s.h * s.w; i++) {
            hwc[i * s.c + c] = chw[c * s.h * s.w + i];
        }
    }
}

static void hwc_to_chw(const float *hwc, dr_latent_shape s, float *chw)
{
    for (int64_t c = 0; c < s.c; c++) {
        for (int64_t i = 0; i < s.h * s.w; i++) {
            chw[c * s.h * s.w + i] = hwc[i * s.c + c];
        }
    }
}

/* ---- hashes ---- */

/* Every rank hashes its share of the pictures; all end with all hashes. */
static dr_status hash_all(dr_cached_latents *l)
{
    size_t world = (size_t)dr_dist_world(l->dist);
    size_t n = l->c.dataset->n_images;
    size_t share = (n + world - 1) / world;
    dr_xxh3 *mine = dr_xcalloc(share, sizeof *mine);
    dr_xxh3 *all = dr_xcalloc(share * world, sizeof *all);
    dr_status st = DR_OK;
    for (size_t i = 0; st == DR_OK && i < share; i++) {
        size_t image = (size_t)dr_dist_rank(l->dist) * share + i;
        st = image < n ? dr_xxh3_file(l->c.dataset->images[image].path, &mine[i]) : DR_OK;
    }
    st = dr_dist_agree(l->dist, st);
    if (st == DR_OK) {
        st = dr_dist_allgather(l->dist, mine, all, share * sizeof *mine);
        memcpy(l->content, all, n * sizeof *all);
    }
    free(mine);
    free(all);
    return st;
}

/* ---- one entry in, one entry out ---- */

static dr_status put_on_disk(dr_cached_latents *l, size_t entry, dr_latent_shape shape,
                             const char *kind, const float *hwc)
{
    char hex[DR_XXH3_HEX];
    char content[DR_XXH3_HEX];
    char bucket[32];
    char crop[32];
    dr_xxh3_hex(dr_latents_key(l, entry, kind), hex);
    dr_xxh3_hex(l->content[entry / l->c.n_sides], content);
    dr_latents_words(l, entry, bucket, crop);
    hwc_to_chw(hwc, shape, l->scratch);
    return dr_latent_cache_put(l->disk, hex,
                               &(dr_latent_desc){.image = dr_latents_image(l, entry)->path,
                                                 .content = content,
                                                 .bucket = bucket,
                                                 .crop = crop,
                                                 .vae = l->c.vae_hash,
                                                 .kind = kind,
                                                 .dtype = vae_dtype,
                                                 .stored = l->c.stored,
                                                 .flip = dr_latents_is_flipped(l, entry)},
                               shape, l->scratch);
}

/* Memory for an entry of that many channels. */
static dr_status make_room(dr_cached_latents *l, size_t entry, int64_t channels)
{
    size_t n = values_of(l, entry, channels);
    DR_TRY(dr_try_calloc(n, dr_dtype_size(l->c.stored), &l->values[entry]));
    l->bytes += n * dr_dtype_size(l->c.stored);
    return DR_OK;
}

dr_status dr_latents_keep(dr_cached_latents *l, size_t entry, int64_t channels, const char *kind,
                          float *hwc)
{
    dr_latent_shape shape = dr_latents_shape(l, entry, channels);
    size_t n = (size_t)(shape.c * shape.h * shape.w);
    if (l->disk != NULL) {
        if (l->c.stored != DR_F32) {
            dr_convert(l->scratch, l->c.stored, hwc, DR_F32, n);
            dr_convert(hwc, DR_F32, l->scratch, l->c.stored, n);
        }
        DR_TRY(put_on_disk(l, entry, shape, kind, hwc));
    } else {
        DR_TRY(make_room(l, entry, channels));
        dr_convert(l->values[entry], l->c.stored, hwc, DR_F32, n);
    }
    l->channels[entry] = (unsigned char)channels;
    return DR_OK;
}

static dr_status read_disk(dr_cached_latents *l, size_t entry, int64_t channels, const char *kind,
                           float *hwc)
{
    char hex[DR_XXH3_HEX];
    dr_latent_shape shape = dr_latents_shape(l, entry, channels);
    dr_xxh3_hex(dr_latents_key(l, entry, kind), hex);
    dr_status st = dr_latent_cache_get(l->disk, hex, shape, l->scratch);
    if (st != DR_OK) {
        return dr_error_prefix(st, "%s", dr_latents_image(l, entry)->path);
    }
    dr_latents_chw_to_hwc(l->scratch, shape, hwc);
    return DR_OK;
}

static const char *kind_of(const dr_cached_latents *l, size_t entry)
{
    return l->imported[entry] ? "npz" : l->c.kind;
}

dr_status dr_cached_latents_read(dr_cached_latents *l, size_t entry, float *out, int64_t *channels)
{
    *channels = l->channels[entry];
    if (l->values[entry] != NULL) {
        dr_convert(out, DR_F32, l->values[entry], l->c.stored, values_of(l, entry, *channels));
        return DR_OK;
    }
    dr_status st = read_disk(l, entry, *channels, kind_of(l, entry), out);
    return st == DR_OK ? st
                       : dr_error_prefix(st, "the latent cache was damaged while it was in use "
                                             "(start again: it is encoded anew)");
}

/* ---- what the cache holds already ---- */

/* Looks for an entry of a kind on disk and reads it through; a damaged one counts as absent. */
static bool find_on_disk(dr_cached_latents *l, size_t entry, const char *kind, float *hwc)
{
    char hex[DR_XXH3_HEX];
    dr_xxh3_hex(dr_latents_key(l, entry, kind), hex);
    if (!dr_latent_cache_has(l->disk, hex)) {
        return false;
    }
    int64_t channels = dr_latent_cache_channels(l->disk, hex);
    if (channels != 8 && channels != 4) {
        channels = l->c.channels; /* reading it says what is wrong */
    }
    if (read_disk(l, entry, channels, kind, hwc) != DR_OK) {
        dr_warn("%s; it is encoded again", dr_error_message());
        dr_error_clear();
        return false;
    }
    l->channels[entry] = (unsigned char)channels;
    return true;
}

static dr_status look_up(dr_cached_latents *l)
{
    DR_TRY(dr_latent_cache_open(&l->disk, l->c.cache_dir, DR_LATENT_CACHE_WRITE));
    float *hwc = dr_xcalloc(dr_cached_latents_max_values(l), sizeof *hwc);
    for (size_t i = 0; i < l->n; i++) {
        if (!find_on_disk(l, i, l->c.kind, hwc)) {
            l->imported[i] = find_on_disk(l, i, "npz", hwc);
        }
    }
    free(hwc);
    return dr_latents_import(l);
}

/* ---- encoding what is missing ---- */

static size_t work_values(void *user, uint32_t entry)
{
    const dr_cached_latents *l = user;
    return values_of(l, entry, l->c.channels);
}

static dr_status work_encode(void *user, dr_encode_batch batch, float *out)
{
    const dr_cached_latents *l = user;
    dr_xxh3 *keys = dr_xcalloc(batch.n, sizeof *keys);
    for (uint32_t i = 0; i < batch.n; i++) {
        keys[i] = dr_latents_key(l, batch.entries[i], l->c.kind);
    }
    dr_status st = l->c.encode(l->c.user, batch, keys, out);
    free(keys);
    return st;
}

static void say_progress(dr_cached_latents *l)
{
    double now = dr_now_s();
    if (now - l->said_s < PROGRESS_SECONDS && l->n_done < l->n_todo) {
        return;
    }
    double rate = (double)l->n_done / (now - l->started_s > 1e-9 ? now - l->started_s : 1e-9);
    int64_t left = (int64_t)((double)(l->n_todo - l->n_done) / rate + 0.5);
    l->said_s = now;
    dr_info("latents: %zu/%zu encoded, %.1f a second, %02d:%02d:%02d left", l->n_done, l->n_todo,
            rate, (int)(left / 3600), (int)(left / 60 % 60), (int)(left % 60));
}

static dr_status work_accept(void *user, dr_encode_batch batch, const float *values)
{
    dr_cached_latents *l = user;
    size_t n = values_of(l, batch.entries[0], l->c.channels);
    float *copy = dr_xcalloc(n, sizeof *copy);
    dr_status st = DR_OK;
    for (uint32_t i = 0; st == DR_OK && i < batch.n; i++) {
        memcpy(copy, values + i * n, n * sizeof *copy);
        st = dr_latents_keep(l, batch.entries[i], l->c.channels, l->c.kind, copy);
    }
    free(copy);
    l->n_done += batch.n;
    say_progress(l);
    return st;
}

/* Missing entries, bucket by bucket, into order; returns how many. */
static size_t list_missing(const dr_cached_latents *l, uint32_t *order)
{
    size_t n = 0;
    for (uint32_t bucket = 0; bucket < l->c.dataset->n_all_buckets; bucket++) {
        for (size_t i = 0; i < l->n; i++) {
            if (l->channels[i] == 0 && dr_latents_image(l, i)->bucket == bucket) {
                order[n++] = (uint32_t)i;
            }
        }
    }
    return n;
}

static size_t cut_batches(const dr_cached_latents *l, const uint32_t *order, size_t n,
                          dr_encode_batch *batches)
{
    size_t n_batches = 0;
    for (size_t i = 0; i < n;) {
        uint32_t bucket = dr_latents_image(l, order[i])->bucket;
        uint32_t count = 1;
        while (count < l->c.batch && i + count < n &&
               dr_latents_image(l, order[i + count])->bucket == bucket) {
            count++;
        }
        batches[n_batches++] = (dr_encode_batch){order + i, count};
        i += count;
    }
    return n_batches;
}

/* looked_up: of rank 0, which takes part without work when it failed, so that nobody waits in a
 * collective while it reads the cache. */
static dr_status encode_missing(dr_cached_latents *l, dr_status looked_up)
{
    uint32_t *order = dr_xcalloc(l->n, sizeof *order);
    dr_encode_batch *batches = dr_xcalloc(l->n, sizeof *batches);
    dr_encode_work work = {.batches = batches,
                           .max_entries = l->c.batch,
                           .n_values = work_values,
                           .encode = work_encode,
                           .accept = work_accept,
                           .max_values = l->c.batch * dr_cached_latents_max_values(l),
                           .user = l};
    if (dr_dist_rank(l->dist) == 0 && looked_up == DR_OK) {
        l->n_todo = list_missing(l, order);
        work.n_batches = cut_batches(l, order, l->n_todo, batches);
        dr_info("latents: %zu of %zu are cached, %zu to encode", l->n - l->n_todo, l->n, l->n_todo);
        if (l->disk != NULL && l->n_todo > 0) {
            dr_latents_explain_misses(l);
        }
        l->started_s = l->said_s = dr_now_s();
        if (dr_dist_world(l->dist) == 1) {
            l->c.expect(l->c.user, order, l->n_todo);
        }
    }
    dr_status st = looked_up;
    DR_KEEP_FIRST(dr_encode_all(l->dist, &work), st);
    free(order);
    free(batches);
    if (l->disk != NULL) { /* also after a failure: what was encoded is kept */
        DR_KEEP_FIRST(dr_latent_cache_commit(l->disk), st);
    }
    return dr_dist_agree(l->dist, st);
}

/* ---- every rank gets what it needs ---- */

/* Whether this rank reads all entries from the folder that rank 0 filled. */
static bool sees_folder(dr_cached_latents *l)
{
    if (l->disk == NULL &&
        dr_latent_cache_open(&l->disk, l->c.cache_dir, DR_LATENT_CACHE_READ) != DR_OK) {
        dr_error_clear();
        return false;
    }
    bool all = true;
    for (size_t i = 0; all && i < l->n; i++) {
        char hex[DR_XXH3_HEX];
        dr_xxh3_hex(dr_latents_key(l, i, kind_of(l, i)), hex);
        all = dr_latent_cache_has(l->disk, hex);
    }
    return all;
}

static dr_status close_disk(dr_cached_latents *l)
{
    dr_status st = dr_latent_cache_close(l->disk);
    l->disk = NULL;
    return st;
}

/* All entries from rank 0's memory or disk into the memory of the ranks that want them. */
static dr_status send_all(dr_cached_latents *l, bool wanted)
{
    float *hwc = dr_xcalloc(dr_cached_latents_max_values(l), sizeof *hwc);
    dr_status st = DR_OK;
    for (size_t i = 0; wanted && st == DR_OK && i < l->n; i++) {
        st = l->values[i] == NULL ? make_room(l, i, l->channels[i]) : DR_OK;
    }
    st = dr_dist_agree(l->dist, st);
    for (size_t i = 0; st == DR_OK && i < l->n; i++) {
        size_t n = values_of(l, i, l->channels[i]);
        int64_t channels = 0;
        if (dr_dist_rank(l->dist) == 0) {
            st = dr_cached_latents_read(l, i, hwc, &channels);
        }
        if (st != DR_OK) { /* the others wait for it */
            dr_dist_abort(l->dist, st);
        }
        st = dr_dist_bcast(l->dist, hwc, n * sizeof *hwc, 0);
        if (st == DR_OK && wanted) {
            dr_convert(l->values[i], l->c.stored, hwc, DR_F32, n);
        }
    }
    free(hwc);
    return st;
}

static dr_status share(dr_cached_latents *l)
{
    bool root = dr_dist_rank(l->dist) == 0;
    DR_TRY(dr_dist_bcast(l->dist, l->channels, l->n, 0));
    DR_TRY(dr_dist_bcast(l->dist, l->imported, l->n * sizeof *l->imported, 0));
    unsigned char blind = root ? 0 : 1;
    if (!root && l->c.cache_dir != NULL && sees_folder(l)) {
        blind = 0;
    }
    if (blind && l->disk != NULL) {
        DR_TRY(close_disk(l));
    }
    unsigned char *all = dr_xcalloc((size_t)dr_dist_world(l->dist), 1);
    dr_status st = dr_dist_allgather(l->dist, &blind, all, 1);
    int n_blind = 0;
    for (int r = 0; r < dr_dist_world(l->dist); r++) {
        n_blind += all[r];
    }
    free(all);
    DR_TRY(st);
    if (n_blind > 0 && l->c.cache_dir != NULL) {
        dr_info("latents: %d rank%s cannot see %s and get%s all latents from rank 0", n_blind,
                n_blind > 1 ? "s" : "", l->c.cache_dir, n_blind > 1 ? "" : "s");
    }
    return n_blind > 0 ? send_all(l, blind != 0) : DR_OK;
}

/* ---- the whole ---- */

static dr_status fill(dr_cached_latents *l)
{
    DR_TRY(hash_all(l));
    bool has_disk = dr_dist_rank(l->dist) == 0 && l->c.cache_dir != NULL;
    DR_TRY(encode_missing(l, has_disk ? look_up(l) : DR_OK));
    return l->c.fill_only ? DR_OK : share(l);
}

dr_status dr_cached_latents_create(dr_dist *d, const dr_cached_latents_config *c,
                                   dr_cached_latents **out)
{
    dr_cached_latents *l = dr_xcalloc(1, sizeof *l);
    *out = NULL;
    l->c = *c;
    l->dist = d;
    l->n = c->dataset->n_images * c->n_sides;
    l->content = dr_xcalloc(c->dataset->n_images, sizeof *l->content);
    l->channels = dr_xcalloc(l->n, 1);
    l->imported = dr_xcalloc(l->n, sizeof *l->imported);
    l->values = dr_xcalloc(l->n, sizeof *l->values);
    l->scratch = dr_xcalloc(dr_cached_latents_max_values(l), sizeof *l->scratch);
    dr_status st = fill(l);
    if (st != DR_OK) {
        dr_cached_latents_destroy(l);
        return st;
    }
    *out = l;
    return DR_OK;
}

void dr_cached_latents_destroy(dr_cached_latents *l)
{
    if (l == NULL) {
        return;
    }
    dr_error_copy record; /* everything was committed, or could not be, which stands in it */
    dr_error_export(&record);
    if (l->disk != NULL && close_disk(l) != DR_OK) {
        dr_error_import(&record);
    }
    for (size_t i = 0; i < l->n; i++) {
        free(l->values[i]);
    }
    free((void *)l->values);
    free(l->content);
    free(l->channels);
    free(l->imported);
    free(l->scratch);
    free(l);
}

size_t dr_cached_latents_bytes(const dr_cached_latents *l)
{
    return l->bytes;
}
