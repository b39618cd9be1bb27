/*
 * train/report/progress.h - one line that says how training goes, rewritten on a terminal.
 *
 * Layer:    train.
 */
#ifndef DR_TRAIN_PROGRESS_H
#define DR_TRAIN_PROGRESS_H

#include "dreamrun/status.h"

typedef enum dr_progress_mode {
    DR_PROGRESS_AUTO,  /* rewritten line on a terminal, else plain */
    DR_PROGRESS_PLAIN, /* a line every few seconds */
    DR_PROGRESS_JSON   /* one JSON object per step on stdout */
} dr_progress_mode;

typedef struct dr_progress {
    dr_progress_mode mode;
    bool rewrite;
    int64_t n_steps;
    uint32_t n_epochs;
    double started_s, last_print_s; /* of the clock */
    double smooth_loss;
    bool has_smooth_loss;
    uint64_t n_samples;
    int64_t n_done;          /* steps of this run */
    long long faults_before; /* page faults before the current step */
} dr_progress;

typedef struct dr_progress_step {
    int64_t step;   /* done, from 1 */
    uint32_t epoch; /* from 1 */
    double loss, lr, grad_norm;
    double n_scaled, mean_norm, largest_norm; /* --scale_weight_norms; n_scaled -1: without */
    bool skipped;      /* fp16 numbers overflowed: no weight was touched; loss may not be finite */
    int64_t n_skipped; /* such steps of the whole run */
    double loss_scale; /* of the next step; 1: none */
    uint64_t samples;  /* of the step */
    double data_s, step_s;                          /* waiting for data, whole step */
    uint64_t memory_used_bytes, memory_total_bytes; /* of the device; total 0: unknown */
    int64_t steps_to_save;                          /* steps to the next save, from 1 */
} dr_progress_step;

/* smooth_loss: the smoothed loss to go on from, or NULL. */
void dr_progress_begin(dr_progress *p, dr_progress_mode mode, int64_t n_steps, uint32_t n_epochs,
                       const double *smooth_loss);
void dr_progress_update(dr_progress *p, const dr_progress_step *s);
enum { DR_PROGRESS_TIMESTEPS = 4 };
typedef struct dr_progress_loss { /* of the pictures kept for validation */
    int64_t step;                 /* after it */
    uint32_t epoch;
    double loss;
    int timestep[DR_PROGRESS_TIMESTEPS];
    double at[DR_PROGRESS_TIMESTEPS]; /* the loss at each */
} dr_progress_loss;
void dr_progress_validation(dr_progress *p, const dr_progress_loss *v);
/* Something that goes on between steps, on the rewritten line of a terminal only. */
void dr_progress_note(dr_progress *p, const char *text);
/* The last seconds were no training: rates and the time that is left do not count them. */
void dr_progress_pause(dr_progress *p, double seconds);
/* Ends the rewritten line. */
void dr_progress_end(dr_progress *p);

#endif
