#include "train/model/model_kind.h"

#include "base/str.h"

#include <string.h>

static const struct {
    const char *label, *text;
} kinds[] = {
#define DR_MODEL_KIND_ROW(name, label, text) {label, text},
    DR_MODEL_KIND_LIST(DR_MODEL_KIND_ROW)
#undef DR_MODEL_KIND_ROW
};

const char *dr_model_kind_label(dr_model_kind kind)
{
    return kinds[kind].label;
}

const char *dr_model_kind_text(dr_model_kind kind)
{
    return kinds[kind].text;
}

/* True when a tensor's name holds text (at its start: anchored). */
static bool any_name(const dr_tensor_file *s, const char *text, bool anchored)
{
    for (size_t i = 0; i < dr_tensor_file_count(s); i++) {
        const char *at = strstr(dr_tensor_file_at(s, i)->name, text);
        if (at != NULL && (!anchored || at == dr_tensor_file_at(s, i)->name)) {
            return true;
        }
    }
    return false;
}

static bool is_lora(const dr_tensor_file *s)
{
    static const char *const marks[] = {"lora_up.",  "lora_down.", ".lora_A.",    ".lora_B.",
                                        "_lora.up",  "_lora.down", ".lora.up",    ".lora.down",
                                        ".hada_w1",  ".lokr_w1",   ".oft_blocks", ".oft_diag",
                                        ".on_input", ".dora_scale"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        if (any_name(s, marks[i], false)) {
            return true;
        }
    }
    return any_name(s, "unet:0:", true) || any_name(s, "text_encoder:0:", true);
}

/* A single-file checkpoint with a U-Net. */
static dr_model_kind kind_of_checkpoint(const dr_tensor_file *s, const dr_file_tensor *in)
{
    const int64_t channels = in->rank == 4 ? in->shape[1] : 0;
    if (any_name(s, "conditioner.embedders.", true) ||
        any_name(s, "model.diffusion_model.label_emb.", true)) {
        return DR_KIND_SDXL;
    }
    if (channels == 9 || channels == 8) {
        return channels == 9 ? DR_KIND_INPAINTING : DR_KIND_PIX2PIX;
    }
    return any_name(s, "cond_stage_model.model.", true) ? DR_KIND_SD2 : DR_KIND_SD1;
}

dr_model_kind dr_model_kind_of(const dr_tensor_file *s)
{
    static const struct {
        const char *start;
        dr_model_kind kind;
    } marks[] = {
        {"model.diffusion_model.joint_blocks.", DR_KIND_SD3},
        {"joint_blocks.", DR_KIND_SD3},
        {"model.diffusion_model.double_blocks.", DR_KIND_FLUX},
        {"double_blocks.", DR_KIND_FLUX},
        {"control_model.", DR_KIND_CONTROLNET},
        {"controlnet_down_blocks.", DR_KIND_CONTROLNET},
        {"controlnet_cond_embedding.", DR_KIND_CONTROLNET},
        {"string_to_param.", DR_KIND_EMBEDDING},
        {"emb_params", DR_KIND_EMBEDDING},
        {"first_stage_model.", DR_KIND_VAE},
        {"encoder.down_blocks.", DR_KIND_VAE},
        {"encoder.down.", DR_KIND_VAE},
        {"decoder.up_blocks.", DR_KIND_VAE},
        {"encoder.layers.0.weight", DR_KIND_TAESD},
        {"down_blocks.", DR_KIND_UNET},
        {"text_model.", DR_KIND_TEXT_ENCODER},
        {"embeddings.token_embedding.", DR_KIND_TEXT_ENCODER},
        {"1.conv.0.", DR_KIND_TAESD},
        {"3.conv.0.", DR_KIND_TAESD},
    };
    if (is_lora(s)) {
        return DR_KIND_LORA;
    }
    const dr_file_tensor *in =
        dr_tensor_file_find(s, "model.diffusion_model.input_blocks.0.0.weight");
    if (in != NULL) {
        return kind_of_checkpoint(s, in);
    }
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        if (any_name(s, marks[i].start, true)) {
            return marks[i].kind;
        }
    }
    const dr_file_tensor *only =
        dr_tensor_file_count(s) == 1 ? dr_tensor_file_at(s, 0) : NULL; /* diffusers: <token> */
    if (only != NULL && only->name[0] == '<' && only->rank <= 2) {
        return DR_KIND_EMBEDDING;
    }
    return DR_KIND_UNKNOWN;
}
