#include "train/latents_cache.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"
#include "data/latent_key.h"
#include "io/latent_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 4, FACTOR = 8 };

typedef struct filling {
    const dr_latents_fill *f;
    dr_dist *d;
    size_t n;              /* entries */
    dr_xxh3 *keys;         /* (n) */
    unsigned char *have;   /* (n) 1: the latent is in memory */
    dr_latent_cache *disk; /* rank 0 with a cache_dir */
    float *chw;            /* scratch: the largest latent */
    size_t max_elems;
} filling;

static const dr_dataset_image *image_of(const filling *s, size_t entry)
{
    return &s->f->dataset->images[entry / s->f->n_sides];
}

static dr_latent_shape shape_of(const filling *s, size_t entry)
{
    const dr_bucket *b = &s->f->dataset->buckets[image_of(s, entry)->bucket];
    return (dr_latent_shape){.c = CHANNELS, .h = b->size.h / FACTOR, .w = b->size.w / FACTOR};
}

static size_t elems_of(const filling *s, size_t entry)
{
    dr_latent_shape shape = shape_of(s, entry);
    return (size_t)(shape.c * shape.h * shape.w);
}

/* The cache stores (4,h,w), as other programs expect it; memory holds (h,w,4). */
static void chw_to_hwc(const float *chw, dr_latent_shape s, float *hwc)
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

static dr_status key_of(const filling *s, size_t entry, dr_xxh3 *out)
{
    const dr_dataset_image *im = image_of(s, entry);
    char hex[DR_XXH3_HEX];
    dr_latent_key_parts parts = {.fit = im->fit,
                                 .picture = im->picture,
                                 .flip = entry % s->f->n_sides == 1,
                                 .vae_hash = s->f->vae_hash,
                                 .dtype = "f32"};
    DR_TRY(dr_xxh3_file(im->path, &parts.image));
    dr_latent_key(&parts, hex);
    DR_CHECK(dr_xxh3_parse(hex, out), "latent key %s", hex);
    return DR_OK;
}

/* Every rank hashes its share of the pictures; all end with all keys. */
static dr_status hash_all(filling *s)
{
    size_t world = (size_t)dr_dist_world(s->d);
    size_t share = (s->n + world - 1) / world;
    dr_xxh3 *mine = dr_xcalloc(share, sizeof *mine);
    dr_xxh3 *all = dr_xcalloc(share * world, sizeof *all);
    dr_status st = DR_OK;
    for (size_t i = 0; st == DR_OK && i < share; i++) {
        size_t entry = (size_t)dr_dist_rank(s->d) * share + i;
        st = entry < s->n ? key_of(s, entry, &mine[i]) : DR_OK;
    }
    st = dr_dist_agree(s->d, st);
    if (st == DR_OK) {
        st = dr_dist_allgather(s->d, mine, all, share * sizeof *mine);
        memcpy(s->keys, all, s->n * sizeof *all);
    }
    free(mine);
    free(all);
    return st;
}

/* Rank 0 reads what the cache holds; a damaged entry counts as absent and is encoded again. */
static dr_status read_disk(filling *s)
{
    DR_TRY(dr_latent_cache_open(&s->disk, s->f->cache_dir, DR_LATENT_CACHE_WRITE));
    for (size_t i = 0; i < s->n; i++) {
        char hex[DR_XXH3_HEX];
        dr_xxh3_hex(s->keys[i], hex);
        if (!dr_latent_cache_has(s->disk, hex)) {
            continue;
        }
        dr_status st = dr_latent_cache_get(s->disk, hex, shape_of(s, i), s->chw);
        if (st == DR_OK) {
            chw_to_hwc(s->chw, shape_of(s, i), s->f->latents[i]);
            s->have[i] = 1;
        } else {
            dr_warn("%s; it is encoded again", dr_error_message());
            dr_error_clear();
        }
    }
    return DR_OK;
}

static dr_status share_disk(filling *s)
{
    dr_status st = DR_OK;
    if (dr_dist_rank(s->d) == 0 && s->f->cache_dir != NULL) {
        st = read_disk(s);
    }
    DR_TRY(dr_dist_agree(s->d, st));
    DR_TRY(dr_dist_bcast(s->d, s->have, s->n, 0));
    for (size_t i = 0; i < s->n; i++) {
        if (s->have[i]) {
            DR_TRY(dr_dist_bcast(s->d, s->f->latents[i], elems_of(s, i) * sizeof(float), 0));
        }
    }
    return DR_OK;
}

static dr_status store(filling *s, size_t entry)
{
    const dr_dataset_image *im = image_of(s, entry);
    const dr_bucket *b = &s->f->dataset->buckets[im->bucket];
    char hex[DR_XXH3_HEX];
    char bucket[32];
    char crop[32];
    dr_xxh3_hex(s->keys[entry], hex);
    (void)snprintf(bucket, sizeof bucket, "%dx%d", (int)b->size.w, (int)b->size.h);
    (void)snprintf(crop, sizeof crop, "%d,%d", (int)im->fit.crop_x, (int)im->fit.crop_y);
    hwc_to_chw(s->f->latents[entry], shape_of(s, entry), s->chw);
    return dr_latent_cache_put(s->disk, hex,
                               &(dr_latent_desc){.image = im->path,
                                                 .bucket = bucket,
                                                 .crop = crop,
                                                 .vae = s->f->vae_hash,
                                                 .dtype = "f32",
                                                 .flip = entry % s->f->n_sides == 1},
                               shape_of(s, entry), s->chw);
}

/* One round: rank r encodes entry todo[r]; all ranks get all results. */
static dr_status encode_round(filling *s, const size_t *todo, int n, float *mine, float *all)
{
    int rank = dr_dist_rank(s->d);
    dr_status st = DR_OK;
    if (rank < n) {
        st = s->f->encode(s->f->user, todo[rank], s->keys[todo[rank]], mine);
    }
    DR_TRY(dr_dist_agree(s->d, st));
    DR_TRY(dr_dist_allgather(s->d, mine, all, s->max_elems * sizeof(float)));
    for (int r = 0; r < n; r++) {
        memcpy(s->f->latents[todo[r]], all + (size_t)r * s->max_elems,
               elems_of(s, todo[r]) * sizeof(float));
        if (s->disk != NULL && st == DR_OK) {
            st = store(s, todo[r]);
        }
    }
    return dr_dist_agree(s->d, st);
}

static dr_status encode_missing(filling *s)
{
    size_t world = (size_t)dr_dist_world(s->d);
    size_t *todo = dr_xcalloc(s->n, sizeof *todo);
    float *mine = dr_xcalloc(s->max_elems, sizeof *mine);
    float *all = dr_xcalloc(s->max_elems * world, sizeof *all);
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (!s->have[i]) {
            todo[n++] = i;
        }
    }
    dr_info("latents: %zu of %zu are cached, %zu to encode", s->n - n, s->n, n);
    dr_status st = DR_OK;
    double said = dr_now_s();
    for (size_t i = 0; st == DR_OK && i < n; i += world) {
        size_t count = n - i < world ? n - i : world;
        st = encode_round(s, todo + i, (int)count, mine, all);
        if (dr_now_s() - said > 5.0) { /* seconds between progress lines */
            said = dr_now_s();
            dr_info("latents: %zu/%zu encoded", i + count, n);
        }
    }
    free(todo);
    free(mine);
    free(all);
    return st;
}

dr_status dr_latents_cache_fill(dr_dist *d, const dr_latents_fill *f)
{
    filling s = {.f = f, .d = d, .n = f->dataset->n_images * f->n_sides};
    s.keys = dr_xcalloc(s.n, sizeof *s.keys);
    s.have = dr_xcalloc(s.n, 1);
    for (size_t i = 0; i < s.n; i++) {
        s.max_elems = elems_of(&s, i) > s.max_elems ? elems_of(&s, i) : s.max_elems;
    }
    s.chw = dr_xcalloc(s.max_elems, sizeof *s.chw);
    dr_status st = hash_all(&s);
    if (st == DR_OK) {
        st = share_disk(&s);
    }
    if (st == DR_OK) {
        st = encode_missing(&s);
    }
    dr_status closed = dr_latent_cache_close(s.disk); /* on rank 0; NULL elsewhere */
    st = st == DR_OK ? dr_dist_agree(d, closed) : st;
    free(s.keys);
    free(s.have);
    free(s.chw);
    return st;
}
