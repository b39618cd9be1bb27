#include "train/state.h"

#include "base/arena.h"
#include "base/fault.h"
#include "base/fence.h"
#include "base/file.h"
#include "base/log.h"
#include "base/tree.h"
#include "io/json.h"
#include "io/xxh3.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char manifest_name[] = "manifest.json";
static const char manifest_format[] = "dreamrun-state-1";

/* ---- writing ------------------------------------------------------------------------------- */

dr_status dr_state_begin(dr_state_writer *w, const char *path)
{
    dr_str tmp = {0};
    *w = (dr_state_writer){0};
    if (dr_path_exists(path)) {
        char *manifest = dr_path_join(path, manifest_name);
        const bool ours = dr_path_exists(manifest);
        free(manifest);
        if (!ours) {
            DR_FAIL(DR_OUTPUT,
                    "%s: it exists and is no state of dreamrun (no %s), so it is not replaced; "
                    "remove it or choose another --output_name",
                    path, manifest_name);
        }
    }
    dr_str_printf(&tmp, "%s.tmp.%ld", path, (long)getpid());
    dr_tree_remove(dr_str_get(&tmp)); /* of an earlier process with this number */
    if (dr_fault_at_write() || mkdir(dr_str_get(&tmp), 0777) != 0) {
        const int err = errno;
        dr_str_free(&tmp);
        DR_FAIL(err == ENOSPC ? DR_IO : DR_OUTPUT, "%s: cannot create: %s", path, strerror(err));
    }
    w->tmp = tmp.data;
    dr_str copy = {0};
    dr_str_add(&copy, path);
    w->path = copy.data;
    return DR_OK;
}

char *dr_state_file(const dr_state_writer *w, const char *name)
{
    return dr_path_join(w->tmp, name);
}

static void release(dr_state_writer *w)
{
    free(w->path);
    free(w->tmp);
    *w = (dr_state_writer){0};
}

void dr_state_abort(dr_state_writer *w)
{
    if (w->tmp != NULL) {
        dr_tree_remove(w->tmp);
    }
    release(w);
}

/* Adds a file's row to the manifest: what is on disk now, read back. */
static dr_status describe(const char *dir, const char *name, dr_str *out)
{
    char *path = dr_path_join(dir, name);
    char hex[DR_XXH3_HEX];
    dr_xxh3 hash;
    struct stat st;
    dr_status result = dr_xxh3_file(path, &hash);
    if (result == DR_OK && stat(path, &st) != 0) {
        result = dr_error_set(DR_IO, __FILE__, __LINE__, "%s: %s", path, strerror(errno));
    }
    if (result == DR_OK) {
        dr_xxh3_hex(hash, hex);
        dr_str_add(out, "    {\"name\": ");
        dr_json_add_string(out, name);
        dr_str_printf(out, ", \"bytes\": %lld, \"xxh3_128\": \"%s\"}", (long long)st.st_size, hex);
    }
    free(path);
    return result;
}

static dr_status write_manifest(const dr_state_writer *w)
{
    dr_strv names = {0};
    dr_str text = {0};
    dr_status st = dr_list_dir(w->tmp, &names);
    dr_str_printf(&text, "{\n  \"format\": \"%s\",\n  \"files\": [\n", manifest_format);
    for (size_t i = 0; st == DR_OK && i < names.n; i++) {
        st = describe(w->tmp, names.at[i], &text);
        dr_str_add(&text, i + 1 < names.n ? ",\n" : "\n");
    }
    dr_str_add(&text, "  ]\n}\n");
    if (st == DR_OK) {
        char *path = dr_state_file(w, manifest_name);
        st = dr_file_write(path, dr_str_get(&text), text.len);
        free(path);
    }
    dr_str_free(&text);
    dr_strv_free(&names);
    return st;
}

dr_status dr_state_commit(dr_state_writer *w)
{
    bool swapped = false;
    dr_status st = write_manifest(w);
    if (st == DR_OK) {
        st = dr_fence_check();
    }
    if (st == DR_OK) {
        st = dr_tree_swap(w->tmp, w->path, &swapped);
    }
    if (st != DR_OK) {
        dr_state_abort(w);
        return st;
    }
    dr_sync_parent(w->path);
    if (swapped) {
        dr_tree_remove(w->tmp);
    }
    release(w);
    return DR_OK;
}

/* ---- reading ------------------------------------------------------------------------------- */

static dr_status verify_file(const char *path, const dr_json_doc *manifest, size_t i, bool hashes)
{
    char key[64];
    const char *name = NULL;
    const char *hex = NULL;
    int64_t bytes = 0;
    (void)snprintf(key, sizeof key, "files/%zu/name", i);
    DR_TRY(dr_json_get_string(manifest, key, &name, NULL));
    (void)snprintf(key, sizeof key, "files/%zu/bytes", i);
    DR_TRY(dr_json_get_int(manifest, key, &bytes, NULL));
    (void)snprintf(key, sizeof key, "files/%zu/xxh3_128", i);
    DR_TRY(dr_json_get_string(manifest, key, &hex, NULL));
    if (strchr(name, '/') != NULL) {
        DR_FAIL(DR_FORMAT, "%s: the manifest names a file outside: %s", path, name);
    }
    dr_xxh3 want = {0};
    dr_xxh3 found = {0};
    struct stat st;
    char *file = dr_path_join(path, name);
    const bool there = stat(file, &st) == 0;
    dr_status result = DR_OK;
    if (there && st.st_size == bytes && hashes) {
        result = dr_xxh3_file(file, &found);
    }
    free(file);
    DR_TRY(result);
    if (!there) {
        DR_FAIL(DR_FORMAT, "%s: %s is missing: the state is not whole", path, name);
    }
    if (st.st_size != bytes) {
        DR_FAIL(DR_FORMAT, "%s: %s has %lld bytes, expected %lld: the state is damaged", path, name,
                (long long)st.st_size, (long long)bytes);
    }
    if (hashes && (!dr_xxh3_parse(hex, &want) || !dr_xxh3_equal(want, found))) {
        DR_FAIL(DR_FORMAT, "%s: %s does not have the content that was saved: the state is damaged",
                path, name);
    }
    return DR_OK;
}

static dr_status verify_all(const char *path, const dr_json_doc *manifest, bool hashes)
{
    const char *format = NULL;
    DR_TRY(dr_json_get_string(manifest, "format", &format, NULL));
    if (strcmp(format, manifest_format) != 0) {
        DR_FAIL(DR_FORMAT, "%s: the state has the format %s, expected %s", path, format,
                manifest_format);
    }
    const size_t n = dr_json_size(dr_json_member(dr_json_root(manifest), "files"));
    for (size_t i = 0; i < n; i++) {
        DR_TRY(verify_file(path, manifest, i, hashes));
    }
    return DR_OK;
}

dr_status dr_state_verify(const char *path, bool hashes)
{
    if (!dr_path_is_dir(path)) {
        DR_FAIL(DR_INVALID,
                "%s: there is no such directory; expected a state, NAME" DR_STATE_SUFFIX
                " in the --output_dir of the run to go on with",
                path);
    }
    char *file = dr_path_join(path, manifest_name);
    dr_json_doc *manifest = NULL;
    dr_status st = DR_OK;
    if (!dr_path_exists(file)) {
        st = dr_error_set(DR_FORMAT, __FILE__, __LINE__,
                          "%s: no state of dreamrun (there is no %s); states of sd-scripts cannot "
                          "be read",
                          path, manifest_name);
    } else {
        st = dr_json_open(&manifest, file);
    }
    free(file);
    if (st == DR_OK) {
        st = verify_all(path, manifest, hashes);
    }
    dr_json_close(manifest);
    return st;
}

dr_status dr_state_step(const char *path, int64_t *step)
{
    char *file = dr_path_join(path, "train_state.json");
    dr_json_doc *doc = NULL;
    dr_status st = dr_json_open(&doc, file);
    if (st == DR_OK) {
        st = dr_json_get_int(doc, "current_step", step, NULL);
    }
    dr_json_close(doc);
    free(file);
    return st;
}

/* A state of this name: "NAME-state", "NAME-<anything>-state". */
static bool is_of(const char *entry, const char *name)
{
    const size_t n = strlen(name);
    return dr_str_starts(entry, name) && entry[n] == '-' && dr_str_ends(entry, DR_STATE_SUFFIX) &&
           strlen(entry) >= n + strlen(DR_STATE_SUFFIX);
}

static bool is_of_one(const char *entry, const char *const *names)
{
    while (*names != NULL && !is_of(entry, *names)) {
        names++;
    }
    return *names != NULL;
}

typedef struct found_state {
    char *path;
    int64_t step;
} found_state;

static int by_step_descending(const void *a, const void *b)
{
    const int64_t x = ((const found_state *)a)->step;
    const int64_t y = ((const found_state *)b)->step;
    return x < y ? 1 : x > y ? -1 : 0;
}

dr_status dr_state_newest(const char *dir, const char *const *names, char **path)
{
    dr_strv entries = {0};
    *path = NULL;
    if (!dr_path_is_dir(dir)) {
        return DR_OK;
    }
    DR_TRY(dr_list_dir(dir, &entries));
    found_state *found = dr_xcalloc(entries.n + 1, sizeof *found);
    size_t n = 0;
    int n_damaged = 0;
    for (size_t i = 0; i < entries.n; i++) {
        if (!is_of_one(entries.at[i], names)) {
            continue;
        }
        found[n].path = dr_path_join(dir, entries.at[i]);
        if (dr_state_step(found[n].path, &found[n].step) == DR_OK) {
            n++;
        } else {
            dr_warn("passed over: %s", dr_error_message());
            n_damaged++;
            free(found[n].path);
        }
    }
    qsort(found, n, sizeof *found, by_step_descending);
    for (size_t i = 0; i < n; i++) {
        if (*path == NULL && dr_state_verify(found[i].path, true) == DR_OK) {
            *path = found[i].path;
            continue;
        }
        if (*path == NULL) {
            dr_warn("passed over: %s", dr_error_message());
            n_damaged++;
        }
        free(found[i].path);
    }
    free(found);
    dr_strv_free(&entries);
    if (*path == NULL && n_damaged > 0) {
        DR_FAIL(DR_FORMAT,
                "%s: no state to go on from is whole; damaged: %d (see the warnings); remove what "
                "is damaged to start at step 1",
                dir, n_damaged);
    }
    return DR_OK;
}

void dr_state_remove(const char *path)
{
    char *manifest = dr_path_join(path, manifest_name);
    if (dr_path_exists(manifest)) {
        dr_tree_discard(path);
    }
    free(manifest);
}
