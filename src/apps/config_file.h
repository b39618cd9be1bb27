/*
 * apps/config_file.h - --config_file and --output_config: options in a TOML file.
 *
 * Layer:    apps.
 * Source:   sd-scripts' read_config_from_file: tables of one level are flattened, their names do
 * not matter, later keys win, the command line wins over all. Unlike there, keys and values are
 * checked like the command line's.
 */
#ifndef DR_APPS_CONFIG_FILE_H
#define DR_APPS_CONFIG_FILE_H

#include "apps/options.h"

/*
 * Sets what --config_file says and the command line does not; nothing without --config_file or with
 * --output_config. Errors: DR_INVALID (unknown key, with what was probably meant; wrong type or
 * value), DR_FORMAT (no TOML), DR_IO; messages begin with file, line and column.
 */
DR_MUST_USE dr_status dr_config_file_read(dr_options *o);
/*
 * Writes every option that is not at its default to the file of --config_file; secrets are left
 * out. Errors: DR_INVALID without --config_file, DR_OUTPUT when the file exists, DR_IO.
 */
DR_MUST_USE dr_status dr_config_file_write(const dr_options *o);

#endif
