/*
 * Looks at many picture files at once; what it finds does not depend on the number of threads.
 */
#include "base/arena.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "data/folders_internal.h"
#include "data/picture_check.h"

#include <stdlib.h>
#include <string.h>

typedef struct probing {
    const dr_folder_options *o;
    const dr_info_cache *cache; /* NULL: none */
    dr_probed *at;
} probing;

/* Whether the picture need not be looked at again. */
static bool is_known(const probing *p, dr_probed *at)
{
    at->whole = p->o->probe == dr_picture_check_decoding;
    if (p->cache == NULL) {
        return false;
    }
    at->stamp = dr_file_stamp_take(at->path);
    at->known = dr_info_cache_find(p->cache, at->path, &at->stamp, &at->whole, &at->size);
    return at->known;
}

static dr_status probe_one(void *arg, size_t i)
{
    const probing *p = arg;
    dr_probed *at = &p->at[i];
    const dr_image_options *decode = p->o->picture != NULL ? &p->o->picture->decode : NULL;
    if (is_known(p, at)) {
        return DR_OK;
    }
    at->status = p->o->probe(at->path, decode, &at->size);
    if (at->status == DR_FORMAT || at->status == DR_IO || at->status == DR_UNSUPPORTED) {
        size_t n = strlen(dr_error_message()) + 1;
        at->error = dr_xcalloc(n, 1);
        memcpy(at->error, dr_error_message(), n);
        dr_error_clear();
        return DR_OK;
    }
    return at->status;
}

static dr_status probe_all(probing *p, size_t n)
{
    dr_thread_pool *pool = NULL;
    int helpers = p->o->threads > 1 && n > 1 ? p->o->threads - 1 : 0; /* the caller works, too */
    if (helpers > 0) {
        DR_TRY(dr_thread_pool_create(helpers, &pool));
    }
    dr_status st = dr_thread_pool_for(pool, n, probe_one, p);
    dr_thread_pool_destroy(pool);
    return st;
}

static void keep(dr_info_cache *cache, const dr_probed *at, size_t n)
{
    dr_info_entry *entries = dr_xcalloc(n + 1, sizeof *entries);
    size_t n_good = 0;
    for (size_t i = 0; i < n; i++) {
        if (at[i].status == DR_OK) {
            entries[n_good++] = (dr_info_entry){at[i].path, at[i].size, at[i].stamp, at[i].whole};
        }
    }
    dr_info_cache_save(cache, entries, n_good);
    free(entries);
}

dr_status dr_probe_pictures(const dr_folder_options *o, const char *info_dir, dr_probed *at,
                            size_t n)
{
    const dr_image_options *decode = o->picture != NULL ? &o->picture->decode : NULL;
    dr_info_cache *cache = info_dir != NULL ? dr_info_cache_open(info_dir, decode) : NULL;
    probing p = {o, cache, at};
    dr_status st = probe_all(&p, n);
    if (st == DR_OK && cache != NULL) {
        size_t n_known = 0;
        for (size_t i = 0; i < n; i++) {
            n_known += at[i].known;
        }
        dr_info("%s: %zu of %zu pictures are unchanged since they were looked at", info_dir,
                n_known, n);
    }
    if (st == DR_OK && cache != NULL && !o->info_read_only) {
        keep(cache, at, n);
    }
    dr_info_cache_close(cache);
    return st;
}

void dr_probed_free(dr_probed *at, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(at[i].path);
        free(at[i].error);
    }
    free(at);
}
