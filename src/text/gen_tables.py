#!/usr/bin/env python3
"""Writes src/text/text_tables.c: what ftfy, regex and Python's str.lower know about characters.

    python3 src/text/gen_tables.py > src/text/text_tables.c

Needs the peers themselves: ftfy (Apache-2.0, Robyn Speer) and regex. Run it again only to follow a
newer peer; the build uses the committed result.
"""

import html
import re
import re._constants as sre
import re._parser as sre_parse
import sys
import unicodedata

import ftfy.bad_codecs  # noqa: F401  (registers the sloppy codecs)
import regex
from ftfy import badness, chardata
from importlib.metadata import version

# Classes that C code knows by number (src/text/text_tables.h).
NAMED = ["word", "utf8_first_of_2", "utf8_first_of_3", "utf8_first_of_4", "utf8_continuation",
         "utf8_continuation_strict"]


def all_characters():
    return (chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)


def ranges(matches):
    out = []
    for ch in all_characters():
        if matches(ch):
            c = ord(ch)
            if out and out[-1][1] == c - 1:
                out[-1][1] = c
            else:
                out.append([c, c])
    return out


def is_cased_only(ch):
    """Cased and not case-ignorable, asked from str.lower's rule for the final sigma."""
    return (ch + "\u03a3").lower().endswith("\u03c2")


def is_case_ignorable(ch):
    return not is_cased_only(ch) and ("A" + ch + "\u03a3").lower().endswith("\u03c2")


class Classes:
    """Numbers sets of characters (or bytes) as they appear in regular expressions."""

    def __init__(self, universe, named=()):
        self.universe = universe
        self.sets = [frozenset(c for c in universe if test(c)) for test in named]
        self.keys = {}

    def number(self, key, test):
        if key not in self.keys:
            members = frozenset(c for c in self.universe if test(c))
            if members not in self.sets:
                self.sets.append(members)
            self.keys[key] = self.sets.index(members)
        return self.keys[key]

    def masks(self, c):
        bits = sum(1 << i for i, members in enumerate(self.sets) if c in members)
        return bits & (2**64 - 1), bits >> 64


def item_source(item):
    """Regex text of one parsed item that stands for exactly one character."""
    op, av = item
    if op is sre.LITERAL:
        return f"[\\U{av:08x}]"
    if op is sre.ANY:
        return "."
    assert op is sre.IN, op
    text = ""
    for sub, value in av:
        if sub is sre.NEGATE:
            text += "^"
        elif sub is sre.LITERAL:
            text += f"\\U{value:08x}"
        elif sub is sre.RANGE:
            text += f"\\U{value[0]:08x}-\\U{value[1]:08x}"
        else:
            assert sub is sre.CATEGORY
            text += {sre.CATEGORY_SPACE: r"\s", sre.CATEGORY_WORD: r"\w"}[value]
    return f"[{text}]"


def expand(items):
    """All sequences of one-character sources that a parsed regex without unbounded loops matches."""
    if not items:
        return [[]]
    (op, av), rest = items[0], expand(list(items[1:]))
    if op is sre.BRANCH:
        heads = [h for branch in av[1] for h in expand(list(branch))]
    elif op is sre.MAX_REPEAT:
        low, high, what = av
        assert (low, int(high)) == (0, 1)
        heads = expand(list(what)) + [[]]
    elif op is sre.AT:
        assert av is sre.AT_BEGINNING
        heads = [["^"]]
    elif op is sre.SUBPATTERN:
        heads = expand(list(av[3]))
    else:
        heads = [[item_source((op, av))]]
    return [h + r for h in heads for r in rest]


def patterns(compiled, classes):
    out = []
    for sequence in expand(list(sre_parse.parse(compiled.pattern, compiled.flags & ~re.UNICODE))):
        at_start = sequence[0] == "^"
        numbers = []
        for source in sequence[at_start:]:
            one = re.compile(source)
            numbers.append(classes.number(source, lambda c, one=one: bool(one.fullmatch(chr(c)))))
        assert 1 <= len(numbers) <= 7
        out.append((at_start, numbers))
    return out


def mojibake_universe():
    chars = set(range(0x80)) | {c for c in range(0x110000) if chr(c).isspace()} | {0xFFFD}
    for encoding in chardata.CHARMAP_ENCODINGS:
        chars |= {ord(c) for c in bytes(range(0x80, 0x100)).decode(encoding)}
    for text in [*badness.MOJIBAKE_CATEGORIES.values(), *chardata.UTF8_CLUES.values()]:
        chars |= {c for c in range(0x80, 0x10000) if re.match(f"[{text}]", chr(c))}
    for c in re.findall("[^\x00-\x7f]", badness.BADNESS_RE.pattern):
        chars.add(ord(c))
    return sorted(chars)


def encode_one(c, encoding):
    """Byte of one character, or None; ENCODING_REGEXES decides as in possible_encoding."""
    if not chardata.possible_encoding(chr(c), encoding):
        return None
    return chr(c).encode(encoding)[0]


def emit(text):
    sys.stdout.write(text + "\n")


def emit_array(declaration, rows, name=None):
    emit(f"\n{declaration} = {{")
    line = "   "
    for row in rows:
        if len(line) + 1 + len(row) + 1 > 100:
            emit(line)
            line = "   "
        line += f" {row},"
    emit(line)
    emit("};")
    if name:
        emit(f"const size_t dr_text_n_{name} = {len(rows)};")


def emit_ranges(name, found):
    emit_array(f"const dr_char_range dr_text_{name}[]",
               [f"{{0x{a:x}, 0x{b:x}}}" for a, b in found], name)


def emit_map(name, table):
    rows = []
    for c in sorted(table):
        to = [ord(x) for x in table[c]]
        assert c <= 0xFFFF and len(to) <= 3 and max(to) <= 0xFFFF
        rows.append(f"{{0x{c:x}, {{{', '.join(f'0x{x:x}' for x in to)}}}}}")
    emit_array(f"const dr_char_expansion dr_text_{name}[]", rows, name)


def emit_entities():
    rows = []
    for name in sorted(chardata.HTML_ENTITIES):
        value = ", ".join(f"0x{ord(c):x}" for c in chardata.HTML_ENTITIES[name])
        rows.append(f'{{"{name[1:-1]}", {{{value}}}}}')
    emit_array("const dr_html_entity dr_text_entities[]", rows, "entities")


def emit_charrefs():
    """Numeric references that do not mean their own number (html.unescape)."""
    rows = []
    for c in range(0x110000):
        text = html.unescape(f"&#{c};")
        if text != chr(c) and not 0xD800 <= c < 0xE000:
            rows.append(f"{{0x{c:x}, 0x{ord(text) if text else 0:x}}}")
    emit_array("const dr_charref dr_text_charrefs[]", rows, "charrefs")


def emit_patterns(name, found):
    rows = [f"{{{len(n)}, {'true' if at_start else 'false'}, {{{', '.join(map(str, n))}}}}}"
            for at_start, n in found]
    emit_array(f"const dr_pattern dr_text_{name}[]", rows, name)


def emit_mojibake():
    universe = mojibake_universe()
    tests = [lambda c: bool(re.match(r"\w", chr(c)))]
    for name in NAMED[1:]:
        clue = re.compile(f"[{chardata.UTF8_CLUES[name]}]")
        tests.append(lambda c, clue=clue: bool(clue.match(chr(c))))
    classes = Classes(universe, tests)
    bad = patterns(badness.BADNESS_RE, classes)
    # Characters outside the table: a stand-in that is in no category decides.
    stranger = 0x4E00
    classes.universe = [stranger]
    default = 0
    for source, number in classes.keys.items():
        if re.fullmatch(source, chr(stranger)):
            default |= 1 << number
    default &= ~1  # \w is asked from the letter and number tables
    assert default < 2**64 and len(classes.sets) <= 128
    emit(f"\nconst uint64_t dr_text_stranger_classes = 0x{default:x};")
    emit_patterns("badness", bad)
    rows = []
    for c in universe:
        encoded = [encode_one(c, e) for e in chardata.CHARMAP_ENCODINGS]
        possible = sum(1 << i for i, b in enumerate(encoded) if b is not None)
        low, high = classes.masks(c)
        values = ", ".join(str(b or 0) for b in encoded)
        rows.append(f"{{0x{c:x}, 0x{possible:x}, {{{values}}}, {{{{0x{low:x}, 0x{high:x}}}}}}}")
    emit_array("const dr_mojibake_char dr_text_mojibake[]", rows, "mojibake")
    for i, encoding in enumerate(chardata.CHARMAP_ENCODINGS):
        upper = [ch for ch in bytes(range(0x80, 0x100)).decode(encoding)]
        assert len(set(upper)) == 128, encoding


def emit_bytes():
    classes = Classes(range(256))

    def as_text(compiled):  # bytes are read as U+0000..U+00FF
        return re.compile(compiled.pattern.decode("latin-1"))

    altered = patterns(as_text(chardata.ALTERED_UTF8_RE), classes)
    lossy = patterns(as_text(chardata.LOSSY_UTF8_RE), classes)
    emit_patterns("altered_utf8", altered)
    emit_patterns("lossy_utf8", lossy)
    masks = [classes.masks(b) for b in range(256)]
    assert all(high == 0 for _, high in masks)
    emit_array("const dr_class_set dr_text_byte_classes[256]",
               [f"{{{{0x{low:x}, 0x0}}}}" for low, _ in masks])
    windows = [ord(c) for c in bytes(range(0x80, 0xA0)).decode("sloppy-windows-1252")]
    emit_array("const uint16_t dr_text_windows_1252[32]", [f"0x{c:x}" for c in windows])


def main():
    letters = regex.compile(r"\p{L}")
    numbers = regex.compile(r"\p{N}")
    # What no alternative of CLIP's expression matches: white space, and U+0345, which ignoring case
    # is a letter (iota) to the negated class and is none to the letters' class.
    word = regex.compile(
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
        regex.IGNORECASE)
    emit("/* clang-format off */")
    emit("/* Written by src/text/gen_tables.py; do not edit.")
    emit(f" * Peers: ftfy {version('ftfy')} (Apache-2.0), regex {version('regex')} (letters, numbers,"
         " separators),")
    emit(f" * str.lower of Python {sys.version.split()[0]} with Unicode"
         f" {unicodedata.unidata_version}. */")
    emit('#include "text/text_tables.h"')
    emit_ranges("letters", ranges(letters.match))
    emit_ranges("numbers", ranges(numbers.match))
    emit_ranges("separators", ranges(lambda ch: not word.match(ch)))
    emit_ranges("cased", ranges(is_cased_only))
    emit_ranges("case_ignorable", ranges(is_case_ignorable))
    emit_map("ligatures", chardata.LIGATURES)
    emit_map("widths", chardata.WIDTH_MAP)
    emit_entities()
    emit_charrefs()
    emit_mojibake()
    emit_bytes()


if __name__ == "__main__":
    main()
