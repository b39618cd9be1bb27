/*
 * The cache on this disk, as huggingface_hub lays it out:
 *   models--owner--name/refs/REVISION             the commit of a branch or tag
 *   models--owner--name/snapshots/COMMIT/FILE     a link to ../../blobs/ETAG
 *   models--owner--name/blobs/ETAG                the bytes
 */
#include "base/file.h"
#include "train/hub/hub_internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Variable name with "~/" at its start replaced by the home directory; false when unset or empty.
 */
static bool from_env(dr_str *out, const char *name)
{
    const char *value = getenv(name);
    const char *home = getenv("HOME");
    if (value == NULL || value[0] == '\0') {
        return false;
    }
    const bool tilde = value[0] == '~' && (value[1] == '/' || value[1] == '\0') && home != NULL;
    dr_str_add(out, tilde ? home : "");
    dr_str_add(out, tilde ? value + 1 : value);
    return true;
}

bool dr_hub_home(dr_str *out)
{
    if (from_env(out, "HF_HOME")) {
        return true;
    }
    if (from_env(out, "XDG_CACHE_HOME")) {
        dr_str_add(out, "/huggingface");
        return true;
    }
    if (from_env(out, "HOME")) {
        dr_str_add(out, "/.cache/huggingface");
        return true;
    }
    return false;
}

bool dr_hub_cache_dir(dr_str *out)
{
    if (from_env(out, "HF_HUB_CACHE") || from_env(out, "HUGGINGFACE_HUB_CACHE")) {
        return true;
    }
    if (dr_hub_home(out)) {
        dr_str_add(out, "/hub");
        return true;
    }
    return false;
}

static bool is_true(const char *name)
{
    static const char *const words[] = {"1", "on", "yes", "true"};
    const char *value = getenv(name);
    for (size_t i = 0; value != NULL && i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(value, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

bool dr_hub_is_offline(void)
{
    return is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE");
}

void dr_hub_repo_dir(dr_str *out, const char *cache, const dr_hub_id *id)
{
    const char *slash = strchr(id->repo, '/');
    dr_str_printf(out, "%s/models--%.*s--%s", cache, (int)(slash - id->repo), id->repo, slash + 1);
}

void dr_hub_snapshot(dr_str *out, const char *cache, const dr_hub_id *id, const char *commit)
{
    dr_hub_repo_dir(out, cache, id);
    dr_str_printf(out, "/snapshots/%s", commit);
    if (id->file[0] != '\0') {
        dr_str_printf(out, "/%s", id->file);
    }
}

/* The commit that refs/REVISION holds; "" when there is none. */
static dr_status read_ref(const char *repo, const dr_hub_id *id, char commit[DR_HUB_COMMIT])
{
    dr_str path = {0};
    char *text = NULL;
    size_t n = 0;
    dr_status st = DR_OK;
    commit[0] = '\0';
    dr_str_printf(&path, "%s/refs/%s", repo, id->revision);
    if (dr_path_exists(path.data) && !dr_path_is_dir(path.data)) {
        st = dr_file_read(path.data, 4096, &text, &n);
    }
    if (text != NULL) {
        text[strcspn(text, " \r\n")] = '\0';
        if (dr_hub_is_commit(text)) {
            memcpy(commit, text, DR_HUB_COMMIT);
        } else {
            st = dr_error_set(DR_FORMAT, __FILE__, __LINE__,
                              "%s: found '%.60s', expected a commit of 40 hex digits: delete this "
                              "file, it is written again at the next download",
                              path.data, text);
        }
    }
    free(text);
    dr_str_free(&path);
    return st;
}

/* The commit whose hash begins with the revision: an abbreviated commit. */
static void find_commit(const char *repo, const dr_hub_id *id, char commit[DR_HUB_COMMIT])
{
    enum { SHORTEST = 7 };
    dr_strv names = {0};
    dr_str dir = {0};
    size_t n = 0;
    dr_str_printf(&dir, "%s/snapshots", repo);
    if (strlen(id->revision) >= SHORTEST && dr_path_is_dir(dir.data) &&
        dr_list_dir(dir.data, &names) == DR_OK) {
        for (size_t i = 0; i < names.n; i++) {
            if (dr_str_starts(names.at[i], id->revision) && dr_hub_is_commit(names.at[i])) {
                memcpy(commit, names.at[i], DR_HUB_COMMIT);
                n++;
            }
        }
    }
    if (n != 1) {
        commit[0] = '\0';
    }
    dr_strv_free(&names);
    dr_str_free(&dir);
}

/* Names of files whose bytes are there, in dir and its folders, as the hub spells them. */
static void list_files(const char *dir, const char *prefix, int depth, dr_strv *out)
{
    dr_strv names = {0};
    if (dr_list_dir(dir, &names) != DR_OK) {
        dr_error_clear(); /* what cannot be listed is not there */
    }
    for (size_t i = 0; i < names.n; i++) {
        dr_str name = {0};
        char *path = dr_path_join(dir, names.at[i]);
        dr_str_printf(&name, "%s%s", prefix, names.at[i]);
        if (!dr_path_is_dir(path)) {
            if (dr_path_exists(path)) { /* a link whose blob was removed does not count */
                dr_strv_push(out, name.data);
            }
        } else if (depth > 0) {
            dr_str_add(&name, "/");
            list_files(path, name.data, depth - 1, out);
        }
        free(path);
        dr_str_free(&name);
    }
    dr_strv_free(&names);
}

dr_status dr_hub_cache_find(const char *cache, const dr_hub_id *id, dr_hub_use use,
                            char commit[DR_HUB_COMMIT], bool *found, dr_str *missing)
{
    enum { DEPTH = 4 };
    dr_str repo = {0};
    dr_hub_repo_dir(&repo, cache, id);
    *found = false;
    commit[0] = '\0';
    dr_status st = DR_OK;
    if (dr_hub_is_commit(id->revision)) {
        memcpy(commit, id->revision, DR_HUB_COMMIT);
    } else {
        st = read_ref(repo.data, id, commit);
        if (st == DR_OK && commit[0] == '\0') {
            find_commit(repo.data, id, commit);
        }
    }
    if (st == DR_OK && commit[0] != '\0') {
        dr_strv names = {0};
        dr_strv needed = {0};
        dr_str_printf(&repo, "/snapshots/%s", commit);
        if (dr_path_is_dir(repo.data)) {
            list_files(repo.data, "", DEPTH, &names);
        }
        *found = dr_hub_choose(&names, use, id, &needed, missing);
        dr_strv_free(&names);
        dr_strv_free(&needed);
    }
    dr_str_free(&repo);
    return st;
}
