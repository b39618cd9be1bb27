#include "apps/tool_tokenize.h"

#include "apps/tool_words.h"
#include "text/tokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENIZE_v2, TOKENIZE_max_token_length, TOKENIZE_OPTION_COUNT };

static const dr_opt_spec tokenize_specs[TOKENIZE_OPTION_COUNT] = {
    DR_TOOL_OPT(v2, FLAG, NULL, "", "", "Stable Diffusion 2.x: padding is id 0 (\"!\")."),
    DR_TOOL_OPT(
        max_token_length, INT, NULL, "75|150|225", "tokens",
        "Rows of 77 ids with start, end and padding, as the text encoder reads them. Unset: "
        "the ids of the whole caption with start and end, whatever its length.")};

static const char *const program_names[] = {"dreamrun tokenize"};

static const dr_opt_table tokenize_table = {.specs = tokenize_specs,
                                            .n = TOKENIZE_OPTION_COUNT,
                                            .programs = program_names,
                                            .n_programs = 1,
                                            .syntax = DR_OPT_PREFIXES | DR_OPT_TO_WORD,
                                            .own_first = -1};

static const dr_tool_text text = {
    .usage = "Usage: dreamrun tokenize [options] < captions.txt\n\n"
             "Reads captions, one per line, and prints the ids of each on one line.\n\n",
    .operands = "",
    .n_operands = 0};

static dr_status print_ids(dr_tokenizer *t, const char *caption, size_t n_bytes)
{
    size_t n = 0;
    DR_TRY(dr_tokenizer_encode(t, caption, n_bytes, NULL, 0, &n));
    int32_t *ids = dr_xcalloc(n + 1, sizeof *ids);
    const dr_status st = dr_tokenizer_encode(t, caption, n_bytes, ids, n, &n);
    if (st == DR_OK) {
        (void)printf("%d", DR_TOKEN_START);
        for (size_t i = 0; i < n; i++) {
            (void)printf(" %d", ids[i]);
        }
        (void)printf(" %d\n", DR_TOKEN_END);
    }
    free(ids);
    return st;
}

static dr_status print_rows(dr_tokenizer *t, const char *caption, size_t n_bytes, int max_tokens)
{
    dr_token_rows rows;
    DR_TRY(dr_tokenizer_encode_padded(t, caption, n_bytes, max_tokens, &rows));
    for (int r = 0; r < rows.n_rows; r++) {
        for (int i = 0; i < DR_TOKEN_ROW; i++) {
            (void)printf("%s%d", r + i > 0 ? " " : "", rows.ids[r][i]);
        }
    }
    (void)printf("\n");
    return DR_OK;
}

static dr_status tokenize_line(const dr_optset *o, dr_tokenizer *t, const char *line, size_t n)
{
    if (dr_opt_has(o, TOKENIZE_max_token_length)) {
        return print_rows(t, line, n, (int)dr_opt_int(o, TOKENIZE_max_token_length));
    }
    return print_ids(t, line, n);
}

static dr_status tokenize(const dr_optset *o, dr_tokenizer *t)
{
    char *line = NULL;
    size_t cap = 0;
    dr_status st = DR_OK;
    for (int64_t number = 1; st == DR_OK; number++) {
        errno = 0;
        const ssize_t got = getline(&line, &cap, stdin);
        if (got < 0) {
            st = ferror(stdin) ? dr_error_set(DR_IO, __FILE__, __LINE__, "stdin: cannot read: %s",
                                              strerror(errno))
                               : DR_OK;
            break;
        }
        const size_t n = (size_t)got - (line[got - 1] == '\n' ? 1 : 0);
        st = tokenize_line(o, t, line, n);
        if (st != DR_OK) {
            st = dr_error_prefix(st, "line %lld", (long long)number);
        }
    }
    free(line);
    return st;
}

dr_status dr_tool_tokenize(int argc, const char *const *argv)
{
    dr_optset o;
    dr_optset_init(&o, &tokenize_table, 0);
    dr_status st = dr_tool_words(&o, &text, argc, argv, NULL);
    if (st == DR_OK && !o.help) {
        dr_tokenizer *t =
            dr_tokenizer_create(dr_opt_flag(&o, TOKENIZE_v2) ? DR_TOKENIZER_SD2 : DR_TOKENIZER_SD1);
        st = tokenize(&o, t);
        dr_tokenizer_destroy(t);
    }
    dr_optset_deinit(&o);
    return st;
}
