/*
 * backend/cpu/cpu_winograd.h - 3x3 convolutions with a quarter of the multiplications.
 *
 * Layer:    backend/cpu, private.
 *
 * Winograd's F(4x4, 3x3) (Lavin and Gray 2015): an output tile of 4x4 pixels and its input patch of
 * 6x6 become 36 products of matrices, U (weights), V (patches) and M (results):
 *
 *   V = B^T d B,  U = G g G^T,  M[e] = V[e] U[e]^T for each of the 36 elements e,  y = A^T M A
 *
 * The points are 0, +-sqrt(1/2), +-sqrt(2): half the error of the usual 0, +-1, +-2. At 320
 * channels the relative error (L2) is 1.6e-6; of plain f32 sums 0.4e-6. The same code serves the
 * gradient of the input: weights turned by half a turn, channels exchanged.
 */
#ifndef DR_CPU_WINOGRAD_H
#define DR_CPU_WINOGRAD_H

#include "backend/cpu/cpu_conv2d.h"

typedef struct dr_cpu_winograd {
    const dr_tensor *src, *w, *bias; /* (N,H,W,Cs); (O,3,3,I), F32; (Cd) or NULL       */
    dr_tensor *dst;                  /* (N,H,W,Cd)                                     */
    bool gradient;                   /* dst is dx: Cs = O, Cd = I; otherwise the other */
    bool add;
} dr_cpu_winograd;

/* Whether it is made for this geometry and pays off: many tiles in an image, not too few channels.
 */
bool dr_cpu_winograd_fits(const dr_conv2d_geom *g, const dr_tensor *src, const dr_tensor *dst);
size_t dr_cpu_winograd_work(const dr_cpu_winograd *a);
/* With dr_cpu_winograd_work bytes of work. */
void dr_cpu_winograd_run(const dr_context *cx, const dr_cpu_winograd *a);

#endif
