#include "image/recolor.h"

#include <math.h>

enum { SHIFT = 12 }; /* fixed point of OpenCV's division tables */

typedef struct hsv {
    int h, s, v; /* 0..179, 0..255, 0..255 */
} hsv;

/* numerator / n in fixed point, rounded as OpenCV's tables are. */
static int reciprocal(double numerator, int n)
{
    return n == 0 ? 0 : (int)lrint(numerator * (1 << SHIFT) / n);
}

/* The bytes are taken as B, G, R. */
static hsv to_hsv(const unsigned char *p)
{
    const int b = p[0];
    const int g = p[1];
    const int r = p[2];
    const int v = b > g ? (b > r ? b : r) : (g > r ? g : r);
    const int least = b < g ? (b < r ? b : r) : (g < r ? g : r);
    const int diff = v - least;
    int h = v == r ? g - b : v == g ? b - r + 2 * diff : r - g + 4 * diff;
    h = (h * reciprocal(180.0 / 6.0, diff) + (1 << (SHIFT - 1))) >> SHIFT;
    return (hsv){.h = h < 0 ? h + 180 : h,
                 .s = (diff * reciprocal(255.0, v) + (1 << (SHIFT - 1))) >> SHIFT,
                 .v = v};
}

/* OpenCV's vector code cuts the fraction off. */
static unsigned char to_byte(float x)
{
    return (unsigned char)(x * 255.0f);
}

static void from_hsv(hsv c, unsigned char *p)
{
    static const int order[6][3] = {{1, 3, 0}, {1, 0, 2}, {3, 0, 1},
                                    {0, 2, 1}, {0, 1, 3}, {2, 1, 0}};
    const float s = (float)c.s * (1.0f / 255.0f);
    const float v = (float)c.v * (1.0f / 255.0f);
    float h = (float)c.h * (6.0f / 180.0f);
    const int sector = (int)h;
    h -= (float)sector;
    const float table[4] = {v, v * (1.0f - s), v * fmaf(-s, h, 1.0f), v * fmaf(-s, 1.0f - h, 1.0f)};
    for (int k = 0; k < 3; k++) {
        p[k] = to_byte(table[order[sector % 6][k]]);
    }
}

void dr_image_shift_hue(dr_image *img, double shift)
{
    const size_t n = (size_t)img->width * (size_t)img->height;
    for (size_t i = 0; i < n; i++) {
        hsv c = to_hsv(img->pixels + 3 * i);
        c.h = (int)fmod((double)c.h + shift, 180.0);
        from_hsv(c, img->pixels + 3 * i);
    }
}

void dr_image_power(dr_image *img, double gamma)
{
    unsigned char table[256];
    for (int i = 0; i < 256; i++) {
        const double v = pow((double)i, gamma);
        table[i] = (unsigned char)(v > 255.0 ? 255.0 : v);
    }
    const size_t n = (size_t)img->width * (size_t)img->height * 3;
    for (size_t i = 0; i < n; i++) {
        img->pixels[i] = table[img->pixels[i]];
    }
}
