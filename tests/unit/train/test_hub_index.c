/* IDs, the hub's list of files, and which of them are needed: no network. */
#include "dr_test.h"

#include "train/hub/hub.h"
#include "train/hub/hub_internal.h"

#include <string.h>

#define SHA "0123456789abcdef0123456789abcdef01234567"

static void ids_are_told_from_paths(void **state)
{
    (void)state;
    static const struct {
        const char *text, *repo, *revision, *file;
    } good[] = {
        {"a/b", "a/b", "main", ""},
        {"stabilityai/stable-diffusion-2-1", "stabilityai/stable-diffusion-2-1", "main", ""},
        {"a/b.c_d@v1.0", "a/b.c_d", "v1.0", ""},
        {"a/b@refs/pr/3", "a/b", "refs/pr/3", ""},
        {"a/b@" SHA, "a/b", SHA, ""},
        {"a/b/c.safetensors", "a/b", "main", "c.safetensors"},
        {"a/b@v1/x/y z.ckpt", "a/b", "v1", "x/y z.ckpt"},
    };
    static const char *const bad[] = {
        "",           "a",          "a/",     "/a/b",      "./a/b",
        "../b",       "a/..",       "a/b/",   "a/b/c",     "a//b",
        "a/b@",       "a/b@../x",   "a/b@x/", "a/b@/x",    "a/.b",
        "a/b.",       "-a/b",       "a--b/c", "a/b..c",    "a/b.git",
        "a/b c",      "a/\xc3\xa4", "a/b?x",  "a/b@x?y=z", "a/b/../c.bin",
        "a/b/.c.bin", "a/b@x\ny",   "~/b",    "a/m.ckpt",  "a/m.safetensors",
        "a/b/c/",
    };
    dr_hub_id id;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(dr_hub_id_parse(&id, good[i].text));
        assert_string_equal(id.repo, good[i].repo);
        assert_string_equal(id.revision, good[i].revision);
        assert_string_equal(id.file, good[i].file);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (dr_hub_id_parse(&id, bad[i])) {
            fail_msg("'%s' is taken for an ID", bad[i]);
        }
    }
    char longer[600];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_false(dr_hub_id_parse(&id, longer));
    memcpy(longer, "a/b@", 4);
    assert_false(dr_hub_id_parse(&id, longer));
    memcpy(longer, "a/b/", 4);
    memcpy(longer + sizeof longer - 6, ".ckpt", 6);
    assert_false(dr_hub_id_parse(&id, longer));
}

static void the_list_of_files_is_checked(void **state)
{
    (void)state;
    static const struct {
        const char *text, *problem;
    } bad[] = {
        {"", "hub"},
        {"[]", "hub"},
        {"{\"siblings\": []}", "sha"},
        {"{\"sha\": \"0123\", \"siblings\": []}", "expected a commit of 40 hex digits"},
        {"{\"sha\": \"../../56789abcdef0123456789abcdef01234567\", \"siblings\": []}", "40 hex"},
        {"{\"sha\": \"" SHA "\"}", "no list 'siblings'"},
        {"{\"sha\": \"" SHA "\", \"siblings\": {}}", "no list 'siblings'"},
        {"{\"sha\": \"" SHA "\", \"siblings\": [1]}", "siblings/0 has no text 'rfilename'"},
        {"{\"sha\": \"" SHA "\", \"siblings\": [{\"rfilename\": 7}]}", "siblings/0"},
    };
    char commit[DR_HUB_COMMIT] = "";
    dr_strv names = {0};
    static const char good[] =
        "{\"sha\": \"" SHA "\", \"more\": 1, \"siblings\": [{\"rfilename\": \"a\", \"size\": 3}]}";
    assert_ok(dr_hub_index_parse("hub", good, sizeof good - 1, commit, &names));
    assert_string_equal(commit, SHA);
    assert_int_equal(names.n, 1);
    assert_string_equal(names.at[0], "a");
    dr_strv_free(&names);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dr_strv none = {0};
        assert_error(dr_hub_index_parse("hub", bad[i].text, strlen(bad[i].text), commit, &none),
                     DR_FORMAT, bad[i].problem);
        dr_strv_free(&none);
    }
}

/* Splits text at blanks. */
static void add_words(dr_strv *v, const char *text)
{
    for (const char *p = text; *p != '\0';) {
        dr_str word = {0};
        const size_t n = strcspn(p, " ");
        dr_str_add_n(&word, p, n);
        dr_strv_push(v, word.data);
        dr_str_free(&word);
        p += n + (p[n] == ' ' ? 1 : 0);
    }
}

/* Names that are chosen of names, joined by blanks; or "missing: ..." */
static void assert_chosen(dr_hub_use use, const char *names, const char *want)
{
    const dr_hub_id id = {.repo = "a/b", .revision = "main"};
    dr_strv list = {0};
    dr_strv needed = {0};
    dr_str missing = {0};
    dr_str got = {0};
    add_words(&list, names);
    if (dr_hub_choose(&list, use, &id, &needed, &missing)) {
        for (size_t i = 0; i < needed.n; i++) {
            dr_str_printf(&got, "%s%s", i > 0 ? " " : "", needed.at[i]);
        }
    } else {
        dr_str_printf(&got, "missing: %s", dr_str_get(&missing));
    }
    assert_string_equal(dr_str_get(&got), want);
    dr_strv_free(&list);
    dr_strv_free(&needed);
    dr_str_free(&missing);
    dr_str_free(&got);
}

#define D "diffusion_pytorch_model"

static void weights_are_chosen_by_form(void **state)
{
    (void)state;
    assert_chosen(DR_HUB_VAE, D ".bin config.json " D ".fp16.safetensors " D ".safetensors",
                  "config.json " D ".safetensors");
    assert_chosen(DR_HUB_VAE, D ".bin config.json " D ".fp16.safetensors", "config.json " D ".bin");
    assert_chosen(DR_HUB_VAE, "config.json " D ".fp16.safetensors " D ".fp16.bin " D ".non_ema.bin",
                  "config.json " D ".fp16.safetensors");
    assert_chosen(DR_HUB_VAE, "config.json vae/config.json vae/" D ".bin",
                  "vae/config.json vae/" D ".bin");
    assert_chosen(DR_HUB_VAE, "config.json", "missing: " D ".safetensors");
    assert_chosen(DR_HUB_VAE, D ".bin", "missing: config.json");
    assert_chosen(DR_HUB_VAE, "../config.json /config.json ../" D ".bin", "missing: config.json");
}

static void sharded_weights_need_all_their_files(void **state)
{
    (void)state;
    assert_chosen(DR_HUB_VAE,
                  "config.json " D ".safetensors.index.json " D "-00001-of-00002.safetensors " D
                  "-00002-of-00002.safetensors",
                  "config.json " D "-00001-of-00002.safetensors " D "-00002-of-00002.safetensors " D
                  ".safetensors.index.json");
    assert_chosen(DR_HUB_VAE,
                  "config.json " D ".safetensors.index.json " D "-00001-of-00002.safetensors",
                  "missing: " D ".safetensors");
    assert_chosen(DR_HUB_VAE, "config.json " D "-00001-of-00001.safetensors",
                  "missing: " D ".safetensors"); /* no index */
    assert_chosen(
        DR_HUB_VAE,
        "config.json " D ".safetensors.index.fp16.json " D ".fp16-00001-of-00001.safetensors",
        "config.json " D ".fp16-00001-of-00001.safetensors " D ".safetensors.index.fp16.json");
    assert_chosen(
        DR_HUB_VAE,
        "config.json " D ".safetensors.index.fp16.json " D "-00001-of-00001.fp16.safetensors",
        "config.json " D "-00001-of-00001.fp16.safetensors " D ".safetensors.index.fp16.json");
    assert_chosen(DR_HUB_VAE,
                  "config.json " D ".safetensors.index.json " D "-00001-of-99999.safetensors",
                  "missing: " D ".safetensors");
}

static void a_model_needs_its_parts(void **state)
{
    (void)state;
    assert_chosen(DR_HUB_MODEL, "README.md lora.safetensors",
                  "missing: model_index.json, scheduler/scheduler_config.json, unet/config.json, "
                  "text_encoder/config.json, vae/config.json");
    assert_chosen(DR_HUB_MODEL,
                  "model_index.json scheduler/scheduler_config.json unet/config.json unet/" D
                  ".bin unet/" D ".safetensors text_encoder/config.json "
                  "text_encoder/pytorch_model.bin text_encoder/model.fp16.safetensors "
                  "vae/config.json vae/" D ".safetensors tokenizer/vocab.json "
                  "tokenizer/../merges.txt safety_checker/model.safetensors",
                  "model_index.json scheduler/scheduler_config.json tokenizer/vocab.json "
                  "unet/config.json unet/" D ".safetensors text_encoder/config.json "
                  "text_encoder/pytorch_model.bin vae/config.json vae/" D ".safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_told_from_paths),
        cmocka_unit_test(the_list_of_files_is_checked),
        cmocka_unit_test(weights_are_chosen_by_form),
        cmocka_unit_test(sharded_weights_need_all_their_files),
        cmocka_unit_test(a_model_needs_its_parts),
    };
    return DR_TEST_MAIN("hub_index", tests);
}
