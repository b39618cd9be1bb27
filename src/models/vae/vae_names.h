/*
 * models/vae/vae_names.h - AutoencoderKL's tensors in single-file (LDM) checkpoints.
 *
 * Layer:    models.
 * Source:   spec/models.md 2.
 */
#ifndef DR_VAE_NAMES_H
#define DR_VAE_NAMES_H

#include "models/names.h"
#include "models/vae/vae.h"

/* Files with nothing but a VAE may lack it: skip its length then. */
#define DR_VAE_LDM_PREFIX "first_stage_model."

/* Where a parameter of a VAE lies in an LDM file: the mid attention is [C,C,1,1] there. */
void dr_vae_ldm_slice(const dr_vae_config *c, const dr_param *p, dr_file_slice *out);
/* The old Diffusers spelling (query, key, value, proj_attn) of a Diffusers name; false when the
 * name has none. */
bool dr_vae_other_name(const char *name, char *buf, size_t size);
/*
 * Config from the shapes of an LDM file, not checked: what shapes do not tell may be put right
 * first. prefix: DR_VAE_LDM_PREFIX or "". 32 groups, factor 0.18215, as every SD 1.x and 2.x VAE.
 * DR_FORMAT names what is missing.
 */
DR_MUST_USE dr_status dr_vae_config_from_ldm(dr_vae_config *c, const dr_shape_source *src,
                                             const char *prefix);

#endif
