#include "train/lora/lora_facts.h"

#include "base/str.h"

#include <string.h>

/* One tensor per module shows by its name: what it belongs to, and which of its sizes is the rank.
 */
static const struct {
    const char *mark; /* in the name, or at its end */
    const char *names, *method;
    int rank_dim; /* -1: the tensor has none */
} marks[] = {
    {".lora_down.weight", "kohya", "LoRA", 0},
    {".lora_A.", "PEFT", "LoRA", 0},
    {"_lora.down.weight", "Diffusers (before 0.17)", "LoRA", 0},
    {".lora.down.weight", "Diffusers", "LoRA", 0},
    {".lora_linear_layer.down.weight", "Diffusers", "LoRA", 0},
    {":down", "cloneofsimo", "LoRA", 0},
    {".hada_w1_b", "kohya", "LoHa", 0},
    {".lokr_w1", "kohya", "LoKr", -1},
    {".oft_blocks", "kohya", "OFT", -1},
    {".oft_diag", "kohya", "OFT", -1},
    {".a1.weight", "kohya", "GLoRA", 0},
    {".on_input", "kohya", "(IA)^3", -1},
    {".diff", "kohya", "full difference", -1},
    {".w_norm", "kohya", "full difference", -1},
};
enum { N_MARKS = sizeof marks / sizeof *marks };

static int mark_of(const char *name)
{
    for (int i = 0; i < N_MARKS; i++) {
        const char *at = strstr(name, marks[i].mark);
        const size_t n = strlen(marks[i].mark);
        /* ".lokr_w1_b" belongs to the module of ".lokr_w1_a" */
        if (at != NULL &&
            (at[n] == '\0' || marks[i].mark[n - 1] == '.' || strcmp(at + n, "_a") == 0)) {
            return i;
        }
    }
    return -1;
}

static void count_part(dr_lora_facts *f, const char *name)
{
    if (dr_str_starts(name, "lora_te2_") || dr_str_starts(name, "text_encoder_2.")) {
        f->text_encoder_2++;
    } else if (dr_str_starts(name, "lora_te") || dr_str_starts(name, "text_encoder") ||
               dr_str_starts(name, "text_model.")) {
        f->text_encoder++;
    } else if (dr_str_starts(name, "lora_unet_") || dr_str_starts(name, "unet") ||
               strstr(name, "_blocks.") != NULL || dr_str_starts(name, "mid_block.")) {
        f->unet++;
    } else {
        f->other++;
    }
    f->doubled_prefix = f->doubled_prefix || dr_str_starts(name, "lora_unet_unet_") ||
                        dr_str_starts(name, "lora_te_text_encoder_");
}

/* The width of the text shows in the inputs of the cross attention, else of the text encoder. */
static void find_family(dr_lora_facts *f, const char *name, const dr_file_tensor *t)
{
    const bool cross = strstr(name, "attn2_to_k.") != NULL || strstr(name, "attn2.to_k.") != NULL ||
                       strstr(name, "attn2.processor.to_k_lora.") != NULL;
    const bool text = strstr(name, "q_proj") != NULL || dr_str_starts(name, "text_encoder:");
    if (t->rank < 2 || (!cross && !(text && f->family == NULL))) {
        return;
    }
    f->family = t->shape[1] == 768    ? "SD 1.x"
                : t->shape[1] == 1024 ? "SD 2.x"
                : t->shape[1] == 2048 ? "SDXL"
                                      : f->family;
}

static void add_module(dr_lora_facts *f, int mark, const dr_file_tensor *t)
{
    const int dim = marks[mark].rank_dim;
    count_part(f, t->name);
    f->names = marks[mark].names;
    f->method = f->method == NULL || strcmp(f->method, "full difference") == 0 ? marks[mark].method
                                                                               : f->method;
    f->conv += t->rank == 4 && t->shape[2] * t->shape[3] > 1 ? 1 : 0;
    if (dim >= 0 && t->rank > dim) {
        const int64_t rank = t->shape[dim];
        f->rank_min = f->rank_max == 0 || rank < f->rank_min ? rank : f->rank_min;
        f->rank_max = rank > f->rank_max ? rank : f->rank_max;
    }
    find_family(f, t->name, t);
}

static void add_alpha(dr_lora_facts *f, const dr_tensor_file *file, const dr_file_tensor *t)
{
    const void *data = NULL;
    float value = 0.0F;
    const bool floating = t->readable && (t->dtype == DR_F64 || t->dtype == DR_F32 ||
                                          t->dtype == DR_F16 || t->dtype == DR_BF16);
    if (t->n_elems != 1 || !floating) {
        return;
    }
    if (dr_tensor_file_data(file, t, &data) != DR_OK) {
        dr_error_clear(); /* a damaged scalar: the weights themselves are told of elsewhere */
        return;
    }
    unsigned char copy[8] = {0};
    memcpy(copy, data, t->bytes < sizeof copy ? t->bytes : sizeof copy);
    dr_convert(&value, DR_F32, copy, t->dtype, 1);
    dr_tensor_file_release(file, t);
    const double alpha = (double)value;
    f->alpha_min = !f->has_alpha || alpha < f->alpha_min ? alpha : f->alpha_min;
    f->alpha_max = !f->has_alpha || alpha > f->alpha_max ? alpha : f->alpha_max;
    f->has_alpha = true;
}

bool dr_lora_facts_read(dr_lora_facts *f, const dr_tensor_file *file)
{
    *f = (dr_lora_facts){0};
    bool decomposed = false;
    for (size_t i = 0; i < dr_tensor_file_count(file); i++) {
        const dr_file_tensor *t = dr_tensor_file_at(file, i);
        const int mark = mark_of(t->name);
        if (mark >= 0) {
            add_module(f, mark, t);
        } else if (dr_str_ends(t->name, ".alpha")) {
            add_alpha(f, file, t);
        } else if (t->name[0] == '<') {
            f->embeddings++;
        }
        decomposed = decomposed || strstr(t->name, ".dora_scale") != NULL ||
                     strstr(t->name, ".lora_magnitude_vector") != NULL;
    }
    if (decomposed) {
        f->method = "DoRA";
    }
    return f->unet + f->text_encoder + f->text_encoder_2 + f->other > 0;
}
