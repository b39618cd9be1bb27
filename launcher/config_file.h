/*
 * launcher/config_file.h - files with launch options: those that `accelerate config` writes (YAML
 * or JSON), and dreamrun's own options below the key `dreamrun`.
 *
 * Layer:    launcher.  May include base/ only.
 * Source:   accelerate's ClusterConfig (commands/config/config_args.py); spec/launcher.md 2.3.
 */
#ifndef DR_LAUNCHER_CONFIG_FILE_H
#define DR_LAUNCHER_CONFIG_FILE_H

#include "base/optparse.h"

/*
 * Reads the file and calls take for each option that it sets: the option's name and its value as a
 * command line would have it ("true" and "false" for flags). Keys at accelerate's defaults that
 * mean nothing here set nothing.
 * Errors: DR_IO, DR_FORMAT (no YAML, with the line), DR_INVALID (unknown key), DR_UNSUPPORTED (a
 * key that asks for what is not here), each with the file's name; what take returns.
 */
typedef dr_status (*dr_config_take)(void *user, const char *option, const char *value);
DR_MUST_USE dr_status dr_config_file_each(const char *path, dr_config_take take, void *user);

#endif
