/*
 * io/torch_file.h - the two containers of torch.save: the zip archive and the older stream.
 *
 * Layer:    io.  Users take io/tensor_file.h, which opens any container.
 * Threads:  an open file may be read by several threads, also the same tensor.
 * Source:   torch/serialization.py and torch/_utils.py of torch 2.15.
 *
 * The pickle inside goes through io/pickle.h, which executes nothing. The tensors are those of the
 * state_dict: the top-level dictionary, or what it holds under "state_dict", "model", "module" or
 * "model_state_dict". Checksums of stored tensors are not compared: torch may leave them wrong on
 * purpose (set_crc32_options); those of compressed entries are.
 */
#ifndef DR_IO_TORCH_FILE_H
#define DR_IO_TORCH_FILE_H

#include "io/tensor_file.h"

typedef struct dr_torch_file dr_torch_file;

/* The container that the first n bytes of a file announce, or DR_CONTAINER_NONE. */
dr_container dr_torch_sniff_bytes(const unsigned char *head, size_t n);
/* Maps the file and reads what it says about its tensors. On error *out is NULL.
 * Errors: DR_FORMAT (damaged; refused, with the reason), DR_UNSUPPORTED, DR_IO. */
DR_MUST_USE dr_status dr_torch_open(dr_torch_file **out, const char *path);
/* The same over n bytes of memory that outlive *out; source names them in messages. */
DR_MUST_USE dr_status dr_torch_parse(dr_torch_file **out, const char *source, const void *bytes,
                                     size_t n);
void dr_torch_close(dr_torch_file *f); /* NULL is fine */

/* Tensors in the order of the state_dict, names unique; i_inside is the number. */
size_t dr_torch_count(const dr_torch_file *f);
const dr_file_tensor *dr_torch_at(const dr_torch_file *f, size_t i);
/* As dr_tensor_file_data, _release and _number. */
DR_MUST_USE dr_status dr_torch_data(dr_torch_file *f, size_t i, const void **data);
void dr_torch_release(dr_torch_file *f, size_t i);
bool dr_torch_number(const dr_torch_file *f, const char *key, int64_t *out);
/* The strings of a dictionary "metadata" beside the state_dict: what safetensors has as
 * __metadata__. Pairs that are no UTF-8 strings are left out. */
size_t dr_torch_meta_count(const dr_torch_file *f);
dr_safetensors_meta dr_torch_meta_at(const dr_torch_file *f, size_t i);
dr_container dr_torch_container(const dr_torch_file *f);

#endif
