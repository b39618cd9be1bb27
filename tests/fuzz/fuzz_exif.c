/* EXIF's TIFF block: the orientation. */
#include "fuzz.h"

#include "image/image_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int orientation = dr_exif_orientation(data, size);
    DR_CHECK(orientation >= 1 && orientation <= 8, "orientation %d", orientation);
    return 0;
}
