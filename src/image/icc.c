/*
 * image/icc.c - embedded colour profiles to sRGB, by Little CMS.
 *
 * Intent and flags are those of Pillow's ImageCms.profileToProfile: perceptual, none.
 */
#include "image/image_internal.h"

#include "base/arena.h"

#include <stdlib.h>

#include <lcms2.h>

struct dr_icc {
    cmsHTRANSFORM transform;
};

static cmsColorSpaceSignature signature_of(dr_colours colours)
{
    switch (colours) {
    case DR_GRAY:
        return cmsSigGrayData;
    case DR_CMYK:
        return cmsSigCmykData;
    default:
        return cmsSigRgbData;
    }
}

static cmsUInt32Number layout_of(const dr_raster *r)
{
    cmsUInt32Number space = r->colours == DR_GRAY   ? PT_GRAY
                            : r->colours == DR_CMYK ? PT_CMYK
                                                    : PT_RGB;
    return COLORSPACE_SH(space) | CHANNELS_SH((cmsUInt32Number)r->colours) |
           EXTRA_SH(r->alpha ? 1u : 0u) | BYTES_SH((cmsUInt32Number)r->bits / 8);
}

/* Is it sRGB but for rounding? A grid of 9 x 9 x 9 colours tells: profiles are smooth. */
static bool is_srgb(cmsHPROFILE profile, cmsHPROFILE srgb)
{
    enum { STEPS = 9, COLOURS = STEPS * STEPS * STEPS };
    unsigned char in[COLOURS * 3];
    unsigned char out[COLOURS * 3];
    for (int i = 0; i < COLOURS; i++) {
        const int steps[3] = {i % STEPS, i / STEPS % STEPS, i / STEPS / STEPS};
        for (int c = 0; c < 3; c++) {
            int v = steps[c] * 32;
            in[i * 3 + c] = (unsigned char)(v > 255 ? 255 : v);
        }
    }
    cmsHTRANSFORM t =
        cmsCreateTransform(profile, TYPE_RGB_8, srgb, TYPE_RGB_8, INTENT_PERCEPTUAL, 0);
    if (t == NULL) {
        return false;
    }
    cmsDoTransform(t, in, out, COLOURS);
    cmsDeleteTransform(t);
    for (int i = 0; i < COLOURS * 3; i++) {
        if (abs(in[i] - out[i]) > 1) {
            return false;
        }
    }
    return true;
}

dr_status dr_icc_open(const dr_raster *r, dr_icc **out)
{
    *out = NULL;
    if (r->icc == NULL) {
        return DR_OK;
    }
    cmsHPROFILE profile = cmsOpenProfileFromMem(r->icc, (cmsUInt32Number)r->icc_size);
    if (profile == NULL) {
        return DR_OK;
    }
    cmsHPROFILE srgb = cmsCreate_sRGBProfile();
    cmsHTRANSFORM t = NULL;
    if (srgb != NULL && cmsGetColorSpace(profile) == signature_of(r->colours) &&
        !(r->colours == DR_RGB && is_srgb(profile, srgb))) {
        t = cmsCreateTransform(profile, layout_of(r), srgb, TYPE_RGB_8, INTENT_PERCEPTUAL, 0);
    }
    cmsCloseProfile(profile);
    if (srgb == NULL) {
        DR_FAIL(DR_NOMEM, "not enough memory for a colour profile");
    }
    cmsCloseProfile(srgb);
    if (t != NULL) {
        *out = dr_xcalloc(1, sizeof **out);
        (*out)->transform = t;
    }
    return DR_OK;
}

void dr_icc_run(const dr_icc *icc, const void *in, unsigned char *rgb, size_t n)
{
    cmsDoTransform(icc->transform, in, rgb, (cmsUInt32Number)n);
}

void dr_icc_close(dr_icc *icc)
{
    if (icc != NULL) {
        cmsDeleteTransform(icc->transform);
        free(icc);
    }
}
