/*
 * Why an entry is missing although the cache knows its picture: the entry of that path that has
 * most in common with what is wanted names what has changed.
 */
#include "train/latents/latents_cache_internal.h"

#include "base/arena.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAMED = 5 };

typedef enum cause { EDITED, FITTED, OTHER_VAE, OTHER_FORM, OTHER_PIXELS, N_CAUSES } cause;

static const char *const cause_texts[N_CAUSES] = {
    "the picture was edited since it was cached", "it was cached for another size or crop",
    "it was cached with another VAE",
    "it was cached in another form (--latent_cache_content, --latent_cache_dtype)",
    "it was read in another way (--compat, --alpha_color, --resize_interpolation, another "
    "version)"};

typedef struct missing {
    const char *path;
    size_t entry;
    int n_same;  /* of what is wanted, in the best entry found; -1: none found */
    cause first; /* what differs there */
    char was[80], is[80];
} missing;

typedef struct search {
    const dr_cached_latents *l;
    missing *at; /* by path, then entry */
    size_t n;
} search;

static int by_path(const void *a, const void *b)
{
    const missing *x = a;
    const missing *y = b;
    int order = strcmp(x->path, y->path);
    return order != 0 ? order : (x->entry > y->entry) - (x->entry < y->entry);
}

/* Compares an entry of the cache with one that is wanted and missing. */
static void compare(const search *s, missing *m, const dr_latent_desc *d)
{
    char content[DR_XXH3_HEX];
    char bucket[32];
    char crop[32];
    dr_xxh3_hex(s->l->content[m->entry / s->l->c.n_sides], content);
    dr_latents_words(s->l, m->entry, bucket, crop);
    bool form = strcmp(d->kind, s->l->c.kind) == 0 && d->stored == s->l->c.stored;
    bool vae = strcmp(d->vae, s->l->c.vae_hash) == 0;
    bool fit = strcmp(d->bucket, bucket) == 0 && strcmp(d->crop, crop) == 0;
    bool same = strcmp(d->content, content) == 0;
    int n_same = form + 2 * vae + 2 * fit + 2 * same; /* the picture's own changes weigh most */
    if (n_same <= m->n_same) {
        return;
    }
    m->n_same = n_same;
    m->first = !same   ? EDITED
               : !vae  ? OTHER_VAE
               : !fit  ? FITTED
               : !form ? OTHER_FORM
                       : OTHER_PIXELS;
    m->was[0] = m->is[0] = '\0';
    if (m->first == OTHER_VAE) {
        (void)snprintf(m->was, sizeof m->was, "%.12s", d->vae);
        (void)snprintf(m->is, sizeof m->is, "%.12s", s->l->c.vae_hash);
    } else if (m->first == FITTED) {
        (void)snprintf(m->was, sizeof m->was, "%.20s at %.20s", d->bucket, d->crop);
        (void)snprintf(m->is, sizeof m->is, "%s at %s", bucket, crop);
    } else if (m->first == OTHER_FORM) {
        (void)snprintf(m->was, sizeof m->was, "%.20s %s", d->kind, dr_dtype_name(d->stored));
        (void)snprintf(m->is, sizeof m->is, "%s %s", s->l->c.kind, dr_dtype_name(s->l->c.stored));
    }
}

static void look_at(void *user, const dr_latent_desc *d)
{
    const search *s = user;
    size_t low = 0;
    size_t high = s->n;
    while (low < high) { /* the first of that path */
        size_t middle = low + (high - low) / 2;
        if (strcmp(s->at[middle].path, d->image) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (; low < s->n && strcmp(s->at[low].path, d->image) == 0; low++) {
        if (dr_latents_is_flipped(s->l, s->at[low].entry) == d->flip) {
            compare(s, &s->at[low], d);
        }
    }
}

static void report(const search *s)
{
    size_t counts[N_CAUSES] = {0};
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) {
        const missing *m = &s->at[i];
        if (m->n_same < 0) {
            continue;
        }
        counts[m->first]++;
        if (n++ < MAX_NAMED) {
            bool told = m->was[0] != '\0';
            dr_info("latents: %s%s is encoded again: %s%s%s%s%s%s", m->path,
                    dr_latents_is_flipped(s->l, m->entry) ? " (mirrored)" : "",
                    cause_texts[m->first], told ? " (" : "", m->was, told ? ", now " : "", m->is,
                    told ? ")" : "");
        }
    }
    for (int i = 0; n > MAX_NAMED && i < N_CAUSES; i++) {
        if (counts[i] > 0) {
            dr_info("latents: %zu entries: %s", counts[i], cause_texts[i]);
        }
    }
}

void dr_latents_explain_misses(dr_cached_latents *l)
{
    if (dr_latent_cache_count(l->disk) == 0) {
        return;
    }
    search s = {.l = l, .at = dr_xcalloc(l->n, sizeof *s.at)};
    for (size_t i = 0; i < l->n; i++) {
        if (l->channels[i] == 0) {
            s.at[s.n++] = (missing){.path = dr_latents_image(l, i)->path, .entry = i, .n_same = -1};
        }
    }
    qsort(s.at, s.n, sizeof *s.at, by_path);
    dr_latent_cache_each(l->disk, look_at, &s);
    report(&s);
    free(s.at);
}
