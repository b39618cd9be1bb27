/*
 * base/optparse_internal.h - what the files of the option parser share.
 *
 * Layer:    base; only opt*.c includes it.
 */
#ifndef DR_BASE_OPTPARSE_INTERNAL_H
#define DR_BASE_OPTPARSE_INTERNAL_H

#include "base/optparse.h"

static inline const dr_opt_spec *dr_opt_spec_of(const dr_optset *o, int id)
{
    return &o->table->specs[id];
}

/* A row that stands for all options with one beginning. */
bool dr_opt_is_family(const dr_opt_spec *s);
/* An option (no title) that o's program has. */
bool dr_opt_in_program(const dr_optset *o, const dr_opt_spec *s);
/* Parses one word into v; lists grow by it. Errors: DR_INVALID. */
DR_MUST_USE dr_status dr_opt_parse_value(dr_optset *o, const dr_opt_spec *s, const char *text,
                                         dr_opt_value *v);

#endif
