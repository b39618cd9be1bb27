/*
 * apps/sample_loras.h - the LoRAs of `dreamrun sample --lora FILE[:WEIGHT]`: opened, merged into
 * the loaded networks, and told of in the pictures.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_SAMPLE_LORAS_H
#define DR_APPS_SAMPLE_LORAS_H

#include "base/str.h"
#include "train/lora/lora_merge.h"
#include "train/network.h"

typedef struct dr_sample_loras { /* zeroed: none */
    dr_arena arena;              /* paths and titles */
    struct dr_sample_lora {
        dr_lora_file *file;
        const char *title; /* the file's name without its ending */
        double weight;
        char hash[13]; /* what web interfaces know it by: AutoV3, 12 digits; "" of a torch file */
    } * at;
    size_t n;
} dr_sample_loras;

/*
 * Opens the files and checks that each is one for the model, before anything is loaded. A word is a
 * path, or a path, ':' and a finite number (1 without it); a path that exists as it is wins.
 * Errors: those of dr_lora_tool_open and dr_lora_check_model; DR_INVALID (a weight that is no
 * number).
 */
DR_MUST_USE dr_status dr_sample_loras_open(dr_sample_loras *l, const dr_strv *words,
                                           const dr_model_config *config);
/* Merges them in their order. Errors: those of reading. */
DR_MUST_USE dr_status dr_sample_loras_merge(const dr_sample_loras *l, dr_network *net);
/* As web interfaces write it: " <lora:dog:0.8>" of each, which they take at the end of a prompt. */
void dr_sample_loras_tags(const dr_sample_loras *l, dr_str *out);
/* ", Lora hashes: "dog: 0123456789ab"", behind the other settings; nothing when there are none. */
void dr_sample_loras_hashes(const dr_sample_loras *l, dr_str *out);
/* Ends what open has begun, on error too. */
void dr_sample_loras_close(dr_sample_loras *l);

#endif
