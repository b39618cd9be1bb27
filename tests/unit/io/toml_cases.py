#!/usr/bin/env python3
"""Writes toml_cases.h: documents of our own that cover TOML 1.0's grammar, with what Python's tomllib
makes of them (Python >= 3.11):

    python3 tests/unit/io/toml_cases.py

A valid document's expectation is its tree as text: {key:value,...} with sorted keys, [..], i<int>,
f<repr of float>, b0 b1, t (a date or time), s<text, other bytes than letters and digits as %xx>.
An invalid one's is the line of the error, tomllib's unless LINES says otherwise.
"""
import math
import re
import tomllib
from pathlib import Path

VALID = [
    # --- white space, comments, lines
    b"", b"\n", b"  \t\n", b"# only a comment", b"# \xe2\x82\xac in a comment\n", b"a = 1 # behind a value\n",
    b"a=1", b"a = 1\r\nb = 2\r\n", b"\ta\t=\t1\t\n", b"# tab\there\na = 1", b"a = 1\n\n\n# x\n\nb = 2",
    b"a = \"# no comment\"", b"#\n#\n", b"[t] # behind a header\na = 1",
    # --- keys
    b"a-b_C9 = 1", b"1234 = 1", b"1.2 = 3", b"-1 = 1", b"--- = 1", b"_ = 1", b"true = 1\ninf = 2\nnan = 3",
    b"\"a b\" = 1", b"'a\\b' = 1", b"\"\" = 1", b"'' = 1", b"\"\\u00e9\" = 1", b"\"a.b\" = 1\na.b = 2",
    b"a.b.c = 1", b"a . b . c = 1", b"a.\"b.c\".'d e' = 1", b"a.b = 1\na.c = 2", b"a.b = 1\nx = 2\na.c = 3",
    b"\"\xc3\xa9\" = 1", b"'\xe6\x97\xa5' = '\xe6\x9c\xac'", b"2024-01-01 = 1", b"0x1 = 1", b"1e5 = 2",
    b"a.a.a.a.a.a.a.a = 1", b"\"\\\"\" = 1", b"\"\\n\" = 1",
    # --- basic strings
    b"a = \"\"", b"a = \"x\"", b"a = \"\\b\\t\\n\\f\\r\\\"\\\\\"", b"a = \"\\u0041\\U0001F436\"", b"a = \"'\"",
    b"a = \"\tx\"", b"a = \"\xf0\x9f\x90\xb6\"", b"a = \"\\u0000\"", b"a = \"\\uD7FF\\uE000\"", b"a = \"\\U0010FFFF\"",
    b"a = \"\\u007f\"", b"a = \"\xc2\x80\"", b"a = \"]\" # ]",
    # --- literal strings
    b"a = ''", b"a = 'C:\\Users\\x'", b"a = '\"quoted\"'", b"a = '\\u0041'", b"a = '\t'", b"a = '#'",
    # --- multi-line basic strings
    b"a = \"\"\"\"\"\"", b"a = \"\"\"\nx\"\"\"", b"a = \"\"\"\r\nx\r\ny\"\"\"", b"a = \"\"\"x\ny\n\"\"\"",
    b"a = \"\"\"\\\n   x \\\n\n\t y\"\"\"", b"a = \"\"\"x\\  \t \n  y\"\"\"", b"a = \"\"\"\"\"\"\"\"", b"a = \"\"\"x\"\"\"\"",
    b"a = \"\"\"x\"\"\"\"\"", b"a = \"\"\"\"x\"\" \"\"\"", b"a = \"\"\"x\\\"\"\"\"", b"a = \"\"\"\\\"\"\"\\\"\"\"\"",
    b"a = \"\"\"\\u00e9\\n\"\"\"", b"a = \"\"\"\n\nx\"\"\"", b"a = \"\"\"\\\n\"\"\"", b"a = \"\"\"\\\\\nx\"\"\"", b"a = \"\"\"# x\"\"\"",
    b"a = \"\"\"x\\\r\n  y\"\"\"",
    # --- multi-line literal strings
    b"a = ''''''", b"a = '''\nx'''", b"a = '''x\\\ny'''", b"a = ''''x''''", b"a = '''x'''''", b"a = '''\"\"\"'''",
    b"a = '''x\r\ny'''", b"a = '''\tx'''",
    # --- integers
    b"a = 0", b"a = +0", b"a = -0", b"a = 99", b"a = +99", b"a = -17", b"a = 1_000", b"a = 1_2_3", b"a = 9223372036854775807",
    b"a = -9223372036854775808", b"a = 0xDEADBEEF", b"a = 0xdead_beef", b"a = 0o01234567", b"a = 0o7_5_5", b"a = 0b1101_0110",
    b"a = 0x0", b"a = 0b0", b"a = 0x7fffffffffffffff", b"a = 0x00ff", b"a = 0b0001",
    # --- floats
    b"a = 1.0", b"a = +1.0", b"a = -0.01", b"a = 5e+22", b"a = 1e06", b"a = -2E-2", b"a = 6.626e-34", b"a = 224_617.445_991_228",
    b"a = inf", b"a = +inf", b"a = -inf", b"a = nan", b"a = +nan", b"a = -nan", b"a = 0.0", b"a = -0.0", b"a = 1e1_0",
    b"a = 1e400", b"a = 4.9e-324", b"a = 0e0", b"a = 3.14159265358979323846", b"a = 1e-06", b"a = 0.1",
    # --- booleans
    b"a = true", b"a = false",
    # --- dates and times
    b"a = 1979-05-27T07:32:00Z", b"a = 1979-05-27T00:32:00-07:00", b"a = 1979-05-27T00:32:00.999999-07:00", b"a = 1979-05-27 07:32:00Z",
    b"a = 1979-05-27t07:32:00z", b"a = 1979-05-27T07:32:00", b"a = 1979-05-27T00:32:00.123456789", b"a = 1979-05-27", b"a = 07:32:00",
    b"a = 00:32:00.5", b"a = 2024-02-29", b"a = 2000-02-29", b"a = 23:59:59", b"a = 1979-05-27 07:32:00+23:59", b"a = 1979-05-27 # x",
    b"a = [1979-05-27, 07:32:00]", b"a = {d = 1979-05-27 07:32:00}",
    # --- lists
    b"a = []", b"a = [ ]", b"a = [1]", b"a = [1,]", b"a = [1, 2, 3]", b"a = [ 1 , 2 , ]", b"a = [\n1,\n2 # two\n,\n# three\n3\n]",
    b"a = [[1, 2], [\"x\", 3.0]]", b"a = [1, \"x\", true, 1.5, {b = 1}]", b"a = [[], [[]]]", b"a = [\r\n]", b"a = [{x=1}, {y=2}]",
    b"a = [ # nothing\n]", b"a = ['''x\ny''', \"\"\"z\n\"\"\"]", b"a=[1,2]\nb=[3]", b"a = [ [\n[ 1 ]\n] ]",
    # --- inline tables
    b"a = {}", b"a = { }", b"a = {b = 1}", b"a = { b = 1, c = 'x' }", b"a = {b.c = 1}", b"a = {b.c = 1, b.d = 2}", b"a = {b = {c = {}}}",
    b"a = {b = [\n1,\n2\n]}", b"a = {'x y' = 1, \"\" = 2}", b"a = {b = \"\"\"x\ny\"\"\"}", b"a = {b=1,c=2}",
    # --- tables
    b"[a]", b"[a]\nb = 1", b"[ a . b ]\nc = 1", b"[a.\"b.c\"]\nd = 1", b"[a]\n[b]\n", b"[a.b.c]\nx = 1\n[a]\ny = 2",
    b"[a.b]\nx = 1\n[a]\nb2 = 2\n[a.c]\nz = 3", b"[a]\nb.c = 1\n[a.d]\ne = 2", b"[fruit]\napple.color = 1\napple.taste.sweet = true\n[fruit.apple.texture]\nsmooth = true",
    b"x = 1\n[a]\nx = 2", b"[a]\nx=1\n[b]\nx=1", b"['']\na = 1", b"[\"\xc3\xa9\"]\na = 1", b"[a.b.c]\nz = 9\n[a]\nb.x = 1", b"[1.2]\n3 = 4",
    b"[d.e.f]\n[d.e]\n[d]\n", b"a.b = 1\n[c]\na.b = 2", b"a.b.c = 1\n[a.b.d]\ne = 1",
    # --- lists of tables
    b"[[a]]", b"[[a]]\nx = 1\n[[a]]\nx = 2", b"[[a]]\n[a.b]\nx = 1\n[[a]]\n[a.b]\nx = 2", b"[[a.b]]\nx = 1\n[[a.b]]\ny = 2",
    b"[[f]]\nn = 'x'\n[f.p]\nc = 1\n[[f.v]]\nn = 2\n[[f.v]]\nn = 3\n[[f]]\nn = 'y'\n[[f.v]]\nn = 4", b"[[ a ]]\nx = 1", b"[a]\n[[a.b]]\nx = 1",
    b"[[a]]\nb.c = 1\n[[a]]\nb.c = 2", b"[[a.'b']]\n[a.c]\nx = 1", b"[[a]]\nx = {}\n[[a]]\nx = []", b"[[a]]\n[[a.b]]\n[a.b.c]\nd = 1\n[[a.b]]\n[a.b.c]\nd = 2",
    # --- what users write
    b"[general]\nshuffle_caption = true\n[[datasets]]\nresolution = [512, 768]\nbatch_size = 4\n\n  [[datasets.subsets]]\n  image_dir = 'C:\\data\\x'\n  num_repeats = 10\n",
    b"pretrained_model_name_or_path = \"/models/sd-v1-5.safetensors\"\nlearning_rate = 1e-6\noptimizer_args = [ \"weight_decay=0.1\", \"betas=0.9,0.99\",]\n",
]

INVALID = [
    # --- structure of lines
    b"a", b"a =", b"= 1", b"a = 1 b = 2", b"a = 1 2", b"a\n= 1", b"a =\n1", b"a = 1 x", b"a == 1", b"a : 1", b"[a] b = 1",
    b"a = 1\rb = 2", b"a = 1 \x00", b"# \x01", b"# \x7f", b"# a\rb", b"\x0b", b"a = 1\n\x0c", b"!", b"a = # x", b", = 1",
    # --- encoding
    b"a = \"\xff\"", b"a = 1\nb = \"\xc3\"", b"# \xc0\x80", b"a = '\xed\xa0\x80'", b"a = \"\xf4\x90\x80\x80\"", b"a = '\xe9t\xe9'", b"\xfe\xff\x00a",
    # --- keys
    b"a b = 1", b"a. = 1", b".a = 1", b"a..b = 1", b"\"a = 1", b"'a = 1", b"\"\"\"a\"\"\" = 1", b"'''a''' = 1", b"\xc3\xa9 = 1", b"a+b = 1", b"a/b = 1",
    b"\"a\nb\" = 1", b"\"\\x\" = 1", b"[a = 1", b"a\"b\" = 1", b"{a = 1}", b"*a = 1",
    # --- strings
    b"a = \"x", b"a = 'x", b"a = \"x\ny\"", b"a = 'x\ny'", b"a = \"\\x41\"", b"a = \"\\a\"", b"a = \"\\u12\"", b"a = \"\\uD800\"", b"a = \"\\U00110000\"",
    b"a = \"\\U0001\"", b"a = \"\x01\"", b"a = '\x01'", b"a = \"\x7f\"", b"a = \"\"\"x", b"a = '''x", b"a = \"\"\"x\\ y\"\"\"", b"a = \"\"\"x\"\"\"\"\"\"",
    b"a = '''x''''''", b"a = \"\"\"\x00\"\"\"", b"a = \"\"\"\\q\"\"\"", b"a = \"x\" \"y\"", b"a = \"\\", b"a = \"x\\\ny\"", b"a = \"a\rb\"", b"a = '''a\rb'''",
    b"a = \"\"\"\x0b\"\"\"", b"a = x\"\"", b"a = \"C:\\Users\"",
    # --- numbers
    b"a = 01", b"a = -01", b"a = +00", b"a = 1_", b"a = _1", b"a = 1__2", b"a = 0x", b"a = 0xg", b"a = 0x_1", b"a = 0x1_", b"a = +0x1", b"a = -0b1", b"a = 0b2",
    b"a = 0o8", b"a = 0X1", b"a = 0B1", b"a = 1.", b"a = .5", b"a = 1.e5", b"a = 1._5", b"a = 1_.5", b"a = 1.5_", b"a = 1e", b"a = 1e+", b"a = 1e_5", b"a = 1e5.5",
    b"a = 01.5", b"a = 1.2.3", b"a = ++1", b"a = +-1", b"a = --1", b"a = Inf", b"a = NaN", b"a = infinity", b"a = +true", b"a = 1,5", b"a = 1 000", b"a = 1f",
    b"a = 9223372036854775808", b"a = -9223372036854775809", b"a = 0x8000000000000000", b"a = 00e1", b"a = e5", b"a = +", b"a = -",
    # --- words
    b"a = True", b"a = FALSE", b"a = yes", b"a = null", b"a = None", b"a = truer", b"a = /path", b"a = ~/x", b"a = text",
    # --- dates and times
    b"a = 1979-13-01", b"a = 1979-00-10", b"a = 1979-02-30", b"a = 2023-02-29", b"a = 1900-02-29", b"a = 1979-5-27", b"a = 79-05-27", b"a = 24:00:00", b"a = 07:60:00",
    b"a = 07:32", b"a = 07:32:60", b"a = 1979-05-27T", b"a = 1979-05-27T07", b"a = 1979-05-27T07:32", b"a = 1979-05-27T07:32:00+", b"a = 1979-05-27T07:32:00+24:00",
    b"a = 1979-05-27T07:32:00+01:60", b"a = 1979-05-27T07:32:00.Z", b"a = 07:32:00Z", b"a = 1979-05-27X07:32:00", b"a = 1979-05-2707:32:00", b"a = 1979-05-27  07:32:00",
    b"a = 1979-05-271", b"a = 7:32:00", b"a = 1979-04-31", b"a = 1979-05-27Z",
    # --- lists and inline tables
    b"a = [", b"a = [1", b"a = [1 2]", b"a = [,]", b"a = [1,,2]", b"a = ]", b"a = [1}", b"a = {", b"a = {b", b"a = {b = 1", b"a = {b = 1,}", b"a = {,}", b"a = {b = 1 c = 2}",
    b"a = {b = 1\n}", b"a = {\nb = 1}", b"a = {b = 1 # x\n}", b"a = {b = 1, b = 2}", b"a = {b = 1}\na.c = 2", b"a = {b = 1}\n[a.c]", b"a = {b = 1}\n[a]", b"a = {b = {c = 1}, b.d = 2}",
    b"a = {b.c = 1, b = 2}", b"a = []\n[[a]]", b"a = [{}]\n[a.b]", b"a = [{b = 1}]\na.b = 2", b"a = {}}", b"a = [1] ]", b"a = {b}", b"a = {= 1}", b"a = [1]\n[[a.b]]", b"a = {b = 1,, c = 2}",
    b"a = [ \x01 ]",
    # --- tables
    b"[]", b"[a", b"[a]]", b"[[a]", b"[a.]", b"[.a]", b"[a..b]", b"[a b]", b"[[]]", b"[ [a]]", b"[[a] ]", b"[a]\n[a]", b"[a]\nx=1\n[b]\n[a]", b"a = 1\na = 2", b"[a]\nb = 1\nb = 2",
    b"a = 1\n[a]", b"a = 1\na.b = 2", b"a.b = 1\na = 2", b"a.b = 1\n[a]", b"a.b.c = 1\na.b = 2", b"[a]\nb = 1\n[a.b]", b"[a]\nb.c = 1\n[a.b]", b"[a.b.c]\nz = 9\n[a]\nb.c.t = 1",
    b"[[a]]\n[a]", b"[a]\n[[a]]", b"[a.b]\n[[a]]", b"[[a.b]]\n[a.b]", b"a = 1\n[a.b]", b"a = 1\n[[a]]", b"[a]\n[b]\n[a]\n", b"\"a\" = 1\na = 2", b"'a' = 1\n\"\\u0061\" = 2",
    b"[[a]]\nx = 1\nx = 2", b"[[a.b]]\n[[a]]", b"[\"a\n\"]", b"[a]\nb = {c = 1}\nb.d = 2", b"[a]\nx = 1\n[a.x.y]", b"[a] [b]", b"[[a]]x = 1", b"[a\n]", b"[a.b]\n[a]\nb = 1", b"[a.b]\n[a]\n[a.b]",
    b"[\x01]", b"[a]\nb.c = 1\nb = 2", b"a.b = 1\n[c]\n[a.b.d]",
]
VALID = list(dict.fromkeys(VALID))
INVALID = list(dict.fromkeys(INVALID))
LINES = {b'a = "x\\\ny"': 1}  # document: line, where we name another line than tomllib


def quote(text):
    return "".join(chr(c) if chr(c).isalnum() and c < 128 else f"%{c:02x}" for c in text.encode())


def tree(value):
    if isinstance(value, dict):
        return "{" + ",".join(f"{quote(k)}:{tree(v)}" for k, v in sorted(value.items(), key=lambda x: x[0].encode())) + "}"
    if isinstance(value, list):
        return "[" + ",".join(tree(v) for v in value) + "]"
    if isinstance(value, bool):
        return f"b{int(value)}"
    if isinstance(value, int):
        return f"i{value}"
    if isinstance(value, float):
        return "fnan" if math.isnan(value) else f"f{value!r}"
    return f"s{quote(value)}" if isinstance(value, str) else "t"


def check_range(value):
    if isinstance(value, dict):
        return all(check_range(v) for v in value.values())
    if isinstance(value, list):
        return all(check_range(v) for v in value)
    return not isinstance(value, int) or -2**63 <= value < 2**63


def c_string(data):
    return '"' + "".join(f"\\{c:03o}" if c < 32 or c > 126 or c in b'"\\?' else chr(c) for c in data) + '"'


def error_line(document):
    """The line of tomllib's error; None when it takes the document."""
    try:
        text = document.decode()
    except UnicodeDecodeError as e:
        return document[: e.start].count(b"\n") + 1
    try:
        value = tomllib.loads(text)
    except ValueError as e:
        match = re.search(r"at line (\d+)", str(e))
        return int(match.group(1)) if match else text.count("\n") + 1
    return None if check_range(value) else 1


def main():
    rows = []
    for document in VALID:
        expected = tree(tomllib.loads(document.decode()))
        rows.append(f"    {{{c_string(document)}, {len(document)}, {c_string(expected.encode())}, 0}},")
    for document in INVALID:
        line = error_line(document)
        assert line is not None, document
        rows.append(f"    {{{c_string(document)}, {len(document)}, NULL, {LINES.get(document, line)}}},")
    path = Path(__file__).with_name("toml_cases.h")
    path.write_text("/* Written by tests/unit/io/toml_cases.py: TOML documents, their length, their tree as text,\n"
                    " * or NULL and the line of the error. */\n"
                    "static const toml_case cases[] = {\n" + "\n".join(rows) + "\n};\n")
    print(f"{len(VALID)} valid, {len(INVALID)} invalid")


if __name__ == "__main__":
    main()
