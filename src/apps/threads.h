/*
 * apps/threads.h - how many threads a rank computes with.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_THREADS_H
#define DR_APPS_THREADS_H

/*
 * asked > 0: that many. Else DREAMRUN_THREADS (set by dreamrun launch), OMP_NUM_THREADS, or the
 * cores this process may use, divided by the ranks on this host; at least 1.
 */
int dr_threads_for_rank(int asked, int local_world);

#endif
