/*
 * train/state.h - training states on disk: directories that are whole or do not exist.
 *
 * Layer:    train.
 * Source:   spec/launcher.md 4 (R3, R4), sdscripts.md 10.1.
 *
 * A state is written under a temporary name; its manifest.json, written last, holds size and
 * XXH3-128 of every file; then the directory is renamed. Only a directory whose manifest fits its
 * files is a state.
 */
#ifndef DR_TRAIN_STATE_H
#define DR_TRAIN_STATE_H

#include "base/str.h"

#define DR_STATE_SUFFIX "-state"

typedef struct dr_state_writer {
    char *path, *tmp; /* owned */
} dr_state_writer;

/* A new state that will appear at path. Ended by exactly one of commit and abort. DR_OUTPUT. */
DR_MUST_USE dr_status dr_state_begin(dr_state_writer *w, const char *path);
/* Path of a file inside the state being written; the caller frees it. */
char *dr_state_file(const dr_state_writer *w, const char *name);
/* Manifest, fsync, rename; a state already at path is replaced. Aborts on failure. */
DR_MUST_USE dr_status dr_state_commit(dr_state_writer *w);
/* Leaves nothing behind; fine after a begin that failed. */
void dr_state_abort(dr_state_writer *w);

/* DR_FORMAT names the file of a state that is missing, cut off or damaged; DR_INVALID: there is no
 * state at path at all. With hashes every byte is read, else only sizes are compared. */
DR_MUST_USE dr_status dr_state_verify(const char *path, bool hashes);
/*
 * The whole state of the latest step among DIR/NAME-state, DIR/NAME-*-state of all the names (the
 * last is NULL); NULL when there is none. Damaged ones are named in a warning and passed over;
 * DR_FORMAT when there are no others. The caller frees *path.
 */
DR_MUST_USE dr_status dr_state_newest(const char *dir, const char *const *names, char **path);
/* "current_step" of a state's train_state.json. */
DR_MUST_USE dr_status dr_state_step(const char *path, int64_t *step);
/* Removes a state at once; nothing at path is fine. What is no state stays. */
void dr_state_remove(const char *path);

#endif
