#include "apps/tool_words.h"

#include <stdio.h>

static void print_help(const dr_optset *o, const dr_tool_text *text)
{
    dr_str page = {0};
    dr_str_add(&page, text->usage);
    dr_optset_help(o, &page);
    (void)fputs(dr_str_get(&page), stdout);
    dr_str_free(&page);
}

dr_status dr_tool_words(dr_optset *o, const dr_tool_text *text, int argc, const char *const *argv,
                        const char **operands)
{
    int n = 0;
    for (int at = 0; at < argc && !o->help;) {
        int used = 0;
        DR_TRY(dr_optset_parse(o, argc - at, argv + at, &used));
        at += used;
        if (at < argc && !o->help) {
            if (n == text->n_operands) {
                DR_FAIL(DR_INVALID, "found '%s', expected nothing more than: %s", argv[at],
                        text->n_operands > 0 ? text->operands : "options");
            }
            operands[n++] = argv[at++];
        }
    }
    if (o->help) {
        print_help(o, text);
        return DR_OK;
    }
    if (n < text->n_operands) {
        DR_FAIL(DR_INVALID, "%d of %d words given, expected: %s (see --help)", n, text->n_operands,
                text->operands);
    }
    return DR_OK;
}
