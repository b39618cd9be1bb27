/*
 * The last rank never comes to a barrier. Its peers wait for a second, then the watchdog names the
 * exchange and the rank, and ends them with the code of a run without progress.
 */
#include "train/watchdog.h"

#include <unistd.h>

int main(void)
{
    dr_dist *d = NULL;
    if (dr_dist_init(&d) != DR_OK || dr_watchdog_start(d, 1.0) != DR_OK ||
        dr_dist_barrier(d) != DR_OK) {
        return 2;
    }
    dr_watchdog_step(3);
    dr_watchdog_does(DR_DOES_VALIDATE);
    if (dr_dist_rank(d) + 1 == dr_dist_world(d)) {
        (void)pause(); /* mpirun ends it with the others */
    }
    return dr_dist_barrier(d) == DR_OK ? 0 : 1;
}
