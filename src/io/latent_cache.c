/*
 * The index over all segments, and the rules of commit. Entries of one key form a chain, newest
 * first, so that a damaged entry can be replaced by a later segment.
 */
#include "io/latent_cache.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "io/latent_segment.h"
#include "io/xxh3.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    COMMIT_BYTES = 32 * 1024 * 1024, /* 512 latents of 512 x 512 */
    COMMIT_SECONDS = 60,             /* what a killed run may lose */
    STALE_SECONDS = 3600,            /* a segment is written within seconds */
    MAX_OPEN = 64,                   /* file handles kept */
    NUMBER_DIGITS = 8
};

static const uint32_t pending_segment = UINT32_MAX;

typedef struct cached { /* one entry */
    dr_xxh3 key;
    uint32_t segment; /* index, or pending_segment */
    uint32_t older;   /* 1 + index of an older entry of this key; 0: none */
    bool damaged;
} cached;

typedef struct segment_file {
    char *path;
    dr_latent_segment *open; /* NULL: closed for now */
    uint64_t last_use;
} segment_file;

struct dr_latent_cache {
    char *dir;
    dr_latent_cache_mode mode;
    segment_file *segments;
    size_t n_segments, cap_segments, n_open, n_damaged_segments;
    uint64_t use_clock;
    int64_t next_number;
    cached *entries;
    size_t n_entries, cap_entries, n_keys;
    uint32_t *slots; /* hash table: 1 + index of a key's newest entry; n_slots a power of two */
    size_t n_slots;
    dr_latent_segment *pending; /* NULL: nothing waits for a commit */
    size_t first_pending, pending_bytes;
    double pending_since;
};

/* ---- index ---- */

static uint32_t *find_slot(const dr_latent_cache *c, dr_xxh3 key)
{
    size_t at = (size_t)key.low & (c->n_slots - 1);
    while (c->slots[at] != 0 && !dr_xxh3_equal(c->entries[c->slots[at] - 1].key, key)) {
        at = (at + 1) & (c->n_slots - 1);
    }
    return &c->slots[at];
}

static void grow_slots(dr_latent_cache *c)
{
    size_t n = c->n_slots > 0 ? c->n_slots * 2 : 1024;
    uint32_t *old = c->slots;
    size_t n_old = c->n_slots;
    c->slots = dr_xcalloc(n, sizeof *c->slots);
    c->n_slots = n;
    for (size_t i = 0; i < n_old; i++) {
        if (old[i] != 0) {
            *find_slot(c, c->entries[old[i] - 1].key) = old[i];
        }
    }
    free(old);
}

static void add_entry(dr_latent_cache *c, dr_xxh3 key, uint32_t segment)
{
    if (c->n_entries == c->cap_entries) {
        c->cap_entries = c->cap_entries > 0 ? c->cap_entries * 2 : 512;
        c->entries = dr_xrealloc(c->entries, c->cap_entries, sizeof *c->entries);
    }
    if (2 * (c->n_keys + 1) > c->n_slots) {
        grow_slots(c);
    }
    uint32_t *slot = find_slot(c, key);
    c->n_keys += *slot == 0;
    c->entries[c->n_entries] = (cached){.key = key, .segment = segment, .older = *slot};
    *slot = (uint32_t)++c->n_entries;
}

static dr_xxh3 parse_key(const char *key)
{
    dr_xxh3 k = {0};
    DR_CHECK(dr_xxh3_parse(key, &k), "latent cache: key '%s' is not 32 lower-case hex digits", key);
    return k;
}

/* The newest entry of the key that is not known to be damaged, or NULL. */
static cached *find_entry(const dr_latent_cache *c, dr_xxh3 key)
{
    for (uint32_t at = *find_slot(c, key); at != 0; at = c->entries[at - 1].older) {
        if (!c->entries[at - 1].damaged) {
            return &c->entries[at - 1];
        }
    }
    return NULL;
}

bool dr_latent_cache_has(const dr_latent_cache *c, const char *key)
{
    return find_entry(c, parse_key(key)) != NULL;
}

size_t dr_latent_cache_count(const dr_latent_cache *c)
{
    return c->n_keys;
}

size_t dr_latent_cache_damaged_segments(const dr_latent_cache *c)
{
    return c->n_damaged_segments;
}

/* ---- segments ---- */

static void close_oldest(dr_latent_cache *c)
{
    segment_file *oldest = NULL;
    for (size_t i = 0; i < c->n_segments; i++) {
        segment_file *f = &c->segments[i];
        if (f->open != NULL && (oldest == NULL || f->last_use < oldest->last_use)) {
            oldest = f;
        }
    }
    dr_latent_segment_close(oldest->open);
    oldest->open = NULL;
    c->n_open--;
}

static dr_status use_segment(dr_latent_cache *c, size_t i, dr_latent_segment **out)
{
    segment_file *f = &c->segments[i];
    if (f->open == NULL) {
        if (c->n_open == MAX_OPEN) {
            close_oldest(c);
        }
        DR_TRY(dr_latent_segment_open(&f->open, f->path));
        c->n_open++;
    }
    f->last_use = ++c->use_clock;
    *out = f->open;
    return DR_OK;
}

/* Takes path. */
static void add_segment(dr_latent_cache *c, char *path)
{
    if (c->n_segments == c->cap_segments) {
        c->cap_segments = c->cap_segments > 0 ? c->cap_segments * 2 : 16;
        c->segments = dr_xrealloc(c->segments, c->cap_segments, sizeof *c->segments);
    }
    c->segments[c->n_segments++] = (segment_file){.path = path};
}

static dr_status load_keys(dr_latent_cache *c, size_t i_segment, dr_strv *names)
{
    dr_latent_segment *s = NULL;
    DR_TRY(use_segment(c, i_segment, &s));
    DR_TRY(dr_latent_segment_keys(s, names));
    for (size_t i = 0; i < names->n; i++) {
        dr_xxh3 key;
        if (!dr_xxh3_parse(names->at[i], &key)) {
            DR_FAIL(DR_FORMAT, "%s: '%s' is not a latent's key", c->segments[i_segment].path,
                    names->at[i]);
        }
    }
    return DR_OK;
}

/* Enters a file's entries into the index; a damaged file gives a warning. */
static void load_segment(dr_latent_cache *c, const char *name)
{
    size_t i_segment = c->n_segments;
    dr_strv names = {0};
    add_segment(c, dr_path_join(c->dir, name));
    if (load_keys(c, i_segment, &names) == DR_OK) {
        for (size_t i = 0; i < names.n; i++) {
            add_entry(c, parse_key(names.at[i]), (uint32_t)i_segment);
        }
    } else {
        dr_warn("latent cache: %s: this file is left out and its latents are encoded again; delete "
                "it to silence this warning",
                dr_error_message());
        dr_error_clear();
        c->n_damaged_segments++;
    }
    dr_strv_free(&names);
}

/* The number in "latents-<number>-<hash>.h5", or -1. */
static int64_t segment_number(const char *name)
{
    static const char prefix[] = "latents-";
    char digits[NUMBER_DIGITS + 1] = "";
    int64_t number = -1;
    if (!dr_str_starts(name, prefix) || !dr_str_ends(name, ".h5")) {
        return -1;
    }
    name += sizeof prefix - 1;
    if (strspn(name, "0123456789") != NUMBER_DIGITS || name[NUMBER_DIGITS] != '-') {
        return -1;
    }
    memcpy(digits, name, NUMBER_DIGITS);
    return dr_parse_i64(digits, &number) ? number : -1;
}

/* Removes what a killed run left; a file that another run is just writing is young. */
static void remove_if_stale(const dr_latent_cache *c, const char *name)
{
    struct stat st;
    if (!dr_str_starts(name, "latents-") || strstr(name, ".h5.tmp.") == NULL) {
        return;
    }
    char *path = dr_path_join(c->dir, name);
    if (stat(path, &st) == 0 && difftime(time(NULL), st.st_mtime) > STALE_SECONDS) {
        (void)unlink(path);
    }
    free(path);
}

static dr_status load_folder(dr_latent_cache *c)
{
    dr_strv names = {0};
    if (c->mode == DR_LATENT_CACHE_WRITE) {
        DR_TRY(dr_mkdirs(c->dir));
    }
    dr_status st = dr_list_dir(c->dir, &names);
    for (size_t i = 0; st == DR_OK && i < names.n; i++) { /* sorted: by number, oldest first */
        int64_t number = segment_number(names.at[i]);
        if (number >= 0) {
            load_segment(c, names.at[i]);
            c->next_number = number + 1;
        } else if (c->mode == DR_LATENT_CACHE_WRITE) {
            remove_if_stale(c, names.at[i]);
        }
    }
    dr_strv_free(&names);
    return st;
}

static void release(dr_latent_cache *c)
{
    dr_latent_segment_close(c->pending);
    for (size_t i = 0; i < c->n_segments; i++) {
        dr_latent_segment_close(c->segments[i].open);
        free(c->segments[i].path);
    }
    free(c->segments);
    free(c->entries);
    free(c->slots);
    free(c->dir);
    free(c);
}

dr_status dr_latent_cache_open(dr_latent_cache **out, const char *dir, dr_latent_cache_mode mode)
{
    *out = NULL;
    dr_latent_cache *c = dr_xcalloc(1, sizeof *c);
    c->dir = dr_xcalloc(strlen(dir) + 1, 1);
    memcpy(c->dir, dir, strlen(dir));
    c->mode = mode;
    c->next_number = 1;
    grow_slots(c);
    dr_status st = load_folder(c);
    if (st != DR_OK) {
        release(c);
        return st;
    }
    *out = c;
    return DR_OK;
}

dr_status dr_latent_cache_close(dr_latent_cache *c)
{
    if (c == NULL) {
        return DR_OK;
    }
    dr_status st = c->mode == DR_LATENT_CACHE_WRITE ? dr_latent_cache_commit(c) : DR_OK;
    release(c);
    return st;
}

/* ---- writing ---- */

static dr_status write_pending(const dr_latent_cache *c, char **path)
{
    void *image = NULL;
    size_t n = 0;
    DR_TRY(dr_latent_segment_image(c->pending, &image, &n));
    dr_str name = {0}; /* the hash keeps two runs that count alike apart */
    dr_str_printf(&name, "latents-%08lld-%016llx.h5", (long long)c->next_number,
                  (unsigned long long)dr_xxh3_bytes(image, n).low);
    *path = dr_path_join(c->dir, dr_str_get(&name));
    dr_str_free(&name);
    dr_status st = dr_file_write(*path, image, n);
    free(image);
    if (st != DR_OK) {
        free(*path);
    }
    return st;
}

dr_status dr_latent_cache_commit(dr_latent_cache *c)
{
    DR_CHECK(c->mode == DR_LATENT_CACHE_WRITE, "latent cache %s is open for reading", c->dir);
    if (c->pending == NULL || c->first_pending == c->n_entries) {
        return DR_OK;
    }
    char *path = NULL;
    DR_TRY(write_pending(c, &path));
    for (size_t i = c->first_pending; i < c->n_entries; i++) {
        c->entries[i].segment = (uint32_t)c->n_segments;
    }
    add_segment(c, path);
    c->next_number++;
    dr_latent_segment_close(c->pending);
    c->pending = NULL;
    return DR_OK;
}

dr_status dr_latent_cache_put(dr_latent_cache *c, const char *key, const dr_latent_desc *desc,
                              dr_latent_shape shape, const float *data)
{
    DR_CHECK(c->mode == DR_LATENT_CACHE_WRITE, "latent cache %s is open for reading", c->dir);
    DR_CHECK(shape.c > 0 && shape.h > 0 && shape.w > 0, "latent '%s' is (%lld,%lld,%lld)", key,
             (long long)shape.c, (long long)shape.h, (long long)shape.w);
    dr_xxh3 k = parse_key(key);
    if (find_entry(c, k) != NULL) {
        return DR_OK;
    }
    uint32_t newest = *find_slot(c, k);
    if (newest != 0 && c->entries[newest - 1].segment == pending_segment) {
        DR_TRY(dr_latent_cache_commit(c)); /* a segment holds a key once */
    }
    if (c->pending == NULL) {
        DR_TRY(dr_latent_segment_create(&c->pending));
        c->first_pending = c->n_entries;
        c->pending_bytes = 0;
        c->pending_since = dr_now_s();
    }
    DR_TRY(dr_latent_segment_put(c->pending, key, desc, shape, data));
    add_entry(c, k, pending_segment);
    c->pending_bytes += (size_t)shape.c * (size_t)shape.h * (size_t)shape.w * sizeof *data;
    if (c->pending_bytes >= COMMIT_BYTES || dr_now_s() - c->pending_since >= COMMIT_SECONDS) {
        DR_TRY(dr_latent_cache_commit(c));
    }
    return DR_OK;
}

/* ---- reading ---- */

static dr_status read_entry(dr_latent_cache *c, const cached *e, const char *key,
                            dr_latent_shape shape, float *buf)
{
    dr_latent_segment *s = c->pending;
    if (e->segment != pending_segment) {
        DR_TRY(use_segment(c, e->segment, &s));
    }
    return dr_latent_segment_get(s, key, shape, buf);
}

dr_status dr_latent_cache_get(dr_latent_cache *c, const char *key, dr_latent_shape shape,
                              float *buf)
{
    dr_xxh3 k = parse_key(key);
    cached *e = find_entry(c, k);
    if (e == NULL) {
        DR_FAIL(DR_FORMAT, "%s: no latent '%s' in the cache; it must be encoded", c->dir, key);
    }
    dr_status st = DR_OK;
    while (e != NULL && (st = read_entry(c, e, key, shape, buf)) != DR_OK) {
        e->damaged = true;
        e = find_entry(c, k);
    }
    return st;
}

/* The segment that holds an entry, or NULL. */
static dr_latent_segment *segment_of(dr_latent_cache *c, const cached *e)
{
    dr_latent_segment *s = c->pending;
    if (e->segment != pending_segment && use_segment(c, e->segment, &s) != DR_OK) {
        dr_error_clear();
        return NULL;
    }
    return s;
}

int64_t dr_latent_cache_channels(dr_latent_cache *c, const char *key)
{
    const cached *e = find_entry(c, parse_key(key));
    dr_latent_segment *s = e != NULL ? segment_of(c, e) : NULL;
    return s != NULL ? dr_latent_segment_channels(s, key) : 0;
}

void dr_latent_cache_each(dr_latent_cache *c, void (*fn)(void *user, const dr_latent_desc *desc),
                          void *user)
{
    for (size_t i = 0; i < c->n_entries; i++) { /* in the order of segments */
        char key[DR_XXH3_HEX];
        dr_xxh3_hex(c->entries[i].key, key);
        dr_latent_segment *s = segment_of(c, &c->entries[i]);
        if (s != NULL) {
            (void)dr_latent_segment_describe(s, key, fn, user);
        }
    }
}
