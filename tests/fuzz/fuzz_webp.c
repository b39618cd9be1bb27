/* WebP files: RIFF chunks, animation frames, EXIF, ICCP, pixels. */
#include "picture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_picture(data, size);
}
