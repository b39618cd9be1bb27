/*
 * base/clock.h - monotonic seconds, for durations only.
 *
 * Layer:    base.
 */
#ifndef DR_BASE_CLOCK_H
#define DR_BASE_CLOCK_H

/* Seconds since an arbitrary start; never goes back. */
double dr_now_s(void);

#endif
