/*
 * nn/params.h - the parameter registry: one list of names, shapes, places and flags per model.
 *
 * Layer:    nn.
 * Ownership: entries live in the set's arena, at addresses that never move. Values and gradients
 *           are views into memory that the trainer owns; a set without memory can be planned.
 *
 * Entries stand in construction order, in segments; backward runs the segments from last to first,
 * so a segment's gradients are one range of the flat memory that is final as a whole.
 */
#ifndef DR_NN_PARAMS_H
#define DR_NN_PARAMS_H

#include "base/arena.h"
#include "ops/context.h"

typedef enum dr_param_kind {
    DR_PARAM_VECTOR, /* [C]: norms, biases                                       */
    DR_PARAM_MATRIX, /* [O,I]; tables [V,C]                                      */
    DR_PARAM_CONV    /* [O,I,KH,KW] in files, (O,KH,KW,I) in memory              */
} dr_param_kind;

struct dr_adapter;

typedef struct dr_param {
    const char *name; /* Diffusers name inside the model: "conv_in.weight" */
    dr_param_kind kind;
    int rank;
    int64_t dim[DR_MAX_RANK]; /* as files have it */
    int segment;
    bool trainable;
    int64_t offset, n; /* elements in the flat memory; offsets are multiples of 16 */
    dr_tensor value;   /* memory order; data NULL until bound */
    dr_tensor grad;    /* shape of value; data NULL: no gradient is wanted */
    dr_tensor master;  /* what an optimizer steps on: value, or what value is a rounded copy of */
    const struct dr_adapter *adapter; /* of a weight: adds to its product; NULL: none */
    bool one_writer;                  /* the gradient is written by one layer, which heeds fresh */
    bool fresh;                       /* the gradient holds nothing yet and is set, not added to */
} dr_param;

typedef struct dr_params {
    dr_arena *arena; /* not owned */
    dr_param **at;
    size_t n, cap;
    int64_t n_elems; /* length of the flat memory, holes of up to 15 elements included */
    int n_segments;
} dr_params;

/* An empty set whose entries will live in the arena. */
void dr_params_init(dr_params *set, dr_arena *arena);
void dr_params_deinit(dr_params *set);
/* The entries added from now on belong to the next segment; returns its index. */
int dr_params_begin_segment(dr_params *set);
/* Adds an entry; the name is built from fmt. Panics without a segment. */
dr_param *dr_params_add(dr_params *set, dr_param_kind kind, int rank, const int64_t *dim,
                        const char *fmt, ...) DR_PRINTF(5, 6);
/* NULL when there is none of that name. Linear search: not for inner loops. */
dr_param *dr_params_find(const dr_params *set, const char *name);
/* Flat range [begin, end) of a segment, in elements. */
void dr_params_segment_range(const dr_params *set, int segment, int64_t *begin, int64_t *end);
/* Number of parameters without holes. */
int64_t dr_params_count(const dr_params *set);
/*
 * Points every entry into flat memory: value at values + offset elements, grad likewise for
 * trainable entries. grads NULL: no gradients.
 */
void dr_params_bind(dr_params *set, dr_dtype dtype, void *values, void *grads);
/* After bind: gradients of another type than the values (grads NULL: none). */
void dr_params_bind_grads(dr_params *set, dr_dtype dtype, void *grads);
/* After bind: values are rounded copies of masters, which have memory of their own. */
void dr_params_bind_masters(dr_params *set, dr_dtype dtype, void *masters);
/* As bind, for planning only: every trainable entry gets a gradient address that must not be used.
 */
void dr_params_bind_dry(dr_params *set, dr_dtype dtype, bool with_grads);
/*
 * Before a backward: gradients start from nothing. Those with one writer become fresh, so that
 * nobody writes and reads zeros for them; the others are zeroed.
 */
DR_MUST_USE dr_status dr_params_begin_grads(dr_params *set, const dr_device *device);
/* After it, or when the entries in [begin, end) are final: zeroes those that are still fresh. */
DR_MUST_USE dr_status dr_params_settle_grads(dr_params *set, const dr_device *device, int64_t begin,
                                             int64_t end);
void dr_params_set_trainable(dr_params *set, bool trainable);

/*
 * Copies one whole entry between the order of files (convolutions [O,I,KH,KW]) and the order of
 * memory ((O,KH,KW,I)); all other kinds have one order. Floating-point dtypes convert, rounding
 * once. Both sides hold p->n elements and do not overlap; src need not be aligned.
 */
void dr_param_from_file_order(const dr_param *p, const void *src, dr_dtype src_type, void *dst,
                              dr_dtype dst_type);
void dr_param_to_file_order(const dr_param *p, const void *src, dr_dtype src_type, void *dst,
                            dr_dtype dst_type);

/* Called when [begin, end) of the set's gradients is final. */
typedef struct dr_grad_sink {
    void (*ready)(void *user, int64_t begin, int64_t end);
    void *user;
} dr_grad_sink;

#endif
