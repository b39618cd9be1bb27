#include "data/folders_internal.h"

#include "base/file.h"
#include "base/log.h"
#include "data/pytext.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { PROBLEMS_SHOWN = 5 };

void dr_problems_add(dr_problems *p, const char *line)
{
    if (p->n++ < PROBLEMS_SHOWN) {
        dr_str_printf(&p->text, "\n  %s", line);
    }
}

void dr_problems_finish(dr_problems *p)
{
    if (p->n > PROBLEMS_SHOWN) {
        dr_str_printf(&p->text, "\n  ... and %zu more", p->n - PROBLEMS_SHOWN);
    }
}

void dr_problems_free(dr_problems *p)
{
    dr_str_free(&p->text);
    p->n = 0;
}

const char *dr_folders_plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

bool dr_folders_is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool dr_folder_name_parse(const char *name, int64_t *repeats, const char **class_tokens)
{
    size_t len = strcspn(name, "_");
    if (!dr_py_int(name, len, repeats)) {
        return false;
    }
    *class_tokens = name[len] == '_' ? name + len + 1 : name + len;
    return true;
}

static bool has_extension(const char *extension, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcasecmp(extension, list[i]) == 0) {
            return true;
        }
    }
    return false;
}

dr_picture_kind dr_picture_kind_of(const char *name)
{
    static const char *const usable[] = {".png", ".jpg", ".jpeg", ".webp", ".bmp"};
    static const char *const known[] = {".avif", ".jxl"};
    const char *extension = strrchr(name, '.');
    if (extension == NULL || name[0] == '.') {
        return DR_PICTURE_NOT;
    }
    if (has_extension(extension, usable, sizeof usable / sizeof usable[0])) {
        return DR_PICTURE_USABLE;
    }
    return has_extension(extension, known, sizeof known / sizeof known[0]) ? DR_PICTURE_NO_CODEC
                                                                           : DR_PICTURE_NOT;
}

typedef struct folder_scan { /* state of one dr_folders_scan */
    const dr_folder_options *o;
    const dr_subset_options *defaults; /* of folders that have no settings of their own */
    const char *extension;             /* of the subset's captions, with its dot */
    dr_arena *arena;
    dr_subset *subsets;
    size_t n_subsets, cap_subsets;
    dr_folder_image *images;
    size_t n_images, cap_images;
    dr_problems bad, no_codec, bad_captions;
    dr_status first_bad; /* status of the first bad picture */
    dr_caption_stats captions;
} folder_scan;

static void add_image(folder_scan *s, const dr_folder_image *image)
{
    if (s->n_images == s->cap_images) {
        s->cap_images = s->cap_images > 0 ? s->cap_images * 2 : 64;
        s->images = dr_xrealloc(s->images, s->cap_images, sizeof *s->images);
    }
    s->images[s->n_images++] = *image;
}

static dr_subset *add_subset(folder_scan *s)
{
    if (s->n_subsets == s->cap_subsets) {
        s->cap_subsets = s->cap_subsets > 0 ? s->cap_subsets * 2 : 16;
        s->subsets = dr_xrealloc(s->subsets, s->cap_subsets, sizeof *s->subsets);
    }
    dr_subset *subset = &s->subsets[s->n_subsets++];
    memset(subset, 0, sizeof *subset);
    return subset;
}

static void note_bad(folder_scan *s, const dr_probed *probed)
{
    s->first_bad = s->bad.n == 0 ? probed->status : s->first_bad;
    dr_problems_add(&s->bad, probed->error);
}

/* One picture: finds its caption; bad ones are collected, not returned. */
static dr_status scan_image(folder_scan *s, const dr_subset *subset, const dr_probed *probed)
{
    dr_folder_image image = {.path = dr_arena_strdup(s->arena, probed->path),
                             .caption = subset->class_tokens,
                             .size = probed->size,
                             .subset = (uint32_t)(s->n_subsets - 1)};
    if (probed->status != DR_OK) {
        note_bad(s, probed);
        return DR_OK;
    }
    const char *caption = NULL;
    dr_status st = dr_caption_file_find(s->arena, image.path, s->extension,
                                        subset->options->captions.wildcard, &s->captions, &caption);
    if (st == DR_FORMAT) {
        dr_problems_add(&s->bad_captions, dr_error_message());
        dr_error_clear();
        return DR_OK;
    }
    DR_TRY(st);
    if (caption != NULL) {
        image.caption = caption;
        image.has_caption_file = true;
    }
    add_image(s, &image);
    return DR_OK;
}

static void note_missing_captions(folder_scan *s, const dr_subset *subset)
{
    size_t with = 0;
    if (subset->n_images == 0) {
        return;
    }
    const dr_folder_image *images = s->images + subset->first_image;
    for (size_t i = 0; i < subset->n_images; i++) {
        with += images[i].has_caption_file;
    }
    if (with == 0 && subset->class_tokens[0] != '\0') {
        return; /* plain DreamBooth: the class name is the caption */
    }
    for (size_t i = 0; i < subset->n_images; i++) {
        if (!images[i].has_caption_file) {
            dr_problems_add(&s->captions.missing, images[i].path);
        }
    }
}

/* The pictures among names; at has room for all. */
static size_t list_pictures(folder_scan *s, const dr_subset *subset, const dr_strv *names,
                            dr_probed *at)
{
    size_t n = 0;
    for (size_t i = 0; i < names->n; i++) {
        dr_picture_kind kind = dr_picture_kind_of(names->at[i]);
        char *path = dr_path_join(subset->dir, names->at[i]);
        if (kind == DR_PICTURE_NOT || !dr_folders_is_file(path)) {
            free(path); /* captions, notes, folders */
        } else if (kind == DR_PICTURE_NO_CODEC) {
            dr_problems_add(&s->no_codec, path);
            free(path);
        } else {
            at[n++].path = path;
        }
    }
    return n;
}

/* Where the file of --cache_info is; NULL: not wanted. */
static const char *info_dir(const dr_subset *subset)
{
    return subset->options->cache_info ? subset->dir : NULL;
}

static dr_status scan_pictures(folder_scan *s, dr_subset *subset, const dr_strv *names)
{
    dr_probed *at = dr_xcalloc(names->n + 1, sizeof *at);
    size_t n = list_pictures(s, subset, names, at);
    dr_status st = dr_probe_pictures(s->o, info_dir(subset), at, n);
    for (size_t i = 0; st == DR_OK && i < n; i++) {
        st = scan_image(s, subset, &at[i]);
    }
    dr_probed_free(at, n);
    DR_TRY(st);
    subset->n_images = s->n_images - subset->first_image;
    note_missing_captions(s, subset);
    return DR_OK;
}

/* The pictures that a metadata file names, with its captions. */
static dr_status scan_listed(folder_scan *s, dr_subset *subset, const dr_subset_spec *spec)
{
    dr_listed *list = NULL;
    size_t n = 0;
    size_t n_bad = s->bad.n;
    DR_TRY(dr_metadata_file_read(s->arena, spec, &s->bad, &list, &n));
    s->first_bad = n_bad == 0 && s->bad.n > 0 ? DR_FORMAT : s->first_bad;
    dr_probed *at = dr_xcalloc(n + 1, sizeof *at);
    for (size_t i = 0; i < n; i++) {
        at[i].path = dr_path_join("", list[i].path);
    }
    dr_status st = dr_probe_pictures(s->o, info_dir(subset), at, n);
    for (size_t i = 0; st == DR_OK && i < n; i++) {
        if (at[i].status != DR_OK) {
            note_bad(s, &at[i]);
            continue;
        }
        const bool bare = list[i].caption[0] == '\0';
        add_image(s, &(dr_folder_image){.path = list[i].path,
                                        .caption = bare ? subset->class_tokens : list[i].caption,
                                        .size = at[i].size,
                                        .subset = (uint32_t)(s->n_subsets - 1),
                                        .has_caption_file = true});
    }
    dr_probed_free(at, n);
    free(list);
    subset->n_images = s->n_images - subset->first_image;
    return st;
}

static dr_status scan_folder(folder_scan *s, dr_subset *subset)
{
    dr_strv names = {0};
    dr_status st = dr_list_dir(subset->dir, &names);
    if (st == DR_OK) {
        st = scan_pictures(s, subset, &names);
    }
    dr_strv_free(&names);
    return st;
}

/* Adds the folder `from` says, with its pictures; spec: of a metadata file, or NULL. */
static dr_status scan_subset(folder_scan *s, const dr_subset *from, const dr_subset_spec *spec)
{
    const char *path = from->dir;
    if (from->repeats > INT32_MAX) {
        DR_FAIL(DR_INVALID, "%s: %lld repeats; at most %d are possible", path,
                (long long)from->repeats, INT32_MAX);
    }
    size_t n = strlen(from->class_tokens);
    if (dr_py_utf8_check(from->class_tokens, n) != n) {
        DR_FAIL(DR_FORMAT, "%s: the folder's name is not UTF-8; rename it (convmv does it)", path);
    }
    dr_subset *subset = add_subset(s);
    *subset = *from;
    subset->dir = dr_arena_strdup(s->arena, path);
    subset->class_tokens = dr_arena_strdup(s->arena, from->class_tokens);
    subset->first_image = s->n_images;
    const char *extension = from->options->caption_extension;
    extension = extension != NULL ? extension : s->o->caption_extension;
    bool dot = extension[0] == '.' || extension[0] == '\0';
    s->extension = dr_arena_printf(s->arena, "%s%s", dot ? "" : ".", extension);
    size_t bad_before = s->bad.n + s->bad_captions.n;
    DR_TRY(spec != NULL ? scan_listed(s, subset, spec) : scan_folder(s, subset));
    if (subset->n_images == 0) {
        s->n_subsets--;
        if (s->bad.n + s->bad_captions.n == bad_before) { /* bad ones are reported together */
            dr_warn("%s: no usable picture in this folder; it is ignored", path);
        }
    }
    return DR_OK;
}

static dr_status scan_child(folder_scan *s, const char *path, const char *name, bool is_reg,
                            bool *valid)
{
    int64_t repeats = 0;
    const char *class_tokens = NULL;
    if (!dr_path_is_dir(path)) {
        return DR_OK;
    }
    if (name[0] == '.') { /* hidden: our latent cache, the folders of other programs */
        return DR_OK;
    }
    if (!dr_folder_name_parse(name, &repeats, &class_tokens)) {
        dr_warn("%s: ignored; its name does not start with a number of repeats "
                "(<repeats>_<class>, for example '10_%s')",
                path, name);
        return DR_OK;
    }
    if (repeats < 1) {
        dr_warn("%s: ignored; %lld repeats", path, (long long)repeats);
        return DR_OK;
    }
    *valid = true;
    return scan_subset(s,
                       &(dr_subset){.dir = path,
                                    .class_tokens = class_tokens,
                                    .repeats = repeats,
                                    .is_reg = is_reg,
                                    .options = s->defaults},
                       NULL);
}

static void warn_collected(dr_problems *p, const char *what)
{
    if (p->n > 0) {
        dr_problems_finish(p);
        dr_warn("%s: %zu%s", what, p->n, dr_str_get(&p->text));
    }
    dr_problems_free(p);
}

static void warn_unused(folder_scan *s)
{
    const dr_caption_stats *c = &s->captions;
    warn_collected(&s->no_codec,
                   "pictures that are not used, because .avif and .jxl cannot be read "
                   "(convert them to PNG, JPEG or WebP)");
    warn_collected(&s->captions.missing, "pictures without a caption file");
    if (c->n_txt_unused > 0) {
        dr_warn("pictures with a .txt file beside them that is not used: %zu (first: %s); if these "
                "are captions, give --caption_extension=.txt",
                c->n_txt_unused, c->first_txt);
    }
    if (c->n_more_lines > 0) {
        dr_warn("caption files with more than one line, of which only the first is used: %zu",
                c->n_more_lines);
    }
    if (c->n_blank_first_line > 0) {
        dr_warn(
            "caption files with a blank first line: %zu; their caption is empty, the text below "
            "is not used",
            c->n_blank_first_line);
    }
}

static dr_status report_bad(folder_scan *s)
{
    dr_problems_finish(&s->bad_captions);
    if (s->bad_captions.n == 1) {
        DR_FAIL(DR_FORMAT, "%s", dr_str_get(&s->bad_captions.text) + strlen("\n  "));
    }
    if (s->bad_captions.n > 1) {
        DR_FAIL(DR_FORMAT, "cannot use %zu caption files:%s", s->bad_captions.n,
                dr_str_get(&s->bad_captions.text));
    }
    dr_problems_finish(&s->bad);
    if (s->bad.n > 0 && !s->o->skip_bad_images) {
        DR_FAIL(s->first_bad,
                "cannot use %zu picture%s; repair or remove, or give --skip_bad_images to train "
                "without:%s",
                s->bad.n, dr_folders_plural(s->bad.n), dr_str_get(&s->bad.text));
    }
    if (s->bad.n > 0) {
        dr_warn("--skip_bad_images: left out %zu picture%s:%s", s->bad.n,
                dr_folders_plural(s->bad.n), dr_str_get(&s->bad.text));
    }
    return DR_OK;
}

static dr_status scan_dir(folder_scan *s, const char *flag, const char *dir, bool is_reg)
{
    if (!dr_path_is_dir(dir)) {
        DR_FAIL(DR_INVALID, "%s: %s: %s", flag, dir,
                dr_path_exists(dir) ? "not a directory" : "no such directory");
    }
    size_t direct = dr_count_pictures(dir);
    dr_strv names = {0};
    bool valid = false;
    dr_status st = dr_list_dir(dir, &names);
    for (size_t i = 0; st == DR_OK && i < names.n; i++) {
        char *path = dr_path_join(dir, names.at[i]);
        st = scan_child(s, path, names.at[i], is_reg, &valid);
        free(path);
    }
    dr_strv_free(&names);
    DR_TRY(st);
    if (!valid) {
        return dr_folder_level_error(flag, dir);
    }
    if (direct > 0) {
        dr_warn("%s: %zu picture%s directly in %s not used; only those in <repeats>_<class> "
                "folders are",
                flag, direct, dr_folders_plural(direct), dir);
    }
    return DR_OK;
}

static bool is_same_dir(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static dr_status check_not_empty(const folder_scan *s, const char *flag, const char *dir,
                                 bool is_reg)
{
    for (size_t i = 0; i < s->n_subsets; i++) {
        if (s->subsets[i].is_reg == is_reg) {
            return DR_OK;
        }
    }
    DR_FAIL(DR_FORMAT,
            "%s: %s: no usable picture (.png, .jpg, .jpeg, .webp, .bmp) in any <repeats>_<class> "
            "folder",
            flag, dir);
}

static dr_status scan_all(folder_scan *s)
{
    const dr_folder_options *o = s->o;
    DR_TRY(scan_dir(s, "--train_data_dir", o->train_data_dir, false));
    if (o->reg_data_dir != NULL) {
        if (is_same_dir(o->train_data_dir, o->reg_data_dir)) {
            DR_FAIL(DR_INVALID,
                    "--reg_data_dir: %s is the same directory as --train_data_dir; give the folder "
                    "with the regularisation pictures, or leave it out",
                    o->reg_data_dir);
        }
        DR_TRY(scan_dir(s, "--reg_data_dir", o->reg_data_dir, true));
    }
    warn_unused(s);
    DR_TRY(report_bad(s));
    DR_TRY(check_not_empty(s, "--train_data_dir", o->train_data_dir, false));
    if (o->reg_data_dir != NULL) {
        DR_TRY(check_not_empty(s, "--reg_data_dir", o->reg_data_dir, true));
    }
    return DR_OK;
}

/* Where a subset's pictures come from: a metadata file, or a folder. */
static const char *source_of(const dr_subset_spec *spec)
{
    return spec->metadata_file != NULL ? spec->metadata_file : spec->image_dir;
}

static bool named_before(const dr_subset_spec *specs, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (specs[k].part == specs[i].part &&
            is_same_dir(source_of(&specs[k]), source_of(&specs[i]))) {
            return true;
        }
    }
    return false;
}

static dr_status scan_spec(folder_scan *s, const dr_subset_spec *spec)
{
    const char *dir = spec->image_dir;
    if (dir == NULL) { /* for messages: where the metadata file stands */
        size_t n = (size_t)(dr_path_base(spec->metadata_file) - spec->metadata_file);
        dir = n > 0 ? dr_arena_strndup(s->arena, spec->metadata_file, n) : ".";
    }
    return scan_subset(
        s,
        &(dr_subset){.dir = dir,
                     .class_tokens = spec->class_tokens != NULL ? spec->class_tokens : "",
                     .repeats = spec->repeats,
                     .metadata_file = spec->metadata_file,
                     .is_reg = spec->is_reg,
                     .part = spec->part,
                     .options = spec->options},
        spec->metadata_file != NULL ? spec : NULL);
}

static dr_status scan_specs(folder_scan *s, const dr_subset_spec *specs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const dr_subset_spec *spec = &specs[i];
        if (spec->image_dir != NULL && !dr_path_is_dir(spec->image_dir)) {
            DR_FAIL(DR_INVALID, "image_dir: %s: %s", spec->image_dir,
                    dr_path_exists(spec->image_dir) ? "not a directory" : "no such directory");
        }
        if (named_before(specs, i)) {
            dr_warn("%s: %s is named twice in one dataset; the second time is ignored",
                    spec->metadata_file != NULL ? "metadata_file" : "image_dir", source_of(spec));
            continue;
        }
        DR_TRY(scan_spec(s, spec));
    }
    warn_unused(s);
    DR_TRY(report_bad(s));
    if (s->n_images == 0) {
        DR_FAIL(DR_FORMAT, "no usable picture (.png, .jpg, .jpeg, .webp, .bmp) in any image_dir of "
                           "the dataset file, or named by its metadata files");
    }
    return DR_OK;
}

static void take_result(folder_scan *s, dr_folder_scan *out)
{
    out->subsets = dr_arena_array(s->arena, s->n_subsets, sizeof *s->subsets);
    memcpy(out->subsets, s->subsets, s->n_subsets * sizeof *s->subsets);
    out->n_subsets = s->n_subsets;
    out->images = dr_arena_array(s->arena, s->n_images, sizeof *s->images);
    memcpy(out->images, s->images, s->n_images * sizeof *s->images);
    out->n_images = s->n_images;
    out->n_skipped = s->bad.n;
}

static const dr_subset_options plain_options = {.captions = {.separator = ",", .warmup_min = 1}};

dr_subset_options dr_subset_options_default(void)
{
    return plain_options;
}

static dr_status scan(dr_arena *arena, const dr_folder_options *o, const dr_subset_spec *specs,
                      size_t n, dr_folder_scan *out)
{
    folder_scan s = {
        .o = o, .arena = arena, .defaults = o->subset != NULL ? o->subset : &plain_options};
    dr_status st = specs != NULL ? scan_specs(&s, specs, n) : scan_all(&s);
    if (st == DR_OK) {
        take_result(&s, out);
    }
    free(s.subsets);
    free(s.images);
    dr_problems_free(&s.bad);
    dr_problems_free(&s.no_codec);
    dr_problems_free(&s.bad_captions);
    dr_problems_free(&s.captions.missing);
    return st;
}

dr_status dr_folders_scan(dr_arena *arena, const dr_folder_options *o, dr_folder_scan *out)
{
    DR_CHECK(o->train_data_dir != NULL && o->probe != NULL && o->caption_extension != NULL,
             "folder options are incomplete");
    return scan(arena, o, NULL, 0, out);
}

dr_status dr_subsets_scan(dr_arena *arena, const dr_folder_options *o, const dr_subset_spec *specs,
                          size_t n, dr_folder_scan *out)
{
    DR_CHECK(specs != NULL && o->probe != NULL && o->caption_extension != NULL,
             "folder options are incomplete");
    return scan(arena, o, specs, n, out);
}
