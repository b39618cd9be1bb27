/*
 * io/pickle.h - Python pickles, read without Python: a stack machine that executes nothing.
 *
 * Layer:    io.
 * Threads:  values are read-only once parsed.
 * Source:   pickletools of Python 3.11 (protocols 0 to 5).
 *
 * A pickle is a program. Here its containers and scalars become values, and whatever it asks to
 * import, call or rebuild becomes a value that only says so: nothing is looked up or called.
 * A pickle that asks for something which a file of weights has no business with (os.system,
 * builtins.eval, ...) is refused by that name.
 *
 * Bounds: the memory of values grows at most linearly with the bytes read and stays under
 * 256 MiB; sizes are compared with what is there before anything is allocated; values that contain
 * each other or themselves (memo) are shared, not copied, so that readers bound their own descent.
 */
#ifndef DR_IO_PICKLE_H
#define DR_IO_PICKLE_H

#include "base/arena.h"

typedef enum dr_pickle_kind {
    DR_PICKLE_NONE,
    DR_PICKLE_BOOL,  /* i */
    DR_PICKLE_INT,   /* i */
    DR_PICKLE_LONG,  /* an integer beyond 64 bits: text, n bytes little-endian two's complement */
    DR_PICKLE_FLOAT, /* d */
    DR_PICKLE_STR,   /* text, n bytes; not terminated, not checked to be UTF-8 */
    DR_PICKLE_BYTES, /* text, n bytes */
    DR_PICKLE_TUPLE, /* items, n */
    DR_PICKLE_LIST,
    DR_PICKLE_SET,
    DR_PICKLE_DICT,   /* items, n = 2 * pairs: key, value, key, value, ... as set, also twice */
    DR_PICKLE_GLOBAL, /* text: "module.name", terminated */
    DR_PICKLE_CALL,   /* callee (a GLOBAL), args; items and n: pairs set on the result afterwards */
    DR_PICKLE_PERSISTENT /* args: the ID */
} dr_pickle_kind;

typedef struct dr_pickle_value dr_pickle_value;
struct dr_pickle_value {
    dr_pickle_kind kind;
    uint32_t capacity; /* of items; the machine's */
    size_t n;
    union {
        int64_t i;
        double d;
        const char *text;
        const dr_pickle_value **items;
    };
    const dr_pickle_value *callee, *args;
    const dr_pickle_value *previous; /* PERSISTENT: the one before it in the pickle, or NULL */
};

typedef struct dr_pickle_result {
    const dr_pickle_value *root;
    const dr_pickle_value *last_persistent; /* NULL when there is none */
    size_t used;                            /* bytes of the pickle, its STOP included */
} dr_pickle_result;

enum { DR_PICKLE_MAX_BYTES = 64 << 20 }; /* a checkpoint of SD with its optimizer has under 1 MB */

/*
 * Runs the pickle that begins at bytes up to its STOP (n may be more than it has).
 * Values live in the arena and point into bytes, which must live as long; source names the pickle
 * in messages.
 * Errors: DR_FORMAT (damaged, over a bound, or "refused: ..."); *out is untouched then.
 */
DR_MUST_USE dr_status dr_pickle_parse(dr_arena *arena, const char *source, const void *bytes,
                                      size_t n, dr_pickle_result *out);

/* Whether the string (STR) is exactly text; the GLOBAL is text; the value is a CALL of text. */
bool dr_pickle_is(const dr_pickle_value *v, const char *text);
bool dr_pickle_is_global(const dr_pickle_value *v, const char *text);
bool dr_pickle_is_call(const dr_pickle_value *v, const char *text);
/* Number of pairs of a DICT or of a CALL that makes one (collections.OrderedDict, defaultdict);
 * false for other values. Pair i is items[2 * i], items[2 * i + 1] of *out. */
bool dr_pickle_pairs(const dr_pickle_value *v, const dr_pickle_value *const **items, size_t *n);
/* The value last set under a string key of a dictionary; NULL when there is none. */
const dr_pickle_value *dr_pickle_member(const dr_pickle_value *v, const char *key);

/* ---- pickle_refuse.c ---- */

/* Whether a GLOBAL is something that can act on the machine when a real unpickler calls it. */
bool dr_pickle_is_dangerous(const char *module, const char *name);

#endif
