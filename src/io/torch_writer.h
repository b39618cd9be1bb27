/*
 * io/torch_writer.h - checkpoints as torch.save writes them, streamed and atomic.
 *
 * Layer:    io.
 * Threads:  a writer belongs to one.
 * Source:   torch/serialization.py and caffe2/serialize/inline_container.cc of torch 2.15.
 *
 * The file is {"state_dict": OrderedDict of tensors, then the numbers, then "metadata": a dict of
 * strings, where there are any} (bare: the OrderedDict alone, as Diffusers' and transformers'
 * .bin), in a zip archive with stored entries, each storage at a multiple of 64 bytes, ZIP64 where
 * it is needed. Its pickle has protocol 2 and only what torch.load(weights_only=True) accepts.
 */
#ifndef DR_IO_TORCH_WRITER_H
#define DR_IO_TORCH_WRITER_H

#include "io/safetensors.h"

typedef struct dr_torch_number {
    const char *key; /* "epoch", "global_step" */
    int64_t value;
} dr_torch_number;

typedef struct dr_torch_content {        /* all that the pickle says; borrowed */
    const dr_safetensors_entry *entries; /* in the order of the state_dict and of the data */
    size_t n_entries;
    const dr_torch_number *numbers;
    size_t n_numbers;
    const dr_safetensors_meta *meta; /* what safetensors has as __metadata__ */
    size_t n_meta;
    bool bare; /* no state_dict around the tensors, no numbers, no meta */
} dr_torch_content;

typedef struct dr_torch_writer dr_torch_writer;

/*
 * Checks names, sizes and free space, creates "path.tmp.<pid>" and writes the pickle. content is
 * not kept. On error *out is NULL and no file is left. Errors: DR_INVALID (a name twice or not
 * UTF-8; negative or overflowing shape; numbers in a bare file), DR_IO (not enough free space; disk
 * error), DR_OUTPUT (cannot create).
 */
DR_MUST_USE dr_status dr_torch_writer_open(dr_torch_writer **out, const char *path,
                                           const dr_torch_content *content);
/* The size of content->entries[i]; they come in this order. */
size_t dr_torch_writer_bytes(const dr_torch_writer *w, size_t i);
/* Appends tensor bytes (row-major, little-endian) in pieces of any size. More than announced is a
 * broken contract. On error abort. */
DR_MUST_USE dr_status dr_torch_writer_write(dr_torch_writer *w, const void *data, size_t n);
/* Ends the writer, also on failure: all bytes must have been written (contract); flush, fsync,
 * rename. The file at path is replaced whole or stays as it was. */
DR_MUST_USE dr_status dr_torch_writer_commit(dr_torch_writer *w);
/* Ends the writer and leaves nothing behind; NULL is fine. */
void dr_torch_writer_abort(dr_torch_writer *w);

/* All in one call: emit is called once per tensor in order and writes its bytes with
 * dr_torch_writer_write(w, ...). An error from emit aborts and is returned. */
typedef dr_status (*dr_torch_emit)(void *ctx, dr_torch_writer *w, size_t i_entry);
DR_MUST_USE dr_status dr_torch_write(const char *path, const dr_torch_content *content,
                                     dr_torch_emit emit, void *ctx);

#endif
