/*
 * Ends the way its argument says, on the last rank only; all other ranks wait in a barrier that is
 * never complete, so the program ends only when the last rank ends it.
 */
#include "dist/dist.h"

#include <string.h>

int main(int argc, char **argv)
{
    dr_dist *d = NULL;
    if (argc != 2 || dr_dist_init(&d) != DR_OK) {
        return 2;
    }
    if (dr_dist_rank(d) + 1 < dr_dist_world(d)) {
        return dr_dist_barrier(d) == DR_OK ? 0 : 1;
    }
    DR_CHECK(strcmp(argv[1], "panic") != 0, "the last rank gives up");
    dr_status st = strcmp(argv[1], "hang") == 0 ? DR_HANG : DR_NUMERIC;
    dr_dist_abort(d, dr_error_set(st, __FILE__, __LINE__, "the last rank gives up"));
}
