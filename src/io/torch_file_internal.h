/*
 * io/torch_file_internal.h - what the files of io/torch_*.c share.
 *
 * Layer:    io, internal.
 */
#ifndef DR_IO_TORCH_FILE_INTERNAL_H
#define DR_IO_TORCH_FILE_INTERNAL_H

#include "base/file.h"
#include "io/pickle.h"
#include "io/torch_file.h"
#include "io/zip_reader.h"

#include <pthread.h>

typedef struct dr_torch_storage_id { /* a persistent ID, checked; strings are not terminated */
    const char *key;
    size_t n_key;
    const char *dtype_name; /* NULL: bytes without type (UntypedStorage) */
    size_t elem_bytes;      /* 1 without type */
    int64_t numel;
    int64_t view_offset, view_numel; /* legacy views: elements; 0 and numel otherwise */
} dr_torch_storage_id;

typedef struct dr_torch_tensor {
    dr_file_tensor shown;
    const dr_zip_entry *entry; /* zip: the storage                     */
    const unsigned char *at;   /* legacy: the storage's first byte      */
    size_t storage_bytes;      /* what the pickle claims, checked       */
    size_t offset_bytes;       /* of the first element in the storage   */
    const int64_t *stride;     /* in elements, one for each dimension   */
    size_t elem_bytes;
    bool contiguous;
    void *copy; /* made by dr_torch_data where the file does not have the bytes so; under lock */
} dr_torch_tensor;

typedef struct dr_torch_storage { /* legacy: one raw storage of the stream */
    const char *key;
    size_t n_key;
    size_t elem_bytes;
    int64_t numel;
    const unsigned char *at; /* NULL until found in the stream */
} dr_torch_storage;

struct dr_torch_file {
    dr_arena arena;
    const char *source;
    dr_map map;                 /* legacy, when opened by path */
    dr_zip *zip;                /* NULL: legacy */
    const char *prefix;         /* zip: "archive/", may be "" */
    char *pickle_copy;          /* zip with a compressed data.pkl */
    dr_torch_storage *storages; /* legacy: hash table, empty where key is NULL */
    size_t n_slots;             /* a power of two */
    const dr_pickle_value *root;
    dr_torch_tensor *tensors;
    size_t n;
    dr_safetensors_meta *meta; /* strings of the top-level "metadata" */
    size_t n_meta;
    size_t text_bytes;    /* of strings copied from the pickle; at most DR_PICKLE_MAX_BYTES */
    pthread_mutex_t lock; /* guards copies and the unpacked storage */
    const dr_zip_entry *unpacked_from; /* the compressed storage that was used last */
    unsigned char *unpacked;
};

/* ---- torch_tensors.c: from the pickle's values to tensors ---- */

/* Fills f->tensors from f->root. */
DR_MUST_USE dr_status dr_torch_collect(dr_torch_file *f);
/* A terminated copy of a STR in the arena; NULL of anything else, of what holds NUL or is no
 * UTF-8, and when copies would take more than a pickle may have. */
const char *dr_torch_text(dr_torch_file *f, const dr_pickle_value *v);
/* Checks a PERSISTENT value. */
DR_MUST_USE dr_status dr_torch_read_id(const dr_torch_file *f, const dr_pickle_value *persistent,
                                       dr_torch_storage_id *out);

/* ---- torch_legacy.c: the stream of pickles and raw storages ---- */

/* Reads the n bytes of a stream up to f->tensors. */
DR_MUST_USE dr_status dr_torch_read_stream(dr_torch_file *f, const void *bytes, size_t n);
/* The storage of that key; NULL when the stream has none. */
const dr_torch_storage *dr_torch_stream_storage(const dr_torch_file *f,
                                                const dr_torch_storage_id *id);

#endif
