#!/usr/bin/env python3
"""Compares the image layer with Pillow and OpenCV on real photos and on random sizes, bit for bit.

    python tests/interop/image_peers.py BUILD/bin/image_driver [PHOTO_DIR]

PHOTO_DIR holds *.jpg in sub-folders; default: $DR_SHARED/dreambooth. Needs cv2, PIL and numpy.
Prints "N passed, N failed"; exit code 0, 1 (something failed) or 77 (no photos: nothing was run).

Pillow's wheel brings its own libjpeg-turbo, so decoded pixels could differ. Measured, Debian's
2.1.5 against 3.1.1 and 3.2.0: all equal, for the photos and for every re-encoded kind below, so any
difference is a failure here. Resizing starts from the same decoded pixels on both sides.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from PIL import Image, features

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
    if name == "area":
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.LANCZOS))


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

    def decode(self, path):
        out = self.folder / "decoded.png"
        self.run("decode", path, out)
        return out

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
        for task in tasks:
            task.result()
    passed = sum(results)
    failed = len(results) - passed
    print(f"{passed} passed, {failed} failed ({len(photos)} photos, 200 random sizes)")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
