/* TOML documents: dr_toml_parse, and every string that it gave written and read again. */
#include "fuzz.h"

#include "io/config_doc.h"

#include <string.h>

enum { MAX_DEPTH = 200, MAX_STRINGS = 64 };

/* Reads every value, so that a wrong pointer or length shows. */
static size_t walk(const dr_config_value *v, int depth, int *strings)
{
    size_t sum = v->kind == DR_CONFIG_STRING || v->kind == DR_CONFIG_TIME ? strlen(v->text) : 0;
    if (v->kind == DR_CONFIG_STRING && dr_config_is_plain(v) && ++*strings < MAX_STRINGS) {
        dr_str text = {0};
        dr_str_add(&text, "a = ");
        dr_toml_add_string(&text, v->text);
        dr_config_doc *d = NULL;
        DR_CHECK(dr_toml_parse(&d, "again", text.data, text.len) == DR_OK, "%s", text.data);
        DR_CHECK(strcmp(dr_config_find(dr_config_root(d), "a")->text, v->text) == 0, "%s",
                 text.data);
        dr_config_close(d);
        dr_str_free(&text);
    }
    for (size_t i = 0; i < v->n && depth < MAX_DEPTH; i++) {
        if (v->kind == DR_CONFIG_LIST) {
            sum += walk(v->items[i], depth + 1, strings);
        } else if (v->kind == DR_CONFIG_TABLE) {
            sum += strlen(v->members[i].name) + walk(v->members[i].value, depth + 1, strings);
        }
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dr_config_doc *d = NULL;
    int strings = 0;
    if (dr_toml_parse(&d, "fuzz.toml", (const char *)data, size) == DR_OK) {
        (void)walk(dr_config_root(d), 0, &strings);
    }
    dr_config_close(d);
    dr_error_clear();
    return 0;
}
