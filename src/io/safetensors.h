/*
 * io/safetensors.h - the safetensors format: a validating reader over a map, an atomic writer.
 *
 * Layer:    io.
 * Threads:  an open file may be read by several threads; a writer belongs to one.
 * Source:   the format's README and the behaviour of the official library (0.8 and 0.9).
 *
 * A file is an 8-byte little-endian header length, a JSON header, and the tensors' bytes, which
 * must tile the rest of the file exactly. Nothing in a file is trusted: every rule is checked when
 * it is opened, and only the header is read then.
 *
 * Stricter than the official library in two points: duplicate names (also inside __metadata__) and
 * names that hold NUL are refused.
 */
#ifndef DR_IO_SAFETENSORS_H
#define DR_IO_SAFETENSORS_H

#include "dreamrun/status.h"
#include "tensor/dtype.h"

enum { DR_SAFETENSORS_MAX_HEADER = 100000000 }; /* bytes; the official library's limit */

/* ---- reading ---- */

typedef struct dr_safetensors dr_safetensors;

typedef struct dr_safetensors_tensor { /* strings and shape live as long as the file is open */
    const char *name;
    const char *dtype_name; /* as in the file: "F32", "F8_E4M3", ... */
    bool readable;          /* false: dtype_name has no dr_dtype; dtype is meaningless then */
    dr_dtype dtype;
    int rank;             /* 0: a scalar */
    const int64_t *shape; /* rank numbers, each >= 0 */
    int64_t n_elems;      /* product of shape; 1 for a scalar, 0 when a size is 0 */
    size_t offset, bytes; /* offset from the start of the data; may be misaligned for the dtype */
} dr_safetensors_tensor;

typedef struct dr_safetensors_meta {
    const char *key, *value;
} dr_safetensors_meta;

/* True when the file at path starts like safetensors (never an error; false when unreadable). */
bool dr_safetensors_sniff(const char *path);
/* The same of a file's first n bytes (64 are enough). */
bool dr_safetensors_sniff_bytes(const unsigned char *head, size_t n);
/* Where the data of a file of n bytes begin, behind its header; 0 when that lies beyond its end. */
size_t dr_safetensors_data_at(const unsigned char *bytes, size_t n);

/*
 * Maps the file and checks its header. On error *out is NULL.
 * Errors: DR_FORMAT (what is wrong, found and expected), DR_IO, DR_NOMEM.
 */
DR_MUST_USE dr_status dr_safetensors_open(dr_safetensors **out, const char *path);
/* The same over n bytes of memory that outlive *out; source names them in messages. Reads the
 * header only. */
DR_MUST_USE dr_status dr_safetensors_parse(dr_safetensors **out, const char *source,
                                           const void *bytes, size_t n);
void dr_safetensors_close(dr_safetensors *s); /* NULL is fine */

/* Tensors in the order of their data. */
size_t dr_safetensors_count(const dr_safetensors *s);
const dr_safetensors_tensor *dr_safetensors_at(const dr_safetensors *s, size_t i);
/* NULL when there is no such tensor. */
const dr_safetensors_tensor *dr_safetensors_find(const dr_safetensors *s, const char *name);
/*
 * The tensor's bytes inside the map, little-endian, read-only, perhaps misaligned: copy with
 * memcpy or dr_convert on a copy. Valid until close; undefined content when bytes is 0.
 * Errors: DR_UNSUPPORTED when the dtype is not readable here.
 */
DR_MUST_USE dr_status dr_safetensors_data(const dr_safetensors *s, const dr_safetensors_tensor *t,
                                          const void **data);
/* The process gives back the pages behind the tensor; they are read again at the next use. */
void dr_safetensors_release(const dr_safetensors *s, const dr_safetensors_tensor *t);
/* __metadata__ in the file's order, and one value by key (NULL when absent). */
size_t dr_safetensors_meta_count(const dr_safetensors *s);
dr_safetensors_meta dr_safetensors_meta_at(const dr_safetensors *s, size_t i);
const char *dr_safetensors_meta_get(const dr_safetensors *s, const char *key);
/* The path or source name given at open, for messages. */
const char *dr_safetensors_path(const dr_safetensors *s);

/* ---- writing ---- */

typedef struct dr_safetensors_entry { /* one tensor to write */
    const char *name;
    dr_dtype dtype;
    int rank;
    const int64_t *shape;
} dr_safetensors_entry;

typedef struct dr_safetensors_hash { /* metadata that is known when all tensors are written */
    const char *key, *prefix;        /* the value: prefix ("0x", ""), then hex digits */
    uint64_t begin, n;               /* of the SHA-256 of data bytes [begin, begin + n), where there
                                        are such bytes; the data begin behind the header */
    int digits;                      /* 1..64: that many of the hash's first */
} dr_safetensors_hash;

typedef struct dr_safetensors_content { /* all that a header says; borrowed */
    const dr_safetensors_entry *entries;
    size_t n_entries;
    const dr_safetensors_meta *meta; /* models: {"format", "pt"} and more; written in this order */
    size_t n_meta;                   /* 0: no __metadata__ */
    const dr_safetensors_hash *hashes; /* more metadata, behind meta; at most 4 */
    size_t n_hashes;
} dr_safetensors_content;

/* Bytes in front of the data of a file with that content, the 8 of the length included. Errors:
 * DR_INVALID as dr_safetensors_writer_open. */
DR_MUST_USE dr_status dr_safetensors_header_bytes(const char *path,
                                                  const dr_safetensors_content *content,
                                                  uint64_t *out);
/* Bytes of the whole file. */
DR_MUST_USE dr_status dr_safetensors_file_bytes(const char *path,
                                                const dr_safetensors_content *content,
                                                uint64_t *out);

typedef struct dr_safetensors_writer dr_safetensors_writer;

/*
 * Checks names, sizes and free space, creates "path.tmp.<pid>" and writes the header, with the
 * bytes the official library writes. content is not kept. On error *out is NULL and no file is
 * left. Errors: DR_INVALID (name or metadata twice, not UTF-8, or "__metadata__" as a name;
 * negative or overflowing shape; header over 100 MB), DR_IO (not enough free space; disk error),
 * DR_OUTPUT (cannot create).
 */
DR_MUST_USE dr_status dr_safetensors_writer_open(dr_safetensors_writer **out, const char *path,
                                                 const dr_safetensors_content *content);
/* The file's order: index into content->entries of the tensor that comes i-th; its bytes. */
size_t dr_safetensors_writer_order(const dr_safetensors_writer *w, size_t i);
size_t dr_safetensors_writer_bytes(const dr_safetensors_writer *w, size_t i);
/* Appends tensor bytes in the file's order, in pieces of any size. More than the header announced
 * is a broken contract. On error abort. */
DR_MUST_USE dr_status dr_safetensors_writer_write(dr_safetensors_writer *w, const void *data,
                                                  size_t n);
/* Ends the writer, also on failure: all bytes must have been written (contract); flush, fsync,
 * rename. The file at path is replaced whole or stays as it was. */
DR_MUST_USE dr_status dr_safetensors_writer_commit(dr_safetensors_writer *w);
/* Ends the writer and leaves nothing behind; NULL is fine. */
void dr_safetensors_writer_abort(dr_safetensors_writer *w);

/* All in one call: emit is called once per tensor in the file's order and writes its bytes with
 * dr_safetensors_writer_write(w, ...). An error from emit aborts and is returned. */
typedef dr_status (*dr_safetensors_emit)(void *ctx, dr_safetensors_writer *w, size_t i_entry);
DR_MUST_USE dr_status dr_safetensors_write(const char *path, const dr_safetensors_content *content,
                                           dr_safetensors_emit emit, void *ctx);
/* The same for tensors that lie in memory: data[i] holds content->entries[i]. */
DR_MUST_USE dr_status dr_safetensors_save(const char *path, const dr_safetensors_content *content,
                                          const void *const *data);

#endif
