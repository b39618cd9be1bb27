/*
 * io/pickle_internal.h - the machine that the files of io/pickle*.c share.
 *
 * Layer:    io, internal.
 */
#ifndef DR_IO_PICKLE_INTERNAL_H
#define DR_IO_PICKLE_INTERNAL_H

#include "io/pickle.h"

typedef const dr_pickle_value *dr_pickle_ptr;

typedef struct dr_pickle_machine {
    dr_arena *arena;
    const char *source;
    const unsigned char *bytes;
    size_t n, at, op_at; /* op_at: where the current opcode stands */
    size_t value_bytes;
    dr_pickle_value **stack;
    size_t depth, stack_capacity;
    size_t *marks;
    size_t n_marks, marks_capacity;
    dr_pickle_ptr *memo;
    size_t memo_capacity, n_memo;
    dr_pickle_ptr last_persistent;
    bool stopped;
} dr_pickle_machine;

/* ---- pickle_stack.c: operands from the bytes, values on the stack; comments stand there ---- */

DR_MUST_USE dr_status dr_pickle_fail_at(const dr_pickle_machine *m, const char *what);
DR_MUST_USE dr_status dr_pickle_take(dr_pickle_machine *m, size_t n, const unsigned char **p);
DR_MUST_USE dr_status dr_pickle_take_number(dr_pickle_machine *m, size_t n, uint64_t *out);
DR_MUST_USE dr_status dr_pickle_take_counted(dr_pickle_machine *m, size_t n_length,
                                             const unsigned char **p, size_t *n);
DR_MUST_USE dr_status dr_pickle_take_line(dr_pickle_machine *m, const unsigned char **p, size_t *n);
DR_MUST_USE dr_status dr_pickle_count_bytes(dr_pickle_machine *m, size_t bytes);
DR_MUST_USE dr_status dr_pickle_push(dr_pickle_machine *m, dr_pickle_ptr v);
DR_MUST_USE dr_status dr_pickle_push_new(dr_pickle_machine *m, dr_pickle_kind kind,
                                         dr_pickle_value **out);
size_t dr_pickle_floor_of(const dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_pop(dr_pickle_machine *m, dr_pickle_value **out);
DR_MUST_USE dr_status dr_pickle_top(const dr_pickle_machine *m, dr_pickle_value **out);
DR_MUST_USE dr_status dr_pickle_pop_marked(dr_pickle_machine *m, dr_pickle_value ***items,
                                           size_t *n);
DR_MUST_USE dr_status dr_pickle_append(dr_pickle_machine *m, dr_pickle_value *v,
                                       dr_pickle_value *const *items, size_t n);
DR_MUST_USE dr_status dr_pickle_push_items(dr_pickle_machine *m, dr_pickle_kind kind,
                                           dr_pickle_value *const *items, size_t n);

/* ---- pickle_values.c: opcodes that make scalars and containers ---- */

DR_MUST_USE dr_status dr_pickle_push_marked(dr_pickle_machine *m, dr_pickle_kind kind);
DR_MUST_USE dr_status dr_pickle_op_none(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_true(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_false(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_binint(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_binint1(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_binint2(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_long1(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_long4(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_binfloat(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_int_line(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_float_line(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_string_line(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_unicode_line(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_string1(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_string4(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_string8(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_bytes1(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_bytes4(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_bytes8(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_mark(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_tuple(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_list(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_dict(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_frozenset(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_tuple1(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_tuple2(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_tuple3(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_empty_tuple(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_empty_list(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_empty_dict(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_empty_set(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_append(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_appends(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_setitem(dr_pickle_machine *m);
DR_MUST_USE dr_status dr_pickle_op_setitems(dr_pickle_machine *m);

#endif
