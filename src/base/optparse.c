/* The command line: finding options by their spelling, taking their values. */
#include "base/optparse_internal.h"

#include <string.h>

static const char *program_name(const dr_optset *o)
{
    return o->table->programs[o->program];
}

/* --- finding an option by its spelling ---------------------------------------------------- */

static bool same_name(const dr_optset *o, const char *a, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        char c = a[i] == '-' && (o->table->syntax & DR_OPT_DASHES) != 0 ? '_' : a[i];
        if (name[i] != c) {
            return false;
        }
    }
    return true;
}

static int find_exact(const dr_optset *o, const char *word, size_t n)
{
    for (int id = 0; id < o->table->n; id++) {
        const dr_opt_spec *s = dr_opt_spec_of(o, id);
        if (dr_opt_in_program(o, s) && !dr_opt_is_family(s) && strlen(s->name) == n &&
            same_name(o, word, n, s->name)) {
            return id;
        }
    }
    return -1;
}

static int find_family(const dr_optset *o, const char *word, size_t n)
{
    for (int id = 0; id < o->table->n; id++) {
        const dr_opt_spec *s = dr_opt_spec_of(o, id);
        if (dr_opt_in_program(o, s) && dr_opt_is_family(s) && n >= strlen(s->name) - 1 &&
            same_name(o, word, strlen(s->name) - 1, s->name)) {
            return id;
        }
    }
    return -1;
}

/* Options that begin with word: their count, the last of them in *id, their names in *names. */
static int find_prefixed(const dr_optset *o, const char *word, size_t n, int *id, dr_str *names)
{
    int count = 0;
    int end = o->table->own_first >= 0 ? o->table->own_first : o->table->n;
    for (int i = 0; i < end && (o->table->syntax & DR_OPT_PREFIXES) != 0; i++) {
        const dr_opt_spec *s = dr_opt_spec_of(o, i);
        if (dr_opt_in_program(o, s) && strncmp(s->name, word, n) == 0) {
            count++;
            *id = i;
            dr_str_printf(names, "%s--%s", names->len > 0 ? ", " : "", s->name);
        }
    }
    return count;
}

static const char *nearest_name(const dr_optset *o, const char *word)
{
    const char *best = NULL;
    int limit = (int)strlen(word) / 3 + 1; /* a third of the letters may be wrong */
    for (int id = 0; id < o->table->n; id++) {
        const dr_opt_spec *s = dr_opt_spec_of(o, id);
        if (dr_opt_in_program(o, s) && !dr_opt_is_family(s) &&
            dr_edit_distance(s->name, word) <= limit) {
            limit = dr_edit_distance(s->name, word) - 1;
            best = s->name;
        }
    }
    return best;
}

static dr_status refuse_unknown(const dr_optset *o, const char *word, size_t n)
{
    char name[128] = "";
    memcpy(name, word, n < sizeof name ? n : sizeof name - 1);
    for (int id = 0; id < o->table->n; id++) {
        const dr_opt_spec *s = dr_opt_spec_of(o, id);
        if (s->name != NULL && !dr_opt_in_program(o, s) && strcmp(s->name, name) == 0) {
            unsigned bit = 0;
            while ((s->programs >> bit & 1U) == 0) {
                bit++;
            }
            DR_FAIL(DR_INVALID, "--%s is an option of %s, %s does not have it", name,
                    o->table->programs[bit], program_name(o));
        }
    }
    const char *near = nearest_name(o, name);
    if (near != NULL) {
        DR_FAIL(DR_INVALID, "unknown option --%s; did you mean --%s?", name, near);
    }
    DR_FAIL(DR_INVALID, "unknown option --%s; %s --help lists all options", name, program_name(o));
}

static dr_status find_option(const dr_optset *o, const char *word, size_t n, int *id)
{
    *id = find_exact(o, word, n);
    if (*id < 0) {
        *id = find_family(o, word, n);
    }
    if (*id >= 0) {
        return DR_OK;
    }
    dr_str names = {0};
    int count = n > 0 ? find_prefixed(o, word, n, id, &names) : 0;
    dr_status st = DR_OK;
    if (count == 0) {
        st = refuse_unknown(o, word, n);
    } else if (count > 1) {
        st = dr_error_set(DR_INVALID, __FILE__, __LINE__, "--%.*s is ambiguous: it may be %s",
                          (int)n, word, dr_str_get(&names));
    }
    dr_str_free(&names);
    return st;
}

/* --- the command line ---------------------------------------------------------------------- */

/* argparse's rule for what may not be the value of an option: "-x", but not "-", "-1", "-a b". */
static bool looks_like_option(const char *word)
{
    double number = 0.0;
    size_t name = strcspn(word, "=");
    return word[0] == '-' && word[1] != '\0' && !dr_parse_f64(word, &number) &&
           memchr(word, ' ', name) == NULL;
}

static const char *kind_of_value(const dr_opt_spec *s)
{
    switch (s->type) {
    case DR_OPT_TYPE_INT:
        return "a whole number";
    case DR_OPT_TYPE_FLOAT:
        return "a number";
    case DR_OPT_TYPE_STEPS:
        return "a number of steps or a ratio";
    case DR_OPT_TYPE_PAIR:
        return "two words";
    default:
        return "a value";
    }
}

typedef struct word_reader { /* the words still to parse */
    const char *const *argv;
    int argc, at;
} word_reader;

static bool next_is_value(const word_reader *r)
{
    return r->at < r->argc && !looks_like_option(r->argv[r->at]);
}

static dr_status take_values(dr_optset *o, const dr_opt_spec *s, dr_opt_value *v,
                             const char *attached, word_reader *r)
{
    bool open_list = s->type == DR_OPT_TYPE_STRS || s->type == DR_OPT_TYPE_FLOATS;
    if (s->type != DR_OPT_TYPE_PAIR && s->type != DR_OPT_TYPE_EACH) {
        dr_strv_free(&v->list);
    }
    v->set = true;
    if (attached != NULL && s->type != DR_OPT_TYPE_PAIR) {
        return dr_opt_parse_value(o, s, attached, v);
    }
    int want = s->type == DR_OPT_TYPE_PAIR ? 2 : 1;
    int got = 0;
    if (attached != NULL) {
        DR_TRY(dr_opt_parse_value(o, s, attached, v));
        got++;
    }
    while ((open_list || got < want) && next_is_value(r)) {
        DR_TRY(dr_opt_parse_value(o, s, r->argv[r->at++], v));
        got++;
    }
    if (!open_list && got < want) {
        DR_FAIL(DR_INVALID, "--%s needs %s, found %s%s", s->name, kind_of_value(s),
                r->at < r->argc ? "the next option " : "the end of the command line",
                r->at < r->argc ? r->argv[r->at] : "");
    }
    return DR_OK;
}

static dr_status refuse_family(const dr_opt_spec *s, const char *word, size_t n)
{
    DR_FAIL(DR_UNSUPPORTED, "--%.*s is not supported: %s", (int)n, word, s->reason);
}

static dr_status take_option(dr_optset *o, int id, const char *attached, word_reader *r)
{
    const dr_opt_spec *s = dr_opt_spec_of(o, id);
    dr_opt_value *v = &o->values[id];
    v->given = true;
    if (s->type != DR_OPT_TYPE_FLAG) {
        return take_values(o, s, v, attached, r);
    }
    if (attached != NULL) {
        DR_FAIL(DR_INVALID,
                "--%s=%s: --%s takes no value; give it to switch it on, leave it out "
                "otherwise",
                s->name, attached, s->name);
    }
    v->i = 1;
    return DR_OK;
}

static dr_status take_long(dr_optset *o, const char *word, word_reader *r)
{
    const char *equals = strchr(word, '=');
    size_t n = equals != NULL ? (size_t)(equals - word) : strlen(word);
    if (n == 4 && strncmp(word, "help", 4) == 0) {
        o->help = true;
        return DR_OK;
    }
    int id = -1;
    DR_TRY(find_option(o, word, n, &id));
    if (dr_opt_is_family(dr_opt_spec_of(o, id))) {
        return refuse_family(dr_opt_spec_of(o, id), word, n);
    }
    return take_option(o, id, equals != NULL ? equals + 1 : NULL, r);
}

static dr_status take_letter(dr_optset *o, const char *word, word_reader *r)
{
    if (strcmp(word, "-h") == 0) {
        o->help = true;
        return DR_OK;
    }
    for (int id = 0; id < o->table->n; id++) {
        const dr_opt_spec *s = dr_opt_spec_of(o, id);
        if (dr_opt_in_program(o, s) && s->letter != 0 && word[1] == s->letter && word[2] == '\0') {
            return take_option(o, id, NULL, r);
        }
    }
    DR_FAIL(DR_INVALID, "unknown option %s; %s --help lists all options", word, program_name(o));
}

dr_status dr_optset_parse(dr_optset *o, int argc, const char *const *argv, int *n_used)
{
    word_reader r = {.argv = argv, .argc = argc};
    while (r.at < argc && !o->help) {
        const char *word = argv[r.at];
        if (!looks_like_option(word)) {
            if ((o->table->syntax & DR_OPT_TO_WORD) != 0) {
                break;
            }
            DR_FAIL(DR_INVALID, "'%s' belongs to no option; options are written --name value",
                    word);
        }
        r.at++;
        if (strcmp(word, "--") == 0 && (o->table->syntax & DR_OPT_TO_WORD) != 0) {
            break;
        }
        DR_TRY(word[1] == '-' ? take_long(o, word + 2, &r) : take_letter(o, word, &r));
    }
    if (n_used != NULL) {
        *n_used = r.at;
    }
    return DR_OK;
}

dr_status dr_optset_find(const dr_optset *o, const char *name, int *id)
{
    *id = find_exact(o, name, strlen(name));
    return *id < 0 ? refuse_unknown(o, name, strlen(name)) : DR_OK;
}

dr_status dr_optset_set_list(dr_optset *o, const char *name, const char *const *texts, size_t n)
{
    int id = -1;
    DR_TRY(dr_optset_find(o, name, &id));
    const dr_opt_spec *s = dr_opt_spec_of(o, id);
    dr_opt_value *v = &o->values[id];
    DR_CHECK(s->type == DR_OPT_TYPE_STRS || s->type == DR_OPT_TYPE_FLOATS, "--%s takes no list",
             name);
    if (v->given) {
        return DR_OK;
    }
    v->given = true;
    v->set = true;
    dr_strv_free(&v->list);
    for (size_t i = 0; i < n; i++) {
        DR_TRY(dr_opt_parse_value(o, s, texts[i], v));
    }
    return DR_OK;
}

dr_status dr_optset_set(dr_optset *o, const char *name, const char *text)
{
    int id = -1;
    DR_TRY(dr_optset_find(o, name, &id));
    const dr_opt_spec *s = dr_opt_spec_of(o, id);
    dr_opt_value *v = &o->values[id];
    if (v->given) {
        return DR_OK;
    }
    v->given = true;
    if (s->type != DR_OPT_TYPE_FLAG) {
        v->set = true;
        dr_strv_free(&v->list);
        return dr_opt_parse_value(o, s, text, v);
    }
    if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
        DR_FAIL(DR_INVALID, "%s: found '%s', expected true or false", name, text);
    }
    v->i = strcmp(text, "true") == 0;
    v->given = v->i != 0;
    return DR_OK;
}
