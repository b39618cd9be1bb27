/*
 * apps/tool_words.h - the words of a tool: options and operands in any order, --help.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_TOOL_WORDS_H
#define DR_APPS_TOOL_WORDS_H

#include "base/optparse.h"

/* A row of a tool's option table; the columns are those of dr_opt_spec. */
#define DR_TOOL_OPT(name_, type_, def_, range_, unit_, help_)                                      \
    {                                                                                              \
        .name = #name_, .programs = 1, .type = DR_OPT_TYPE_##type_, .def = (def_),                 \
        .range = (range_), .unit = (unit_), .reason = "", .help = (help_)                          \
    }

typedef struct dr_tool_text { /* what a tool says of itself */
    const char *usage;        /* "Usage: ...\n\n...\n\n", in 80 columns */
    const char *operands;     /* for messages: "KIND PATH" */
    int n_operands;           /* exactly so many */
} dr_tool_text;

/*
 * Parses all words; the table's syntax must have DR_OPT_TO_WORD. Operands point into argv. With
 * --help (o->help) the page goes to stdout and operands stay NULL.
 * Errors: DR_INVALID.
 */
DR_MUST_USE dr_status dr_tool_words(dr_optset *o, const dr_tool_text *text, int argc,
                                    const char *const *argv, const char **operands);

#endif
