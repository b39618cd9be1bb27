/*
 * Looks at many picture files at once; what it finds does not depend on the number of threads.
 */
#include "base/arena.h"
#include "base/thread_pool.h"
#include "data/folders_internal.h"

#include <stdlib.h>
#include <string.h>

typedef struct probing {
    const dr_folder_options *o;
    dr_probed *at;
} probing;

static dr_status probe_one(void *arg, size_t i)
{
    const probing *p = arg;
    dr_probed *at = &p->at[i];
    const dr_image_options *decode = p->o->picture != NULL ? &p->o->picture->decode : NULL;
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

dr_status dr_probe_pictures(const dr_folder_options *o, dr_probed *at, size_t n)
{
    probing p = {o, at};
    dr_thread_pool *pool = NULL;
    int helpers = o->threads > 1 && n > 1 ? o->threads - 1 : 0; /* the caller works, too */
    if (helpers > 0) {
        DR_TRY(dr_thread_pool_create(helpers, &pool));
    }
    dr_status st = dr_thread_pool_for(pool, n, probe_one, &p);
    dr_thread_pool_destroy(pool);
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
