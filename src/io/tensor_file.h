/*
 * io/tensor_file.h - one read-only view over any file of weights.
 *
 * Layer:    io.
 * Threads:  an open file may be read by several threads, also the same tensor.
 *
 * What a file is shows in its first bytes, never in its name: safetensors, a checkpoint of
 * torch.save (zip archive, or the stream of torch < 1.6), or the index of a set of shards
 * ("*.safetensors.index.json", "*.bin.index.json"), whose files then look like one. Opening reads
 * headers only. Nothing in a file is trusted or executed.
 */
#ifndef DR_IO_TENSOR_FILE_H
#define DR_IO_TENSOR_FILE_H

#include "base/thread_pool.h"
#include "io/safetensors.h"

typedef struct dr_tensor_file dr_tensor_file;

typedef enum dr_container {
    DR_CONTAINER_NONE, /* not a file of weights, or not readable */
    DR_CONTAINER_SAFETENSORS,
    DR_CONTAINER_TORCH_ZIP,    /* torch.save since 1.6; any zip archive looks so to sniff */
    DR_CONTAINER_TORCH_STREAM, /* torch.save before; any pickle looks so to sniff */
    DR_CONTAINER_SHARDS        /* a JSON index of shards */
} dr_container;

typedef struct dr_file_tensor { /* strings and shape live as long as the file is open */
    const char *name;
    const char *dtype_name; /* "F32", "F8_E4M3", ... (safetensors' names) */
    bool readable;          /* false: dtype_name has no dr_dtype; dtype is meaningless then */
    dr_dtype dtype;
    int rank;                /* 0: a scalar */
    const int64_t *shape;    /* rank numbers, each >= 0 */
    int64_t n_elems;         /* product of shape; 1 for a scalar, 0 when a size is 0 */
    size_t bytes;            /* what dr_tensor_file_data gives */
    size_t i_file, i_inside; /* the implementation's */
} dr_file_tensor;

/* What the file's first bytes say; never an error. */
dr_container dr_tensor_file_sniff(const char *path);

/*
 * Maps the file (or all shards of the set) and checks all headers. On error *out is NULL.
 * Errors: DR_FORMAT (what is wrong, found and expected; what the file is, when it is no file of
 * weights), DR_UNSUPPORTED, DR_IO, DR_NOMEM.
 */
DR_MUST_USE dr_status dr_tensor_file_open(dr_tensor_file **out, const char *path);
/* The same over n bytes of memory that outlive *out (no index of shards); source names them in
 * messages. */
DR_MUST_USE dr_status dr_tensor_file_parse(dr_tensor_file **out, const char *source,
                                           const void *bytes, size_t n);
void dr_tensor_file_close(dr_tensor_file *f); /* NULL is fine */

/* Tensors in the order of the file's data, shard after shard; names are unique. */
size_t dr_tensor_file_count(const dr_tensor_file *f);
const dr_file_tensor *dr_tensor_file_at(const dr_tensor_file *f, size_t i);
/* NULL when there is no such tensor. */
const dr_file_tensor *dr_tensor_file_find(const dr_tensor_file *f, const char *name);

/*
 * The tensor's bytes, contiguous in row-major order, little-endian, read-only, perhaps misaligned
 * for the dtype. Inside the map where the file has them so, else a copy made now and kept until
 * release or close. Undefined content when bytes is 0.
 * Errors: DR_UNSUPPORTED when the dtype is not readable here; DR_FORMAT, DR_NOMEM.
 */
DR_MUST_USE dr_status dr_tensor_file_data(const dr_tensor_file *f, const dr_file_tensor *t,
                                          const void **data);
/* Gives the memory behind the tensor back (a copy is freed, pages of the map leave the process);
 * pointers from dr_tensor_file_data to it are invalid in all threads. May be called at any time. */
void dr_tensor_file_release(const dr_tensor_file *f, const dr_file_tensor *t);

typedef struct dr_tensor_read { /* one tensor to read */
    const dr_file_tensor *tensor;
    void *to;       /* n_elems elements, row-major, aligned for dtype */
    dr_dtype dtype; /* the tensor's own, or any floating-point type for a floating-point tensor */
} dr_tensor_read;
/*
 * Reads and converts all items, by the pool's threads and the caller (pool NULL: by the caller).
 * Nothing is released. Errors: as dr_tensor_file_data; DR_FORMAT for a dtype that cannot become
 * the one asked for, before anything is read.
 */
DR_MUST_USE dr_status dr_tensor_file_read(const dr_tensor_file *f, dr_thread_pool *pool,
                                          const dr_tensor_read *items, size_t n);

/* Strings that the file holds beside the tensors (__metadata__ of safetensors, a dictionary
 * "metadata" beside torch's state_dict; of shards the first one's), in its order, and one by key
 * (NULL when absent). */
size_t dr_tensor_file_meta_count(const dr_tensor_file *f);
dr_safetensors_meta dr_tensor_file_meta_at(const dr_tensor_file *f, size_t i);
const char *dr_tensor_file_meta_get(const dr_tensor_file *f, const char *key);
/* An integer that a checkpoint holds beside its state_dict ("epoch", "global_step"); false when
 * there is none. */
bool dr_tensor_file_number(const dr_tensor_file *f, const char *key, int64_t *out);

/* The path or source name given at open; the path of the file that holds t (a shard's), both for
 * messages; what the file is: "safetensors", "ckpt (torch zip)",
 * "ckpt (torch stream, before 1.6)", "2 shards of safetensors". */
const char *dr_tensor_file_path(const dr_tensor_file *f);
const char *dr_tensor_file_path_of(const dr_tensor_file *f, const dr_file_tensor *t);
const char *dr_tensor_file_kind(const dr_tensor_file *f);
/* What the weights themselves are in (the shards' container, when the file is an index). */
dr_container dr_tensor_file_container(const dr_tensor_file *f);

#endif
