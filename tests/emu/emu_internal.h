/*
 * tests/emu/emu_internal.h - what the emulation's files share.
 */
#ifndef DR_EMU_INTERNAL_H
#define DR_EMU_INTERNAL_H

#include <cuda_runtime.h>
#include <string>

/* Runs all blocks of one launch now; false with the reason when the kernel broke a rule. */
bool emu_run_kernel(const char *kernel, dim3 grid, dim3 block, size_t shared_bytes,
                    bool threads_meet, const std::function<void()> &body, std::string *reason);
/* Counts work as it is enqueued; DREAMRUN_EMU_REPORT=1: the numbers are printed at exit. */
enum emu_work { EMU_KERNEL, EMU_PRODUCT, EMU_GRAPH };
void emu_count(emu_work what);
/* Whether all bytes are of one live piece of device memory. */
bool emu_is_device(const void *p, size_t bytes);
/* Sticky, as a failed launch is: later calls return cudaErrorLaunchFailure with this text. */
void emu_set_launch_error(const std::string &reason);

#endif
