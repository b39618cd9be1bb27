/* What is wrong with a data directory that has no usable sub-folder: says which path to give
 * instead, or what to rename. */
#include "base/file.h"
#include "data/folders_internal.h"

#include <stdlib.h>
#include <string.h>

size_t dr_count_pictures(const char *dir)
{
    dr_strv names = {0};
    size_t n = 0;
    if (dr_list_dir(dir, &names) != DR_OK) {
        dr_error_clear();
    }
    for (size_t i = 0; i < names.n; i++) {
        if (dr_picture_kind_of(names.at[i]) != DR_PICTURE_NOT) {
            char *path = dr_path_join(dir, names.at[i]);
            n += dr_folders_is_file(path);
            free(path);
        }
    }
    dr_strv_free(&names);
    return n;
}

static bool has_repeats(const char *name)
{
    int64_t repeats = 0;
    const char *class_tokens = NULL;
    return dr_folder_name_parse(name, &repeats, &class_tokens) && repeats > 0;
}

typedef struct children { /* what the directory holds, one level down */
    char *level_below;    /* a sub-folder that holds <repeats>_<class> folders, or NULL       */
    char *not_numbered;   /* a sub-folder with pictures, but without repeats in its name      */
    char *zero;           /* a sub-folder whose repeats are below 1                           */
} children;

static bool holds_numbered_folder(const char *dir)
{
    dr_strv names = {0};
    bool found = false;
    if (dr_list_dir(dir, &names) != DR_OK) {
        dr_error_clear();
    }
    for (size_t i = 0; !found && i < names.n; i++) {
        char *path = dr_path_join(dir, names.at[i]);
        found = has_repeats(names.at[i]) && dr_path_is_dir(path);
        free(path);
    }
    dr_strv_free(&names);
    return found;
}

/* Of several, the one whose name fits: "reg..." is for regularisation pictures. */
static bool fits_better(const char *flag, const char *name, const char *before)
{
    const bool wants_reg = dr_str_starts(flag, "--reg");
    return dr_str_starts(name, "reg") == wants_reg &&
           dr_str_starts(dr_path_base(before), "reg") != wants_reg;
}

static void look_at_child(children *c, const char *flag, char *path, const char *name)
{
    int64_t repeats = 0;
    const char *class_tokens = NULL;
    char **slot = NULL;
    if (!dr_path_is_dir(path)) {
        slot = NULL;
    } else if (dr_folder_name_parse(name, &repeats, &class_tokens)) {
        slot = &c->zero;
    } else if (holds_numbered_folder(path)) {
        slot = &c->level_below;
    } else if (dr_count_pictures(path) > 0) {
        slot = &c->not_numbered;
    }
    if (slot != NULL && (*slot == NULL || fits_better(flag, name, *slot))) {
        free(*slot);
        *slot = path;
    } else {
        free(path);
    }
}

static dr_status fail_by_children(const char *flag, const char *dir, const children *c)
{
    if (c->level_below != NULL) {
        DR_FAIL(DR_INVALID,
                "%s: %s is one level too high: the <repeats>_<class> folders are in %s; give "
                "%s='%s'",
                flag, dir, c->level_below, flag, c->level_below);
    }
    if (c->not_numbered != NULL) {
        const char *name = dr_path_base(c->not_numbered);
        int parent = (int)(name - c->not_numbered);
        DR_FAIL(DR_INVALID,
                "%s: %s has no sub-folder named <repeats>_<class>; '%s' holds pictures: rename it "
                "to '%.*s10_%s' to train each of them 10 times per epoch with the class '%s'",
                flag, dir, c->not_numbered, parent, c->not_numbered, name, name);
    }
    if (c->zero != NULL) {
        DR_FAIL(DR_INVALID,
                "%s: %s: the folder '%s' has fewer than 1 repeats and no other is named "
                "<repeats>_<class>",
                flag, dir, c->zero);
    }
    DR_FAIL(DR_INVALID,
            "%s: %s holds no pictures; expected sub-folders named <repeats>_<class> with PNG or "
            "JPEG files, for example '10_sks dog'",
            flag, dir);
}

static dr_status fail_by_pictures(const char *flag, const char *dir, size_t n_pictures)
{
    char *real = realpath(dir, NULL);
    const char *full = real != NULL ? real : dir;
    const char *name = dr_path_base(full);
    int parent = (int)(name - full);
    parent = parent > 1 ? parent - 1 : parent; /* without the slash, but "/" stays */
    dr_status st = DR_INVALID;
    if (has_repeats(name)) {
        st = dr_error_set(DR_INVALID, __FILE__, __LINE__,
                          "%s: %s is itself a <repeats>_<class> folder (%zu picture%s); give its "
                          "parent: %s='%.*s'",
                          flag, dir, n_pictures, dr_folders_plural(n_pictures), flag, parent, full);
    } else {
        st = dr_error_set(
            DR_INVALID, __FILE__, __LINE__,
            "%s: %s holds %zu picture%s directly; they belong into a sub-folder named "
            "<repeats>_<class>: make '%s/10_%s' (10 repeats, class '%s'), move them "
            "there and give the same %s again",
            flag, dir, n_pictures, dr_folders_plural(n_pictures), full, name, name, flag);
    }
    free(real);
    return st;
}

dr_status dr_folder_level_error(const char *flag, const char *dir)
{
    size_t n_pictures = dr_count_pictures(dir);
    if (n_pictures > 0) {
        return fail_by_pictures(flag, dir, n_pictures);
    }
    dr_strv names = {0};
    DR_TRY(dr_list_dir(dir, &names));
    children c = {0};
    for (size_t i = 0; i < names.n; i++) {
        look_at_child(&c, flag, dr_path_join(dir, names.at[i]), names.at[i]);
    }
    dr_strv_free(&names);
    dr_status st = fail_by_children(flag, dir, &c);
    free(c.level_below);
    free(c.not_numbered);
    free(c.zero);
    return st;
}
