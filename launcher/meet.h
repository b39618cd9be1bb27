/*
 * launcher/meet.h - one launch per machine: where they meet, and what they must agree on.
 *
 * Layer:    launcher.  May include base/ only.
 *
 * Machine 0 listens at --main_process_ip:--main_process_port; the others come to it, show that they
 * were started for the same job, and then run what Open MPI asks of them (launcher/machines.h,
 * launcher/follow.h, launcher/relay.h). Frames of wire.h, rank being the number of the machine:
 *
 *     to machine 0      HELLO "VERSION GPUS PORT SECRET HOST TOKEN", one NOTE per word of the job,
 *                       END; later NOTE "signal N"
 *     from machine 0    NOTE "welcome NAME"; at last END "CODE text"
 *     from a relay      HELLO "SECRET", OUT: parts of a command line, END
 *     to a relay        ERR: what the command prints, END "CODE"
 */
#ifndef DR_LAUNCHER_MEET_H
#define DR_LAUNCHER_MEET_H

#include "launcher/plan.h"

/* What all machines must have been started with: options that matter, program, its words, folders.
 * Each is one string; order and number are the same everywhere. */
DR_MUST_USE dr_status dr_meet_words(const dr_launch_plan *p, const dr_launch_facts *f, int argc,
                                    const char *const *argv, dr_strv *out);
/* "10.0.0.1:29500" of --main_process_ip and --main_process_port. */
void dr_meet_address(const dr_launch_plan *p, dr_str *out);
int dr_meet_port(const dr_launch_plan *p);
/* $DREAMRUN_RUN_TOKEN, which must be the same on all machines; "" where it is not set. */
const char *dr_meet_token(const dr_launch_facts *f);

#endif
