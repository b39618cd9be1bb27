/*
 * models/unet/unet_names.h - the U-Net's tensor names in single-file (LDM) checkpoints, and its
 * config read off the shapes found there.
 *
 * Layer:    models.
 * Source:   spec/models.md 1.4-1.6; the rules hold for any number of levels and layers.
 */
#ifndef DR_UNET_NAMES_H
#define DR_UNET_NAMES_H

#include "models/names.h"
#include "models/unet/unet.h"

/*
 * LDM name of a Diffusers name, with the prefix "model.diffusion_model.", into buf.
 * False when the name is none of this network's.
 */
bool dr_unet_ldm_name(const dr_unet_config *c, const char *name, char *buf, size_t size);

/*
 * Config from the shapes of an LDM checkpoint. Head counts do not show in shapes: SD 1.x has 8
 * heads at every level, SD 2.x heads of 64 channels (v2). DR_FORMAT names what is missing or what
 * the file is instead (inpainting, another family).
 */
DR_MUST_USE dr_status dr_unet_config_from_ldm(dr_unet_config *c, const dr_shape_source *src,
                                              bool v2);

#endif
