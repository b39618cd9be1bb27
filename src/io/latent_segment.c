/*
 * New segments are built by HDF5's core driver in memory and written by the caller as plain bytes:
 * a full disk or a kill then never meets HDF5 halfway.
 *
 * Damage must be noticed: tracking creation order makes HDF5 use its second object header format
 * and dense groups, which carry checksums; the entries carry XXH3. The superblock stays in the
 * oldest format: H5Fget_file_image of HDF5 1.10 leaves a wrong checksum in newer ones.
 */
#include "io/latent_segment.h"

#include "base/arena.h"
#include "io/xxh3.h"

#include <hdf5.h>
#include <stdlib.h>
#include <string.h>

enum { CORE_GROWTH_BYTES = 1 << 20 };

static const char format_name[] = "dreamrun latents 1";

struct dr_latent_segment {
    hid_t file, group; /* group: /latents */
    char *path;
};

static herr_t keep_first(unsigned i, const H5E_error2_t *e, void *ctx)
{
    if (i == 0) { /* upward walks begin at the cause */
        dr_str *text = ctx;
        dr_str_printf(text, "%s: %s", e->func_name, e->desc);
    }
    return 0;
}

/* Turns HDF5's error stack into the record. */
static dr_status fail_hdf5(const dr_latent_segment *s, const char *what, const char *name)
{
    dr_str cause = {0};
    (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &cause);
    dr_status st = dr_error_set(DR_FORMAT, __FILE__, __LINE__, "%s: %s%s%s%s (HDF5: %s)", s->path,
                                what, name[0] != '\0' ? " '" : "", name, name[0] != '\0' ? "'" : "",
                                cause.len > 0 ? cause.data : "no reason given");
    dr_str_free(&cause);
    return st;
}

/* HDF5 prints its errors to stderr unless told otherwise, thread by thread. */
static void silence_hdf5(void)
{
    (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    (void)H5Eclear2(H5E_DEFAULT);
}

static dr_latent_segment *create_empty(const char *path)
{
    dr_latent_segment *s = dr_xcalloc(1, sizeof *s);
    s->file = H5I_INVALID_HID;
    s->group = H5I_INVALID_HID;
    s->path = dr_xcalloc(strlen(path) + 1, 1);
    memcpy(s->path, path, strlen(path));
    silence_hdf5();
    return s;
}

void dr_latent_segment_close(dr_latent_segment *s)
{
    if (s == NULL) {
        return;
    }
    silence_hdf5();
    if (s->group >= 0) {
        (void)H5Gclose(s->group);
    }
    if (s->file >= 0) {
        (void)H5Fclose(s->file);
    }
    free(s->path);
    free(s);
}

/* Writes a scalar attribute of any type. */
static bool write_attribute(hid_t object, const char *name, hid_t type, const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attr = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = attr >= 0 && H5Awrite(attr, type, value) >= 0;
    good = (attr < 0 || H5Aclose(attr) >= 0) && good;
    return H5Sclose(space) >= 0 && good;
}

static hid_t text_type(size_t n)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    (void)H5Tset_size(type, n > 0 ? n : 1);
    (void)H5Tset_strpad(type, H5T_STR_NULLPAD);
    (void)H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

/* Fixed-length text: it lies in the object header, which has a checksum (variable-length text
 * would lie in a heap that has none). */
static bool write_text(hid_t object, const char *name, const char *text)
{
    hid_t type = text_type(strlen(text));
    bool good = write_attribute(object, name, type, text);
    (void)H5Tclose(type);
    return good;
}

/* Reads a fixed-length text attribute of at most size - 1 bytes. */
static bool read_text(hid_t object, const char *name, char *out, size_t size)
{
    memset(out, 0, size);
    hid_t attr = H5Aopen(object, name, H5P_DEFAULT);
    if (attr < 0) {
        return false;
    }
    hid_t type = H5Aget_type(attr);
    hid_t space = H5Aget_space(attr);
    bool good = H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0 &&
                H5Tget_size(type) < size && H5Sget_simple_extent_npoints(space) == 1 &&
                H5Aread(attr, type, out) >= 0;
    (void)H5Sclose(space);
    (void)H5Tclose(type);
    (void)H5Aclose(attr);
    return good;
}

/* Creation properties of one of HDF5's classes: checksummed headers, no time stamps, so that the
 * same entries make the same file. */
static hid_t creation_properties(hid_t class)
{
    hid_t p = H5Pcreate(class);
    bool group = class == H5P_FILE_CREATE || class == H5P_GROUP_CREATE;
    (void)H5Pset_attr_creation_order(p, H5P_CRT_ORDER_TRACKED);
    (void)H5Pset_obj_track_times(p, false);
    if (group) {
        (void)H5Pset_link_creation_order(p, H5P_CRT_ORDER_TRACKED);
    }
    return p;
}

static dr_status create_in_memory(dr_latent_segment *s)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    hid_t file = creation_properties(H5P_FILE_CREATE);
    hid_t group = creation_properties(H5P_GROUP_CREATE);
    bool good = H5Pset_fapl_core(access, CORE_GROWTH_BYTES, false) >= 0 &&
                (s->file = H5Fcreate(s->path, H5F_ACC_TRUNC, file, access)) >= 0 &&
                (s->group = H5Gcreate2(s->file, "latents", H5P_DEFAULT, group, H5P_DEFAULT)) >= 0 &&
                write_text(s->file, "format", format_name);
    dr_status st = good ? DR_OK : fail_hdf5(s, "cannot create an HDF5 file in memory", "");
    (void)H5Pclose(group);
    (void)H5Pclose(file);
    (void)H5Pclose(access);
    return st;
}

dr_status dr_latent_segment_create(dr_latent_segment **out)
{
    *out = NULL;
    dr_latent_segment *s = create_empty("latents not yet written");
    dr_status st = create_in_memory(s);
    if (st != DR_OK) {
        dr_latent_segment_close(s);
        return st;
    }
    *out = s;
    return DR_OK;
}

static dr_status open_file(dr_latent_segment *s)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    /* The file never changes, and some network file systems refuse locks. */
    bool good = H5Pset_file_locking(access, false, true) >= 0 &&
                (s->file = H5Fopen(s->path, H5F_ACC_RDONLY, access)) >= 0;
    dr_status st = good ? DR_OK : fail_hdf5(s, "not a complete HDF5 file", "");
    (void)H5Pclose(access);
    DR_TRY(st);
    char format[sizeof format_name + 16];
    if (!read_text(s->file, "format", format, sizeof format)) {
        return fail_hdf5(s, "no attribute 'format': not a latent cache file", "");
    }
    if (strcmp(format, format_name) != 0) {
        DR_FAIL(DR_FORMAT, "%s: format is '%s', expected '%s'", s->path, format, format_name);
    }
    s->group = H5Gopen2(s->file, "latents", H5P_DEFAULT);
    return s->group >= 0 ? DR_OK : fail_hdf5(s, "no group /latents", "");
}

dr_status dr_latent_segment_open(dr_latent_segment **out, const char *path)
{
    *out = NULL;
    dr_latent_segment *s = create_empty(path);
    dr_status st = open_file(s);
    if (st != DR_OK) {
        dr_latent_segment_close(s);
        return st;
    }
    *out = s;
    return DR_OK;
}

/* The little-endian file type of a number format; the caller closes it. */
static hid_t file_type(dr_dtype stored)
{
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    if (stored == DR_F16) { /* sign 1, exponent 5, mantissa 10: numpy's float16 */
        (void)H5Tset_fields(type, 15, 10, 5, 0, 10);
        (void)H5Tset_ebias(type, 15);
    } else if (stored == DR_BF16) { /* sign 1, exponent 8, mantissa 7 */
        (void)H5Tset_fields(type, 15, 7, 8, 0, 7);
        (void)H5Tset_ebias(type, 127);
    }
    if (stored != DR_F32) {
        (void)H5Tset_size(type, 2);
    }
    return type;
}

static bool write_description(hid_t set, const dr_latent_desc *d, const void *data, size_t bytes)
{
    char hash[DR_XXH3_HEX];
    dr_xxh3_hex(dr_xxh3_bytes(data, bytes), hash);
    signed char flip = d->flip;
    return write_text(set, "image", d->image) && write_text(set, "content", d->content) &&
           write_text(set, "bucket", d->bucket) && write_text(set, "crop", d->crop) &&
           write_text(set, "vae", d->vae) && write_text(set, "kind", d->kind) &&
           write_text(set, "dtype", d->dtype) &&
           write_attribute(set, "flip", H5T_NATIVE_SCHAR, &flip) && write_text(set, "xxh3", hash);
}

static hid_t create_dataset(const dr_latent_segment *s, const char *key, dr_latent_shape shape,
                            dr_dtype stored)
{
    hsize_t dims[3] = {(hsize_t)shape.c, (hsize_t)shape.h, (hsize_t)shape.w};
    hid_t space = H5Screate_simple(3, dims, NULL);
    hid_t create = creation_properties(H5P_DATASET_CREATE);
    (void)H5Pset_fill_time(create, H5D_FILL_TIME_NEVER);
    hid_t type = file_type(stored);
    hid_t set = H5Dcreate2(s->group, key, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
    (void)H5Tclose(type);
    (void)H5Pclose(create);
    (void)H5Sclose(space);
    return set;
}

dr_status dr_latent_segment_put(dr_latent_segment *s, const char *key, const dr_latent_desc *desc,
                                dr_latent_shape shape, const float *data)
{
    silence_hdf5();
    hid_t set = create_dataset(s, key, shape, desc->stored);
    if (set < 0) {
        return fail_hdf5(s, "cannot add latent", key);
    }
    size_t bytes = (size_t)shape.c * (size_t)shape.h * (size_t)shape.w * sizeof *data;
    bool good = H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0 &&
                write_description(set, desc, data, bytes);
    dr_status st = good ? DR_OK : fail_hdf5(s, "cannot write latent", key);
    (void)H5Dclose(set);
    if (st != DR_OK) {
        (void)H5Ldelete(s->group, key, H5P_DEFAULT);
    }
    return st;
}

dr_status dr_latent_segment_image(dr_latent_segment *s, void **bytes, size_t *n)
{
    silence_hdf5();
    if (H5Fflush(s->file, H5F_SCOPE_GLOBAL) < 0) {
        return fail_hdf5(s, "cannot flush", "");
    }
    ssize_t size = H5Fget_file_image(s->file, NULL, 0);
    if (size <= 0) {
        return fail_hdf5(s, "cannot measure the file image", "");
    }
    void *image = NULL;
    DR_TRY(dr_try_calloc((size_t)size, 1, &image));
    if (H5Fget_file_image(s->file, image, (size_t)size) != size) {
        free(image);
        return fail_hdf5(s, "cannot take the file image", "");
    }
    *bytes = image;
    *n = (size_t)size;
    return DR_OK;
}

static herr_t push_name(hid_t group, const char *name, const H5L_info_t *info, void *ctx)
{
    (void)group;
    (void)info;
    dr_strv_push(ctx, name);
    return 0;
}

dr_status dr_latent_segment_keys(dr_latent_segment *s, dr_strv *keys)
{
    silence_hdf5();
    if (H5Literate(s->group, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, push_name, keys) < 0) {
        return fail_hdf5(s, "cannot list /latents", "");
    }
    return DR_OK;
}

static bool is_stored_type(hid_t type)
{
    static const dr_dtype known[] = {DR_F32, DR_F16, DR_BF16};
    bool found = false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        hid_t one = file_type(known[i]);
        found = found || H5Tequal(type, one) > 0;
        (void)H5Tclose(one);
    }
    return found;
}

static bool has_shape(hid_t set, dr_latent_shape want)
{
    hsize_t dims[3] = {0};
    hid_t space = H5Dget_space(set);
    hid_t type = H5Dget_type(set);
    bool good = is_stored_type(type) && H5Sget_simple_extent_ndims(space) == 3 &&
                H5Sget_simple_extent_dims(space, dims, NULL) == 3 && dims[0] == (hsize_t)want.c &&
                dims[1] == (hsize_t)want.h && dims[2] == (hsize_t)want.w;
    (void)H5Tclose(type);
    (void)H5Sclose(space);
    return good;
}

static dr_status read_dataset(const dr_latent_segment *s, hid_t set, const char *key,
                              dr_latent_shape shape, float *buf)
{
    char want[DR_XXH3_HEX];
    char got[DR_XXH3_HEX];
    if (!has_shape(set, shape)) {
        DR_FAIL(DR_FORMAT, "%s: latent '%s' is not f32, f16 or bf16 of shape (%lld,%lld,%lld)",
                s->path, key, (long long)shape.c, (long long)shape.h, (long long)shape.w);
    }
    if (!read_text(set, "xxh3", want, sizeof want)) {
        DR_FAIL(DR_FORMAT, "%s: latent '%s' is damaged: it has no attribute 'xxh3' of text",
                s->path, key);
    }
    if (H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, buf) < 0) {
        return fail_hdf5(s, "cannot read latent", key);
    }
    size_t bytes = (size_t)shape.c * (size_t)shape.h * (size_t)shape.w * sizeof *buf;
    dr_xxh3_hex(dr_xxh3_bytes(buf, bytes), got);
    if (strcmp(got, want) != 0) {
        DR_FAIL(DR_FORMAT, "%s: latent '%s' is damaged: its XXH3 is %s, expected %s", s->path, key,
                got, want);
    }
    return DR_OK;
}

dr_status dr_latent_segment_get(dr_latent_segment *s, const char *key, dr_latent_shape shape,
                                float *buf)
{
    silence_hdf5();
    hid_t set = H5Dopen2(s->group, key, H5P_DEFAULT);
    if (set < 0) {
        return fail_hdf5(s, "cannot open latent", key);
    }
    dr_status st = read_dataset(s, set, key, shape, buf);
    (void)H5Dclose(set);
    return st;
}

int64_t dr_latent_segment_channels(dr_latent_segment *s, const char *key)
{
    silence_hdf5();
    hid_t set = H5Dopen2(s->group, key, H5P_DEFAULT);
    if (set < 0) {
        return 0;
    }
    hsize_t dims[3] = {0};
    hid_t space = H5Dget_space(set);
    bool good = H5Sget_simple_extent_ndims(space) == 3 &&
                H5Sget_simple_extent_dims(space, dims, NULL) == 3 && dims[0] <= 64;
    (void)H5Sclose(space);
    (void)H5Dclose(set);
    return good ? (int64_t)dims[0] : 0;
}

enum { MAX_PATH_BYTES = 4096, MAX_WORD_BYTES = 256 };

bool dr_latent_segment_describe(dr_latent_segment *s, const char *key,
                                void (*fn)(void *user, const dr_latent_desc *desc), void *user)
{
    char image[MAX_PATH_BYTES];
    char content[MAX_WORD_BYTES], bucket[MAX_WORD_BYTES], crop[MAX_WORD_BYTES];
    char vae[MAX_WORD_BYTES], kind[MAX_WORD_BYTES], dtype[MAX_WORD_BYTES];
    signed char flip = 0;
    silence_hdf5();
    hid_t set = H5Dopen2(s->group, key, H5P_DEFAULT);
    if (set < 0) {
        return false;
    }
    hid_t attr = H5Aopen(set, "flip", H5P_DEFAULT);
    bool good =
        attr >= 0 && H5Aread(attr, H5T_NATIVE_SCHAR, &flip) >= 0 &&
        read_text(set, "image", image, sizeof image) &&
        read_text(set, "content", content, sizeof content) &&
        read_text(set, "bucket", bucket, sizeof bucket) &&
        read_text(set, "crop", crop, sizeof crop) && read_text(set, "vae", vae, sizeof vae) &&
        read_text(set, "kind", kind, sizeof kind) && read_text(set, "dtype", dtype, sizeof dtype);
    if (attr >= 0) {
        (void)H5Aclose(attr);
    }
    hid_t type = H5Dget_type(set);
    hid_t half = file_type(DR_F16);
    dr_dtype stored = H5Tget_size(type) == 4 ? DR_F32 : H5Tequal(type, half) > 0 ? DR_F16 : DR_BF16;
    (void)H5Tclose(half);
    (void)H5Tclose(type);
    (void)H5Dclose(set);
    if (good) {
        fn(user,
           &(dr_latent_desc){image, content, bucket, crop, vae, kind, dtype, stored, flip != 0});
    }
    return good;
}
