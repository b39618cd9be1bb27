/*
 * train/latents/mask_store.h - masks of pictures, kept from use to use.
 *
 * Layer:    train.
 * Threads:  one.
 *
 * A mask costs decoding and resizing a picture. Where every use of a picture is cut alike, it is
 * made once and kept, up to a limit of memory; what is given is the same bit for bit.
 */
#ifndef DR_TRAIN_MASK_STORE_H
#define DR_TRAIN_MASK_STORE_H

#include "data/mask.h"

typedef struct dr_mask_store dr_mask_store;

/* For the pictures of a dataset, which must outlive it; 0 bytes: it keeps nothing. */
dr_mask_store *dr_mask_store_create(const dr_dataset *dataset, size_t max_bytes);
void dr_mask_store_destroy(dr_mask_store *s); /* NULL is fine */
/* dr_mask_load of a picture: (bucket h / 8, bucket w / 8) values to out. Errors: its. */
DR_MUST_USE dr_status dr_mask_store_get(dr_mask_store *s, size_t image, const dr_sample_use *use,
                                        float *out);
size_t dr_mask_store_bytes(const dr_mask_store *s);

#endif
