#include "dr_test.h"

#include "base/file.h"
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_IDS = 512 };

typedef struct token_case { /* ids without start, end and padding */
    dr_tokenizer_kind kind;
    const char *text;
    size_t n_bytes, n_ids;
    int32_t ids[80];
} token_case;

typedef struct row_case { /* rows of 77, one after the other, as {id, times} */
    dr_tokenizer_kind kind;
    const char *name, *text;
    size_t n_bytes;
    int max_token_length;
    size_t n_tokens, n_runs;
    int32_t runs[16][2];
} row_case;

#include "tokenizer_vectors.h"

static void captions_become_the_peers_ids(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof token_cases / sizeof *token_cases; i++) {
        const token_case *c = &token_cases[i];
        dr_tokenizer *t = dr_tokenizer_create(c->kind);
        int32_t ids[MAX_IDS];
        size_t n = 0;
        for (int round = 0; round < 2; round++) { /* the second one comes out of the cache */
            assert_ok(dr_tokenizer_encode(t, c->text, c->n_bytes, ids, MAX_IDS, &n));
            if (n != c->n_ids || memcmp(ids, c->ids, n * sizeof *ids) != 0) {
                fail_msg("case %zu, \"%s\": %zu ids (first %d), expected %zu (first %d)", i,
                         c->text, n, ids[0], c->n_ids, c->ids[0]);
            }
        }
        dr_tokenizer_destroy(t);
    }
}

static void long_captions_fill_rows_as_sd_scripts_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof row_cases / sizeof *row_cases; i++) {
        const row_case *c = &row_cases[i];
        dr_tokenizer *t = dr_tokenizer_create(c->kind);
        dr_token_rows rows;
        assert_ok(dr_tokenizer_encode_padded(t, c->text, c->n_bytes, c->max_token_length, &rows));
        assert_int_equal(rows.n_rows, c->max_token_length / 75);
        assert_int_equal(rows.n_tokens, c->n_tokens);
        assert_int_equal(rows.truncated, c->n_tokens > (size_t)c->max_token_length);
        int at = 0;
        for (size_t r = 0; r < c->n_runs; r++) {
            for (int k = 0; k < c->runs[r][1]; k++, at++) {
                if (rows.ids[at / DR_TOKEN_ROW][at % DR_TOKEN_ROW] != c->runs[r][0]) {
                    fail_msg("%s at %d: id %d is %d, expected %d", c->name, c->max_token_length, at,
                             rows.ids[at / DR_TOKEN_ROW][at % DR_TOKEN_ROW], c->runs[r][0]);
                }
            }
        }
        assert_int_equal(at, rows.n_rows * DR_TOKEN_ROW);
        dr_tokenizer_destroy(t);
    }
}

static void used_ids_end_with_the_end_token(void **state)
{
    (void)state;
    dr_tokenizer *t = dr_tokenizer_create(DR_TOKENIZER_SD2);
    dr_token_rows rows;
    assert_ok(dr_tokenizer_encode_padded(t, "a dog", 5, 75, &rows));
    assert_int_equal(rows.n_used, 4);
    assert_int_equal(rows.ids[0][3], DR_TOKEN_END);
    assert_int_equal(rows.ids[0][4], 0);
    assert_panics(assert_ok(dr_tokenizer_encode_padded(t, "a dog", 5, 76, &rows)));
    dr_tokenizer_destroy(t);
}

static void only_max_ids_are_written(void **state)
{
    (void)state;
    dr_tokenizer *t = dr_tokenizer_create(DR_TOKENIZER_SD1);
    int32_t ids[3] = {-1, -1, -1};
    size_t n = 0;
    assert_ok(dr_tokenizer_encode(t, "a photo of sks dog", 18, ids, 2, &n));
    assert_int_equal(n, 5);
    assert_int_equal(ids[1], 1125);
    assert_int_equal(ids[2], -1);
    dr_tokenizer_destroy(t);
}

static void bad_utf8_is_named_by_offset(void **state)
{
    (void)state;
    static const struct {
        const char *text, *offset;
    } cases[] = {{"caf\xE9", "offset 3"},
                 {"a\xC0\x80", "offset 1"},
                 {"\xED\xA0\x80", "offset 0"},
                 {"ab\xF4\x90\x80\x80", "offset 2"},
                 {"x\xE2\x82", "offset 1"},
                 {"\xFF\xFEh", "offset 0"},
                 {"ok! <|endoftext|> \x80", "offset 18"}};
    dr_tokenizer *t = dr_tokenizer_create(DR_TOKENIZER_SD2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t ids[MAX_IDS];
        size_t n = 77;
        assert_error(dr_tokenizer_encode(t, cases[i].text, strlen(cases[i].text), ids, MAX_IDS, &n),
                     DR_FORMAT, cases[i].offset);
        assert_int_equal(n, 77);
    }
    dr_tokenizer_destroy(t);
}

static void one_endless_word_is_encoded(void **state)
{
    (void)state;
    enum { N = 100000 };
    char *text = malloc(N);
    assert_non_null(text);
    for (int i = 0; i < N; i++) {
        text[i] = (char)('a' + (i % 251) * (i % 241) % 26);
    }
    dr_tokenizer *t = dr_tokenizer_create(DR_TOKENIZER_SD1);
    dr_token_rows rows;
    assert_ok(dr_tokenizer_encode_padded(t, text, N, 75, &rows));
    assert_true(rows.truncated);
    dr_tokenizer_destroy(t);
    free(text);
}

/* utf8proc alone takes a minute for these. */
static void endless_combining_marks_are_encoded(void **state)
{
    (void)state;
    dr_str text = {0};
    dr_str_add(&text, "a");
    for (int i = 0; i < 100000; i++) {
        dr_str_add(&text, "\xCC\x81\xCC\xA3"); /* acute above, dot below: in the wrong order */
    }
    dr_tokenizer *t = dr_tokenizer_create(DR_TOKENIZER_SD1);
    dr_token_rows rows;
    assert_ok(dr_tokenizer_encode_padded(t, text.data, text.len, 75, &rows));
    assert_true(rows.truncated);
    dr_tokenizer_destroy(t);
    dr_str_free(&text);
}

/* Our file equals the hub's, which lies in the shared material. */
static void expect_shared_file(const char *name, const char *got, size_t n_got)
{
    if (dr_test_shared() == NULL) {
        DR_SKIP("shared");
    }
    char *folder = dr_path_join(dr_test_shared(), "configs");
    char *path = dr_path_join(folder, name);
    char *want = NULL;
    size_t n_want = 0;
    assert_ok(dr_file_read(path, 1 << 22, &want, &n_want));
    assert_int_equal(n_got, n_want);
    assert_memory_equal(got, want, n_want);
    free(want);
    free(path);
    free(folder);
}

static void vocab_and_merges_are_the_hubs(void **state)
{
    (void)state;
    dr_str text = {0};
    dr_tokenizer_vocab_json(&text);
    expect_shared_file("tokenizer/vocab.json", text.data, text.len);
    text.len = 0;
    dr_tokenizer_merges_txt(&text);
    expect_shared_file("tokenizer/merges.txt", text.data, text.len);
    dr_str_free(&text);
}

static void saved_folder_is_the_hubs(void **state)
{
    (void)state;
    static const struct {
        dr_tokenizer_kind kind;
        const char *model;
    } cases[] = {{DR_TOKENIZER_SD1, "runwayml-stable-diffusion-v1-5"},
                 {DR_TOKENIZER_SD2, "stable-diffusion-2-1-base"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok(dr_tokenizer_save(cases[i].kind, dr_test_tmpdir()));
        static const char *const names[] = {"special_tokens_map.json", "tokenizer_config.json"};
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            char *path = dr_path_join(dr_test_tmpdir(), names[k]);
            char *got = NULL;
            size_t n = 0;
            assert_ok(dr_file_read(path, 1 << 22, &got, &n));
            dr_str name = {0};
            dr_str_printf(&name, "%s/tokenizer/%s", cases[i].model, names[k]);
            expect_shared_file(dr_str_get(&name), got, n);
            dr_str_free(&name);
            free(got);
            free(path);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(captions_become_the_peers_ids),
        cmocka_unit_test(long_captions_fill_rows_as_sd_scripts_does),
        cmocka_unit_test(used_ids_end_with_the_end_token),
        cmocka_unit_test(only_max_ids_are_written),
        cmocka_unit_test(bad_utf8_is_named_by_offset),
        cmocka_unit_test(one_endless_word_is_encoded),
        cmocka_unit_test(endless_combining_marks_are_encoded),
        cmocka_unit_test(vocab_and_merges_are_the_hubs),
        cmocka_unit_test(saved_folder_is_the_hubs),
    };
    return DR_TEST_MAIN("tokenizer", tests);
}
