#!/usr/bin/env python3
"""Writes tests/golden/data/image_vectors.h: what OpenCV, Pillow and torch make of small pictures.

Resizing: inputs are noise that both sides compute (noise() here, in test_resize.c), results are
FNV-1a hashes. Decoding: the files themselves, and hashes of the pixels of Pillow's
Image.open(...).convert("RGB"). Run with a Python that has cv2, PIL, numpy and torch:

    python tests/golden/image_vectors.py
"""

import io
import pathlib
import random
import struct
import zlib

import cv2
import numpy as np
import PIL
import torch
from PIL import Image

OUT = pathlib.Path(__file__).parent / "data" / "image_vectors.h"

AREA_SIZES = [
    # whole ratios, 2x2, mixed, one axis kept, fractions, ratios whose double is not a whole number
    (64, 48, 32, 24), (66, 45, 22, 15), (60, 40, 15, 20), (40, 30, 40, 10), (49, 49, 7, 7),
    (120, 8, 1, 8), (37, 23, 16, 11), (100, 33, 31, 33), (100, 33, 99, 32), (33, 100, 33, 31),
    (97, 61, 96, 1), (97, 61, 1, 1), (2001, 3, 2000, 2), (255, 17, 128, 9), (300, 200, 171, 114),
    (41, 43, 40, 42), (98, 147, 49, 98), (1000, 5, 999, 5), (147, 3, 49, 1), (49, 98, 1, 2),
]
LANCZOS_SIZES = [
    (17, 9, 40, 21), (1, 1, 5, 7), (2, 3, 64, 64), (64, 48, 64, 49), (64, 48, 65, 48),
    (31, 47, 30, 52), (47, 31, 52, 32), (100, 33, 31, 33), (33, 100, 33, 31), (37, 23, 16, 11),
    (300, 200, 427, 285), (5, 200, 6, 213), (9, 9, 9, 100), (50, 40, 3, 4), (129, 65, 257, 131),
]


def noise(width, height, seed):
    state, out = seed, bytearray(width * height * 3)
    for i in range(len(out)):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out[i] = state >> 24
    return np.frombuffer(bytes(out), np.uint8).reshape(height, width, 3)


def fnv1a(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def random_sizes(rng, n, grow):
    for _ in range(n):
        w, h = rng.randint(1, 160), rng.randint(1, 120)
        if grow:
            k = rng.uniform(1.0, 2.5)
            yield w, h, max(w + 1, int(w * k + 0.5)), max(h, int(h * k + 0.5))
        else:
            yield w, h, rng.randint(1, w), rng.randint(1, h)


def resize_cases():
    rng = random.Random(20260101)
    sizes = [("AREA", s) for s in AREA_SIZES + list(random_sizes(rng, 40, False))]
    sizes += [("LANCZOS", s) for s in LANCZOS_SIZES + list(random_sizes(rng, 20, True))]
    for seed, (kind, (sw, sh, dw, dh)) in enumerate(sizes, 1):
        src = noise(sw, sh, seed)
        if kind == "AREA":
            dst = cv2.resize(src, (dw, dh), interpolation=cv2.INTER_AREA)
        else:
            # Pillow 13 runs the vertical pass first here, older ones do not (image/resize.h)
            assert sw == dw or sh - dh <= max(0, 2 * (sw - dw)), (sw, sh, dw, dh)
            dst = np.asarray(Image.fromarray(src).resize((dw, dh), Image.LANCZOS))
        assert dst.shape == (dh, dw, 3)
        yield f"RESIZE_CASE({kind}, {sw}, {sh}, {dw}, {dh}, {seed}, 0x{fnv1a(dst.tobytes()):016X})"
    yield from named_filter_cases(rng)


def named_filter_cases(rng):
    """Run with OPENCV_IPP=disabled (image/resize.h). Odd sources: no position falls between two
    pixels, where OpenCV 4 and 5 choose another nearest one."""
    kinds = [("NEAREST", cv2.INTER_NEAREST_EXACT), ("LINEAR", cv2.INTER_LINEAR),
             ("CUBIC", cv2.INTER_CUBIC), ("AREA", cv2.INTER_AREA)]
    for seed in range(200, 212):
        sw, sh = 2 * rng.randint(1, 60) + 1, 2 * rng.randint(1, 50) + 1
        dw, dh = rng.randint(1, 200), rng.randint(1, 150)
        src = noise(sw, sh, seed)
        peers = {kind: cv2.resize(src, (dw, dh), interpolation=flag) for kind, flag in kinds}
        peers["BOX"] = np.asarray(Image.fromarray(src).resize((dw, dh), Image.BOX))
        for kind, dst in peers.items():
            h = fnv1a(dst.tobytes())
            yield f"RESIZE_CASE({kind}, {sw}, {sh}, {dw}, {dh}, {seed}, 0x{h:016X})"


# ---- PNG files of every kind; Pillow cannot write most of them


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2)]


def pack_row(samples, depth):
    bits = "".join(format(int(v), f"0{depth}b") for v in samples)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def filtered(row, y):
    """Every second row with the Sub filter at distance 1: enough to make unfiltering matter."""
    if y % 2 == 0:
        return b"\0" + row
    return b"\1" + bytes((v - (row[i - 1] if i else 0)) & 255 for i, v in enumerate(row))


def make_png(width, height, depth, colour, interlace, rng, extra=b""):
    n_colours = min(1 << depth, 200)
    top = n_colours if colour == 3 else 1 << depth
    px = np.array([rng.randrange(top) for _ in range(width * height * CHANNELS[colour])])
    px = px.reshape(height, width, CHANNELS[colour])
    raw = b""
    for x0, y0, dx, dy in ADAM7 if interlace else [(0, 0, 1, 1)]:
        part = px[y0::dy, x0::dx]
        for y in range(part.shape[0] if part.shape[1] else 0):
            row = pack_row(part[y].ravel(), depth)
            simple = depth == 8 and CHANNELS[colour] == 1
            raw += filtered(row, y) if simple else b"\0" + row
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlace))
    out = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head)
    if colour == 3:
        out += png_chunk(b"PLTE", bytes(rng.randrange(256) for _ in range(3 * n_colours)))
    half = len(zlib.compress(raw, 9)) // 2
    data = zlib.compress(raw, 9)
    out += extra + png_chunk(b"IDAT", data[:half]) + png_chunk(b"IDAT", data[half:])
    return out + png_chunk(b"IEND", b"")


def png_files():
    rng = random.Random(7)
    kinds = [(d, 0) for d in (1, 2, 4, 8)] + [(d, 3) for d in (1, 2, 4, 8)]
    kinds += [(16, 0), (8, 2), (16, 2), (8, 4), (16, 4), (8, 6), (16, 6)]
    names = {0: "gray", 2: "rgb", 3: "palette", 4: "gray_alpha", 6: "rgba"}
    for depth, colour in kinds:
        for interlace in (False, True):
            tail = "_adam7" if interlace else ""
            width, height = (11, 9) if interlace else (7, 5)
            yield (f"png_{names[colour]}{depth}{tail}",
                   make_png(width, height, depth, colour, interlace, rng))
    yield "png_gray8_trns", make_png(7, 5, 8, 0, False, rng, png_chunk(b"tRNS", b"\0\x40"))
    yield "png_gray1_trns", make_png(7, 5, 1, 0, False, rng, png_chunk(b"tRNS", b"\0\1"))
    yield "png_rgb8_trns", make_png(7, 5, 8, 2, False, rng, png_chunk(b"tRNS", b"\0\1\0\2\0\3"))
    yield "png_rgb16_trns", make_png(7, 5, 16, 2, False, rng, png_chunk(b"tRNS", b"\1\1\0\2\0\3"))
    yield ("png_palette4_trns",
           make_png(7, 5, 4, 3, False, rng, png_chunk(b"tRNS", bytes(range(0, 256, 32)))))
    yield ("png_rgb8_gamma",
           make_png(7, 5, 8, 2, False, rng, png_chunk(b"gAMA", struct.pack(">I", 100000))))
    yield "png_rgb8_1x1", make_png(1, 1, 8, 2, False, rng)


def jpeg_files():
    smooth = cv2.resize(noise(5, 4, 99), (19, 13), interpolation=cv2.INTER_CUBIC)
    rgb, gray = Image.fromarray(smooth), Image.fromarray(smooth[..., 0])
    cmyk = Image.fromarray(np.dstack([smooth, noise(19, 13, 98)[..., 0] // 2]), mode="CMYK")

    def save(image, **options):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80, optimize=True, **options)
        return buffer.getvalue()

    yield "jpeg_444", save(rgb, subsampling=0)
    yield "jpeg_422", save(rgb, subsampling=1)
    yield "jpeg_420", save(rgb, subsampling=2)
    yield "jpeg_420_progressive", save(rgb, subsampling=2, progressive=True)
    yield "jpeg_restart", save(rgb, subsampling=2, restart_marker_blocks=1)
    yield "jpeg_gray", save(gray)
    yield "jpeg_gray_progressive", save(gray, progressive=True)
    yield "jpeg_rgb", save(rgb, keep_rgb=True)
    data = save(cmyk)
    yield "jpeg_cmyk", data
    at = data.index(b"Adobe") + 11
    yield "jpeg_ycck", data[:at] + b"\2" + data[at + 1 :]
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees: ignored, as by sd-scripts
    yield "jpeg_exif_rotated", save(rgb, exif=exif)


def make_bmp(width, height, bits, compression, data, palette=b"", masks=b"", size=40, flip=False):
    """masks stand behind a 40-byte header, or inside a longer one."""
    head = struct.pack("<IiiHHIIiiII", size, width, -height if flip else height, 1, bits,
                       compression, len(data), 0, 0, len(palette) // 4, 0)
    head = (head + masks).ljust(size, b"\0") if size > 40 else head + masks
    offset = 14 + len(head) + len(palette)
    return struct.pack("<2sIHHI", b"BM", offset + len(data), 0, 0, offset) + head + palette + data


def bmp_files():
    rng = random.Random(11)

    def noise_bytes(n):
        return bytes(rng.randrange(256) for _ in range(n))

    def masks(*values):
        return struct.pack(f"<{len(values)}I", *values)

    for bits in (1, 4, 8):
        colours = b"".join(noise_bytes(3) + b"\0" for _ in range(1 << bits))
        row = (7 * bits + 31) // 32 * 4
        yield f"bmp_palette{bits}", make_bmp(7, 5, bits, 0, noise_bytes(5 * row), colours)
    yield "bmp_555", make_bmp(7, 5, 16, 0, noise_bytes(5 * 16))
    yield "bmp_565", make_bmp(7, 5, 16, 3, noise_bytes(80), masks=masks(0xF800, 0x7E0, 0x1F))
    yield "bmp_rgb24", make_bmp(7, 5, 24, 0, noise_bytes(5 * 24))
    yield "bmp_rgb24_top_down", make_bmp(7, 5, 24, 0, noise_bytes(5 * 24), flip=True)
    yield "bmp_rgb32", make_bmp(7, 5, 32, 0, noise_bytes(5 * 28))
    yield "bmp_v4_rgba", make_bmp(7, 5, 32, 3, noise_bytes(140), size=108,
                                  masks=masks(0xFF0000, 0xFF00, 0xFF, 0xFF000000))
    yield "bmp_v5_abgr", make_bmp(7, 5, 32, 3, noise_bytes(140), size=124,
                                  masks=masks(0xFF000000, 0xFF0000, 0xFF00, 0xFF))
    core = struct.pack("<IHHHH", 12, 7, 5, 1, 24) + noise_bytes(5 * 24)
    yield "bmp_core24", struct.pack("<2sIHHI", b"BM", 26 + 120, 0, 0, 26) + core
    colours = b"".join(noise_bytes(3) + b"\0" for _ in range(256))
    runs = b"\5\3\2\7\0\0" + b"\0\5\1\2\3\4\5\0\2\x09\0\0" + b"\0\2\3\1\4\1\0\0\7\6\0\1"
    yield "bmp_rle8", make_bmp(7, 5, 8, 1, runs, colours)
    runs = b"\7\x12\0\0" + b"\0\4\x34\x56\3\x78\0\0" + b"\7\x9a\0\0\7\xbc\0\0\7\xde\0\1"
    yield "bmp_rle4", make_bmp(7, 5, 4, 2, runs, colours[:64])


def webp_files():
    smooth = cv2.resize(noise(5, 4, 97), (19, 13), interpolation=cv2.INTER_CUBIC)
    rgb = Image.fromarray(smooth)
    rgba = Image.fromarray(np.dstack([smooth, noise(19, 13, 96)[..., 0]]))

    def save(image, **options):
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", **options)
        return buffer.getvalue()

    yield "webp_lossy", save(rgb, quality=70)
    yield "webp_lossless", save(rgb, lossless=True)
    yield "webp_alpha", save(rgba, quality=70)
    yield "webp_lossless_alpha", save(rgba, lossless=True, exact=True)
    yield "webp_animated", save(rgb, save_all=True, append_images=[rgb.rotate(180)], quality=70)
    exif = Image.Exif()
    exif[0x0112] = 3
    yield "webp_exif", save(rgb, quality=70, exif=exif)


def decode_cases(lines):
    for name, data in [*png_files(), *jpeg_files(), *webp_files(), *bmp_files()]:
        with Image.open(io.BytesIO(data)) as image:
            pixels = image.convert("RGB")
        text = ",".join(map(str, data))
        lines.append(f"static const unsigned char {name}[] = {{{text}}};")
        yield (f"DECODE_CASE({name}, {pixels.width}, {pixels.height}, "
               f"0x{fnv1a(pixels.tobytes()):016X})")


def normalised():
    """All 256 values through ToTensor's and Normalize's arithmetic (torchvision.transforms)."""
    x = torch.arange(256, dtype=torch.uint8).to(torch.float32).div(255)
    x = x.sub_(torch.tensor(0.5)).div_(torch.tensor(0.5))
    return fnv1a(x.numpy().astype("<f4").tobytes())


def main():
    lines = [
        "/* Written by tests/golden/image_vectors.py with"
        f" cv2 {cv2.__version__}, Pillow {PIL.__version__}, torch {torch.__version__}. */",
        "/* clang-format off */",
    ]
    decode = list(decode_cases(lines))
    lines.append("#define DECODE_CASES \\\n    " + " \\\n    ".join(decode))
    lines.append("#define RESIZE_CASES \\\n    " + " \\\n    ".join(resize_cases()))
    lines.append(f"#define NORMALISED_FNV UINT64_C(0x{normalised():016X})")
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text("\n".join(lines) + "\n")
    print(f"{OUT}: {OUT.stat().st_size} bytes, {len(decode)} files")


if __name__ == "__main__":
    main()
