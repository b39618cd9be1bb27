#include "text/tokenizer.h"

#include "base/arena.h"
#include "base/file.h"
#include "text/codepoints.h"
#include "text/vocabulary.h"

#include <stdlib.h>
#include <string.h>

typedef struct token_text {
    const char *text; /* in the arena */
    int id;
} token_text;

/* Texts of all tokens by id: byte symbols as characters, "</w>" at the end of a word. */
static token_text *all_tokens(dr_arena *arena)
{
    token_text *tokens = dr_arena_array(arena, DR_VOCAB_SIZE, sizeof *tokens);
    dr_str text = {0};
    for (int id = 0; id < DR_VOCAB_SIZE; id++) {
        text.len = 0;
        if (id < DR_VOCAB_FIRST_MERGE) {
            uint32_t c = dr_vocab_codepoint_of_symbol((unsigned)id % DR_VOCAB_WORD_END);
            dr_utf8_encode(&(dr_codepoints){&c, 1, 1}, &text);
            dr_str_add(&text, id >= DR_VOCAB_WORD_END ? "</w>" : "");
        } else if (id < DR_VOCAB_START) {
            int rank = id - DR_VOCAB_FIRST_MERGE;
            dr_str_add(&text, tokens[dr_vocab_left[rank]].text);
            dr_str_add(&text, tokens[dr_vocab_right[rank]].text);
        } else {
            dr_str_add(&text, id == DR_VOCAB_START ? "<|startoftext|>" : "<|endoftext|>");
        }
        tokens[id] = (token_text){dr_arena_strdup(arena, dr_str_get(&text)), id};
    }
    dr_str_free(&text);
    return tokens;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(((const token_text *)a)->text, ((const token_text *)b)->text);
}

void dr_tokenizer_vocab_json(dr_str *out)
{
    dr_arena arena;
    dr_arena_init(&arena);
    token_text *tokens = all_tokens(&arena);
    qsort(tokens, DR_VOCAB_SIZE, sizeof *tokens, compare_texts);
    for (int i = 0; i < DR_VOCAB_SIZE; i++) {
        dr_str_add(out, i == 0 ? "{\n  \"" : ",\n  \"");
        for (const char *p = tokens[i].text; *p != '\0'; p++) {
            dr_str_add(out, *p == '"' || *p == '\\' ? "\\" : "");
            dr_str_add_n(out, p, 1);
        }
        dr_str_printf(out, "\": %d", tokens[i].id);
    }
    dr_str_add(out, "\n}\n");
    dr_arena_deinit(&arena);
}

void dr_tokenizer_merges_txt(dr_str *out)
{
    dr_arena arena;
    dr_arena_init(&arena);
    const token_text *tokens = all_tokens(&arena);
    dr_str_add(out, "#version: 0.2\n");
    for (int r = 0; r < DR_VOCAB_N_MERGES; r++) {
        dr_str_printf(out, "%s %s\n", tokens[dr_vocab_left[r]].text,
                      tokens[dr_vocab_right[r]].text);
    }
    dr_arena_deinit(&arena);
}

/* A special token as AddedToken writes itself; kind is a first line or "". */
static void add_special(dr_str *out, const char *name, const char *kind, const char *text)
{
    dr_str_printf(out,
                  "  \"%s\": {\n%s    \"content\": \"%s\",\n    \"lstrip\": false,\n"
                  "    \"normalized\": true,\n    \"rstrip\": false,\n"
                  "    \"single_word\": false\n  }",
                  name, kind, text);
}

static void add_special_tokens_map(dr_tokenizer_kind kind, dr_str *out)
{
    dr_str_add(out, "{\n");
    add_special(out, "bos_token", "", "<|startoftext|>");
    dr_str_add(out, ",\n");
    add_special(out, "eos_token", "", "<|endoftext|>");
    dr_str_printf(out, ",\n  \"pad_token\": \"%s\",\n",
                  kind == DR_TOKENIZER_SD2 ? "!" : "<|endoftext|>");
    add_special(out, "unk_token", "", "<|endoftext|>");
    dr_str_add(out, "\n}\n");
}

/* The pad token here is overruled by special_tokens_map.json; the hub's SD2 files say the same. */
static void add_tokenizer_config(dr_tokenizer_kind kind, dr_str *out)
{
    static const char *const type = "    \"__type\": \"AddedToken\",\n";
    dr_str_add(out, "{\n  \"add_prefix_space\": false,\n");
    add_special(out, "bos_token", type, "<|startoftext|>");
    dr_str_add(out, ",\n  \"do_lower_case\": true,\n");
    add_special(out, "eos_token", type, "<|endoftext|>");
    dr_str_printf(out,
                  ",\n  \"errors\": \"replace\",\n  \"model_max_length\": %d,\n"
                  "  \"name_or_path\": \"%s\",\n  \"pad_token\": \"<|endoftext|>\",\n"
                  "  \"special_tokens_map_file\": \"./special_tokens_map.json\",\n"
                  "  \"tokenizer_class\": \"CLIPTokenizer\",\n",
                  DR_TOKEN_ROW,
                  kind == DR_TOKENIZER_SD2 ? "stabilityai/stable-diffusion-2"
                                           : "openai/clip-vit-large-patch14");
    add_special(out, "unk_token", type, "<|endoftext|>");
    dr_str_add(out, "\n}\n");
}

static dr_status write_in(const char *dir, const char *name, dr_str *text)
{
    char *path = dr_path_join(dir, name);
    const dr_status st = dr_file_write(path, text->data, text->len);
    free(path);
    text->len = 0;
    return st;
}

dr_status dr_tokenizer_save(dr_tokenizer_kind kind, const char *dir)
{
    dr_str text = {0};
    dr_tokenizer_vocab_json(&text);
    dr_status st = write_in(dir, "vocab.json", &text);
    if (st == DR_OK) {
        dr_tokenizer_merges_txt(&text);
        st = write_in(dir, "merges.txt", &text);
    }
    if (st == DR_OK) {
        add_special_tokens_map(kind, &text);
        st = write_in(dir, "special_tokens_map.json", &text);
    }
    if (st == DR_OK) {
        add_tokenizer_config(kind, &text);
        st = write_in(dir, "tokenizer_config.json", &text);
    }
    dr_str_free(&text);
    return st;
}
