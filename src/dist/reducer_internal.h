/*
 * dist/reducer_internal.h - the reducer's state, shared by reducer.c (the plan, sums on the host)
 * and gpu_reducer.c (sums on a GPU). Private to dist.
 */
#ifndef DR_DIST_REDUCER_INTERNAL_H
#define DR_DIST_REDUCER_INTERNAL_H

#include "dist/dist_internal.h"
#include "dist/reducer.h"
#include "dist/tree.h"

#include <pthread.h>

enum { DR_REDUCER_MAX_SLOTS = DR_TREE_MAX_PARTIALS, DR_GRADS_SLOT = -1 };

typedef struct dr_leaf_plan { /* what to do when a local leaf is complete */
    int n_merged;
    int merged[DR_TREE_MAX_PARTIALS]; /* slots to add to the gradients, in order */
    int store;                        /* slot to copy the gradients to, or DR_GRADS_SLOT */
} dr_leaf_plan;

typedef struct dr_partials { /* the sums that a rank brings to the exchange, in tree order */
    int n;
    dr_tree_node node[DR_TREE_MAX_PARTIALS];
    int slot[DR_TREE_MAX_PARTIALS];
} dr_partials;

struct dr_reducer {
    dr_dist *dist;
    dr_reducer_config c;
    int64_t first_leaf, n_local;
    dr_leaf_plan *leaf; /* (n_local) */
    dr_partials *rank;  /* (world) */
    float *slots[DR_REDUCER_MAX_SLOTS];
    int n_slots;
    int64_t i_leaf; /* current local leaf */
    int64_t ready;  /* [ready .. n_elems) of the current leaf is final */
    /* exchange buffers: own partials by destination, all ranks' partials of one slice */
    float *send, *recv;
    int *counts; /* (4 * world): send and receive counts and displacements */
    /* the communication thread's mailbox; on a GPU there is no thread and no lock */
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int64_t want; /* ranges above this are to be exchanged */
    int64_t have; /* ranges above this have been exchanged */
    bool stop;
    dr_status status;
    dr_error_copy error;
};

int64_t dr_reducer_bucket(const dr_reducer_config *c); /* elements */
/* Begin of the bucket that ends at end; buckets are a fixed grid, so all ranks exchange the same.
 */
int64_t dr_reducer_bucket_begin(const dr_reducer *r, int64_t end);
/* Begin of rank q's slice of a range of n elements. */
int64_t dr_reducer_slice(const dr_reducer *r, int64_t n, int q);
/* Partial sums of all ranks. */
int dr_reducer_partials(const dr_reducer *r);
float *dr_reducer_slot(dr_reducer *r, int slot);

/* gpu_reducer.c: the steps of reducer.h where c.plane is given. Failures stand in r->status. */
DR_MUST_USE dr_status dr_gpu_reducer_allocate(dr_reducer *r);
void dr_gpu_reducer_free(dr_reducer *r);
void dr_gpu_reducer_ready(dr_reducer *r);
void dr_gpu_reducer_end_leaf(dr_reducer *r);
DR_MUST_USE dr_status dr_gpu_reducer_wait(dr_reducer *r);

#endif
