#include "mpi_main.h"

#include <mpi.h>
#include <stdio.h>

dr_dist *dr_mpi_ranks;

static bool has_mpi(void)
{
    int on = 0;
    return MPI_Initialized(&on) == MPI_SUCCESS && on != 0;
}

static int maximum(int mine)
{
    int all = mine;
    if (has_mpi()) {
        (void)MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    }
    return all;
}

void dr_mpi_assert(bool holds, const char *what, const char *file, int line)
{
    if (!holds) {
        print_error("rank %d: %s does not hold (record: \"%s\")\n", dr_dist_rank(dr_mpi_ranks),
                    what, dr_error_message());
    }
    if (maximum(holds ? 0 : 1) != 0) {
        _fail(file, line);
    }
}

int dr_mpi_run(const char *name, const struct CMUnitTest *tests, size_t n)
{
    if (dr_dist_init(&dr_mpi_ranks) != DR_OK) {
        print_error("%s: %s\n", name, dr_error_message());
        return 1;
    }
    const int code = dr_test_run(name, tests, n);
    const int worst = maximum(code == 0 ? 0 : code == 77 ? 1 : 2);
    dr_dist_finalize(dr_mpi_ranks);
    return worst == 0 ? 0 : worst == 1 ? 77 : 1;
}
