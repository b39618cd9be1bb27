#include "apps/tool_make_pictures.h"

#include "apps/draw_pictures.h"
#include "apps/tool_words.h"
#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>

#define MARKER ".dreamrun-pictures" /* a folder with this file is ours to write into again */

enum { PICTURES_n, PICTURES_size, PICTURES_seed, PICTURES_OPTION_COUNT };

static const dr_opt_spec pictures_specs[PICTURES_OPTION_COUNT] = {
    DR_TOOL_OPT(n, INT, "8", "1..1000", "pictures", "Pictures per folder."),
    DR_TOOL_OPT(size, INT, "128", "16..4096", "pixels",
                "Longer side. One picture in three is square, the others are 4:3 and 3:4."),
    DR_TOOL_OPT(seed, INT, "1", ">=0", "", "Same seed, same pictures.")};

static const char *const program_names[] = {"dreamrun make_pictures"};

static const dr_opt_table pictures_table = {.specs = pictures_specs,
                                            .n = PICTURES_OPTION_COUNT,
                                            .programs = program_names,
                                            .n_programs = 1,
                                            .syntax = DR_OPT_PREFIXES | DR_OPT_TO_WORD,
                                            .own_first = -1};

static const dr_tool_text text = {
    .usage = "Usage: dreamrun make_pictures DIR [options]\n\n"
             "Draws a small dataset to try a trainer with: \"DIR/train/10_sks shape\" (a red\n"
             "ring with a blue square) and \"DIR/reg/1_shape\" (other shapes), half of them with\n"
             "captions. Give the trainer --train_data_dir DIR/train --reg_data_dir DIR/reg.\n"
             "DIR must be new, empty or made by this tool; pictures of an earlier run are\n"
             "replaced by name.\n\n",
    .operands = "DIR",
    .n_operands = 1};

static dr_status claim_folder(const char *dir)
{
    static const char note[] = "Made by dreamrun make_pictures, which may replace its pictures.\n";
    dr_strv names = {0};
    char *marker = dr_path_join(dir, MARKER);
    dr_status st = dr_mkdirs(dir);
    if (st == DR_OK) {
        st = dr_list_dir(dir, &names);
    }
    if (st == DR_OK && names.n > 0 && !dr_path_exists(marker)) {
        st = dr_error_set(DR_OUTPUT, __FILE__, __LINE__,
                          "%s holds %zu files that make_pictures did not make, such as %s: give a "
                          "new or empty folder",
                          dir, names.n, names.at[0]);
    }
    if (st == DR_OK) {
        st = dr_file_write(marker, note, sizeof note - 1);
    }
    dr_strv_free(&names);
    free(marker);
    return st;
}

static dr_status make_pictures(const dr_optset *o, const char *dir)
{
    static const char *const folders[] = {"train/10_sks shape", "reg/1_shape"};
    DR_TRY(claim_folder(dir));
    for (int i = 0; i < 2; i++) {
        char *path = dr_path_join(dir, folders[i]);
        const dr_picture_set set = {.dir = path,
                                    .n = (int)dr_opt_int(o, PICTURES_n),
                                    .size = (int)dr_opt_int(o, PICTURES_size),
                                    .seed = (uint64_t)dr_opt_int(o, PICTURES_seed),
                                    .subject = i == 0};
        dr_status st = dr_picture_set_write(&set);
        if (st == DR_OK) {
            (void)printf("%s: %d pictures\n", path, set.n);
        }
        free(path);
        DR_TRY(st);
    }
    return DR_OK;
}

dr_status dr_tool_make_pictures(int argc, const char *const *argv)
{
    const char *dir = NULL;
    dr_optset o;
    dr_optset_init(&o, &pictures_table, 0);
    dr_status st = dr_tool_words(&o, &text, argc, argv, &dir);
    if (st == DR_OK && !o.help) {
        st = make_pictures(&o, dir);
    }
    dr_optset_deinit(&o);
    return st;
}
