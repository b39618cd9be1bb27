#!/usr/bin/env python3
"""Compares dreamrun's tokenizer with transformers' CLIPTokenizer (slow, with ftfy).

    tokenizer_peers.py TEXT_DRIVER [--seed N] [--count N] [--bench]

Vocabulary files come from dreamrun's own writer and are checked against the hub's sha256. Every
string goes through both as SD1 and SD2, unpadded and as padded rows for 75, 150 and 225 tokens.
Prints each mismatch and "N passed, N failed"; exit code 1 when something failed.
"""

import argparse
import hashlib
import html
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

HUB = {  # sha256 of tokenizer/ in SD 1.4, 1.5, 2.1-base and 2.1 (spec/features.md 6.2)
    "vocab.json": "e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349",
    "merges.txt": "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
}
ENCODINGS = ["latin-1", "cp1252", "cp1251", "cp1250", "cp1253", "cp1254", "cp1257", "iso-8859-2",
             "macroman", "cp437"]
WORDS = """a photo of sks dog cat woman man castle in the style artstation masterpiece highly detailed
8k HDR (masterpiece:1.2) best_quality 1girl <lora:foo:0.8> [red|blue] cinematic lighting, shot on
35mm f/1.4 DON'T I'LL we'd they've it's John's 3.14 2024 100% #art @user C++ e-mail rock'n'roll
""".split()
SENTENCES = [
    "Der Übergang über die Straße ist gesperrt, größte Vorsicht!", "L'été dernier à la plage, où est-ce ?",
    "¿Dónde está el niño? ¡Aquí mañana!", "São Paulo é uma cidade à beira-mar, não?", "Žluťoučký kůň pěl ďábelské ódy",
    "Zażółć gęślą jaźń", "Árvíztűrő tükörfúrógép", "İstanbul'da ılık bir gün, çok güzel şehir", "Þórður ætlaði að sofa",
    "Съешь ещё этих мягких французских булок", "Її їжак з'їв ґанок", "Ταχίστη αλώπηξ ΒΑΦΗΣ ψημένη γη, ΟΔΥΣΣΕΥΣ",
    "日本語のテキストと漢字、ｶﾀｶﾅ", "一只可爱的猫坐在窗台上。", "안녕하세요 세계", "สวัสดีชาวโลก", "नमस्ते दुनिया १२३",
    "مرحبا بالعالم ١٢٣", "שלום עולם", "Xin chào thế giới, tiếng Việt", "გამარჯობა მსოფლიო", "Բարեւ աշխարհ",
    "ሰላም ልዑል", "ᎣᏏᏲ ꭰꮃꭹ", "வணக்கம்", "🐶 dog 👨‍👩‍👧 🏴󠁧󠁢󠁷󠁬󠁳󠁿 👍🏽 ❤️ 🇩🇪", "“quotes” ‘single’ «guillemets» „low“ — dash… ﬁ ﬂ ﬃ ĳ ŉ ǆ",
    "½ ② Ⅳ ³ ٣ 五 ㊿", "ＦＵＬＬ　ＷＩＤＴＨ １２！＂＃", "x² + y³ ≤ ∞ ± √2 ≈ 1.41 µm °C", "€ 20, £ 5, ¥ 300, ¢", "naïve café Ünïcödé résumé",
    "e\u0301a\u0300o\u0308 decomposed \u1112\u1161\u11ab", "K Å Ω ſ 'ſ ẞ ΣΑΣ ΑΣ. Σ ʰΣ Ǆ", "a<|endoftext|>b <|STARTOFTEXT|> <|ſtartoftext|>",
]
HTML = ["&amp;", "&lt;b&gt;", "&eacute;", "&EACUTE;", "&SZLIG;", "&#233;", "&#xE9;", "&#x80;", "&#0;", "&#59;", "&nosuch;", "&#12ab;",
        "&#1114112;", "&#xD800;", "&hellip;", "&NotEqualTilde;", "&ThickSpace;", "&amp;amp;lt;", "&amp", "&fjlig;", "&#99999999999999999999;"]
SPACES = " \t\n\r\f\v\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000\u200b\u200c\u200d\ufeff"
CONTROLS = [chr(c) for c in [*range(1, 32), *range(0x7F, 0xA0), 0xAD, 0x200E, 0x202A, 0x2060, *range(0x206A, 0x2070), 0xFFF9, 0xFFFC]]
ESCAPES = ["\x1b[31m", "\x1b[0;1;44m", "\x1b[", "\x1b[٣m", "\x1b]0;t\x07"]


def mojibake(rng, text):
    """The text written as UTF-8 and read in another encoding, where that is possible."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        encoding = rng.choice(ENCODINGS[:2] * 3 + ENCODINGS)
        try:
            text = text.encode().decode(encoding)
        except UnicodeDecodeError:
            errors = rng.choice(["replace", "ignore", "latin-1"])
            if errors == "latin-1":
                text = "".join(bytes([b]).decode(encoding, "replace").replace("\ufffd", chr(b)) for b in text.encode())
            else:
                text = text.encode().decode(encoding, errors)
    if rng.random() < 0.2:
        text = text.replace("\xa0", " ")
    if rng.random() < 0.1:
        text = text.replace("\ufffd", "?")
    return text


def random_character(rng, bands):
    while True:
        low, high = rng.choice(bands)
        c = rng.randrange(low, high)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


BANDS = [(1, 0x80), (0x80, 0x100), (0x100, 0x250), (0x250, 0x370), (0x370, 0x400), (0x400, 0x530), (0x530, 0x1100),
         (0x1100, 0x2000), (0x2000, 0x2070), (0x2070, 0x3000), (0x3000, 0xD800), (0xE000, 0x10000), (0xFB00, 0xFB07),
         (0xFF00, 0xFFF0), (0x10000, 0x20000), (0x1F300, 0x1FB00), (0x20000, 0x110000)]
BAD = [(0x80, 0x100), (0xC2, 0xC4), (0xE0, 0xF0), (0x80, 0xC0), (0x20, 0x21), (0x152, 0x154), (0x2013, 0x2023), (0x20AC, 0x20AD),
       (0x410, 0x460), (0x391, 0x3D0), (0x2500, 0x2593), (0x61, 0x7B), (0xFFFD, 0xFFFE)]


def words(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def mixed(rng):
    parts = []
    for _ in range(rng.randrange(1, 8)):
        parts.append(rng.choice([
            lambda: words(rng, rng.randrange(1, 4)), lambda: rng.choice(SENTENCES), lambda: rng.choice(HTML),
            lambda: rng.choice(SPACES), lambda: rng.choice(CONTROLS), lambda: rng.choice(ESCAPES),
            lambda: random_character(rng, BANDS), lambda: str(rng.randrange(10**6)),
            lambda: rng.choice(["!", "!!", "?!", "<|endoftext|>", "<|startoftext|>", "<|", "|>", "'s", "’s", "<", "\r\n"]),
            lambda: mojibake(rng, rng.choice(SENTENCES)[:12])])())
    return rng.choice(["", " ", " ", "\n"]).join(parts)


def real_captions():
    """Prompts and classes of the DreamBooth set, where the shared material is at hand."""
    path = os.path.join(os.environ.get("DR_SHARED", ""), "dreambooth", "prompts_and_classes.txt")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        return [line.strip().replace("{0}", "sks").replace("{1}", "dog") for line in f]


def make_strings(seed, count):
    rng = random.Random(seed)
    strings = ["", " ", "!", "!!! wow! no", *real_captions(), *WORDS, *SENTENCES, *HTML, *ESCAPES,
               *(f"a{c}b" for c in SPACES), *(f"x{c}y" for c in CONTROLS), "<" + " ".join(HTML),
               " ".join(HTML), "\n".join(HTML[:4] + ["<b>"] + HTML), "x" * 300, "!" * 200, "ñ" * 200, "1" * 100]
    strings += [s.upper() for s in SENTENCES] + [s.title() for s in SENTENCES]
    strings += [unicodedata.normalize(f, s) for s in SENTENCES for f in ("NFD", "NFKD")]
    strings += [s.encode().decode(e, "replace") for s in SENTENCES for e in ENCODINGS]
    marks = [chr(c) for c in range(0x300, 0x370)] + list("\u05b0\u0651\u093c\u094d\u3099\u0f71\U0001d165")
    strings += ["a" + "".join(rng.choice(marks) for _ in range(n)) + "b" for n in (3, 33, 34, 200)]
    makers = [
        lambda: words(rng, rng.randrange(1, 30)),
        lambda: words(rng, rng.randrange(60, 120)),
        lambda: mixed(rng),
        lambda: mixed(rng),
        lambda: mojibake(rng, mixed(rng)),
        lambda: mojibake(rng, rng.choice(SENTENCES)),
        lambda: rng.choice(SENTENCES) + " " + mojibake(rng, rng.choice(SENTENCES)),
        lambda: "".join(random_character(rng, BANDS) for _ in range(rng.randrange(1, 40))),
        lambda: "".join(random_character(rng, BAD) for _ in range(rng.randrange(1, 12))),
        lambda: html.escape(mixed(rng)),
    ]
    while len(strings) < count:
        strings.append(rng.choice(makers)().replace("\0", ""))
    return [s.encode("utf-8", "replace").decode() for s in strings]


def drive(driver, strings, *options):
    data = b"".join(s.encode() + b"\0" for s in strings)
    out = subprocess.run([driver, *options], input=data, stdout=subprocess.PIPE, check=True).stdout
    lines = out.decode().split("\n")[:-1]
    assert len(lines) == len(strings), f"{len(lines)} lines for {len(strings)} captions"
    return [[int(x) for x in line.split()] for line in lines]


def rows_like_sd_scripts(tokenizer, ids, length):
    """sd-scripts' get_input_ids (library/train_util.py), as spec/sdscripts.md 5.2 tells it."""
    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = [bos, *ids[:length], eos]
    ids += [pad] * (length + 2 - len(ids))
    if length == 75:
        return ids
    rows = []
    for i in range(1, length + 1, 75):
        row = [ids[0], *ids[i:i + 75], ids[-1]]
        if pad != eos:
            if row[-2] not in (eos, pad):
                row[-1] = eos
            if row[1] == pad:
                row[1] = eos
        rows += row
    return rows


def check_files(driver, folder):
    """Our writer's files; the number that differ from the hub's."""
    wrong = 0
    for options, name in (([], "sd1"), (["--v2"], "sd2")):
        path = os.path.join(folder, name)
        os.mkdir(path)
        subprocess.run([driver, *options, "--save", path], check=True)
        for file, want in HUB.items():
            with open(os.path.join(path, file), "rb") as f:
                got = hashlib.sha256(f.read()).hexdigest()
            if got != want:
                print(f"MISMATCH {name}/{file}: sha256 {got}, the hub's is {want}")
                wrong += 1
    return wrong


def compare(driver, tokenizer, strings, options, name):
    failed = 0
    plain = drive(driver, strings, *options)
    rows = {n: drive(driver, strings, *options, "--max_token_length", str(n)) for n in (75, 150, 225)}
    for i, text in enumerate(strings):
        want = tokenizer(text, add_special_tokens=False)["input_ids"]
        bad = plain[i] != want
        if bad:
            print(f"MISMATCH {name} {text!r}\n  dreamrun     {plain[i]}\n  transformers {want}")
        padded = tokenizer(text, padding="max_length", truncation=True, max_length=77)["input_ids"]
        for n in (75, 150, 225):
            want_rows = padded if n == 75 else rows_like_sd_scripts(tokenizer, want, n)
            if rows[n][i] != want_rows:
                if not bad:
                    print(f"MISMATCH {name} rows {n} {text!r}\n  dreamrun     {rows[n][i]}\n  transformers {want_rows}")
                bad = True
        failed += bad
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("driver")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--bench", action="store_true")
    args = parser.parse_args()
    import transformers
    from transformers import CLIPTokenizer

    transformers.logging.set_verbosity_error()
    strings = make_strings(args.seed, args.count)
    with tempfile.TemporaryDirectory() as folder:
        failed = check_files(args.driver, folder)
        passed = 4 - failed
        for name, options in (("sd1", []), ("sd2", ["--v2"])):
            path = os.path.join(folder, name)
            loaded = CLIPTokenizer.from_pretrained(path)
            assert loaded.fix_text is not None, "the peer needs ftfy"
            wrong = compare(args.driver, loaded, strings, options, name)
            failed += wrong
            passed += len(strings) - wrong
    print(f"{passed} passed, {failed} failed")
    if args.bench:
        captions = ["a photo of sks dog sitting on the grass in front of a castle, highly detailed, "
                    f"artstation, number {i}" for i in range(1000)]
        data = b"".join(s.encode() + b"\0" for s in captions)
        print(subprocess.run([args.driver, "--bench", "1000"], input=data, stdout=subprocess.PIPE, check=True).stdout.decode(), end="")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
