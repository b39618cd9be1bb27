/* gen_flags_doc - writes docs/flags.md (stdout) from the option table. */
#include "apps/options.h"

#include <stdio.h>

int main(void)
{
    dr_str page = {0};
    dr_str_add(
        &page,
        "# Options of train_db and train_network\n\n"
        "Written by `gen_flags_doc` from `src/apps/option_list.def`; do not edit. Names, types "
        "and\ndefaults are those of sd-scripts; the last group is dreamrun's own. A name is "
        "also the option's key\nin a config file. Options marked *not available yet* and *not "
        "supported* end the program with exit\ncode 64 unless they are given their default "
        "value; nothing is ever ignored in silence.\n");
    dr_opt_table_markdown(dr_options_table(), &page);
    int rc = fputs(dr_str_get(&page), stdout) < 0 || fflush(stdout) != 0;
    dr_str_free(&page);
    return rc;
}
