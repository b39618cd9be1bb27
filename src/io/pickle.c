/*
 * One handler per opcode in a table. The stack holds pointers to values; MARK pushes its height on
 * a second stack. Every handler takes its operands through take(), which knows what is left.
 */
#include "io/pickle.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_VALUE_BYTES = 256 << 20, /* of all values; see pickle.h */
    FIRST_STACK = 64,
    MAX_NAME = 1000 /* of a module or of a name in it */
};

typedef const dr_pickle_value *value_ptr;

typedef struct machine {
    dr_arena *arena;
    const char *source;
    const unsigned char *bytes;
    size_t n, at, op_at; /* op_at: where the current opcode stands */
    size_t value_bytes;
    dr_pickle_value **stack;
    size_t depth, stack_capacity;
    size_t *marks;
    size_t n_marks, marks_capacity;
    value_ptr *memo;
    size_t memo_capacity, n_memo;
    value_ptr last_persistent;
    bool stopped;
} machine;

typedef dr_status (*handler)(machine *m);

static dr_status fail_at(const machine *m, const char *what)
{
    DR_FAIL(DR_FORMAT, "%s: damaged pickle: %s at byte %zu of %zu", m->source, what, m->op_at,
            m->n);
}

/* ---- operands ---- */

static dr_status take(machine *m, size_t n, const unsigned char **p)
{
    if (n > m->n - m->at) {
        return fail_at(m, "it ends too early");
    }
    *p = m->bytes + m->at;
    m->at += n;
    return DR_OK;
}

/* A little-endian number of n bytes (at most 8). */
static dr_status take_number(machine *m, size_t n, uint64_t *out)
{
    const unsigned char *p = NULL;
    DR_TRY(take(m, n, &p));
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        *out |= (uint64_t)p[i] << (8 * i);
    }
    return DR_OK;
}

/* A length of n_length bytes and so many bytes. */
static dr_status take_counted(machine *m, size_t n_length, const unsigned char **p, size_t *n)
{
    uint64_t length = 0;
    DR_TRY(take_number(m, n_length, &length));
    if (length > m->n - m->at) {
        DR_FAIL(DR_FORMAT, "%s: damaged pickle: %llu bytes are announced at byte %zu, %zu are left",
                m->source, (unsigned long long)length, m->op_at, m->n - m->at);
    }
    *n = (size_t)length;
    return take(m, *n, p);
}

/* The rest of a line, without its end. */
static dr_status take_line(machine *m, const unsigned char **p, size_t *n)
{
    const unsigned char *end = memchr(m->bytes + m->at, '\n', m->n - m->at);
    if (end == NULL) {
        return fail_at(m, "a line does not end");
    }
    *p = m->bytes + m->at;
    *n = (size_t)(end - *p);
    m->at += *n + 1;
    return DR_OK;
}

/* ---- values and stack ---- */

static dr_status count_bytes(machine *m, size_t bytes)
{
    m->value_bytes += bytes;
    if (m->value_bytes > MAX_VALUE_BYTES) {
        DR_FAIL(DR_FORMAT,
                "%s: refused: the pickle would fill more than %d MiB with values, a model's fills "
                "less than 10",
                m->source, MAX_VALUE_BYTES >> 20);
    }
    return DR_OK;
}

static dr_status push(machine *m, value_ptr v)
{
    if (m->depth == m->stack_capacity) {
        DR_TRY(count_bytes(m, (m->stack_capacity + 64) * sizeof *m->stack));
        m->stack_capacity = m->stack_capacity * 2 + 64;
        m->stack = dr_xrealloc((void *)m->stack, m->stack_capacity, sizeof *m->stack);
    }
    m->stack[m->depth++] = (dr_pickle_value *)(uintptr_t)v;
    return DR_OK;
}

static dr_status push_new(machine *m, dr_pickle_kind kind, dr_pickle_value **out)
{
    DR_TRY(count_bytes(m, sizeof **out));
    dr_pickle_value *v = dr_arena_alloc(m->arena, sizeof *v);
    v->kind = kind;
    *out = v;
    return push(m, v);
}

/* Values of this frame: above the last mark. */
static size_t floor_of(const machine *m)
{
    return m->n_marks > 0 ? m->marks[m->n_marks - 1] : 0;
}

static dr_status pop(machine *m, dr_pickle_value **out)
{
    if (m->depth <= floor_of(m)) {
        return fail_at(m, "the stack is empty");
    }
    *out = m->stack[--m->depth];
    return DR_OK;
}

static dr_status top(const machine *m, dr_pickle_value **out)
{
    if (m->depth <= floor_of(m)) {
        return fail_at(m, "the stack is empty");
    }
    *out = m->stack[m->depth - 1];
    return DR_OK;
}

/* Takes the last mark away; the values above it are items[0 .. n) and leave the stack, but stay
 * valid until the next push. */
static dr_status pop_marked(machine *m, dr_pickle_value ***items, size_t *n)
{
    if (m->n_marks == 0) {
        return fail_at(m, "there is no mark");
    }
    const size_t base = m->marks[--m->n_marks];
    *n = m->depth - base;
    *items = m->stack + base;
    m->depth = base;
    return DR_OK;
}

static dr_status append(machine *m, dr_pickle_value *v, dr_pickle_value *const *items, size_t n)
{
    if (n > v->capacity - v->n) {
        const size_t capacity = (v->n + n) * 2 > 8 ? (v->n + n) * 2 : 8;
        DR_TRY(count_bytes(m, capacity * sizeof *v->items));
        value_ptr *grown = dr_arena_array(m->arena, capacity, sizeof *grown);
        for (size_t i = 0; i < v->n; i++) {
            grown[i] = v->items[i];
        }
        v->items = grown;
        v->capacity = (uint32_t)capacity; /* the bound on bytes keeps it far below 2^32 */
    }
    for (size_t i = 0; i < n; i++) {
        v->items[v->n++] = items[i];
    }
    return DR_OK;
}

/* A value of n items that were on the stack just before. */
static dr_status push_items(machine *m, dr_pickle_kind kind, dr_pickle_value *const *items,
                            size_t n)
{
    DR_TRY(count_bytes(m, sizeof(dr_pickle_value)));
    dr_pickle_value *v = dr_arena_alloc(m->arena, sizeof *v);
    v->kind = kind;
    if (n > 0) {
        DR_TRY(append(m, v, items, n));
    }
    return push(m, v);
}

/* ---- scalars ---- */

static dr_status push_int(machine *m, int64_t i)
{
    dr_pickle_value *v = NULL;
    DR_TRY(push_new(m, DR_PICKLE_INT, &v));
    v->i = i;
    return DR_OK;
}

static dr_status push_text(machine *m, dr_pickle_kind kind, const unsigned char *p, size_t n)
{
    dr_pickle_value *v = NULL;
    DR_TRY(push_new(m, kind, &v));
    v->text = (const char *)p;
    v->n = n;
    return DR_OK;
}

static dr_status push_counted(machine *m, dr_pickle_kind kind, size_t n_length)
{
    const unsigned char *p = NULL;
    size_t n = 0;
    DR_TRY(take_counted(m, n_length, &p, &n));
    return push_text(m, kind, p, n);
}

/* An integer of n bytes, two's complement. */
static dr_status push_long(machine *m, size_t n_length)
{
    const unsigned char *p = NULL;
    size_t n = 0;
    uint64_t bits = 0;
    DR_TRY(take_counted(m, n_length, &p, &n));
    if (n > 8) {
        return push_text(m, DR_PICKLE_LONG, p, n);
    }
    for (size_t i = 0; i < 8; i++) {
        const unsigned char sign = n > 0 && p[n - 1] >= 0x80 ? 0xff : 0;
        bits |= (uint64_t)(i < n ? p[i] : sign) << (8 * i);
    }
    return push_int(m, (int64_t)bits);
}

static dr_status push_bool(machine *m, bool b)
{
    dr_pickle_value *v = NULL;
    DR_TRY(push_new(m, DR_PICKLE_BOOL, &v));
    v->i = b;
    return DR_OK;
}

static dr_status op_none(machine *m)
{
    dr_pickle_value *v = NULL;
    return push_new(m, DR_PICKLE_NONE, &v);
}

static dr_status op_true(machine *m)
{
    return push_bool(m, true);
}

static dr_status op_false(machine *m)
{
    return push_bool(m, false);
}

static dr_status op_binint(machine *m)
{
    uint64_t v = 0;
    DR_TRY(take_number(m, 4, &v));
    return push_int(m, (int32_t)(uint32_t)v);
}

static dr_status op_binint1(machine *m)
{
    uint64_t v = 0;
    DR_TRY(take_number(m, 1, &v));
    return push_int(m, (int64_t)v);
}

static dr_status op_binint2(machine *m)
{
    uint64_t v = 0;
    DR_TRY(take_number(m, 2, &v));
    return push_int(m, (int64_t)v);
}

static dr_status op_long1(machine *m)
{
    return push_long(m, 1);
}

static dr_status op_long4(machine *m)
{
    return push_long(m, 4);
}

static dr_status op_binfloat(machine *m)
{
    const unsigned char *p = NULL;
    dr_pickle_value *v = NULL;
    uint64_t bits = 0;
    DR_TRY(take(m, 8, &p)); /* big-endian */
    for (int i = 0; i < 8; i++) {
        bits = bits << 8 | p[i];
    }
    DR_TRY(push_new(m, DR_PICKLE_FLOAT, &v));
    memcpy(&v->d, &bits, sizeof bits);
    return DR_OK;
}

/* "12\n", "12L\n", "00\n" and "01\n" (booleans). */
static dr_status op_int_line(machine *m)
{
    const unsigned char *p = NULL;
    size_t n = 0;
    char text[24] = "";
    int64_t i = 0;
    DR_TRY(take_line(m, &p, &n));
    if (n == 2 && p[0] == '0' && (p[1] == '0' || p[1] == '1')) {
        return push_bool(m, p[1] == '1');
    }
    n -= n > 0 && p[n - 1] == 'L' ? 1 : 0;
    if (n < sizeof text) {
        memcpy(text, p, n);
    }
    if (!dr_parse_i64(text, &i)) {
        return fail_at(m, "an integer that is none");
    }
    return push_int(m, i);
}

static dr_status op_float_line(machine *m)
{
    const unsigned char *p = NULL;
    size_t n = 0;
    char text[64] = "";
    double d = 0;
    DR_TRY(take_line(m, &p, &n));
    if (n < sizeof text) {
        memcpy(text, p, n);
    }
    if (!dr_parse_f64(text, &d)) {
        return fail_at(m, "a number that is none");
    }
    dr_pickle_value *v = NULL;
    DR_TRY(push_new(m, DR_PICKLE_FLOAT, &v));
    v->d = d;
    return DR_OK;
}

/* A quoted string of protocol 0; escapes stay as written, as no name of a tensor has them. */
static dr_status op_string_line(machine *m)
{
    const unsigned char *p = NULL;
    size_t n = 0;
    DR_TRY(take_line(m, &p, &n));
    if (n < 2 || (p[0] != '\'' && p[0] != '"') || p[n - 1] != p[0]) {
        return fail_at(m, "a string without quotes");
    }
    return push_text(m, DR_PICKLE_STR, p + 1, n - 2);
}

static dr_status op_unicode_line(machine *m)
{
    const unsigned char *p = NULL;
    size_t n = 0;
    DR_TRY(take_line(m, &p, &n));
    return push_text(m, DR_PICKLE_STR, p, n);
}

static dr_status op_string1(machine *m)
{
    return push_counted(m, DR_PICKLE_STR, 1);
}

static dr_status op_string4(machine *m)
{
    return push_counted(m, DR_PICKLE_STR, 4);
}

static dr_status op_string8(machine *m)
{
    return push_counted(m, DR_PICKLE_STR, 8);
}

static dr_status op_bytes1(machine *m)
{
    return push_counted(m, DR_PICKLE_BYTES, 1);
}

static dr_status op_bytes4(machine *m)
{
    return push_counted(m, DR_PICKLE_BYTES, 4);
}

static dr_status op_bytes8(machine *m)
{
    return push_counted(m, DR_PICKLE_BYTES, 8);
}

/* ---- containers ---- */

static dr_status op_mark(machine *m)
{
    if (m->n_marks == m->marks_capacity) {
        DR_TRY(count_bytes(m, (m->marks_capacity + 64) * sizeof *m->marks));
        m->marks_capacity = m->marks_capacity * 2 + 64;
        m->marks = dr_xrealloc(m->marks, m->marks_capacity, sizeof *m->marks);
    }
    m->marks[m->n_marks++] = m->depth;
    return DR_OK;
}

static dr_status push_marked(machine *m, dr_pickle_kind kind)
{
    dr_pickle_value **items = NULL;
    size_t n = 0;
    DR_TRY(pop_marked(m, &items, &n));
    if (kind == DR_PICKLE_DICT && n % 2 != 0) {
        return fail_at(m, "a key without value");
    }
    return push_items(m, kind, items, n);
}

static dr_status op_tuple(machine *m)
{
    return push_marked(m, DR_PICKLE_TUPLE);
}

static dr_status op_list(machine *m)
{
    return push_marked(m, DR_PICKLE_LIST);
}

static dr_status op_dict(machine *m)
{
    return push_marked(m, DR_PICKLE_DICT);
}

static dr_status op_frozenset(machine *m)
{
    return push_marked(m, DR_PICKLE_SET);
}

static dr_status push_tuple(machine *m, size_t n)
{
    if (m->depth - floor_of(m) < n) {
        return fail_at(m, "the stack is empty");
    }
    m->depth -= n;
    return push_items(m, DR_PICKLE_TUPLE, m->stack + m->depth, n);
}

static dr_status op_tuple1(machine *m)
{
    return push_tuple(m, 1);
}

static dr_status op_tuple2(machine *m)
{
    return push_tuple(m, 2);
}

static dr_status op_tuple3(machine *m)
{
    return push_tuple(m, 3);
}

static dr_status op_empty_tuple(machine *m)
{
    return push_items(m, DR_PICKLE_TUPLE, NULL, 0);
}

static dr_status op_empty_list(machine *m)
{
    return push_items(m, DR_PICKLE_LIST, NULL, 0);
}

static dr_status op_empty_dict(machine *m)
{
    return push_items(m, DR_PICKLE_DICT, NULL, 0);
}

static dr_status op_empty_set(machine *m)
{
    return push_items(m, DR_PICKLE_SET, NULL, 0);
}

static bool takes_pairs(const dr_pickle_value *v)
{
    return v->kind == DR_PICKLE_DICT || v->kind == DR_PICKLE_CALL;
}

/* Elements go into lists and sets. What a CALL made may take them too: then they are not kept. */
static dr_status add_elements(machine *m, dr_pickle_value *const *items, size_t n)
{
    dr_pickle_value *v = NULL;
    DR_TRY(top(m, &v));
    if (v->kind == DR_PICKLE_CALL) {
        return DR_OK;
    }
    if (v->kind != DR_PICKLE_LIST && v->kind != DR_PICKLE_SET) {
        return fail_at(m, "elements for something that is no list");
    }
    return append(m, v, items, n);
}

static dr_status op_append(machine *m)
{
    dr_pickle_value *item = NULL;
    DR_TRY(pop(m, &item));
    return add_elements(m, &item, 1);
}

static dr_status op_appends(machine *m)
{
    dr_pickle_value **items = NULL;
    size_t n = 0;
    DR_TRY(pop_marked(m, &items, &n));
    return add_elements(m, items, n);
}

static dr_status add_pairs(machine *m, dr_pickle_value *const *items, size_t n)
{
    dr_pickle_value *v = NULL;
    DR_TRY(top(m, &v));
    if (!takes_pairs(v) || n % 2 != 0) {
        return fail_at(m, "keys for something that is no dictionary, or a key without value");
    }
    return append(m, v, items, n);
}

static dr_status op_setitem(machine *m)
{
    if (m->depth - floor_of(m) < 3) {
        return fail_at(m, "the stack is empty");
    }
    m->depth -= 2;
    return add_pairs(m, m->stack + m->depth, 2);
}

static dr_status op_setitems(machine *m)
{
    dr_pickle_value **items = NULL;
    size_t n = 0;
    DR_TRY(pop_marked(m, &items, &n));
    return add_pairs(m, items, n);
}

/* ---- stack and memo ---- */

static dr_status op_pop(machine *m)
{
    dr_pickle_value *v = NULL;
    if (m->n_marks > 0 && m->depth == floor_of(m)) {
        m->n_marks--;
        return DR_OK;
    }
    return pop(m, &v);
}

static dr_status op_pop_mark(machine *m)
{
    dr_pickle_value **items = NULL;
    size_t n = 0;
    return pop_marked(m, &items, &n);
}

static dr_status op_dup(machine *m)
{
    dr_pickle_value *v = NULL;
    DR_TRY(top(m, &v));
    return push(m, v);
}

/* Picklers number their memo 0, 1, 2, ...: no number can reach the count of bytes. */
static dr_status put(machine *m, uint64_t i)
{
    dr_pickle_value *v = NULL;
    DR_TRY(top(m, &v));
    if (i >= m->n) {
        DR_FAIL(DR_FORMAT,
                "%s: refused: the pickle uses place %llu of its memo, with %zu bytes in all",
                m->source, (unsigned long long)i, m->n);
    }
    if (i >= m->memo_capacity) {
        const size_t grown = (size_t)i * 2 + 64;
        DR_TRY(count_bytes(m, (grown - m->memo_capacity) * sizeof *m->memo));
        m->memo = dr_xrealloc((void *)m->memo, grown, sizeof *m->memo);
        memset((void *)(m->memo + m->memo_capacity), 0,
               (grown - m->memo_capacity) * sizeof *m->memo);
        m->memo_capacity = grown;
    }
    m->n_memo += m->memo[i] == NULL ? 1 : 0;
    m->memo[i] = v;
    return DR_OK;
}

static dr_status get(machine *m, uint64_t i)
{
    if (i >= m->memo_capacity || m->memo[i] == NULL) {
        return fail_at(m, "a place of the memo that was never filled");
    }
    return push(m, m->memo[i]);
}

static dr_status take_line_number(machine *m, uint64_t *out)
{
    const unsigned char *p = NULL;
    size_t n = 0;
    char text[24] = "";
    int64_t i = -1;
    DR_TRY(take_line(m, &p, &n));
    if (n < sizeof text) {
        memcpy(text, p, n);
    }
    if (!dr_parse_i64(text, &i) || i < 0) {
        return fail_at(m, "a number that is none");
    }
    *out = (uint64_t)i;
    return DR_OK;
}

#define MEMO_OP(name, action, taking)                                                              \
    static dr_status name(machine *m)                                                              \
    {                                                                                              \
        uint64_t i = 0;                                                                            \
        DR_TRY(taking);                                                                            \
        return action(m, i);                                                                       \
    }
MEMO_OP(op_put, put, take_line_number(m, &i))
MEMO_OP(op_binput, put, take_number(m, 1, &i))
MEMO_OP(op_long_binput, put, take_number(m, 4, &i))
MEMO_OP(op_get, get, take_line_number(m, &i))
MEMO_OP(op_binget, get, take_number(m, 1, &i))
MEMO_OP(op_long_binget, get, take_number(m, 4, &i))

static dr_status op_memoize(machine *m)
{
    return put(m, m->n_memo);
}

/* ---- imports and calls: recorded, never done ---- */

static dr_status refuse(const machine *m, const char *module, const char *name)
{
    DR_FAIL(DR_FORMAT,
            "%s: refused: this file asks to run %s.%s when it is opened; a model needs nothing of "
            "that kind. Nothing was run. Do not open it with other programs; get the model from "
            "another place, as .safetensors",
            m->source, module, name);
}

static dr_status push_global(machine *m, const unsigned char *module, size_t n_module,
                             const unsigned char *name, size_t n_name)
{
    if (n_module > MAX_NAME || n_name > MAX_NAME || memchr(module, '\0', n_module) != NULL ||
        memchr(name, '\0', n_name) != NULL) {
        return fail_at(m, "the name of something to import is over 1000 bytes or holds NUL");
    }
    DR_TRY(count_bytes(m, n_module + n_name));
    const char *mod = dr_arena_strndup(m->arena, (const char *)module, n_module);
    const char *nam = dr_arena_strndup(m->arena, (const char *)name, n_name);
    if (dr_pickle_is_dangerous(mod, nam)) {
        return refuse(m, mod, nam);
    }
    dr_pickle_value *v = NULL;
    DR_TRY(push_new(m, DR_PICKLE_GLOBAL, &v));
    v->text = dr_arena_printf(m->arena, "%s.%s", mod, nam);
    v->n = strlen(v->text);
    return count_bytes(m, v->n);
}

static dr_status op_global(machine *m)
{
    const unsigned char *module = NULL;
    const unsigned char *name = NULL;
    size_t n_module = 0;
    size_t n_name = 0;
    DR_TRY(take_line(m, &module, &n_module));
    DR_TRY(take_line(m, &name, &n_name));
    return push_global(m, module, n_module, name, n_name);
}

static dr_status op_stack_global(machine *m)
{
    dr_pickle_value *name = NULL;
    dr_pickle_value *module = NULL;
    DR_TRY(pop(m, &name));
    DR_TRY(pop(m, &module));
    if (name->kind != DR_PICKLE_STR || module->kind != DR_PICKLE_STR) {
        return fail_at(m, "an import whose name is no string");
    }
    return push_global(m, (const unsigned char *)module->text, module->n,
                       (const unsigned char *)name->text, name->n);
}

static dr_status push_call(machine *m, value_ptr callee, value_ptr args)
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
    DR_TRY(push_new(m, DR_PICKLE_CALL, &v));
    v->callee = callee;
    v->args = args;
    return DR_OK;
}

static dr_status op_reduce(machine *m)
{
    dr_pickle_value *args = NULL;
    dr_pickle_value *callee = NULL;
    DR_TRY(pop(m, &args));
    DR_TRY(pop(m, &callee));
    if (args->kind != DR_PICKLE_TUPLE) {
        return fail_at(m, "a call whose arguments are no tuple");
    }
    return push_call(m, callee, args);
}

static dr_status op_newobj_ex(machine *m)
{
    dr_pickle_value *keywords = NULL;
    DR_TRY(pop(m, &keywords));
    return op_reduce(m);
}

/* Class and arguments above a mark. */
static dr_status op_obj(machine *m)
{
    dr_pickle_value **items = NULL;
    size_t n = 0;
    DR_TRY(pop_marked(m, &items, &n));
    if (n == 0) {
        return fail_at(m, "an object without class");
    }
    value_ptr callee = items[0];
    DR_TRY(push_items(m, DR_PICKLE_TUPLE, items + 1, n - 1));
    return push_call(m, callee, m->stack[--m->depth]);
}

/* Module and class in two lines, arguments above a mark. */
static dr_status op_inst(machine *m)
{
    dr_pickle_value *callee = NULL;
    DR_TRY(op_global(m));
    DR_TRY(pop(m, &callee));
    DR_TRY(push_marked(m, DR_PICKLE_TUPLE));
    return push_call(m, callee, m->stack[--m->depth]);
}

/* The state of an object: what is kept of it is only that there was one. */
static dr_status op_build(machine *m)
{
    dr_pickle_value *state = NULL;
    dr_pickle_value *object = NULL;
    DR_TRY(pop(m, &state));
    return top(m, &object);
}

static dr_status push_persistent(machine *m, value_ptr id)
{
    dr_pickle_value *v = NULL;
    DR_TRY(push_new(m, DR_PICKLE_PERSISTENT, &v));
    v->args = id;
    v->previous = m->last_persistent;
    m->last_persistent = v;
    return DR_OK;
}

static dr_status op_binpersid(machine *m)
{
    dr_pickle_value *id = NULL;
    DR_TRY(pop(m, &id));
    return push_persistent(m, id);
}

static dr_status op_persid(machine *m)
{
    DR_TRY(op_unicode_line(m));
    return op_binpersid(m);
}

/* ---- the rest ---- */

static dr_status op_proto(machine *m)
{
    uint64_t v = 0;
    DR_TRY(take_number(m, 1, &v));
    if (v > 5) {
        DR_FAIL(DR_FORMAT, "%s: a pickle of protocol %d; 0 to 5 are known", m->source, (int)v);
    }
    return DR_OK;
}

/* A frame's length only helps readers that fetch ahead. */
static dr_status op_frame(machine *m)
{
    uint64_t length = 0;
    DR_TRY(take_number(m, 8, &length));
    return length <= m->n - m->at ? DR_OK : fail_at(m, "a frame that ends after the pickle");
}

static dr_status op_stop(machine *m)
{
    m->stopped = true;
    return m->depth == 1 && m->n_marks == 0 ? DR_OK
                                            : fail_at(m, "its stack does not hold one value");
}

static dr_status op_refused(machine *m)
{
    DR_FAIL(DR_FORMAT,
            "%s: refused: opcode 0x%02x at byte %zu refers to objects outside the pickle",
            m->source, m->bytes[m->op_at], m->op_at);
}

static const handler ops[256] = {
    ['('] = op_mark,       ['.'] = op_stop,        ['0'] = op_pop,           ['1'] = op_pop_mark,
    ['2'] = op_dup,        ['F'] = op_float_line,  ['I'] = op_int_line,      ['J'] = op_binint,
    ['K'] = op_binint1,    ['L'] = op_int_line,    ['M'] = op_binint2,       ['N'] = op_none,
    ['P'] = op_persid,     ['Q'] = op_binpersid,   ['R'] = op_reduce,        ['S'] = op_string_line,
    ['T'] = op_string4,    ['U'] = op_string1,     ['V'] = op_unicode_line,  ['X'] = op_string4,
    ['a'] = op_append,     ['b'] = op_build,       ['c'] = op_global,        ['d'] = op_dict,
    ['}'] = op_empty_dict, ['e'] = op_appends,     ['g'] = op_get,           ['h'] = op_binget,
    ['i'] = op_inst,       ['j'] = op_long_binget, ['l'] = op_list,          [']'] = op_empty_list,
    ['o'] = op_obj,        ['p'] = op_put,         ['q'] = op_binput,        ['r'] = op_long_binput,
    ['s'] = op_setitem,    ['t'] = op_tuple,       [')'] = op_empty_tuple,   ['u'] = op_setitems,
    ['G'] = op_binfloat,   ['B'] = op_bytes4,      ['C'] = op_bytes1,        [0x80] = op_proto,
    [0x81] = op_reduce,    [0x82] = op_refused,    [0x83] = op_refused,      [0x84] = op_refused,
    [0x85] = op_tuple1,    [0x86] = op_tuple2,     [0x87] = op_tuple3,       [0x88] = op_true,
    [0x89] = op_false,     [0x8a] = op_long1,      [0x8b] = op_long4,        [0x8c] = op_string1,
    [0x8d] = op_string8,   [0x8e] = op_bytes8,     [0x8f] = op_empty_set,    [0x90] = op_appends,
    [0x91] = op_frozenset, [0x92] = op_newobj_ex,  [0x93] = op_stack_global, [0x94] = op_memoize,
    [0x95] = op_frame,     [0x96] = op_bytes8,     [0x97] = op_refused,      [0x98] = op_refused,
};

static dr_status run(machine *m)
{
    while (!m->stopped) {
        const unsigned char *op = NULL;
        m->op_at = m->at;
        DR_TRY(take(m, 1, &op));
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
    machine m = {.arena = arena, .source = source, .bytes = bytes};
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
