"""Picture files of every kind that the image layer reads, made from numbers; for image_peers.py.

Each maker yields (name, file bytes). Random pixels hide nothing: every sample matters.
"""

import io
import struct
import zlib

import cv2
import icc_profiles
import numpy as np
from PIL import Image

PROFILES = {
    "p3": icc_profiles.matrix(icc_profiles.DISPLAY_P3, 2.2),
    "adobe": icc_profiles.matrix(icc_profiles.ADOBE_RGB, 2.2),
    "gray18": icc_profiles.gray(1.8),
    "cmyk": icc_profiles.cmyk(),
}


def save(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def smooth(rng, w, h, channels):
    small = rng.integers(0, 256, (max(2, h // 5), max(2, w // 5), channels), dtype=np.uint8)
    return cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC).reshape(h, w, channels)


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


# ---- PNG

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2)]


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def pack_rows(px, depth):
    """px (h, w, channels) -> unfiltered rows with filter byte 0."""
    h = px.shape[0]
    flat = px.reshape(h, -1)
    if depth == 16:
        body = flat.astype(">u2").view(np.uint8)
    elif depth == 8:
        body = flat.astype(np.uint8)
    else:
        bits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        body = np.packbits(bits.reshape(h, -1).astype(np.uint8), axis=1)
    return np.hstack([np.zeros((h, 1), np.uint8), body]).tobytes()


def png(px, depth, colour, interlace, extra=b"", palette=b""):
    h, w = px.shape[:2]
    raw = b""
    for x0, y0, dx, dy in ADAM7 if interlace else [(0, 0, 1, 1)]:
        part = px[y0::dy, x0::dx]
        raw += pack_rows(part, depth) if part.size else b""
    head = struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, int(interlace))
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    out += chunk(b"PLTE", palette) if palette else b""
    return out + extra + chunk(b"IDAT", zlib.compress(raw, 1)) + chunk(b"IEND", b"")


def pngs(rng):
    kinds = [(d, 0) for d in (1, 2, 4, 8, 16)] + [(d, 3) for d in (1, 2, 4, 8)]
    kinds += [(d, c) for c in (2, 4, 6) for d in (8, 16)]
    for depth, colour in kinds:
        for interlace in (False, True):
            w, h = int(rng.integers(1, 40)), int(rng.integers(1, 30))
            n = min(1 << depth, 250) if colour == 3 else 1 << depth
            px = rng.integers(0, n, (h, w, CHANNELS[colour]))
            palette = rng.integers(0, 256, 3 * n, dtype=np.uint8).tobytes() if colour == 3 else b""
            name = f"png colour {colour} depth {depth} {'adam7 ' if interlace else ''}{w}x{h}"
            yield name, png(px, depth, colour, interlace, palette=palette)
            if colour in (0, 2):
                key = b"".join(struct.pack(">H", int(v)) for v in px[0, 0])
                yield name + " tRNS", png(px, depth, colour, interlace, chunk(b"tRNS", key))
            if colour == 3:
                alphas = rng.integers(0, 256, n, dtype=np.uint8).tobytes()
                yield name + " tRNS", png(px, depth, 3, interlace, chunk(b"tRNS", alphas), palette)
            if depth == 8:
                gamma = chunk(b"gAMA", struct.pack(">I", 100000))
                yield name + " gAMA", png(px, depth, colour, interlace, gamma, palette)


# ---- BMP


def bmp(w, h, bits, compression, data, palette=b"", masks=b"", size=40, flip=False):
    head = struct.pack("<IiiHHIIiiII", size, w, -h if flip else h, 1, bits, compression, len(data),
                       0, 0, len(palette) // 4, 0)
    head = (head + masks).ljust(size, b"\0") if size > 40 else head + masks
    offset = 14 + len(head) + len(palette)
    return struct.pack("<2sIHHI", b"BM", offset + len(data), 0, 0, offset) + head + palette + data


def rle(rng, w, h, four):
    """Runs, stored pixels, jumps and short rows, as an encoder might mix them."""
    out = bytearray()
    for y in range(h):
        x = 0
        while x < w:
            left = min(w - x, 200)
            n = int(rng.integers(1, left + 1))
            if rng.random() < 0.5 or n < 3:
                out += bytes([n, int(rng.integers(0, 256))])
            else:
                size = (n + 1) // 2 if four else n
                out += bytes([0, n]) + rng.integers(0, 256, size, dtype=np.uint8).tobytes()
                out += bytes(size & 1)
            x += n
            if rng.random() < 0.1 and x < w:
                break
        out += b"\0\0" if y < h - 1 else b"\0\1"
    return bytes(out)


def bmps(rng):
    for _ in (0,):
        w, h = int(rng.integers(1, 60)), int(rng.integers(2, 40))
        for bits in (1, 4, 8, 16, 24, 32):
            row = (w * bits + 31) // 32 * 4
            colours = b""
            if bits <= 8:
                table = rng.integers(0, 256, (1 << bits, 4), dtype=np.uint8)
                table[:, 3] = 0
                colours = table.tobytes()
            data = rng.integers(0, 256, row * h, dtype=np.uint8).tobytes()
            for flip in (False, True):
                yield f"bmp {bits} bits {w}x{h} {flip}", bmp(w, h, bits, 0, data, colours, flip=flip)
        data16 = rng.integers(0, 256, (w * 16 + 31) // 32 * 4 * h, dtype=np.uint8).tobytes()
        data32 = rng.integers(0, 256, w * 4 * h, dtype=np.uint8).tobytes()
        for m in ((0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)):
            yield f"bmp masks {m}", bmp(w, h, 16, 3, data16, masks=struct.pack("<3I", *m))
        for m in ((0xFF0000, 0xFF00, 0xFF, 0), (0xFF000000, 0xFF0000, 0xFF00, 0),
                  (0xFF000000, 0xFF0000, 0xFF00, 0xFF), (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
                  (0xFF0000, 0xFF00, 0xFF, 0xFF000000)):
            for size in (56, 108, 124):
                masks = struct.pack("<4I", *m)
                yield f"bmp masks {m} {size}", bmp(w, h, 32, 3, data32, masks=masks, size=size)
        table = rng.integers(0, 256, (256, 4), dtype=np.uint8)
        table[:, 3] = 0
        yield f"bmp rle8 {w}x{h}", bmp(w, h, 8, 1, rle(rng, w, h, False), table.tobytes())
        yield f"bmp rle4 {w}x{h}", bmp(w, h, 4, 2, rle(rng, w, h, True), table[:16].tobytes())


# ---- WebP and JPEG


def webps(rng):
    for _ in range(2):
        w, h = int(rng.integers(1, 90)), int(rng.integers(1, 70))
        px = smooth(rng, w, h, 4)
        rgb, rgba = Image.fromarray(px[..., :3]), Image.fromarray(px)
        for quality in (10, 75, 100):
            yield f"webp {quality} {w}x{h}", save(rgb, "WEBP", quality=quality)
            yield f"webp alpha {quality} {w}x{h}", save(rgba, "WEBP", quality=quality, exact=True)
        yield f"webp lossless {w}x{h}", save(rgb, "WEBP", lossless=True)
        yield f"webp lossless alpha {w}x{h}", save(rgba, "WEBP", lossless=True, exact=True)
        for image in (rgb, rgba):
            frames = [image.rotate(180), image.rotate(90, expand=False)]
            for lossless in (False, True):
                yield f"webp animated {image.mode} {lossless} {w}x{h}", save(
                    image, "WEBP", save_all=True, append_images=frames, lossless=lossless)


def jpegs(rng):
    for _ in (0,):
        w, h = int(rng.integers(1, 90)), int(rng.integers(1, 70))
        px = smooth(rng, w, h, 4)
        rgb, cmyk = Image.fromarray(px[..., :3]), Image.fromarray(px, mode="CMYK")
        for progressive in (False, True):
            for subsampling in (0, 1, 2):
                yield f"jpeg {subsampling} {progressive} {w}x{h}", save(
                    rgb, "JPEG", subsampling=subsampling, progressive=progressive)
            yield f"jpeg gray {progressive} {w}x{h}", save(rgb.convert("L"), "JPEG", progressive=progressive)
            data = save(cmyk, "JPEG", progressive=progressive)
            yield f"jpeg cmyk {progressive} {w}x{h}", data
            at = data.index(b"Adobe") + 11
            yield f"jpeg ycck {progressive} {w}x{h}", data[:at] + b"\2" + data[at + 1 :]
        yield f"jpeg rgb {w}x{h}", save(rgb, "JPEG", keep_rgb=True)
        yield f"jpeg restart {w}x{h}", save(rgb, "JPEG", restart_marker_blocks=2)


def plain(rng):
    for maker in (pngs, bmps, webps, jpegs):
        yield from maker(rng)


def turned(rng):
    """(name, file, the same with EXIF where Pillow looks for it)"""
    rgb = Image.fromarray(smooth(rng, 37, 22, 3))
    for orientation in range(1, 9):
        for kind, options in (("JPEG", {"quality": 90}), ("PNG", {}), ("WEBP", {"lossless": True})):
            data = save(rgb, kind, exif=exif(orientation), **options)
            yield f"{kind} turned {orientation}", data, data
        late = save(rgb, "PNG", exif=exif(orientation))
        at = late.index(b"eXIf") - 4
        n = 12 + struct.unpack(">I", late[at : at + 4])[0]
        yield f"PNG eXIf behind the pixels {orientation}", (
            late[:at] + late[at + n : -12] + late[at : at + n] + late[-12:]), late


def profiled(rng):
    """(name, file)"""
    px = smooth(rng, 48, 31, 4)
    rgb, rgba = Image.fromarray(px[..., :3]), Image.fromarray(px)
    for name in ("p3", "adobe"):
        icc = PROFILES[name]
        for kind, options in (("JPEG", {"quality": 90}), ("PNG", {}), ("WEBP", {"lossless": True})):
            yield f"{kind} {name}", save(rgb, kind, icc_profile=icc, **options)
        yield f"PNG {name} rgba", save(rgba, "PNG", icc_profile=icc)
        yield f"WEBP {name} rgba", save(rgba, "WEBP", icc_profile=icc, lossless=True, exact=True)
    gray = rgb.convert("L")
    for kind in ("JPEG", "PNG"):
        yield f"{kind} gray", save(gray, kind, icc_profile=PROFILES["gray18"])
    cmyk = Image.fromarray(px, mode="CMYK")
    yield "JPEG cmyk profile", save(cmyk, "JPEG", icc_profile=PROFILES["cmyk"], quality=95)
