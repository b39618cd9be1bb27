"""What a caption becomes at one fetch: sd-scripts' process_caption transcribed, with dreamrun's random numbers.

The draws are Philox4x32-10 keyed by (seed, purpose 6, epoch, sample), so that every random choice can be compared.
"""
import math
import re

PURPOSE = 6  # DR_RANDOM_CAPTION
MASK = 0xFFFFFFFF


def philox_block(counter, key):
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & MASK, (p0 >> 32) ^ c[3] ^ k1, p0 & MASK]
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c


class Stream:
    """Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011)."""

    def __init__(self, seed, epoch, sample, purpose=PURPOSE):
        self.key = ((seed & MASK) ^ (purpose * 0x9E3779B9 & MASK), (seed >> 32) ^ (purpose << 24))
        self.counter = [0, epoch, sample & MASK, sample >> 32]
        self.left = []

    def u32(self):
        if not self.left:
            self.left = philox_block(self.counter, self.key)
            self.counter[0] += 1
        return self.left.pop(0)

    def random(self):
        return (self.u32() >> 8) * 2.0**-24

    def below(self, n):
        limit = 2**32 % n
        while (r := self.u32()) < limit:
            pass
        return r % n

    def choice(self, items):
        return items[self.below(len(items))]

    def shuffle(self, items):
        for i in range(len(items), 1, -1):
            j = self.below(i)
            items[i - 1], items[j] = items[j], items[i - 1]


def expand_wildcards(caption, rng):
    if "\n" in caption:
        caption = rng.choice(caption.split("\n"))
    left, right = "\u2985", "\u2986"
    while left in caption or right in caption:
        left, right = left + "\u2985", right + "\u2986"
    caption = caption.replace("{{", left).replace("}}", right)
    caption = re.sub(r"\{([^}]+)\}", lambda m: rng.choice(m.group(1).split("|")), caption)
    return caption.replace(left, "{").replace(right, "}")


def split_tags(caption, o):
    """Fixed tags, flexible ones, fixed ones at the end."""
    def tags_of(text):
        return [t.strip() for t in text.split(o["separator"]) if t.strip()]

    if o["keep_separator"] and o["keep_separator"] in caption:
        fixed, flexible = caption.split(o["keep_separator"], 1)
        last = []
        if o["keep_separator"] in flexible:
            flexible, suffix = flexible.split(o["keep_separator"], 1)
            last = tags_of(suffix)
        return tags_of(fixed), tags_of(flexible), last
    tags = [t.strip() for t in caption.strip().split(o["separator"])]
    return tags[:o["keep"]], tags[o["keep"]:], []


def process(caption, o):
    rng = Stream(o["seed"], o["epoch"], o["sample"])
    u = rng.random()
    if o["prefix"]:
        caption = o["prefix"] + " " + caption
    if o["suffix"]:
        caption = caption + " " + o["suffix"]
    if u < o["dropout"] or (o["every"] > 0 and o["epoch"] % o["every"] == 0):
        return ""
    caption = expand_wildcards(caption, rng) if o["wildcard"] else caption.split("\n")[0]
    if o["shuffle"] or o["warmup_steps"] > 0 or o["tag_dropout"] > 0:
        fixed, flexible, last = split_tags(caption, o)
        steps = o["warmup_steps"]
        steps = math.floor(steps * o["n_steps"]) if steps < 1 else steps
        if steps and o["step"] < steps:
            n = math.floor(o["step"] * ((len(flexible) - o["warmup_min"]) / steps)) + o["warmup_min"]
            flexible = flexible[:n]
        if o["shuffle"]:
            rng.shuffle(flexible)
        if o["tag_dropout"] > 0:
            flexible = [t for t in flexible if rng.random() >= o["tag_dropout"]]
        caption = ", ".join(fixed + flexible + last)
    return caption.replace(o["secondary"], o["separator"]) if o["secondary"] else caption
