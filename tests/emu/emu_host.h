/*
 * tests/emu/emu_host.h - small programs against the emulated runtime, for a test written in C. Each
 * is true when the runtime behaves as CUDA's does.
 */
#ifndef DR_EMU_HOST_H
#define DR_EMU_HOST_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

bool emu_work_waits_for_a_synchronisation(void);
bool emu_events_order_two_streams(void);
bool emu_graphs_replay(void);
bool emu_captures_refuse_allocation_and_waiting(void);

#ifdef __cplusplus
}
#endif
#endif
