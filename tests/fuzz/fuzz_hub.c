/* What a hub or another program may hand us: the first byte says which of three the rest is:
 * 'i' the list of a repository's files, 'r' refs/main of the cache, else a model ID. */
#include "fuzz.h"

#include "base/file.h"
#include "train/hub/hub_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every chosen name stays in its folder. */
static void check_chosen(const dr_strv *needed)
{
    for (size_t i = 0; i < needed->n; i++) {
        const char *name = needed->at[i];
        DR_CHECK(name[0] != '/' && strstr(name, "..") == NULL, "'%s' was chosen", name);
    }
}

static void choose(const dr_strv *names, dr_hub_use use, const char *file)
{
    dr_hub_id id = {.repo = "a/b", .revision = "main"};
    dr_strv needed = {0};
    dr_str missing = {0};
    memcpy(id.file, file, strlen(file) + 1);
    if (dr_hub_choose(names, use, &id, &needed, &missing)) {
        check_chosen(&needed);
    }
    dr_strv_free(&needed);
    dr_str_free(&missing);
}

static void try_index(const uint8_t *data, size_t size)
{
    char commit[DR_HUB_COMMIT] = "";
    dr_strv names = {0};
    if (dr_hub_index_parse("input", data, size, commit, &names) == DR_OK) {
        DR_CHECK(dr_hub_is_commit(commit), "'%s' is taken for a commit", commit);
        choose(&names, DR_HUB_MODEL, "");
        choose(&names, DR_HUB_VAE, "");
        choose(&names, DR_HUB_MODEL, "a.ckpt");
    }
    dr_strv_free(&names);
}

/* Before the folder itself is removed. */
static void remove_refs(void)
{
    static const char *const names[] = {"models--a--b/refs/main", "models--a--b/refs",
                                        "models--a--b"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = dr_path_join(dr_fuzz_dir(), names[i]);
        (void)remove(path);
        free(path);
    }
}

static void try_ref(const uint8_t *data, size_t size)
{
    static const dr_hub_id id = {.repo = "a/b", .revision = "main"};
    static bool made;
    char commit[DR_HUB_COMMIT] = "";
    bool found = false;
    dr_str path = {0};
    dr_str missing = {0};
    dr_str_printf(&path, "%s/models--a--b/refs", dr_fuzz_dir());
    if (!made) {
        made = dr_mkdirs(path.data) == DR_OK && atexit(remove_refs) == 0;
    }
    if (made) {
        (void)dr_fuzz_file("models--a--b/refs/main", data, size);
        if (dr_hub_cache_find(dr_fuzz_dir(), &id, DR_HUB_MODEL, commit, &found, &missing) ==
            DR_OK) {
            DR_CHECK(commit[0] == '\0' || dr_hub_is_commit(commit), "commit '%s'", commit);
        }
        DR_CHECK(!found, "a model that is not there");
    }
    dr_str_free(&path);
    dr_str_free(&missing);
}

static void try_id(const uint8_t *data, size_t size)
{
    dr_hub_id id;
    dr_str text = {0};
    dr_str_add_n(&text, (const char *)data, size);
    if (dr_hub_id_parse(&id, dr_str_get(&text))) {
        DR_CHECK(strchr(id.repo, '/') != NULL && id.revision[0] != '\0', "'%s'", id.repo);
        DR_CHECK(strstr(id.repo, "..") == NULL && id.file[0] != '/' &&
                     strstr(id.file, "/.") == NULL && strstr(id.revision, "/.") == NULL,
                 "'%s' is taken for an ID", dr_str_get(&text));
    }
    dr_str_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0 && data[0] == 'i') {
        try_index(data + 1, size - 1);
    } else if (size > 0 && data[0] == 'r') {
        try_ref(data + 1, size - 1);
    } else {
        try_id(data, size);
    }
    return 0;
}
