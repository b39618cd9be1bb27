#include "image/png_write.h"

#include <limits.h>
#include <string.h>

/* pad, then n times (cell, pad): DR_INVALID when the sum is no int. */
static dr_status grid_side(int n, int cell, int pad, int *side)
{
    uint64_t total = (uint64_t)n * ((uint64_t)cell + (uint64_t)pad) + (uint64_t)pad;
    if (total > INT_MAX) {
        DR_FAIL(DR_INVALID, "a grid of %d pictures of %d pixels is too large; use fewer pictures",
                n, cell);
    }
    *side = (int)total;
    return DR_OK;
}

dr_status dr_image_grid(const dr_image *images, int n, int columns, int pad, dr_image *out)
{
    DR_CHECK(n >= 1 && columns >= 1 && pad >= 0, "grid of %d in %d columns, pad %d", n, columns,
             pad);
    int cell_w = 0;
    int cell_h = 0;
    for (int i = 0; i < n; i++) {
        cell_w = images[i].width > cell_w ? images[i].width : cell_w;
        cell_h = images[i].height > cell_h ? images[i].height : cell_h;
    }
    columns = columns < n ? columns : n;
    int width = 0;
    int height = 0;
    DR_TRY(grid_side(columns, cell_w, pad, &width));
    DR_TRY(grid_side((n + columns - 1) / columns, cell_h, pad, &height));
    dr_image grid = {0};
    DR_TRY(dr_image_alloc(&grid, width, height));
    for (int i = 0; i < n; i++) {
        size_t x = (size_t)pad + (size_t)(i % columns) * (size_t)(cell_w + pad);
        size_t y = (size_t)pad + (size_t)(i / columns) * (size_t)(cell_h + pad);
        size_t row = (size_t)images[i].width * 3;
        for (size_t r = 0; r < (size_t)images[i].height; r++) {
            memcpy(grid.pixels + ((y + r) * (size_t)width + x) * 3, images[i].pixels + r * row,
                   row);
        }
    }
    *out = grid;
    return DR_OK;
}
