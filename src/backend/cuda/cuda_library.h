/*
 * backend/cuda/cuda_library.h - NVIDIA's libraries, opened when a GPU is. Private to backend/cuda.
 *
 * The program links none of them, so it starts on machines without them.
 */
#ifndef DR_CUDA_LIBRARY_H
#define DR_CUDA_LIBRARY_H

#include "dreamrun/status.h"

typedef struct dr_cuda_symbol {
    const char *name;
    void **address; /* where the function's address goes */
} dr_cuda_symbol;

/* Opens the shared library and finds all n functions. DR_DEVICE names the library or the function
 * that is missing and what to do; the library stays open until dr_cuda_library_close. */
DR_MUST_USE dr_status dr_cuda_library_open(const char *file, const dr_cuda_symbol *symbols,
                                           size_t n, void **library);
void dr_cuda_library_close(void *library);

#endif
