#include "train/hub/hub.h"

#include "base/file.h"
#include "base/log.h"
#include "train/hub/hub_internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- paths with typing errors -------------------------------------------------------------- */

/* The folder of a path that is not there: its longest beginning that is, and what follows. */
static bool existing_parent(const char *path, dr_str *dir, dr_str *rest)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        dr_str_add(dir, ".");
    } else {
        dr_str_add_n(dir, path, slash == path ? 1 : (size_t)(slash - path));
    }
    dr_str_add(rest, slash == NULL ? path : slash + 1);
    return dr_path_is_dir(dir->data);
}

/* A name in the same folder that is nearly the one given. */
static bool similar_path(const char *path, dr_str *out)
{
    dr_str dir = {0};
    dr_str name = {0};
    dr_strv names = {0};
    int best = -1;
    int best_distance = 4; /* more is another name */
    if (existing_parent(path, &dir, &name) && dr_list_dir(dir.data, &names) != DR_OK) {
        dr_error_clear();
    }
    for (size_t i = 0; i < names.n; i++) {
        const int distance = dr_edit_distance(names.at[i], dr_str_get(&name));
        if (distance < best_distance) {
            best = (int)i;
            best_distance = distance;
        }
    }
    if (best >= 0) {
        char *joined = strchr(path, '/') == NULL ? NULL : dr_path_join(dir.data, names.at[best]);
        dr_str_add(out, joined != NULL ? joined : names.at[best]);
        free(joined);
    }
    dr_str_free(&dir);
    dr_str_free(&name);
    dr_strv_free(&names);
    return best >= 0;
}

static dr_status fail_no_path(const char *given)
{
    dr_str similar = {0};
    const bool close = similar_path(given, &similar);
    (void)dr_error_set(DR_INVALID, __FILE__, __LINE__,
                       "%s: no such file or directory%s%s%s; it is no model ID of the hub either, "
                       "which is written owner/name or owner/name@revision",
                       given, close ? "; did you mean '" : "", dr_str_get(&similar),
                       close ? "'?" : "");
    dr_str_free(&similar);
    return DR_INVALID;
}

/* ---- resolving ----------------------------------------------------------------------------- */

static dr_status fail_offline(const dr_hub_id *id, const char *given, const char *cache,
                              const char *missing)
{
    dr_str similar = {0};
    const bool close = similar_path(given, &similar);
    (void)dr_error_set(
        DR_INVALID, __FILE__, __LINE__,
        "%s: no such file or directory, and the hub's model %s@%s is %s the local cache %s%s%s%s; "
        "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids to download it: unset them, or copy the "
        "model here and give its path%s%s%s",
        given, id->repo, id->revision, missing[0] != '\0' ? "incomplete in" : "not in", cache,
        missing[0] != '\0' ? " (without " : "", missing, missing[0] != '\0' ? ")" : "",
        close ? " (did you mean '" : "", dr_str_get(&similar), close ? "'?)" : "");
    dr_str_free(&similar);
    return DR_INVALID;
}

/* The cached or downloaded commit. */
static dr_status get_commit(const dr_hub_id *id, dr_hub_use use, const char *given,
                            const char *cache, char commit[DR_HUB_COMMIT])
{
    dr_str missing = {0};
    bool found = false;
    dr_status st = dr_hub_cache_find(cache, id, use, commit, &found, &missing);
    if (st == DR_OK && !found && dr_hub_is_offline()) {
        st = fail_offline(id, given, cache, dr_str_get(&missing));
    } else if (st == DR_OK && !found) {
        st = dr_hub_download(cache, id, use, commit);
    }
    dr_str_free(&missing);
    if (st == DR_OK) {
        dr_info("hub: %s@%s is commit %.12s (%s)", id->repo, id->revision, commit,
                found ? "cached" : "downloaded");
    }
    return st;
}

dr_status dr_hub_resolve(dr_arena *a, dr_hub_use use, const char *given, const char **out)
{
    dr_hub_id id;
    char commit[DR_HUB_COMMIT] = "";
    dr_str cache = {0};
    *out = given;
    if (dr_path_exists(given)) {
        return DR_OK;
    }
    if (!dr_hub_id_parse(&id, given)) {
        return fail_no_path(given);
    }
    if (!dr_hub_cache_dir(&cache)) {
        DR_FAIL(DR_INVALID, "%s: neither HF_HOME nor HOME is set: no place for downloaded models",
                given);
    }
    const dr_status st = get_commit(&id, use, given, cache.data, commit);
    if (st == DR_OK) {
        dr_str path = {0};
        dr_hub_snapshot(&path, cache.data, &id, commit);
        *out = dr_arena_strdup(a, path.data);
        dr_str_free(&path);
    }
    dr_str_free(&cache);
    return st == DR_OK ? DR_OK : dr_error_frame(st, __FILE__, __LINE__);
}

/* Rank 0's path on every rank, which must see it. */
static dr_status share(dr_dist *d, dr_arena *a, const char **path)
{
    uint64_t n = strlen(*path) + 1; /* other ranks: not meant */
    char host[64] = "";
    DR_TRY(dr_dist_bcast(d, &n, sizeof n, 0));
    char *copy = dr_arena_alloc(a, (size_t)n);
    if (dr_dist_rank(d) == 0) {
        memcpy(copy, *path, (size_t)n);
    }
    DR_TRY(dr_dist_bcast(d, copy, (size_t)n, 0));
    dr_status st = DR_OK;
    if (!dr_path_exists(copy)) {
        (void)gethostname(host, sizeof host - 1);
        st = dr_error_set(DR_INVALID, __FILE__, __LINE__,
                          "rank %d on host %s does not see %s: name a folder in HF_HOME that all "
                          "hosts share, or give a path that exists on all of them",
                          dr_dist_rank(d), host, copy);
    }
    *path = copy;
    return dr_dist_agree(d, st);
}

static dr_status resolve_one(dr_dist *d, dr_arena *a, dr_hub_use use, const char *flag,
                             const char **path)
{
    dr_status st = DR_OK;
    if (*path == NULL) {
        return DR_OK;
    }
    if (d == NULL || dr_dist_rank(d) == 0) {
        st = dr_hub_resolve(a, use, *path, path);
        st = st == DR_OK || flag == NULL ? st : dr_error_prefix(st, "%s", flag);
    }
    if (d == NULL || dr_dist_world(d) == 1) {
        return st;
    }
    DR_TRY(dr_dist_agree(d, st));
    return share(d, a, path);
}

dr_status dr_hub_resolve_model(dr_dist *d, dr_arena *a, dr_model_open_options *o)
{
    DR_TRY(resolve_one(d, a, DR_HUB_MODEL, NULL, &o->path));
    return resolve_one(d, a, DR_HUB_VAE, "--vae", &o->vae);
}
