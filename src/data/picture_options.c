#include "data/picture_options.h"

const dr_picture_options dr_picture_defaults = {
    .decode = {.max_pixels = DR_IMAGE_MAX_PIXELS, .background = {255, 255, 255}},
    .resizing = DR_RESIZE_AUTO};

void dr_picture_options_key(const dr_picture_options *o, dr_str *out)
{
    o = o != NULL ? o : &dr_picture_defaults;
    const dr_image_options *d = &o->decode;
    const char *alpha = d->as_pillow ? "pillow" : d->keep_hidden ? "hidden" : "composited";
    dr_str_printf(out, "pixels %s", alpha);
    if (!d->as_pillow && !d->keep_hidden) {
        dr_str_printf(out, " #%02x%02x%02x", d->background[0], d->background[1], d->background[2]);
    }
    dr_str_printf(out, ", filter %s\n", dr_resize_filter_name(o->resizing));
}
