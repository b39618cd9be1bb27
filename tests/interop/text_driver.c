/*
 * text_driver [--v2] [--max_token_length 75|150|225]: captions on stdin, each ended by a NUL byte;
 * one line of ids per caption on stdout. With --max_token_length the padded rows of 77.
 * text_driver --save DIR [--v2]: writes the tokenizer's files.
 * text_driver --bench N: reads the captions once, tokenizes them all N times, prints captions/s.
 */
#include "base/clock.h"
#include "base/log.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_IDS = 1 << 20 };

typedef struct options {
    dr_tokenizer_kind kind;
    int64_t max_token_length, rounds;
    const char *save;
} options;

static dr_status parse_options(int argc, char **argv, options *o)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--v2") == 0) {
            o->kind = DR_TOKENIZER_SD2;
            continue;
        }
        bool ok = false;
        if (strcmp(argv[i], "--max_token_length") == 0) {
            ok = dr_parse_i64(value, &o->max_token_length);
        } else if (strcmp(argv[i], "--bench") == 0) {
            ok = dr_parse_i64(value, &o->rounds);
        } else if (strcmp(argv[i], "--save") == 0) {
            o->save = value;
            ok = value[0] != '\0';
        }
        if (!ok) {
            DR_FAIL(DR_INVALID, "bad option %s %s", argv[i], value);
        }
        i++;
    }
    return DR_OK;
}

static void read_all(dr_str *in)
{
    char buf[1 << 16];
    for (size_t n = 0; (n = fread(buf, 1, sizeof buf, stdin)) > 0;) {
        dr_str_add_n(in, buf, n);
    }
}

static dr_status print_ids(dr_tokenizer *t, const char *text, size_t n)
{
    static int32_t ids[MAX_IDS];
    size_t n_ids = 0;
    DR_TRY(dr_tokenizer_encode(t, text, n, ids, MAX_IDS, &n_ids));
    for (size_t i = 0; i < n_ids && i < MAX_IDS; i++) {
        printf("%s%d", i > 0 ? " " : "", ids[i]);
    }
    printf("\n");
    return DR_OK;
}

static dr_status print_rows(dr_tokenizer *t, const char *text, size_t n, int max_token_length)
{
    dr_token_rows rows;
    DR_TRY(dr_tokenizer_encode_padded(t, text, n, max_token_length, &rows));
    for (int r = 0; r < rows.n_rows; r++) {
        for (int i = 0; i < DR_TOKEN_ROW; i++) {
            printf("%s%d", r + i > 0 ? " " : "", rows.ids[r][i]);
        }
    }
    printf("\n");
    return DR_OK;
}

static dr_status bench(dr_tokenizer *t, const dr_str *in, int64_t rounds)
{
    size_t n_captions = 0;
    double start = dr_now_s();
    for (int64_t k = 0; k < rounds; k++) {
        for (const char *p = in->data; p < in->data + in->len; p += strlen(p) + 1) {
            dr_token_rows rows;
            DR_TRY(dr_tokenizer_encode_padded(t, p, strlen(p), 75, &rows));
            n_captions++;
        }
    }
    printf("%.0f captions/s\n", (double)n_captions / (dr_now_s() - start));
    return DR_OK;
}

static dr_status run(const options *o, dr_tokenizer *t, dr_str *in)
{
    if (o->save != NULL) {
        return dr_tokenizer_save(o->kind, o->save);
    }
    read_all(in);
    if (o->rounds > 0) {
        return bench(t, in, o->rounds);
    }
    for (size_t i = 0; i < in->len;) {
        const char *text = in->data + i;
        size_t n = strlen(text);
        if (o->max_token_length > 0) {
            DR_TRY(print_rows(t, text, n, (int)o->max_token_length));
        } else {
            DR_TRY(print_ids(t, text, n));
        }
        i += n + 1;
    }
    return DR_OK;
}

int main(int argc, char **argv)
{
    options o = {0};
    dr_status st = parse_options(argc, argv, &o);
    if (st == DR_OK) {
        dr_str in = {0};
        dr_tokenizer *t = dr_tokenizer_create(o.kind);
        st = run(&o, t, &in);
        dr_tokenizer_destroy(t);
        dr_str_free(&in);
    }
    if (st != DR_OK) {
        dr_log_error_record();
    }
    return dr_status_exit_code(st);
}
