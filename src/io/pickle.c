/*
 * The memo, what a pickle asks to import and call, and the loop over a table of opcodes. The stack
 * holds pointers to values; MARK pushes its height on a second stack.
 */
#include "io/pickle_internal.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

enum {
    FIRST_STACK = 64,
    MAX_NAME = 1000 /* of a module or of a name in it */
};

typedef dr_status (*handler)(dr_pickle_machine *m);

/* ---- stack and memo ---- */

static dr_status op_pop(dr_pickle_machine *m)
{
    dr_pickle_value *v = NULL;
    if (m->n_marks > 0 && m->depth == dr_pickle_floor_of(m)) {
        m->n_marks--;
        return DR_OK;
    }
    return dr_pickle_pop(m, &v);
}

static dr_status op_pop_mark(dr_pickle_machine *m)
{
    dr_pickle_value **items = NULL;
    size_t n = 0;
    return dr_pickle_pop_marked(m, &items, &n);
}

static dr_status op_dup(dr_pickle_machine *m)
{
    dr_pickle_value *v = NULL;
    DR_TRY(dr_pickle_top(m, &v));
    return dr_pickle_push(m, v);
}

/* Picklers number their memo 0, 1, 2, ...: no number can reach the count of bytes. */
static dr_status put(dr_pickle_machine *m, uint64_t i)
{
    dr_pickle_value *v = NULL;
    DR_TRY(dr_pickle_top(m, &v));
    if (i >= m->n) {
        DR_FAIL(DR_FORMAT,
                "%s: refused: the pickle uses place %llu of its memo, with %zu bytes in all",
                m->source, (unsigned long long)i, m->n);
    }
    if (i >= m->memo_capacity) {
        const size_t grown = (size_t)i * 2 + 64;
        DR_TRY(dr_pickle_count_bytes(m, (grown - m->memo_capacity) * sizeof *m->memo));
        m->memo = dr_xrealloc((void *)m->memo, grown, sizeof *m->memo);
        memset((void *)(m->memo + m->memo_capacity), 0,
               (grown - m->memo_capacity) * sizeof *m->memo);
        m->memo_capacity = grown;
    }
    m->n_memo += m->memo[i] == NULL ? 1 : 0;
    m->memo[i] = v;
    return DR_OK;
}

static dr_status get(dr_pickle_machine *m, uint64_t i)
{
    if (i >= m->memo_capacity || m->memo[i] == NULL) {
        return dr_pickle_fail_at(m, "a place of the memo that was never filled");
    }
    return dr_pickle_push(m, m->memo[i]);
}

static dr_status take_line_number(dr_pickle_machine *m, uint64_t *out)
{
    const unsigned char *p = NULL;
    size_t n = 0;
    char text[24] = "";
    int64_t i = -1;
    DR_TRY(dr_pickle_take_line(m, &p, &n));
    if (n < sizeof text) {
        memcpy(text, p, n);
    }
    if (!dr_parse_i64(text, &i) || i < 0) {
        return dr_pickle_fail_at(m, "a number that is none");
    }
    *out = (uint64_t)i;
    return DR_OK;
}

#define MEMO_OP(name, action, taking)                                                              \
    static dr_status name(dr_pickle_machine *m)                                                    \
    {                                                                                              \
        uint64_t i = 0;                                                                            \
        DR_TRY(taking);                                                                            \
        return action(m, i);                                                                       \
    }
MEMO_OP(op_put, put, take_line_number(m, &i))
MEMO_OP(op_binput, put, dr_pickle_take_number(m, 1, &i))
MEMO_OP(op_long_binput, put, dr_pickle_take_number(m, 4, &i))
MEMO_OP(op_get, get, take_line_number(m, &i))
MEMO_OP(op_binget, get, dr_pickle_take_number(m, 1, &i))
MEMO_OP(op_long_binget, get, dr_pickle_take_number(m, 4, &i))

static dr_status op_memoize(dr_pickle_machine *m)
{
    return put(m, m->n_memo);
}

/* ---- imports and calls: recorded, never done ---- */

static dr_status refuse(const dr_pickle_machine *m, const char *module, const char *name)
{
    DR_FAIL(DR_FORMAT,
            "%s: refused: this file asks to run %s.%s when it is opened; a model needs nothing of "
            "that kind. Nothing was run. Do not open it with other programs; get the model from "
            "another place, as .safetensors",
            m->source, module, name);
}

static dr_status push_global(dr_pickle_machine *m, const unsigned char *module, size_t n_module,
                             const unsigned char *name, size_t n_name)
{
    if (n_module > MAX_NAME || n_name > MAX_NAME || memchr(module, '\0', n_module) != NULL ||
        memchr(name, '\0', n_name) != NULL) {
        return dr_pickle_fail_at(m,
                                 "the name of something to import is over 1000 bytes or holds NUL");
    }
    DR_TRY(dr_pickle_count_bytes(m, n_module + n_name));
    const char *mod = dr_arena_strndup(m->arena, (const char *)module, n_module);
    const char *nam = dr_arena_strndup(m->arena, (const char *)name, n_name);
    if (dr_pickle_is_dangerous(mod, nam)) {
        return refuse(m, mod, nam);
    }
    dr_pickle_value *v = NULL;
    DR_TRY(dr_pickle_push_new(m, DR_PICKLE_GLOBAL, &v));
    v->text = dr_arena_printf(m->arena, "%s.%s", mod, nam);
    v->n = strlen(v->text);
    return dr_pickle_count_bytes(m, v->n);
}

static dr_status op_global(dr_pickle_machine *m)
{
    const unsigned char *module = NULL;
    const unsigned char *name = NULL;
    size_t n_module = 0;
    size_t n_name = 0;
    DR_TRY(dr_pickle_take_line(m, &module, &n_module));
    DR_TRY(dr_pickle_take_line(m, &name, &n_name));
    return push_global(m, module, n_module, name, n_name);
}

static dr_status op_stack_global(dr_pickle_machine *m)
{
    dr_pickle_value *name = NULL;
    dr_pickle_value *module = NULL;
    DR_TRY(dr_pickle_pop(m, &name));
    DR_TRY(dr_pickle_pop(m, &module));
    if (name->kind != DR_PICKLE_STR || module->kind != DR_PICKLE_STR) {
        return dr_pickle_fail_at(m, "an import whose name is no string");
    }
    return push_global(m, (const unsigned char *)module->text, module->n,
                       (const unsigned char *)name->text, name->n);
}

static dr_status push_call(dr_pickle_machine *m, dr_pickle_ptr callee, dr_pickle_ptr args)
{
    if (callee->kind != DR_PICKLE_GLOBAL) {
        const bool nested = callee->kind == DR_PICKLE_CALL;
        DR_FAIL(DR_FORMAT,
                "%s: refused: at byte %zu this file asks to call %s%s; a model needs nothing of "
                "that kind. Nothing was run",
                m->source, m->op_at, nested ? "the result of a call of " : "something it built",
                nested ? callee->callee->text : "");
    }
    dr_pickle_value *v = NULL;
    DR_TRY(dr_pickle_push_new(m, DR_PICKLE_CALL, &v));
    v->callee = callee;
    v->args = args;
    return DR_OK;
}

static dr_status op_reduce(dr_pickle_machine *m)
{
    dr_pickle_value *args = NULL;
    dr_pickle_value *callee = NULL;
    DR_TRY(dr_pickle_pop(m, &args));
    DR_TRY(dr_pickle_pop(m, &callee));
    if (args->kind != DR_PICKLE_TUPLE) {
        return dr_pickle_fail_at(m, "a call whose arguments are no tuple");
    }
    return push_call(m, callee, args);
}

static dr_status op_newobj_ex(dr_pickle_machine *m)
{
    dr_pickle_value *keywords = NULL;
    DR_TRY(dr_pickle_pop(m, &keywords));
    return op_reduce(m);
}

/* Class and arguments above a mark. */
static dr_status op_obj(dr_pickle_machine *m)
{
    dr_pickle_value **items = NULL;
    size_t n = 0;
    DR_TRY(dr_pickle_pop_marked(m, &items, &n));
    if (n == 0) {
        return dr_pickle_fail_at(m, "an object without class");
    }
    dr_pickle_ptr callee = items[0];
    DR_TRY(dr_pickle_push_items(m, DR_PICKLE_TUPLE, items + 1, n - 1));
    return push_call(m, callee, m->stack[--m->depth]);
}

/* Module and class in two lines, arguments above a mark. */
static dr_status op_inst(dr_pickle_machine *m)
{
    dr_pickle_value *callee = NULL;
    DR_TRY(op_global(m));
    DR_TRY(dr_pickle_pop(m, &callee));
    DR_TRY(dr_pickle_push_marked(m, DR_PICKLE_TUPLE));
    return push_call(m, callee, m->stack[--m->depth]);
}

/* The state of an object: what is kept of it is only that there was one. */
static dr_status op_build(dr_pickle_machine *m)
{
    dr_pickle_value *state = NULL;
    dr_pickle_value *object = NULL;
    DR_TRY(dr_pickle_pop(m, &state));
    return dr_pickle_top(m, &object);
}

static dr_status push_persistent(dr_pickle_machine *m, dr_pickle_ptr id)
{
    dr_pickle_value *v = NULL;
    DR_TRY(dr_pickle_push_new(m, DR_PICKLE_PERSISTENT, &v));
    v->args = id;
    v->previous = m->last_persistent;
    m->last_persistent = v;
    return DR_OK;
}

static dr_status op_binpersid(dr_pickle_machine *m)
{
    dr_pickle_value *id = NULL;
    DR_TRY(dr_pickle_pop(m, &id));
    return push_persistent(m, id);
}

static dr_status op_persid(dr_pickle_machine *m)
{
    DR_TRY(dr_pickle_op_unicode_line(m));
    return op_binpersid(m);
}

/* ---- the rest ---- */

static dr_status op_proto(dr_pickle_machine *m)
{
    uint64_t v = 0;
    DR_TRY(dr_pickle_take_number(m, 1, &v));
    if (v > 5) {
        DR_FAIL(DR_FORMAT, "%s: a pickle of protocol %d; 0 to 5 are known", m->source, (int)v);
    }
    return DR_OK;
}

/* A frame's length only helps readers that fetch ahead. */
static dr_status op_frame(dr_pickle_machine *m)
{
    uint64_t length = 0;
    DR_TRY(dr_pickle_take_number(m, 8, &length));
    return length <= m->n - m->at ? DR_OK
                                  : dr_pickle_fail_at(m, "a frame that ends after the pickle");
}

static dr_status op_stop(dr_pickle_machine *m)
{
    m->stopped = true;
    return m->depth == 1 && m->n_marks == 0
               ? DR_OK
               : dr_pickle_fail_at(m, "its stack does not hold one value");
}

static dr_status op_refused(dr_pickle_machine *m)
{
    DR_FAIL(DR_FORMAT,
            "%s: refused: opcode 0x%02x at byte %zu refers to objects outside the pickle",
            m->source, m->bytes[m->op_at], m->op_at);
}

static const handler ops[256] = {
    ['('] = dr_pickle_op_mark,
    ['.'] = op_stop,
    ['0'] = op_pop,
    ['1'] = op_pop_mark,
    ['2'] = op_dup,
    ['F'] = dr_pickle_op_float_line,
    ['I'] = dr_pickle_op_int_line,
    ['J'] = dr_pickle_op_binint,
    ['K'] = dr_pickle_op_binint1,
    ['L'] = dr_pickle_op_int_line,
    ['M'] = dr_pickle_op_binint2,
    ['N'] = dr_pickle_op_none,
    ['P'] = op_persid,
    ['Q'] = op_binpersid,
    ['R'] = op_reduce,
    ['S'] = dr_pickle_op_string_line,
    ['T'] = dr_pickle_op_string4,
    ['U'] = dr_pickle_op_string1,
    ['V'] = dr_pickle_op_unicode_line,
    ['X'] = dr_pickle_op_string4,
    ['a'] = dr_pickle_op_append,
    ['b'] = op_build,
    ['c'] = op_global,
    ['d'] = dr_pickle_op_dict,
    ['}'] = dr_pickle_op_empty_dict,
    ['e'] = dr_pickle_op_appends,
    ['g'] = op_get,
    ['h'] = op_binget,
    ['i'] = op_inst,
    ['j'] = op_long_binget,
    ['l'] = dr_pickle_op_list,
    [']'] = dr_pickle_op_empty_list,
    ['o'] = op_obj,
    ['p'] = op_put,
    ['q'] = op_binput,
    ['r'] = op_long_binput,
    ['s'] = dr_pickle_op_setitem,
    ['t'] = dr_pickle_op_tuple,
    [')'] = dr_pickle_op_empty_tuple,
    ['u'] = dr_pickle_op_setitems,
    ['G'] = dr_pickle_op_binfloat,
    ['B'] = dr_pickle_op_bytes4,
    ['C'] = dr_pickle_op_bytes1,
    [0x80] = op_proto,
    [0x81] = op_reduce,
    [0x82] = op_refused,
    [0x83] = op_refused,
    [0x84] = op_refused,
    [0x85] = dr_pickle_op_tuple1,
    [0x86] = dr_pickle_op_tuple2,
    [0x87] = dr_pickle_op_tuple3,
    [0x88] = dr_pickle_op_true,
    [0x89] = dr_pickle_op_false,
    [0x8a] = dr_pickle_op_long1,
    [0x8b] = dr_pickle_op_long4,
    [0x8c] = dr_pickle_op_string1,
    [0x8d] = dr_pickle_op_string8,
    [0x8e] = dr_pickle_op_bytes8,
    [0x8f] = dr_pickle_op_empty_set,
    [0x90] = dr_pickle_op_appends,
    [0x91] = dr_pickle_op_frozenset,
    [0x92] = op_newobj_ex,
    [0x93] = op_stack_global,
    [0x94] = op_memoize,
    [0x95] = op_frame,
    [0x96] = dr_pickle_op_bytes8,
    [0x97] = op_refused,
    [0x98] = op_refused,
};

static dr_status run(dr_pickle_machine *m)
{
    while (!m->stopped) {
        const unsigned char *op = NULL;
        m->op_at = m->at;
        DR_TRY(dr_pickle_take(m, 1, &op));
        if (ops[*op] == NULL) {
            DR_FAIL(DR_FORMAT, "%s: damaged pickle: byte %zu of %zu (0x%02x) is no opcode",
                    m->source, m->op_at, m->n, *op);
        }
        DR_TRY(ops[*op](m));
    }
    return DR_OK;
}

dr_status dr_pickle_parse(dr_arena *arena, const char *source, const void *bytes, size_t n,
                          dr_pickle_result *out)
{
    dr_pickle_machine m = {.arena = arena, .source = source, .bytes = bytes};
    m.n = n < DR_PICKLE_MAX_BYTES ? n : DR_PICKLE_MAX_BYTES;
    m.stack_capacity = FIRST_STACK;
    m.stack = dr_xcalloc(FIRST_STACK, sizeof *m.stack);
    const dr_status st = run(&m);
    if (st == DR_OK) {
        *out = (dr_pickle_result){m.stack[0], m.last_persistent, m.at};
    }
    free((void *)m.stack);
    free(m.marks);
    free((void *)m.memo);
    return st;
}

/* ---- questions ---- */

bool dr_pickle_is(const dr_pickle_value *v, const char *text)
{
    return v->kind == DR_PICKLE_STR && v->n == strlen(text) && memcmp(v->text, text, v->n) == 0;
}

bool dr_pickle_is_global(const dr_pickle_value *v, const char *text)
{
    return v->kind == DR_PICKLE_GLOBAL && strcmp(v->text, text) == 0;
}

bool dr_pickle_is_call(const dr_pickle_value *v, const char *text)
{
    return v->kind == DR_PICKLE_CALL && dr_pickle_is_global(v->callee, text);
}

bool dr_pickle_pairs(const dr_pickle_value *v, const dr_pickle_value *const **items, size_t *n)
{
    const bool makes_dict = dr_pickle_is_call(v, "collections.OrderedDict") ||
                            dr_pickle_is_call(v, "collections.defaultdict") ||
                            dr_pickle_is_call(v, "builtins.dict") ||
                            dr_pickle_is_call(v, "__builtin__.dict");
    if (v->kind != DR_PICKLE_DICT && !makes_dict) {
        return false;
    }
    *items = v->items;
    *n = v->n / 2;
    return true;
}

const dr_pickle_value *dr_pickle_member(const dr_pickle_value *v, const char *key)
{
    const dr_pickle_value *const *items = NULL;
    const dr_pickle_value *found = NULL;
    size_t n = 0;
    if (dr_pickle_pairs(v, &items, &n)) {
        for (size_t i = 0; i < n; i++) {
            found = dr_pickle_is(items[2 * i], key) ? items[2 * i + 1] : found;
        }
    }
    return found;
}
