#!/usr/bin/env python3
"""Compares the image layer with Pillow and OpenCV on real photos and on random sizes, bit for bit.

    python tests/interop/image_peers.py BUILD/bin/image_driver [PHOTO_DIR]

PHOTO_DIR holds *.jpg in sub-folders; default: $DR_SHARED/dreambooth. Needs cv2, PIL and numpy.
Prints "N passed, N failed"; exit code 0, 1 (something failed) or 77 (no photos: nothing was run).

Pillow's wheel brings its own libjpeg-turbo, so decoded pixels could differ. Measured, Debian's
2.1.5 against 3.1.1 and 3.2.0: all equal, for the photos and for every re-encoded kind below, so any
difference is a failure here. Resizing starts from the same decoded pixels on both sides.
"""

import io
import os
import pathlib
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor


os.environ["OPENCV_IPP"] = "disabled"  # before cv2 is loaded: image/resize.h says why
import cv2  # noqa: E402
import numpy as np  # noqa: E402
import picture_files  # noqa: E402
from PIL import Image, ImageCms, ImageOps, features  # noqa: E402

CV_FILTERS = {"area": cv2.INTER_AREA, "nearest": cv2.INTER_NEAREST_EXACT, "linear": cv2.INTER_LINEAR,
              "cubic": cv2.INTER_CUBIC}
results = []


def check(good, what):
    results.append(bool(good))
    if not good:
        print(f"FAILED {what}")


def read_png(path):
    with Image.open(path) as image:
        assert image.format == "PNG" and image.mode == "RGB", (path, image.mode)
        return np.asarray(image)


def difference(a, b):
    if a.shape != b.shape:
        return f"shapes {a.shape} and {b.shape}"
    d = np.abs(a.astype(int) - b.astype(int))
    return f"{np.count_nonzero(d)} of {d.size} samples differ, by {d.max()} at most"


def peer_resize(pixels, width, height, name):
    """What sd-scripts does (name auto), or one filter by name."""
    h, w = pixels.shape[:2]
    if name == "auto":
        name = "area" if w >= width and h >= height else "lanczos"
    if name in CV_FILTERS:
        return cv2.resize(pixels, (width, height), interpolation=CV_FILTERS[name])
    which = Image.LANCZOS if name == "lanczos" else Image.BOX
    return np.asarray(Image.fromarray(pixels).resize((width, height), which))


def cover(w, h, target_w, target_h):
    """Scaled to cover the bucket, as sd-scripts rounds."""
    scale = target_h / h if w / h > target_w / target_h else target_w / w
    return int(w * scale + 0.5), int(h * scale + 0.5)


class Driver:
    """The C program, with a folder of its own for each thread that runs it."""

    def __init__(self, program, parent):
        self.program = program
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=parent))

    def run(self, *args):
        done = subprocess.run([self.program, *map(str, args)], capture_output=True, text=True)
        assert done.returncode == 0, (args, done.stderr)
        return done.stdout.split()

    def decode(self, path, *how):
        out = self.folder / "decoded.png"
        self.run("decode", path, out, *how)
        return out

    def refusal(self, *args):
        """Exit code and message of a command that should fail."""
        done = subprocess.run([self.program, *map(str, args)], capture_output=True, text=True)
        return done.returncode, done.stderr

    def resize(self, path, width, height, name):
        out = self.folder / "resized.png"
        self.run("resize", path, width, height, name, out)
        return read_png(out)


def compare_resize(driver, png, pixels, size, name, what):
    got = driver.resize(png, *size, name)
    want = peer_resize(pixels, *size, name)
    check(np.array_equal(got, want), f"{what} -> {size} {name}: {difference(got, want)}")


def compare_decode(driver, path, what):
    with Image.open(path) as image:
        want = np.asarray(image.convert("RGB"))
    h, w = want.shape[:2]
    check(driver.run("probe", path) == ["JPEG", str(w), str(h)], f"{what}: probe")
    png = driver.decode(path)
    got = read_png(png)
    check(np.array_equal(got, want), f"{what}: decode: {difference(got, want)}")
    return png, got


def compare_photo(driver, path):
    png, got = compare_decode(driver, path, path)
    h, w = got.shape[:2]
    sizes = [cover(w, h, *b) for b in ((512, 512), (640, 384), (384, 640), (768, 768), (64, 64))]
    sizes += [(w // k, h // k) for k in (2, 3)] + [(w - 1, h), (w + 1, h + 1)]
    for size in sizes:
        compare_resize(driver, png, got, size, "auto", path)
    compare_resize(driver, png, got, cover(w, h, 512, 512), "lanczos", path)


def compare_jpeg_kinds(driver, path):
    """One photo, cut to an odd size, written again in every way the peers can write."""
    with Image.open(path) as image:
        rgb = image.convert("RGB").crop((0, 0, 501, 333))
    file = driver.folder / "kind.jpg"
    kinds = [(rgb, {"subsampling": s, "progressive": p}) for s in (0, 1, 2) for p in (False, True)]
    kinds += [(rgb.convert("L"), {}), (rgb.convert("CMYK"), {}), (rgb, {"keep_rgb": True}),
              (rgb, {"restart_marker_rows": 3}), (rgb, {"quality": 5}), (rgb, {"quality": 100})]
    for image, options in kinds:
        image.save(file, **options)
        compare_decode(driver, file, f"{image.mode} {options}")
    for factor in (0x411111, 0x121111, 0x211111, 0x221111):
        params = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
        cv2.imwrite(str(file), np.asarray(rgb)[..., ::-1], params)
        compare_decode(driver, file, f"sampling factor {factor:x}")


def compare_random_sizes(driver, rng, count):
    png = driver.folder / "noise.png"
    for i in range(count):
        w, h = int(rng.integers(1, 700)), int(rng.integers(1, 500))
        pixels = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(png, compress_level=0)
        if i % 2 == 0:
            size = int(rng.integers(1, w + 1)), int(rng.integers(1, h + 1))
            compare_resize(driver, png, pixels, size, "area", f"noise {w}x{h}")
        else:
            scale = rng.uniform(1.0, 3.0)
            size = int(w * scale + 0.5), int(h * scale + 0.5)
            compare_resize(driver, png, pixels, size, "auto", f"noise {w}x{h}")


def as_pillow(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def composited(rgba, colour):
    """RGBA image on a background, as Image.paste does it."""
    out = Image.new("RGB", rgba.size, colour)
    out.paste(rgba.convert("RGB"), mask=rgba.getchannel("A"))
    return np.asarray(out)


def as_seen(data, colour):
    """Without orientation and profile: alpha composited, 16 bits rounded; None: no peer reads it."""
    with Image.open(io.BytesIO(data)) as image:
        deep = image.format == "PNG" and data[24] == 16
        few = image.format == "PNG" and data[25] == 0 and data[24] in (2, 4)
        if (deep or few) and b"tRNS" in data:
            return None  # Pillow compares the scaled sample with the unscaled key
        if deep:
            px = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            px = ((px.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
            order = {2: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}
            px = cv2.cvtColor(px, order[px.ndim if px.ndim == 2 else px.shape[2]])
            image = Image.fromarray(px)
        if "A" in image.mode or "transparency" in image.info:
            return composited(image.convert("RGBA"), colour)
        return np.asarray(image.convert("RGB"))


def compare_kinds(driver, rng):
    """Every kind of file, as sd-scripts decodes it and as a person sees it."""
    file = driver.folder / "kind.jpg"  # the name says nothing
    for name, data in picture_files.plain(rng):
        file.write_bytes(data)
        got, want = read_png(driver.decode(file, "sd-scripts")), as_pillow(data)
        check(np.array_equal(got, want), f"{name} as sd-scripts: {difference(got, want)}")
        colour = "#%06x" % rng.integers(0, 1 << 24)
        want = as_seen(data, colour)
        if want is not None:
            got = read_png(driver.decode(file, colour))
            check(np.array_equal(got, want), f"{name} on {colour}: {difference(got, want)}")


def compare_turned(driver, rng):
    file = driver.folder / "turned"
    for name, data, early in picture_files.turned(rng):
        file.write_bytes(data)
        with Image.open(io.BytesIO(early)) as image:
            want = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        got = read_png(driver.decode(file))
        check(np.array_equal(got, want), f"{name}: {difference(got, want)}")
        size = [str(want.shape[1]), str(want.shape[0])]
        check(driver.run("probe", file)[1:] == size, f"{name}: probe")
        got, want = read_png(driver.decode(file, "sd-scripts")), as_pillow(data)
        check(np.array_equal(got, want), f"{name} as sd-scripts: {difference(got, want)}")


def compare_profiles(driver, rng):
    """Another version of Little CMS rounds otherwise (2.14 against 2.19): at most 1 apart, 4 in tables."""
    file = driver.folder / "profiled"
    for name, data in picture_files.profiled(rng):
        file.write_bytes(data)
        with Image.open(io.BytesIO(data)) as image:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
            colours = image.convert("RGB") if image.mode == "RGBA" else image
            rgb = ImageCms.profileToProfile(colours, profile, ImageCms.createProfile("sRGB"),
                                            outputMode="RGB")
            want = np.asarray(rgb)
            if image.mode == "RGBA":
                rgb.putalpha(image.getchannel("A"))
                want = composited(rgb, "white")
            plain = np.asarray(colours.convert("RGB"))
        got = read_png(driver.decode(file))
        close = got.shape == want.shape and np.abs(got.astype(int) - want).max() <= (4 if "cmyk" in name else 1)
        check(close, f"{name}: {difference(got, want)}")
        check(np.abs(plain.astype(int) - want).max() > 8, f"{name}: the profile changes nothing")
        got, want = read_png(driver.decode(file, "sd-scripts")), as_pillow(data)
        check(np.array_equal(got, want), f"{name} as sd-scripts: {difference(got, want)}")


def bombs():
    """Small files that say they are 40000 x 40000 pixels."""
    side = 40000
    yield picture_files.png(np.zeros((1, 1, 3), int), 8, 2, False).replace(
        b"IHDR" + (1).to_bytes(4, "big") * 2, b"IHDR" + side.to_bytes(4, "big") * 2)
    jpeg = picture_files.save(Image.new("RGB", (8, 8)), "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    yield jpeg[:at] + side.to_bytes(2, "big") * 2 + jpeg[at + 4 :]
    canvas = (side - 1).to_bytes(3, "little")
    webp = picture_files.save(Image.new("RGBA", (8, 8)), "WEBP", lossless=True)
    body = b"VP8X" + (10).to_bytes(4, "little") + bytes([16, 0, 0, 0]) + canvas * 2 + webp[12:]
    yield b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body
    yield picture_files.bmp(side, side, 8, 1, b"\0\1", bytes(1024))


def compare_refusals(driver, rng):
    file = driver.folder / "bad.png"
    for data in bombs():
        file.write_bytes(data)
        rc, text = driver.refusal("decode", file, driver.folder / "out.png")
        check(rc == 65 and str(file) in text and "more than the limit" in text, f"bomb: {rc} {text}")
    kinds = [(n, d) for n, d in picture_files.plain(rng) if not n.startswith("bmp rle")]
    for i in rng.permutation(len(kinds))[:25]:
        name, data = kinds[i]
        for n in {1, 9, len(data) - 1, *(int(v) for v in rng.integers(2, len(data), 3))}:
            file.write_bytes(data[:n])
            rc, text = driver.refusal("decode", file, driver.folder / "out.png")
            check(rc == 65 and str(file) in text, f"{name} cut to {n} of {len(data)}: {rc} {text}")


def compare_filters(driver, rng, count):
    """The named filters. Odd sources: no position falls between two pixels (image/resize.h)."""
    png = driver.folder / "noise.png"
    for _ in range(count):
        w, h = 2 * int(rng.integers(0, 120)) + 1, 2 * int(rng.integers(0, 90)) + 1
        pixels = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(png, compress_level=0)
        size = int(rng.integers(1, 320)), int(rng.integers(1, 240))
        for name in (*CV_FILTERS, "lanczos", "box"):
            compare_resize(driver, png, pixels, size, name, f"noise {w}x{h}")


def main():
    shared = os.environ.get("DR_SHARED")
    folder = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else (shared or "") + "/dreambooth")
    photos = sorted(folder.glob("*/*.jpg"))
    if len(sys.argv) < 2 or not photos:
        print(f"skipped: needs a driver and photos ({folder}/*/*.jpg)\n{__doc__}")
        return 77
    print(f"cv2 {cv2.__version__}, Pillow {Image.__version__} with libjpeg-turbo "
          f"{features.version('libjpeg_turbo')}")
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(os.cpu_count()) as pool:
        tasks = [pool.submit(compare_photo, Driver(sys.argv[1], temporary), p) for p in photos]
        tasks.append(pool.submit(compare_jpeg_kinds, Driver(sys.argv[1], temporary), photos[0]))
        for seed in range(4):
            rng = np.random.default_rng(seed)
            tasks.append(pool.submit(compare_random_sizes, Driver(sys.argv[1], temporary), rng, 50))
        for i, compare in enumerate((compare_kinds, compare_turned, compare_profiles, compare_refusals)):
            rng = np.random.default_rng(100 + i)
            tasks.append(pool.submit(compare, Driver(sys.argv[1], temporary), rng))
        rng = np.random.default_rng(200)
        tasks.append(pool.submit(compare_filters, Driver(sys.argv[1], temporary), rng, 8))
        for task in tasks:
            task.result()
    passed = sum(results)
    failed = len(results) - passed
    print(f"{passed} passed, {failed} failed ({len(photos)} photos, 200 random sizes)")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
