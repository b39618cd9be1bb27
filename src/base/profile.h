/*
 * base/profile.h - spans of time by thread: where a step's time goes (--profile).
 *
 * Layer:    base.
 * Threads:  any. Spans of one thread nest; each thread writes its own list.
 * Cost:     off: a load and a branch. On: two readings of the clock and 40 bytes a span.
 *
 *     const dr_span s = dr_span_begin();
 *     ...
 *     dr_span_end(s, "optimizer", "update");
 */
#ifndef DR_BASE_PROFILE_H
#define DR_BASE_PROFILE_H

#include "base/str.h"

typedef int64_t dr_span; /* when it began, ns of the monotonic clock; 0: nothing is recorded */

/* From now on spans are recorded (until dr_profile_stop); what was recorded before is dropped. */
void dr_profile_start(void);
void dr_profile_stop(void);
bool dr_profile_is_on(void);

dr_span dr_span_begin(void);
/* name and group: strings that live as long as the process. */
void dr_span_end(dr_span s, const char *name, const char *group);
/* The same with a number (a segment, a step), shown as the argument "n". */
void dr_span_end_n(dr_span s, const char *name, const char *group, int64_t n);

/* Names the calling thread, if anything is recorded (a string that lives as long as the process).
 */
void dr_profile_thread(const char *name);

/*
 * Adds what was recorded as events of Chrome's trace format, each followed by ",\n": names of the
 * process ("rank <pid>") and its threads, then the spans. zero_s: the wall-clock second
 * (since 1970) that the times count from, at most dr_profile_started_s().
 * Returns how many spans found no room: a thread keeps at most 2^18.
 */
int64_t dr_profile_write(dr_str *out, int pid, double zero_s);
/* Wall-clock seconds since 1970 of dr_profile_start. */
double dr_profile_started_s(void);

#endif
