/*
 * train/lora/lora_network.h - the adapters of a LoRA over the U-Net and the text encoder: which
 * modules have one, their names, ranks, alphas and parameters.
 *
 * Layer:    train.
 * Source:   sd-scripts networks/lora.py; spec sdscripts.md 9.1 - 9.3.
 * Ownership: sites and names live in the arena given at init. Parameters are in two sets, one per
 *           network, with the same segments as that network's own set: what is known of a segment
 *           there (when its gradients are final, which bucket they are in) holds for its adapters.
 */
#ifndef DR_TRAIN_LORA_NETWORK_H
#define DR_TRAIN_LORA_NETWORK_H

#include "nn/adapter.h"
#include "tensor/device.h"
#include "train/lora/lora_file.h"
#include "train/lora/lora_settings.h"
#include "train/model/model_file.h"

typedef struct dr_lora_site { /* a module of the network that has an adapter */
    const char *name;         /* "lora_unet_down_blocks_0_attentions_0_proj_in" */
    const char *path;         /* "down_blocks.0.attentions.0.proj_in" */
    dr_model_part part;
    dr_param *weight; /* the base's */
    dr_adapter adapter;
    bool scalar_is_fixed;          /* not trained, at first 1: the limit of norms scales it */
    dr_param *role[DR_LORA_ROLES]; /* the adapter's parameters as a file has them; NULL: none */
    int64_t rank;
    double alpha; /* as a file has it: the scale is alpha / rank */
    int block;    /* of the U-Net, 0 .. DR_LORA_BLOCKS-1; -1: text encoder */
} dr_lora_site;

typedef struct dr_lora_network {
    dr_params set[2];   /* by dr_model_part */
    dr_lora_site *site; /* text encoder first, each in the order of its network */
    size_t n_sites;
} dr_lora_network;

/*
 * Puts an adapter on every weight of unet and text that the settings name, or, when file is not
 * NULL, on those that the file has modules for, with its ranks and alphas. The sets of the networks
 * are complete.
 * Errors: DR_INVALID when no module is left; DR_UNSUPPORTED for a file with other kinds than LoRA;
 * DR_FORMAT for one whose shapes do not fit.
 */
DR_MUST_USE dr_status dr_lora_network_init(dr_lora_network *l, dr_arena *arena,
                                           const dr_lora_settings *s, const dr_lora_file *file,
                                           dr_params *unet, dr_params *text);
void dr_lora_network_deinit(dr_lora_network *l);
/* The site that a parameter of a set is a factor of. */
const dr_lora_site *dr_lora_site_of(const dr_lora_network *l, const dr_param *p);
/* The block of sd-scripts' count that a U-Net module belongs to; -1: none. */
int dr_lora_block_of(const char *path);

typedef struct dr_lora_batch { /* what dropout depends on */
    double module_dropout;
    uint64_t seed;
    uint32_t epoch, sample; /* the batch's first */
} dr_lora_batch;
/*
 * Begins a batch of training: draws which modules take part, and sets the streams of their other
 * dropout; all are keyed by seed, epoch, sample and the module's name. Modules that are not trained
 * take part as they are. NULL: no batch of training, all modules take part as they are.
 */
void dr_lora_network_draw(dr_lora_network *l, const dr_lora_batch *b);

/* ---- lora_values.c ---- */

/*
 * The values that training starts from, into a host array of the set's n_elems, keyed by seed and
 * name: a module starts the same whatever others there are. As sd-scripts and LyCORIS: the last
 * factor zero, or with a scalar that alone; LoHa normal, of deviation 1 for w1_b and w2_b, 0.1 for
 * the others; all else uniform within 1/sqrt(inputs). Magnitudes are set by
 * dr_lora_network_magnitudes.
 */
void dr_lora_network_start(const dr_lora_network *l, dr_model_part part, uint64_t seed,
                           float *values);
/* Magnitudes: the norms of the weights, which are bound and loaded. Errors: DR_NOMEM, the
 * device's. */
DR_MUST_USE dr_status dr_lora_network_magnitudes(const dr_lora_network *l, dr_model_part part,
                                                 const dr_device *device, float *values);
/*
 * The same from a file, for all sites that it has a module for; *n_missing counts the others, which
 * stay. Scalars are in a file's factors: they become 1. Errors: DR_FORMAT (rank or shape differs),
 * DR_UNSUPPORTED (other kinds), those of reading.
 */
DR_MUST_USE dr_status dr_lora_network_read(const dr_lora_network *l, dr_model_part part,
                                           const dr_lora_file *file, float *values,
                                           size_t *n_missing);

#endif
