#include "train/lora/lora_names.h"

#include <stdio.h>
#include <string.h>

/* ---- roles --------------------------------------------------------------------------------- */

static const struct {
    const char *mark; /* at the end of the name; with a last '.': what follows is an adapter's */
    dr_lora_role role;
    dr_lora_kind kind;
    bool tells_kind;
} marks[] = {
    {".alpha", DR_LORA_ALPHA, DR_LORA_FACTORS, false},
    {".dora_scale", DR_LORA_MAGNITUDE, DR_LORA_FACTORS, false},
    {".lora_magnitude_vector", DR_LORA_MAGNITUDE, DR_LORA_FACTORS, false},
    {".lora_magnitude_vector.", DR_LORA_MAGNITUDE, DR_LORA_FACTORS, false},
    {".lora_down.weight", DR_LORA_DOWN, DR_LORA_FACTORS, true},
    {".lora_up.weight", DR_LORA_UP, DR_LORA_FACTORS, true},
    {".lora_mid.weight", DR_LORA_MID, DR_LORA_FACTORS, true},
    {".lora_A.", DR_LORA_DOWN, DR_LORA_FACTORS, true},
    {".lora_B.", DR_LORA_UP, DR_LORA_FACTORS, true},
    {"_lora.down.weight", DR_LORA_DOWN, DR_LORA_FACTORS, true},
    {"_lora.up.weight", DR_LORA_UP, DR_LORA_FACTORS, true},
    {".lora.down.weight", DR_LORA_DOWN, DR_LORA_FACTORS, true},
    {".lora.up.weight", DR_LORA_UP, DR_LORA_FACTORS, true},
    {".lora_linear_layer.down.weight", DR_LORA_DOWN, DR_LORA_FACTORS, true},
    {".lora_linear_layer.up.weight", DR_LORA_UP, DR_LORA_FACTORS, true},
    {":down", DR_LORA_DOWN, DR_LORA_FACTORS, true},
    {":up", DR_LORA_UP, DR_LORA_FACTORS, true},
    {".hada_w1_a", DR_LORA_W1_A, DR_LORA_HADAMARD, true},
    {".hada_w1_b", DR_LORA_W1_B, DR_LORA_HADAMARD, true},
    {".hada_w2_a", DR_LORA_W2_A, DR_LORA_HADAMARD, true},
    {".hada_w2_b", DR_LORA_W2_B, DR_LORA_HADAMARD, true},
    {".hada_t1", DR_LORA_T1, DR_LORA_HADAMARD, true},
    {".hada_t2", DR_LORA_T2, DR_LORA_HADAMARD, true},
    {".lokr_w1", DR_LORA_W1, DR_LORA_KRONECKER, true},
    {".lokr_w1_a", DR_LORA_W1_A, DR_LORA_KRONECKER, true},
    {".lokr_w1_b", DR_LORA_W1_B, DR_LORA_KRONECKER, true},
    {".lokr_w2", DR_LORA_W2, DR_LORA_KRONECKER, true},
    {".lokr_w2_a", DR_LORA_W2_A, DR_LORA_KRONECKER, true},
    {".lokr_w2_b", DR_LORA_W2_B, DR_LORA_KRONECKER, true},
    {".lokr_t2", DR_LORA_T2, DR_LORA_KRONECKER, true},
    {".diff", DR_LORA_DIFF, DR_LORA_DIFFERENCE, true},
    {".w_norm", DR_LORA_DIFF, DR_LORA_DIFFERENCE, true},
    {".diff_b", DR_LORA_BIAS, DR_LORA_FACTORS, false},
    {".b_norm", DR_LORA_BIAS, DR_LORA_FACTORS, false},
};

static const char *const unsupported[][2] = {
    {".oft_blocks", "OFT"},
    {".oft_diag", "OFT"},
    {".on_input", "(IA)^3"},
    {".a1.weight", "GLoRA"},
    {".b1.weight", "GLoRA"},
    {".lora_embedding_A", "a LoRA of an embedding"},
    {".lora_embedding_B", "a LoRA of an embedding"},
};

/* Where the mark stands as its rule says, else NULL. */
static const char *find_mark(const char *name, const char *mark)
{
    const size_t n = strlen(mark);
    const size_t len = strlen(name);
    if (mark[n - 1] == '.') {
        return strstr(name, mark);
    }
    return len > n && strcmp(name + len - n, mark) == 0 ? name + len - n : NULL;
}

const char *dr_lora_role_name(dr_lora_role role, dr_lora_kind kind)
{
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        if (marks[i].role == role && (marks[i].kind == kind || !marks[i].tells_kind)) {
            return marks[i].mark + 1;
        }
    }
    DR_CHECK(false, "role %d has no name", (int)role);
    return NULL;
}

bool dr_lora_name_parse(const char *tensor, dr_lora_name *out)
{
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        const char *at = find_mark(tensor, marks[i].mark);
        if (at != NULL && at > tensor) {
            *out = (dr_lora_name){.role = marks[i].role,
                                  .kind = marks[i].kind,
                                  .tells_kind = marks[i].tells_kind,
                                  .n_source = (size_t)(at - tensor)};
            return true;
        }
    }
    return false;
}

const char *dr_lora_name_unsupported(const char *tensor)
{
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++) {
        if (find_mark(tensor, unsupported[i][0]) != NULL) {
            return unsupported[i][1];
        }
    }
    return NULL;
}

/* ---- cloneofsimo's numbers ----------------------------------------------------------------- */

/*
 * Modules are numbered as torch found them: down, up, mid (which diffusers assigned last), and in a
 * block the attention to itself, the first half of the MLP, the attention to the text.
 */
static dr_status number_of_unet(int64_t i, dr_str *out)
{
    static const char *const leaves[] = {"attn1_to_q",     "attn1_to_k",    "attn1_to_v",
                                         "attn1_to_out_0", "ff_net_0_proj", "attn2_to_q",
                                         "attn2_to_k",     "attn2_to_v",    "attn2_to_out_0"};
    enum { PER_BLOCK = 9, DOWN_BLOCKS = 6, UP_BLOCKS = 9, BLOCKS = 16 };
    const int64_t block = i / PER_BLOCK;
    if (i < 0 || block >= BLOCKS) {
        DR_FAIL(DR_FORMAT,
                "module unet:%lld, expected numbers from 0 to %d, as the U-Nets of SD "
                "1.x and 2.x have",
                (long long)i, PER_BLOCK * BLOCKS - 1);
    }
    const int up = (int)block - DOWN_BLOCKS;
    if (block < DOWN_BLOCKS) {
        dr_str_printf(out, "lora_unet_down_blocks_%d_attentions_%d", (int)block / 2,
                      (int)block % 2);
    } else if (up < UP_BLOCKS) {
        dr_str_printf(out, "lora_unet_up_blocks_%d_attentions_%d", up / 3 + 1, up % 3);
    } else {
        dr_str_add(out, "lora_unet_mid_block_attentions_0");
    }
    dr_str_printf(out, "_transformer_blocks_0_%s", leaves[i % PER_BLOCK]);
    return DR_OK;
}

static dr_status number_of_text(int64_t i, dr_str *out)
{
    static const char *const leaves[] = {"k_proj", "v_proj", "q_proj", "out_proj"};
    dr_str_printf(out, "lora_te_text_model_encoder_layers_%lld_self_attn_%s", (long long)(i / 4),
                  leaves[i % 4]);
    return DR_OK;
}

/* Takes "unet:5" and "text_encoder:5"; *done: whether it was one. */
static dr_status from_number(const char *source, size_t n, dr_str *out, bool *done)
{
    char text[40];
    int64_t i = 0;
    const char *colon = memchr(source, ':', n);
    *done = false;
    if (colon == NULL || n >= sizeof text) {
        return DR_OK;
    }
    (void)snprintf(text, sizeof text, "%.*s", (int)n, source);
    const char *number = text + (colon - source) + 1;
    if (!dr_parse_i64(number, &i) || i < 0) {
        return DR_OK;
    }
    if (dr_str_starts(text, "unet:")) {
        *done = true;
        return number_of_unet(i, out);
    }
    if (dr_str_starts(text, "text_encoder:")) {
        *done = true;
        return number_of_text(i, out);
    }
    return DR_OK;
}

/* ---- dotted names -------------------------------------------------------------------------- */

static bool skip(const char **at, const char *prefix)
{
    const bool there = dr_str_starts(*at, prefix);
    *at += there ? strlen(prefix) : 0;
    return there;
}

/* Modules that older programs called otherwise, by the end of their path. */
static const struct {
    const char *old, *now;
    bool text;
} renamed[] = {
    {".to_out", ".to_out.0", false},
    {".self_attn.to_q", ".self_attn.q_proj", true},
    {".self_attn.to_k", ".self_attn.k_proj", true},
    {".self_attn.to_v", ".self_attn.v_proj", true},
    {".self_attn.to_out", ".self_attn.out_proj", true},
};

static void add_path(const char *path, bool text, dr_str *out)
{
    static const char processor[] = ".processor.";
    dr_str s = {0};
    const char *at = strstr(path, processor);
    dr_str_add_n(&s, path, at != NULL ? (size_t)(at - path) + 1 : strlen(path));
    dr_str_add(&s, at != NULL ? at + strlen(processor) : "");
    for (size_t i = 0; i < sizeof renamed / sizeof *renamed; i++) {
        if (renamed[i].text == text && dr_str_ends(s.data, renamed[i].old)) {
            s.len -= strlen(renamed[i].old);
            s.data[s.len] = '\0';
            dr_str_add(&s, renamed[i].now);
            break;
        }
    }
    for (size_t i = 0; i < s.len; i++) {
        s.data[i] = s.data[i] == '.' ? '_' : s.data[i];
    }
    dr_str_printf(out, "%s%s", text ? "lora_te_" : "lora_unet_", s.data);
    dr_str_free(&s);
}

/* sd-scripts' own names; converters have written some prefixes twice. */
static bool from_kohya(const char *name, dr_str *out)
{
    static const char *const rules[][2] = {
        {"lora_unet_unet_", "lora_unet_"}, {"lora_te_text_encoder_", "lora_te_"},
        {"lora_te1_", "lora_te_"},         {"lora_te2_", "lora_te2_"},
        {"lora_unet_", "lora_unet_"},      {"lora_te_", "lora_te_"},
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (dr_str_starts(name, rules[i][0])) {
            dr_str_printf(out, "%s%s", rules[i][1], name + strlen(rules[i][0]));
            return true;
        }
    }
    return false;
}

dr_status dr_lora_name_canonical(const char *source, size_t n, dr_str *out)
{
    bool done = false;
    DR_TRY(from_number(source, n, out, &done));
    if (done) {
        return DR_OK;
    }
    dr_str name = {0};
    dr_str_add_n(&name, source, n);
    if (!from_kohya(name.data, out)) {
        const char *path = name.data;
        (void)skip(&path, "base_model.model.");
        const bool text = !skip(&path, "unet.") &&
                          (skip(&path, "text_encoder.") || dr_str_starts(path, "text_model."));
        add_path(path, text, out);
    }
    dr_str_free(&name);
    return DR_OK;
}
