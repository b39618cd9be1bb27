#!/usr/bin/env python3
"""Writes tests/unit/text/tokenizer_vectors.h from the real CLIPTokenizer (slow, with ftfy).

    python3 tests/golden/tokenizer_vectors.py TOKENIZER_DIR > tests/unit/text/tokenizer_vectors.h

TOKENIZER_DIR holds the hub's vocab.json and merges.txt (text_driver --save writes them).
"""

import os
import sys

import ftfy
import transformers
from transformers import CLIPTokenizer

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))
from tokenizer_peers import rows_like_sd_scripts  # noqa: E402

TEXTS = [  # spec/models.md 3.4
    "a photo of sks dog", "Hello, World!! It's 1girl's 3.14", "café naïve façade", "cafe\u0301 nai\u0308ve fac\u0327ade",
    "日本語のテキスト", "🐶 dog 👨‍👩‍👧", "", "(masterpiece:1.2), best_quality", "hello \0\a world\u200bzero",
    "&lt;b&gt; &amp; “quotes” — dash… ﬁ", "İstanbul ẞ ΣΑΣ", "Ｆｕｌｌ　ｗｉｄｔｈ １２", "don't I'LL we'd", "a <|endoftext|> b", "½ ② Ⅳ",
    "안녕하세요", "à la Ünïcödé", "shs sts scs cpc coc cic msm usu ici lvl", "wow! no", "wow!!! no",
    # cleaning, one of each
    "a < b &amp; c", "first &amp; line\nsecond < line &amp;\nthird &amp; line", "&EACUTE;&SZLIG;&#233;&#xe9;&#0;&#128;&#59;&#12ab;&nosuch;&fjlig;",
    "\x1b[1;31mred\x1b[0m", "c1 \x93quoted\x94 \x85", "Ĳ ŉ Ǆ ﬃ ﬅ", "ﾊﾟﾝ ￣", "‘a’ “b” ʼn", "one\r\ntwo\rthree\u2028four", "a\x0bb\x1cc\ufeffd\u206ae\ufffcf",
    "ÃÂ schÃ¶n", "dÃ©jÃ\xa0 vu", "voilÃ le travail", "âœ” No problems", "â€œquotedâ€\x9d", "â€œ like this â€�", "doublÃƒÂ© encodÃƒÂ©",
    "Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "РїСЂРёРІРµС‚ РјРёСЂ", "plain text with mojibake inside: Ã¼ber, größe", "Ã¡rbol l’été", "\xed\xa0½\xed¸\x8d",
    "AΣ. ΑΣ' Σ 'Σ ΑΣΑ", "'ſ it'ſ <|ſtartoftext|>", "<|STARTOFTEXT|>&lt;|endoftext|&gt;", "x\u0345y .\u0345.", "१२३ ٣", "a\u00a0b\u3000c\u2003d\u200be",
]
LONG = {  # name: text, for rows at 75, 150 and 225
    "short": "a photo of sks dog", "exact_75": "dog " * 75, "one_over": "dog " * 76, "two_windows": "cat " * 110,
    "exact_150": "cat " * 150, "three_windows": "red " * 200, "too_long": "blue " * 300, "marks": "dog " * 75 + "! cat",
    "opens_with_mark": "!" + " dog" * 80, "inner_end": "dog " * 74 + "<|endoftext|> cat",
}


def c_string(text):
    """A C literal; three-digit octal escapes cannot run into what follows."""
    data = text.encode("utf-8", "surrogatepass")
    return '"' + "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in data) + f'", {len(data)}'


def emit_case(kind, text, ids):
    print(f"    {{{kind}, {c_string(text)}, {len(ids)}, {{{', '.join(map(str, ids)) or '0'}}}}},")


def runs(ids):
    """Rows written short: {id, times} pairs."""
    out = []
    for i in ids:
        if out and out[-1][0] == i:
            out[-1][1] += 1
        else:
            out.append([i, 1])
    return out


def main():
    transformers.logging.set_verbosity_error()
    vocab, merges = (os.path.join(sys.argv[1], n) for n in ("vocab.json", "merges.txt"))
    kinds = {"DR_TOKENIZER_SD1": CLIPTokenizer(vocab, merges), "DR_TOKENIZER_SD2": CLIPTokenizer(vocab, merges, pad_token="!")}
    print("/* clang-format off */")
    print("/* Written by tests/golden/tokenizer_vectors.py; do not edit.")
    print(f" * Peers: transformers {transformers.__version__} (slow CLIPTokenizer), ftfy {ftfy.__version__}. */")
    print("static const token_case token_cases[] = {")
    for kind, tokenizer in kinds.items():
        for text in TEXTS:
            emit_case(kind, text, tokenizer(text, add_special_tokens=False)["input_ids"])
    print("};\n")
    print("static const row_case row_cases[] = {")
    for kind, tokenizer in kinds.items():
        for name, text in LONG.items():
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            for length in (75, 150, 225):
                pairs = runs(rows_like_sd_scripts(tokenizer, ids, length))
                print(f'    {{{kind}, "{name}", {c_string(text)}, {length}, {len(ids)}, {len(pairs)},')
                print(f"     {{{', '.join(f'{{{i}, {n}}}' for i, n in pairs)}}}}},")
    print("};")


if __name__ == "__main__":
    main()
