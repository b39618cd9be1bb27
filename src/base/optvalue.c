/* Typed access to parsed options. */
#include "base/optparse_internal.h"

#include <math.h>
#include <string.h>

static const dr_opt_value *value_of(const dr_optset *o, int id)
{
    DR_CHECK(id >= 0 && id < o->table->n && o->table->specs[id].name != NULL, "no option %d", id);
    DR_CHECK(dr_opt_in_program(o, dr_opt_spec_of(o, id)), "%s has no --%s",
             o->table->programs[o->program], o->table->specs[id].name);
    return &o->values[id];
}

static const dr_opt_value *typed(const dr_optset *o, int id, dr_opt_type type)
{
    const dr_opt_value *v = value_of(o, id);
    DR_CHECK(o->table->specs[id].type == type, "--%s has another type", o->table->specs[id].name);
    return v;
}

bool dr_opt_given(const dr_optset *o, int id)
{
    return value_of(o, id)->given;
}

bool dr_opt_has(const dr_optset *o, int id)
{
    return value_of(o, id)->set;
}

bool dr_opt_flag(const dr_optset *o, int id)
{
    return typed(o, id, DR_OPT_TYPE_FLAG)->i != 0;
}

int64_t dr_opt_int(const dr_optset *o, int id)
{
    const dr_opt_value *v = typed(o, id, DR_OPT_TYPE_INT);
    DR_CHECK(v->set, "--%s is unset", o->table->specs[id].name);
    return v->i;
}

int64_t dr_opt_int_or(const dr_optset *o, int id, int64_t unset)
{
    const dr_opt_value *v = typed(o, id, DR_OPT_TYPE_INT);
    return v->set ? v->i : unset;
}

double dr_opt_float(const dr_optset *o, int id)
{
    const dr_opt_value *v = typed(o, id, DR_OPT_TYPE_FLOAT);
    DR_CHECK(v->set, "--%s is unset", o->table->specs[id].name);
    return v->f;
}

double dr_opt_float_or(const dr_optset *o, int id, double unset)
{
    const dr_opt_value *v = typed(o, id, DR_OPT_TYPE_FLOAT);
    return v->set ? v->f : unset;
}

const char *dr_opt_str(const dr_optset *o, int id)
{
    const dr_opt_value *v = value_of(o, id);
    dr_opt_type type = o->table->specs[id].type;
    DR_CHECK(type == DR_OPT_TYPE_STR || type == DR_OPT_TYPE_CHOICE || type == DR_OPT_TYPE_NAME,
             "--%s is not text", o->table->specs[id].name);
    return v->set ? v->text : NULL;
}

const dr_strv *dr_opt_list(const dr_optset *o, int id)
{
    const dr_opt_value *v = value_of(o, id);
    dr_opt_type type = o->table->specs[id].type;
    DR_CHECK(type == DR_OPT_TYPE_STRS || type == DR_OPT_TYPE_FLOATS || type == DR_OPT_TYPE_EACH ||
                 type == DR_OPT_TYPE_PAIR,
             "--%s is not a list", o->table->specs[id].name);
    return &v->list;
}

int64_t dr_opt_steps(const dr_optset *o, int id, int64_t total)
{
    const dr_opt_value *v = typed(o, id, DR_OPT_TYPE_STEPS);
    if (!v->set) {
        return 0;
    }
    return v->i > 0 ? v->i : (int64_t)floor(v->f * (double)total);
}

bool dr_opt_is(const dr_optset *o, int id, const char *value)
{
    const char *text = dr_opt_str(o, id);
    return text != NULL && strcmp(text, value) == 0;
}
