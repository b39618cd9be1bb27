"""Dumps the option parsers of sd-scripts: python3 dump_sdscripts_options.py CHECKOUT OUTDIR

CHECKOUT is a tree of kohya-ss/sd-scripts at 48d368fa557731ad0488c07304dfeba8c07910eb. Only the functions
that build the parsers are executed, so none of its dependencies is needed. Writes
  sdscripts_options.tsv  name, programs (d, n, b), type, default, choices, nargs
  sdscripts_parse.tsv    what train_db's real parser makes of command lines: outcome, option, value, words
"""
import argparse
import ast
import contextlib
import io
import os
import sys
from pathlib import Path

SOURCES = {
    "library/train_util.py": ["add_sd_models_arguments", "add_optimizer_arguments",
                              "add_training_arguments", "add_masked_loss_arguments",
                              "add_dataset_arguments", "add_sd_saving_arguments",
                              "add_dit_training_arguments"],
    "library/config_util.py": ["add_config_arguments"],
    "library/custom_train_functions.py": ["add_custom_train_arguments"],
    "library/deepspeed_utils.py": ["add_deepspeed_arguments"],
    "library/sai_model_spec.py": ["add_model_spec_arguments"],
    "library/utils.py": ["add_logging_arguments"],
}

# option asked for, command line
CASES = [
    ("output_name", ["--output_n", "x"]),
    ("output_name", ["--output_n=x y"]),
    ("seed", ["--seed", "42"]),
    ("seed", ["--see=42"]),
    ("seed", ["--seed"]),
    ("seed", ["--seed", "--v2"]),
    ("seed", ["--seed", "4.5"]),
    ("seed", ["--seed", "abc"]),
    ("seed", ["--seed", "1", "--seed", "2"]),
    ("seed", ["seed"]),
    ("v2", ["--v2"]),
    ("v2", ["--v2=true"]),
    ("v2", ["--no_v2"]),
    ("v2", ["--v2", "true"]),
    ("v_parameterization", ["--v_"]),
    ("v_parameterization", ["--v_par"]),
    ("caption_extension", ["--caption_ext", ".txt"]),
    ("caption_extension", ["--caption_exte", ".txt"]),
    ("caption_extension", ["--caption_extens=.txt"]),
    ("stop_text_encoder_training", ["--stop_text_encoder_training", "-1"]),
    ("stop_text_encoder_training", ["--stop_text_encoder_training=-1"]),
    ("metadata_title", ["--metadata_title", "-x"]),
    ("metadata_title", ["--metadata_title", "-"]),
    ("metadata_title", ["--metadata_title", "- a title"]),
    ("metadata_title", ["--metadata_title=-x"]),
    ("metadata_title", ["--metadata_title="]),
    ("optimizer_args", ["--optimizer_args", "weight_decay=0.1", "betas=0.9,0.99", "--v2"]),
    ("optimizer_args", ["--optimizer_args"]),
    ("optimizer_args", ["--optimizer_args=a=b"]),
    ("optimizer_args", ["--optimizer_args", "a=1", "--optimizer_args", "b=2"]),
    ("max_token_length", ["--max_token_length", "150"]),
    ("max_token_length", ["--max_token_length", "75"]),
    ("mixed_precision", ["--mixed_precision", "fp32"]),
    ("mixed_precision", ["--mixed_precision", "bf16"]),
    ("mixed_precision", ["--mixed_precision", "BF16"]),
    ("learning_rate", ["--learning_rate", "1e-4"]),
    ("learning_rate", ["--learning_rate=5"]),
    ("learning_rate", ["--learning_rate", "fast"]),
    ("learning_rate", ["--learning", "1"]),
    ("lr_warmup_steps", ["--lr_warmup_steps", "100"]),
    ("lr_warmup_steps", ["--lr_warmup_steps", "0.1"]),
    ("lr_warmup_steps", ["--lr_warmup_steps", "10%"]),
    ("lr_warmup_steps", ["--lr_warmup_steps", "0"]),
    ("lr_warmup_steps", ["--lr_warmup_steps", "1"]),
    ("lr_warmup_steps", ["--lr_warmup_steps", "1.0"]),
    ("lr_warmup_steps", ["--lr_warmup_steps", "1e3"]),
    ("lr_warmup_steps", ["--lr_warmup_steps", "100.0"]),
    ("lr_warmup_steps", ["--lr_warmup_steps", "x%"]),
    ("lr_scheduler_power", ["--lr_scheduler_power", "2"]),
    ("output_dir", ["--output_dir", "a", "b"]),
    ("output_dir", ["--output_dir", "-5"]),
    ("output_dir", ["--outputdir", "a"]),
    ("resolution", ["--resolution=512,768"]),
    ("resolution", ["--reso", "512"]),
    ("shuffle_caption", ["--shuffle"]),
    ("save_model_as", ["--save_model_as", "pt"]),
    ("keep_tokens", ["--keep_tokens", "2"]),
    ("keep_tokens", ["--keep", "2"]),
]


class Module:
    """Stands for every module that the functions name."""

    def __init__(self, names):
        self.names = names

    def __getattr__(self, key):
        return self.names[key]


def define(path, names, functions):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name in functions:
            node.returns = None
            for argument in node.args.args:
                argument.annotation = None
            exec(compile(ast.Module([node], []), str(path), "exec"), names)


def parsers(checkout):
    names = {"argparse": argparse, "os": os, "Path": Path}
    for module in ("train_util", "config_util", "custom_train_functions", "deepspeed_utils",
                   "sai_model_spec"):
        names[module] = Module(names)
    for source, functions in SOURCES.items():
        define(checkout / source, names, functions)
    made = {}
    for key, script in (("d", "train_db.py"), ("n", "train_network.py")):
        define(checkout / script, names, ["setup_parser"])
        made[key] = names["setup_parser"]()
    return made


def describe(action):
    kind = "flag" if action.nargs == 0 else getattr(action.type, "__name__", "str")
    choices = "|".join(str(c) for c in action.choices or [] if c is not None)
    nargs = action.nargs if action.nargs not in (None, 0) else ""
    return [kind, str(action.default), choices, nargs]


def write_options(made, path):
    rows = {}
    for key, parser in made.items():
        for action in parser._actions:
            if action.dest != "help":
                row = (action.option_strings[-1][2:], *describe(action))
                rows[row] = rows.get(row, "") + key
    with open(path, "w", encoding="utf-8") as out:
        for row, keys in rows.items():
            keys = "b" if keys == "dn" else keys
            out.write("\t".join([row[0], keys, *row[1:]]) + "\n")


def write_cases(parser, path):
    with open(path, "w", encoding="utf-8") as out:
        for option, words in CASES:
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    value = getattr(parser.parse_args(words), option)
                value = " ".join(value) if isinstance(value, list) else str(value)
                outcome = ["ok", option, value]
            except SystemExit:
                outcome = ["error", option, ""]
            out.write("\t".join(outcome + words) + "\n")


def main():
    made = parsers(Path(sys.argv[1]))
    target = Path(sys.argv[2])
    write_options(made, target / "sdscripts_options.tsv")
    write_cases(made["d"], target / "sdscripts_parse.tsv")


if __name__ == "__main__":
    main()
