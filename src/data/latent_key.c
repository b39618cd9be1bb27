#include "data/latent_key.h"

#include "base/str.h"

#include <string.h>

enum { KEY_VERSION = 2 }; /* raise when the resampling, the crop or the text below changes */

void dr_latent_key(const dr_latent_key_parts *parts, char out[DR_XXH3_HEX])
{
    char image[DR_XXH3_HEX];
    dr_xxh3_hex(parts->image, image);
    const dr_bucket_fit *fit = &parts->fit;
    dr_str text = {0}; /* lengths in front of free text: no two sets of parts share a text */
    dr_str_printf(&text,
                  "dreamrun latent %d\n%s\n%d %d %d %d %d %d %d\n%zu:%s %zu:%s %zu:%s %zu:%s\n",
                  KEY_VERSION, image, fit->bucket.w, fit->bucket.h, fit->resized.w, fit->resized.h,
                  fit->crop_x, fit->crop_y, parts->flip ? 1 : 0, strlen(parts->vae_hash),
                  parts->vae_hash, strlen(parts->dtype), parts->dtype, strlen(parts->kind),
                  parts->kind, strlen(parts->stored), parts->stored);
    dr_picture_options_key(parts->picture, &text);
    dr_xxh3_hex(dr_xxh3_bytes(text.data, text.len), out);
    dr_str_free(&text);
}
