"""Data folders with real photos, and what sd-scripts makes of them: captions, token ids, pixels."""
import glob
import os

import numpy as np
from PIL import Image

from data_peers import bucket_list, fit_picture, read_caption, sample_pixels
from tokenizer_peers import rows_like_sd_scripts

LONG_CAPTION = ", ".join(f"a photo of sks dog number {i} sitting on the grass in front of a castle" for i in range(12))


def drawn_picture(number):
    """A picture with gradients, edges and grain, for machines without the photos."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:700, 0:700] / 700.0
    planes = []
    for _ in range(3):
        a, b, c, d = rng.uniform(-6, 6, 4)
        plane = np.sin(a * x + b * y) + np.sin(c * x * y + d) + (np.hypot(x - rng.random(), y - rng.random()) < 0.3)
        planes.append(plane + 0.05 * rng.standard_normal(x.shape))
    image = np.stack(planes, 2)
    image = (image - image.min()) / (image.max() - image.min()) * 255
    return Image.fromarray(image.astype(np.uint8))


def open_photo(subject, number):
    paths = sorted(glob.glob(os.path.join(os.environ.get("DR_SHARED", ""), "dreambooth", subject, "*.jpg")))
    if not paths:
        return drawn_picture(hash_of(subject) + number)
    with Image.open(paths[number % len(paths)]) as image:
        return image.convert("RGB")


def hash_of(text):
    return sum(1000 * ord(c) for c in text)


def crop_to_aspect(image, aspect):
    w, h = image.size
    w, h = (w, round(w / aspect)) if aspect > 1 else (round(h * aspect), h)
    return image.crop((0, 0, w, h))


def write_folder(base, name, subject, n, aspects=(1.0,), captions=()):
    """<base>/<name> with n pictures, JPEG and PNG; the first ones get caption files."""
    folder = os.path.join(base, name)
    os.makedirs(folder)
    for i in range(n):
        image = open_photo(subject, i)
        image.thumbnail((640, 640))
        image = crop_to_aspect(image, aspects[i % len(aspects)])
        image.save(os.path.join(folder, f"{i:02}.png" if i % 3 == 2 else f"{i:02}.jpg"), quality=92)
        if i < len(captions):
            with open(os.path.join(folder, f"{i:02}.caption"), "w", encoding="utf-8") as f:
                f.write(captions[i] + "\n")
    return folder


def write_alpha(folder, other):
    """The pictures of a folder in another one, with transparent parts; every third is a JPEG, which has none."""
    os.makedirs(other)
    for i, path in enumerate(sorted(glob.glob(os.path.join(folder, "*.[jp][pn]g")))):
        with Image.open(path) as picture:
            image = picture.convert("RGB")
        name = os.path.join(other, f"{i:02}")
        if i % 3 == 1:
            image.save(name + ".jpg", quality=92)
            continue
        w, h = image.size
        alpha = np.random.default_rng(i).integers(0, 256, (h, w), np.uint8)
        alpha[: h // 2] = 255
        alpha[:, : w // 4] = 0
        image.putalpha(Image.fromarray(alpha))
        image.save(name + ".png")


def shapes_of(resolution, limits):
    """limits: (smallest, largest) bucket side, or None without buckets."""
    if limits is None:
        return [(resolution, resolution)], 2
    return bucket_list(resolution, resolution, *limits, 64), 0


def loss_mask(path, masks, resolution, limits, flip):
    """The weight of each latent pixel: the red channel of the picture of that name in masks, or, without masks, alpha."""
    if masks is not None:
        path = os.path.join(masks, os.path.splitext(os.path.basename(path))[0] + ".png")
    with Image.open(path) as picture:
        plane = np.array(picture.convert("RGB").getchannel("R") if masks else picture.convert("RGBA").getchannel("A"))
    sizes, mode = shapes_of(resolution, limits)
    plane = fit_picture(np.stack([plane] * 3, 2), sizes, resolution * resolution, mode, flip)[:, :, 0].astype(np.float64)
    h, w = plane.shape
    return (plane.reshape(h // 8, 8, w // 8, 8).mean((1, 3)) / 255).astype(np.float32)


def pixels(path, resolution, limits, flip):
    """What the VAE gets, (3,H,W)."""
    sizes, mode = shapes_of(resolution, limits)
    return sample_pixels(path, sizes, resolution * resolution, mode, flip).transpose(2, 0, 1).copy()


def caption_of(path):
    found = read_caption(path, ".caption")
    folder = os.path.basename(os.path.dirname(path))
    return folder.split("_", 1)[1] if found is None else found


def token_ids(tokenizer, caption, length):
    """(77) for 75 tokens, else (rows,77), as sd-scripts makes them."""
    if length == 75:
        return tokenizer(caption, padding="max_length", truncation=True, max_length=77)["input_ids"]
    ids = tokenizer(caption, add_special_tokens=False)["input_ids"]
    rows = rows_like_sd_scripts(tokenizer, ids, length)
    return [rows[i:i + 77] for i in range(0, len(rows), 77)]
