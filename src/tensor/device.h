/*
 * tensor/device.h - where memory is: a table of functions per kind of device.
 *
 * Layer:    tensor.
 */
#ifndef DR_TENSOR_DEVICE_H
#define DR_TENSOR_DEVICE_H

#include "dreamrun/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dr_device {
    const char *name;  /* "cpu", "cuda" */
    bool host_visible; /* the host may read and write its memory directly */
    dr_status (*alloc)(size_t bytes, void **out); /* DR_NOMEM with the size; aligned to 64 bytes */
    void (*free)(void *p);                        /* NULL is fine */
    dr_status (*upload)(void *dst, const void *src, size_t bytes);   /* host to device */
    dr_status (*download)(void *dst, const void *src, size_t bytes); /* waits for the work so far */
    dr_status (*zero)(void *p, size_t bytes);
    /* What of it is taken, by this process on the host, by all on a device of its own; and what
     * there is. Zeros when the system does not say. */
    void (*memory)(uint64_t *used_bytes, uint64_t *total_bytes);
} dr_device;

/* Host memory: pages are mapped once, zeroed by the kernel, and kept until free. */
extern const dr_device dr_host_device;

#ifdef __cplusplus
}
#endif
#endif
