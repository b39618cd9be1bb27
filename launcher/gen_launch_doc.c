/* gen_launch_doc - writes docs/launch-flags.md (stdout) from the launcher's option table. */
#include "launcher/launch_options.h"

#include <stdio.h>

int main(void)
{
    dr_str page = {0};
    dr_str_add(
        &page,
        "# Options of dreamrun launch\n\n"
        "Written by `gen_launch_doc` from `launcher/launch_options.def`; do not edit. They stand "
        "between `dreamrun launch`\nand the program's name; everything behind the name belongs "
        "to the program ([flags.md](flags.md)). `-` and `_`\nin names are the same. Options "
        "marked *not available yet* and *not supported* end the command with exit\ncode 64.\n");
    dr_opt_table_markdown(dr_launch_option_table(), &page);
    int rc = fputs(dr_str_get(&page), stdout) < 0 || fflush(stdout) != 0;
    dr_str_free(&page);
    return rc;
}
