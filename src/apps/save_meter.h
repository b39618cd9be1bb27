/*
 * apps/save_meter.h - a line on stderr while a large file is written.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_SAVE_METER_H
#define DR_APPS_SAVE_METER_H

#include "dreamrun/status.h"

typedef struct dr_save_meter {
    bool terminal; /* the line is written over; else a new one now and then */
    double start_s, said_s;
} dr_save_meter;

dr_save_meter dr_save_meter_begin(void);
/* For dr_model_save.progress; user is the meter. */
void dr_save_meter_show(void *user, uint64_t done, uint64_t all);
/* Wipes the line. */
void dr_save_meter_end(const dr_save_meter *m);

#endif
