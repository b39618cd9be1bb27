/*
 * train/lora/lora_settings.h - what a LoRA to train looks like: --network_dim and its like, and
 * --network_args.
 *
 * Layer:    train.
 * Source:   sd-scripts networks/lora.py create_network; spec sdscripts.md 9.4. Patterns are those
 * of its newer networks.
 */
#ifndef DR_TRAIN_LORA_SETTINGS_H
#define DR_TRAIN_LORA_SETTINGS_H

#include "base/arena.h"
#include "base/str.h"
#include "nn/adapter.h"
#include "train/lora/lora_file.h"

/* Blocks of the U-Net as sd-scripts counts them: 12 down (number 0 has no module), middle, 12 up.
 */
enum { DR_LORA_BLOCKS = 25, DR_LORA_MIDDLE = 12 };

typedef struct dr_lora_patterns { /* POSIX extended regular expressions */
    const char **at;
    size_t n;
} dr_lora_patterns;

typedef enum dr_lora_dialect { DR_LORA_KOHYA, DR_LORA_DIFFUSERS } dr_lora_dialect;

typedef struct dr_lora_targets { /* which modules a preset of LyCORIS takes; zeroed: not LyCORIS */
    const char *preset;          /* its name, NULL: networks.lora */
    bool transformer;            /* all of the U-Net's transformer blocks */
    bool attention;              /* of them q, k, v and out alone */
    bool residual, samplers;     /* the other blocks */
    bool time, ends;             /* the time embedding; conv_in and conv_out */
    bool windows;                /* kernels over 1x1 in all of these */
    bool text_attention, text_mlp;
} dr_lora_targets;

typedef struct dr_lora_base { /* a LoRA that is merged into the networks before training */
    const char *path;
    double ratio;
} dr_lora_base;

typedef struct dr_lycoris_form { /* of LyCORIS's modules */
    int64_t factor;      /* LoKr: of the smaller matrix; -1: as near to the root as it goes */
    bool decompose_both; /* LoKr: the smaller matrix is a pair, too */
    bool full_matrix, unbalanced;
    bool tucker;    /* a core in convolutions with a window */
    bool scalar;    /* a trained number that starts at 0 */
    bool magnitude; /* DoRA */
    bool by_input;
    bool root_scale; /* alpha / sqrt(rank) */
    bool bypass;     /* dropout is of what is added, not of the difference */
} dr_lycoris_form;

typedef struct dr_lora_settings { /* texts outlive it */
    dr_lora_kind kind;            /* all but DIFFERENCE */
    dr_lora_targets lycoris;
    bool unet, text_encoder;  /* which networks have modules */
    int64_t dim, conv_dim;    /* conv_dim 0: no 3x3 convolutions and no residual blocks */
    double alpha, conv_alpha; /* 0: the rank */
    bool by_block;            /* the arrays hold for the U-Net's modules; dim 0: none */
    int64_t block_dim[DR_LORA_BLOCKS], conv_block_dim[DR_LORA_BLOCKS];
    double block_alpha[DR_LORA_BLOCKS], conv_block_alpha[DR_LORA_BLOCKS];
    bool has_conv;       /* residual blocks and 3x3 convolutions have modules */
    bool rates_by_block; /* lr_weight multiplies the U-Net's rate */
    double lr_weight[DR_LORA_BLOCKS];
    double plus_unet, plus_text_encoder; /* rate of up over that of down; 0: one group */
    double module_dropout;               /* chance that a module is left out of a batch */
    dr_adapter_dropout dropout;          /* the chances of all adapters */
    double norm_limit;                   /* --scale_weight_norms; 0: none */
    dr_lycoris_form form;
    dr_lora_patterns exclude, include;
    const char *weights; /* file to start from, or NULL */
    bool dim_from_weights;
    const dr_lora_base *base;
    size_t n_base;
    dr_lora_dialect dialect;         /* of the saved file */
    const char *ending;              /* ".safetensors", ".ckpt", ".pt" */
    double lr_unet, lr_text_encoder; /* 0: the modules are there and stay as they are */
} dr_lora_settings;

/*
 * Reads "key=value" texts into the settings, whose dim and alpha are set. Strings go into the
 * arena. Errors: DR_INVALID (key, what was found and expected), DR_UNSUPPORTED (keys of LyCORIS).
 */
DR_MUST_USE dr_status dr_lora_settings_parse(const dr_strv *args, dr_arena *arena,
                                             dr_lora_settings *s);
/*
 * The same for --network_module lycoris.kohya. dropout.elements on entry: --network_dropout.
 * Errors: DR_INVALID, DR_UNSUPPORTED (what LyCORIS has and this program has not, and what LyCORIS
 * takes and ignores, with the reason).
 */
DR_MUST_USE dr_status dr_lycoris_settings_parse(const dr_strv *args, dr_lora_settings *s);

#endif
