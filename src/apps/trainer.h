/*
 * apps/trainer.h - the two trainers are one program: options, ranks, backend, exit code.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_TRAINER_H
#define DR_APPS_TRAINER_H

#include "apps/options.h"

/* The whole of main; returns the exit code. */
int dr_trainer_main(dr_program program, int argc, char **argv);

#endif
