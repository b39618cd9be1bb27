#!/usr/bin/env python3
"""The style checks find what they are for: each violation below, in a small tree, and nothing in a good one."""
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).parent
LONG = "int f(void)\n{\n" + "    f();\n" * 79 + "}\n"


def run(tool, files, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        for top in ("src/base", "src/io", "src/train", "launcher", "tests/style", "include"):
            (Path(folder) / top).mkdir(parents=True)
        (Path(folder) / "tests/style/allow.txt").write_text(files.pop("allow", ""))
        for name, text in files.items():
            (Path(folder) / name).write_text(text)
        done = subprocess.run([sys.executable, HERE / tool, *arguments, folder], text=True,
                              capture_output=True, check=False)
        return done.returncode, done.stdout + done.stderr


class Layers(unittest.TestCase):
    def violation(self, expected, **files):
        files = {name.replace("__", "/").replace("_C", ".c").replace("_H", ".h"): text
                 for name, text in files.items()}
        code, output = run("check_layers", files)
        self.assertIn(expected, output)
        self.assertEqual(code, 1)

    def test_good_tree(self):
        code, output = run("check_layers", {"src/base/a.h": "", "src/io/b.h": "",
                                            "src/io/b.c": '#include "io/b.h"\n#include "base/a.h"\n'
                                                          "#include <hdf5.h>\n#include <stdio.h>\n"})
        self.assertEqual((code, output.strip()), (0, "0 violations"))

    def test_upward_include(self):
        self.violation("io may not include train", src__train__t_H="",
                       src__io__a_C='#include "train/t.h"\n')

    def test_launcher_needs_base_only(self):
        self.violation("launcher may not include io", src__io__t_H="",
                       launcher__a_C='#include "io/t.h"\n')

    def test_relative_include(self):
        self.violation("names no layer", src__io__a_C='#include "b.h"\n')

    def test_missing_header(self):
        self.violation("does not exist", src__io__a_C='#include "base/none.h"\n')

    def test_own_header_first(self):
        self.violation("a.h must be the first", src__io__a_H="",
                       src__io__a_C='#include <stdio.h>\n#include "io/a.h"\n')

    def test_third_party(self):
        self.violation("<mpi.h> belongs to", src__io__a_C="#include <mpi.h>\n")
        self.violation("no third-party type", src__io__a_H="#include <hdf5.h>\n")
        self.violation("in more than 1 files", src__io__a_C="#include <hdf5.h>\n",
                       src__io__b_C="#include <hdf5.h>\n")
        self.violation("is in no list", src__io__a_C="#include <glib.h>\n")

    def test_internal_header_of_another_layer(self):
        self.violation("is private to base", src__base__a_internal_H="",
                       src__io__a_C='#include "base/a_internal.h"\n')

    def test_links(self):
        code, output = run("check_layers", {"src/io/CMakeLists.txt": "dr_layer(io LIBS dr_train)"})
        self.assertIn("io may not link dr_train", output)
        self.assertEqual(code, 1)


class Style(unittest.TestCase):
    def violation(self, expected, name, text, allow=""):
        code, output = run("check_style", {name: text, "allow": allow}, "code")
        self.assertIn(expected, output)
        self.assertEqual(code, 1)

    def test_good_file(self):
        text = "/* strcpy(a) */\nconst char *s = \"exit(1)\";\n" + LONG.replace("    f();\n", "", 1)
        code, output = run("check_style", {"src/io/a.c": text}, "code")
        self.assertEqual((code, output.strip()), (0, "0 violations"))

    def test_long_function(self):
        self.violation("a function of 81 lines", "src/io/a.c", LONG)

    def test_long_files(self):
        self.violation("1001 lines, at most 1000", "src/io/a.c", "\n" * 1001)
        self.violation("251 lines, at most 250", "src/io/a.h", "#ifndef DR_A\n" + "\n" * 250)

    def test_banned_calls(self):
        self.violation("strcpy [banned call]", "src/io/a.c", "void f(void)\n{\n    strcpy(a, b);\n}\n")
        self.violation("a.c:2: malloc [bare allocation]", "src/io/a.c", "\nx = malloc(3);\n")
        self.violation("exit [exit outside programs]", "src/io/a.c", "exit(1);\n")
        self.violation("printf [printing outside", "src/io/a.c", "printf(s);\n")

    def test_unfinished_work(self):
        self.violation("TODO [unfinished work]", "src/io/a.c", "/* " + "TODO later */\n")

    def test_header_guard(self):
        self.violation("[header guard]", "src/io/a.h", "int x;\n")

    def test_allowed_once(self):
        allow = "banned call\tsrc/io/a.c\ta reason\n"
        code, _ = run("check_style", {"src/io/a.c": "strcpy(a, b);\n", "allow": allow}, "code")
        self.assertEqual(code, 0)
        self.violation("no longer needed", "src/io/a.c", "\n", allow)


if __name__ == "__main__":
    unittest.main()
