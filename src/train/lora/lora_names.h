/*
 * train/lora/lora_names.h - the tensor names of LoRA dialects: which module, and what of it.
 *
 * Layer:    train, internal to lora_file.
 */
#ifndef DR_TRAIN_LORA_NAMES_H
#define DR_TRAIN_LORA_NAMES_H

#include "base/str.h"
#include "train/lora/lora_file.h"

typedef struct dr_lora_name {
    dr_lora_role role;
    dr_lora_kind kind; /* of roles that tell */
    bool tells_kind;
    size_t n_source; /* the module's own name is that many bytes of the tensor's */
} dr_lora_name;

/* False for a tensor of no module. */
bool dr_lora_name_parse(const char *tensor, dr_lora_name *out);
/* What sd-scripts and LyCORIS put behind a module's name: "lokr_w2_a". */
const char *dr_lora_role_name(dr_lora_role role, dr_lora_kind kind);
/* The kind of which the tensor is a part when it is one that cannot be read here ("OFT"), else
 * NULL. */
const char *dr_lora_name_unsupported(const char *tensor);

/*
 * Appends sd-scripts' name of the module that a file calls source (n bytes). Errors: DR_FORMAT (one
 * of cloneofsimo's numbers beyond the U-Net of SD 1.x and 2.x).
 */
DR_MUST_USE dr_status dr_lora_name_canonical(const char *source, size_t n, dr_str *out);

#endif
