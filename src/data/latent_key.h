/*
 * data/latent_key.h - under which key a picture's latent stands in the cache.
 *
 * Layer:    data.
 *
 * The key covers the picture's content and everything that changes its latent, so a cache cannot go
 * stale: another file, size, crop, VAE or number format is another key.
 */
#ifndef DR_DATA_LATENT_KEY_H
#define DR_DATA_LATENT_KEY_H

#include "data/buckets.h"
#include "data/picture_options.h"
#include "io/xxh3.h"

typedef struct dr_latent_key_parts {
    dr_xxh3 image;                     /* of the picture file: dr_xxh3_file       */
    dr_bucket_fit fit;                 /* bucket, resized size, crop              */
    bool flip;                         /* mirrored left to right after the crop   */
    const char *vae_hash;              /* any text that identifies the VAE        */
    const char *dtype;                 /* the VAE computed in, for example "f32"  */
    const char *kind;                  /* "moments", "latent", "npz"              */
    const char *stored;                /* kept as "F32", "F16", "BF16"            */
    const dr_picture_options *picture; /* NULL: the defaults */
} dr_latent_key_parts;
/* The key for io/latent_cache.h: 32 hex digits. */
void dr_latent_key(const dr_latent_key_parts *parts, char out[DR_XXH3_HEX]);

#endif
