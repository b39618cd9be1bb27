/*
 * base/optparse.h - command-line options from one table: parsing, --help, the page of flags.
 *
 * Layer:    base.
 * Threads:  an option set belongs to one thread while it is parsed; afterwards it is read-only.
 * Errors:   DR_INVALID for wrong usage, DR_UNSUPPORTED for an option that exists but is not built.
 *
 * A table is an X-macro file (src/apps/option_list.def, launcher/launch_options.def) whose rows are
 *     GROUP(id, "title")
 *     OPT(name, PROGRAMS, TYPE, default, range, unit, AVAILABILITY, reason, help)
 * in which `name` is the long name without "--" and the key in a config file. The row's position
 * is its id.
 */
#ifndef DR_BASE_OPTPARSE_H
#define DR_BASE_OPTPARSE_H

#include "base/arena.h"
#include "base/str.h"

typedef enum dr_opt_type {
    DR_OPT_TYPE_FLAG,   /* off, or on when given; takes no value                                */
    DR_OPT_TYPE_INT,    /* whole number                                                         */
    DR_OPT_TYPE_FLOAT,  /* number                                                               */
    DR_OPT_TYPE_STR,    /* text, kept as it is                                                  */
    DR_OPT_TYPE_CHOICE, /* one word of `range`, spelled exactly                                 */
    DR_OPT_TYPE_NAME,   /* one word of `range`, any case; kept in the table's spelling          */
    DR_OPT_TYPE_STEPS,  /* whole number >= 1, or a ratio < 1, or a percentage "5%"              */
    DR_OPT_TYPE_STRS,   /* zero or more words, up to the next option                            */
    DR_OPT_TYPE_FLOATS, /* zero or more numbers, up to the next option                          */
    DR_OPT_TYPE_EACH,   /* text; every use adds one to the list                                 */
    DR_OPT_TYPE_PAIR    /* two words; every use adds two to the list                            */
} dr_opt_type;

typedef enum dr_opt_availability {
    DR_OPT_AVAILABLE,
    DR_OPT_NOTED,  /* accepted; `reason` says why it changes nothing and is printed when given  */
    DR_OPT_LATER,  /* "not available yet" unless given its default; `reason` may add what to do */
    DR_OPT_REFUSED /* never; `reason` says why and what to use instead                          */
} dr_opt_availability;

typedef struct dr_opt_spec {
    const char *name;  /* NULL: this row is the title (in `help`) of a group of options; a name
                          that ends in '*' stands for all options with that beginning          */
    unsigned programs; /* bit i: program i of the table has this option                        */
    dr_opt_type type;
    const char *def;   /* default as a user would type it; NULL: unset                         */
    const char *range; /* numbers: ">=1", ">0", "<=1" or "0..1"; INT also "150|225"; CHOICE and
                          NAME: "a|b|~c", where ~ marks a value that is not available yet      */
    const char *unit;
    dr_opt_availability availability;
    const char *reason;
    const char *help;
    char letter; /* one-letter spelling, 0: none                                               */
} dr_opt_spec;

enum {                      /* dr_opt_table.syntax */
       DR_OPT_PREFIXES = 1, /* unambiguous beginnings of names are accepted, as argparse does */
       DR_OPT_DASHES = 2,   /* "--num-processes" is "--num_processes"                         */
       DR_OPT_TO_WORD = 4   /* options end at "--" or at the first word that is none          */
};

typedef struct dr_opt_table {
    const dr_opt_spec *specs;
    int n;
    const char *const *programs; /* their names, by bit */
    int n_programs;
    unsigned syntax;
    int own_first; /* options from this row on are never meant by a prefix; -1: none such */
} dr_opt_table;

typedef struct dr_opt_value {
    bool given;       /* named by the user                                              */
    bool set;         /* has a value, given or default                                  */
    const char *text; /* as given, or the table's spelling; lists: the last word        */
    int64_t i;        /* FLAG 0/1, INT; STEPS when >= 1                                 */
    double f;         /* FLOAT, INT, STEPS                                              */
    dr_strv list;     /* STRS, FLOATS, EACH, PAIR                                       */
} dr_opt_value;

typedef struct dr_optset {
    const dr_opt_table *table;
    int program;
    dr_opt_value *values; /* one per row */
    dr_arena arena;
    bool help; /* -h or --help was given: parsing stopped there */
} dr_optset;

/* All options of one program (an index into table->programs) at their defaults. */
void dr_optset_init(dr_optset *o, const dr_opt_table *table, int program);
void dr_optset_deinit(dr_optset *o);

/*
 * Parses words argv[0..argc-1] (no program name). *n_used, if not NULL, gets the count of words
 * that were options and their values: with DR_OPT_TO_WORD the rest is the caller's; without it,
 * a word that belongs to no option is an error. Later uses of an option replace earlier ones.
 * Says nothing of availability: see dr_optset_check_available.
 */
DR_MUST_USE dr_status dr_optset_parse(dr_optset *o, int argc, const char *const *argv, int *n_used);
/* Sets one option from text, as a line "name = text" of a config file would; FLAG takes
 * true/false. Options already given stay as they are. */
DR_MUST_USE dr_status dr_optset_set(dr_optset *o, const char *name, const char *text);
/* The same for an option that takes a list (STRS, FLOATS): all n texts at once. */
DR_MUST_USE dr_status dr_optset_set_list(dr_optset *o, const char *name, const char *const *texts,
                                         size_t n);
/* The row of an option by its exact name, which o's program has; DR_INVALID with a suggestion. */
DR_MUST_USE dr_status dr_optset_find(const dr_optset *o, const char *name, int *id);
/* Whether a value is the one that the option has when nobody sets it. */
bool dr_optset_at_default(const dr_optset *o, int id);
/* Refuses, by name, what was given and is not built (unless it was given its default), and prints
 * the note of every DR_OPT_NOTED option that was given. */
DR_MUST_USE dr_status dr_optset_check_available(const dr_optset *o);

/* Typed access by row; the option must have that type and belong to the program (contract). */
bool dr_opt_given(const dr_optset *o, int id);
bool dr_opt_has(const dr_optset *o, int id); /* given, or the table has a default */
bool dr_opt_flag(const dr_optset *o, int id);
int64_t dr_opt_int(const dr_optset *o, int id); /* must have a value */
int64_t dr_opt_int_or(const dr_optset *o, int id, int64_t unset);
double dr_opt_float(const dr_optset *o, int id); /* must have a value */
double dr_opt_float_or(const dr_optset *o, int id, double unset);
const char *dr_opt_str(const dr_optset *o, int id); /* STR, CHOICE, NAME; NULL when unset */
const dr_strv *dr_opt_list(const dr_optset *o, int id);
/* STEPS in steps of `total`: a ratio r gives floor(r * total). */
int64_t dr_opt_steps(const dr_optset *o, int id, int64_t total);
/* Whether a CHOICE or NAME option stands at this value (unset: false). */
bool dr_opt_is(const dr_optset *o, int id, const char *value);

/* Appends the options of o's program, grouped, in 80 columns, as --help shows them. */
void dr_optset_help(const dr_optset *o, dr_str *out);
/* Appends all rows of the table as Markdown, one table per group. */
void dr_opt_table_markdown(const dr_opt_table *table, dr_str *out);
/* "not available yet", ...; "" for DR_OPT_AVAILABLE. */
const char *dr_opt_availability_text(dr_opt_availability a);

#endif
