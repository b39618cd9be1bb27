/*
 * tests/mpi/mpi_main.h - CMocka groups that run on several ranks at once.
 *
 * Every rank runs every test. An assertion on one rank alone would leave the others in a
 * collective, so ranks agree first: assert_everywhere fails on all ranks or on none. At the end
 * all ranks return the same exit code: 1 when any failed, else 77 when any skipped all.
 */
#ifndef DR_MPI_MAIN_H
#define DR_MPI_MAIN_H

#include "dist/dist.h"
#include "dr_test.h"

/* The ranks; joined before the first test. */
extern dr_dist *dr_mpi_ranks;

/* Runs the group on every rank; returns the program's exit code. */
int dr_mpi_run(const char *name, const struct CMUnitTest *tests, size_t n);
#define DR_MPI_MAIN(name, tests) dr_mpi_run(name, tests, sizeof(tests) / sizeof((tests)[0]))

/* Collective. Fails on every rank, naming the ranks on which the condition does not hold. */
#define assert_everywhere(cond) dr_mpi_assert((cond), #cond, __FILE__, __LINE__)
void dr_mpi_assert(bool holds, const char *what, const char *file, int line);

#endif
