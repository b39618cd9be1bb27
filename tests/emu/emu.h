/*
 * tests/emu/emu.h - what tests may ask the emulation.
 */
#ifndef DR_EMU_H
#define DR_EMU_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The number of live device and pinned allocations, of allocations ever made, and of waits ever
 * made (stream or event synchronisations): a step must not change the last two. */
size_t emu_live_allocations(void);
uint64_t emu_total_allocations(void);
uint64_t emu_total_waits(void);
/* Kernel launches so far. */
uint64_t emu_total_launches(void);
/* Threads of a block and blocks of a grid run in an order drawn from this and the launch number. */
void emu_seed(uint64_t seed);
/* Forgets a sticky error (a test that provoked one). */
void emu_clear_error(void);

#ifdef __cplusplus
}
#endif
#endif
