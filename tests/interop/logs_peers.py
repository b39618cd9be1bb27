#!/usr/bin/env python3
"""Reads what a run logs with the tensorboard package, and compares it with what else the run says.

    logs_peers.py BUILD_DIR

- every number of the event files (EventAccumulator) equals the JSONL log and --progress json: tags, steps, values
- the layout on disk, the hparams page, options as text, hparams.yml (yaml)
- a killed run leaves files that are read to their last whole record; the run that goes on adds to the same folder
  without a step twice, and its numbers are those of a run that was never stopped
- the page at the end: balanced tags, nothing loaded, its curves and pictures
- texts and pictures, by the driver: the text as it was, the PNG decoded by Pillow

Prints each check; ends with "N passed, N failed"; exit status 1 on failure.
"""
import base64
import glob
import html.parser
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import traceback
import xml.etree.ElementTree

import numpy as np
import PIL.Image
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams import metadata as hparams_metadata

SIZES = {"scalars": 0, "tensors": 0, "images": 0}  # 0: keep everything


class Bench:
    def __init__(self, build):
        self.bin = os.path.join(os.path.abspath(build), "bin")
        self.driver = os.path.join(os.path.abspath(build), "tests", "io_driver")
        self.work = tempfile.mkdtemp(prefix="dreamrun_logs.")
        self.passed = self.failed = 0
        self.make_material()

    def make_material(self):
        tool = os.path.join(self.bin, "dreamrun")
        subprocess.run([tool, "make_pictures", self.path("data"), "--n", "3", "--size", "64"], check=True,
                       stdout=subprocess.DEVNULL)
        subprocess.run([tool, "init_model", "tiny", self.path("tiny")], check=True, stdout=subprocess.DEVNULL)

    def path(self, *names):
        return os.path.join(self.work, *names)

    def train(self, out, *flags, ranks=1, check=True):
        command = [os.path.join(self.bin, "train_db"), "--pretrained_model_name_or_path", self.path("tiny"),
                   "--train_data_dir", self.path("data", "train"), "--resolution", "64", "--output_dir",
                   self.path(out), "--max_train_steps", "7", "--seed", "5", "--learning_rate", "1e-3",
                   "--num_cpu_threads_per_process", "1", "--progress", "json", "--train_batch_size", "8", *flags]
        if ranks > 1:
            command = ["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none", *command]
        env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        if check and done.returncode != 0:
            raise RuntimeError(f"exit code {done.returncode}: {done.stderr}")
        return done

    def check(self, what, holds, detail=""):
        self.passed += bool(holds)
        self.failed += not holds
        print(f"{'ok' if holds else 'FAILED'}: {what} {detail}")

    def equal(self, what, got, want):
        shown = repr(got) if len(repr(got)) < 100 else f"{len(got)} entries"
        self.check(what, got == want, f"({shown})" if got == want else f"found {got!r}, expected {want!r}")


def run_folder(logs):
    folders = glob.glob(os.path.join(logs, "*"))
    if len(folders) != 1:
        raise RuntimeError(f"{logs}: {folders}")
    return folders[0]


def rows_of(folder):
    with open(os.path.join(folder, "steps.jsonl"), encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def accumulate(folder):
    a = EventAccumulator(folder, size_guidance=SIZES)
    a.Reload()
    return a


def scalars_of_rows(rows):
    """{tag: [(x, value)]}, as the documentation of the rows has it."""
    out = {}
    for row in rows:
        x = row["epoch"] if row.get("of") == "epoch" else row["step"]
        for tag, value in row.items():
            if tag not in ("step", "epoch", "time", "of"):
                out.setdefault(tag, []).append((x, value))
    return out


def compare_scalars(b, name, folder, tracker):
    events = accumulate(os.path.join(folder, tracker))
    wanted = scalars_of_rows(rows_of(folder))
    b.equal(f"{name}: tags of the event files are those of the JSONL log", sorted(events.Tags()["scalars"]),
            sorted(wanted))
    different = 0
    for tag, points in wanted.items():
        got = [(e.step, e.value) for e in events.Scalars(tag)]
        different += got != [(x, float(np.float32(v))) for x, v in points]
    b.equal(f"{name}: values of every tag, as f32", different, 0)
    return events, wanted


DB_TAGS = {"loss", "loss/epoch", "lr/unet", "lr/text_encoder1", "norm/grad", "perf/step_s", "perf/samples_per_s",
           "data/wait_s", "data/samples", "mem/device_gib", "mem/host_peak_gib"}


def mean_losses(losses, window):
    return [float(np.mean(losses[max(0, i + 1 - window):i + 1])) for i in range(len(losses))]


def case_plain(b):
    done = b.train("out1", "--logging_dir", b.path("logs1"), "--log_prefix", "my_", "--log_config",
                   "--lr_scheduler", "cosine", "--learning_rate_te", "5e-4")
    folder = run_folder(b.path("logs1"))
    b.check("plain: folder is <prefix><YYYYmmddHHMMSS>", re.fullmatch(r"my_\d{14}", os.path.basename(folder)))
    b.equal("plain: the tracker's folder", os.path.basename(glob.glob(folder + "/*/")[0].rstrip("/")), "dreambooth")
    events, wanted = compare_scalars(b, "plain", folder, "dreambooth")
    b.equal("plain: sd-scripts' tags and ours", set(wanted), DB_TAGS)
    progress = [json.loads(line) for line in done.stdout.splitlines()]
    b.equal("plain: steps of --progress json", [p["step"] for p in progress], list(range(1, 8)))
    for key, tag in (("loss", "loss"), ("lr", "lr/unet"), ("grad_norm", "norm/grad")):
        worst = max(abs(p[key] - v) / abs(v) for p, (_, v) in zip(progress, wanted[tag]))
        b.check(f"plain: {key} of --progress json", worst < 1e-8, f"(relative difference {worst:.1e})")
    b.equal("plain: lr/text_encoder1 is half of lr/unet",
            all(abs(t[1] - 0.5 * u[1]) < 1e-12 for t, u in zip(wanted["lr/text_encoder1"], wanted["lr/unet"])), True)
    losses = [v for _, v in wanted["loss"]]
    window = len([1 for r in rows_of(folder) if r["epoch"] == 1 and r.get("of") != "epoch"])
    ends = [r["step"] for r in rows_of(folder) if r.get("of") == "epoch"]
    means = mean_losses(losses, window)
    worst = max(abs(v - means[s - 1]) for s, (_, v) in zip(ends, wanted["loss/epoch"]))
    b.check("plain: loss/epoch is the mean of the last epoch's steps", worst < 1e-12, f"({worst:.1e})")
    b.equal("plain: loss/epoch is over epochs from 1", [x for x, _ in wanted["loss/epoch"]],
            list(range(1, len(ends) + 1)))
    check_hparams(b, os.path.join(folder, "dreambooth"))


def check_hparams(b, tracker):
    folder, = glob.glob(tracker + "/*/")
    with open(os.path.join(folder, "hparams.yml"), encoding="utf-8") as f:
        listed = yaml.safe_load(f)
    found = {}
    for event in EventFileLoader(glob.glob(folder + "/events.out.tfevents.*")[0]).Load():
        for value in event.summary.value:
            if value.tag == hparams_metadata.SESSION_START_INFO_TAG:
                start = hparams_metadata.parse_session_start_info_plugin_data(value.metadata.plugin_data.content)
                found = {k: getattr(v, v.WhichOneof("kind")) for k, v in start.hparams.items()}
            if value.tag == hparams_metadata.EXPERIMENT_TAG:
                experiment = hparams_metadata.parse_experiment_plugin_data(value.metadata.plugin_data.content)
    b.equal("hparams: hparams.yml has the same", {k: v for k, v in listed.items()}, found)
    b.equal("hparams: infos of the experiment", sorted(i.name for i in experiment.hparam_infos), sorted(found))
    b.equal("hparams: some of them", [found["learning_rate"], found["lr_scheduler"], found["enable_bucket"],
                                      found["train_batch_size"]], [1e-3, "cosine", False, 8.0])
    b.check("hparams: no paths", not any(b.work in str(v) for v in found.values()))
    text = accumulate(tracker).Tensors("options/text_summary")[0].tensor_proto.string_val[0].decode()
    b.check("options as text", "learning_rate | 0.001" in text)


def case_ranks(b):
    """Two ranks log once, under a name of the user's, the mean over both."""
    b.train("out2", "--logging_dir", b.path("logs2"), "--log_tracker_name", "mine", "--log_with", "all", ranks=2)
    b.train("out3", "--logging_dir", b.path("logs3"), "--log_with", "tensorboard", "--virtual_shards", "2")
    one_rank = b.train("out8", "--max_train_steps", "1").stderr
    foreseen = int(re.search(r"steps of an epoch by ranks: .*\b2: (\d+),", one_rank).group(1))
    made = sum(1 for r in rows_of(run_folder(b.path("logs2"))) if r["epoch"] == 1 and r.get("of") != "epoch")
    b.equal("header: steps of an epoch on two ranks, told by one", foreseen, made)
    _, two = compare_scalars(b, "two ranks", run_folder(b.path("logs2")), "mine")
    _, one = compare_scalars(b, "one rank", run_folder(b.path("logs3")), "dreambooth")
    b.equal("two ranks: the losses of one rank with two shards", two["loss"], one["loss"])
    b.equal("no --log_config: no hparams", glob.glob(run_folder(b.path("logs3")) + "/dreambooth/*/"), [])


def case_killed(b):
    """Killed after step 5 with a state of step 4: files are whole; going on gives the straight run's log."""
    flags = ("--save_state", "--save_every_n_steps", "2", "--output_name", "m")
    b.train("straight", "--logging_dir", b.path("logs4"), *flags)
    done = b.train("killed", "--logging_dir", b.path("logs5"), *flags, "--inject", "kill:step=6", check=False)
    b.equal("killed: by SIGKILL", done.returncode, -9)
    folder = run_folder(b.path("logs5"))
    first = accumulate(os.path.join(folder, "dreambooth"))
    b.equal("killed: the event file holds all steps that were done", [e.step for e in first.Scalars("loss")],
            [1, 2, 3, 4, 5])
    with open(glob.glob(folder + "/dreambooth/events*")[0], "ab") as f:  # a torn last record
        f.write(struct.pack("<Q", 100) + b"\1\2\3\4half")
    with open(os.path.join(folder, "steps.jsonl"), "a", encoding="utf-8") as f:
        f.write('{"step": 6, "epo')
    b.train("killed", "--logging_dir", b.path("logs5"), *flags, "--resume", "auto")
    b.equal("gone on: in the same folder", run_folder(b.path("logs5")), folder)
    events, wanted = compare_scalars(b, "gone on", folder, "dreambooth")
    b.equal("gone on: every step once", [e.step for e in events.Scalars("loss")], list(range(1, 8)))
    straight = scalars_of_rows(rows_of(run_folder(b.path("logs4"))))
    for tag in ("loss", "loss/epoch", "lr/unet", "norm/grad"):
        b.equal(f"gone on: {tag} as if never stopped", wanted[tag], straight[tag])
    shutil.rmtree(folder)
    b.train("killed", "--logging_dir", b.path("logs5"), *flags, "--resume", "auto", "--max_train_steps", "8",
            "--resume_changed")
    again = scalars_of_rows(rows_of(run_folder(b.path("logs5"))))
    b.equal("gone on where the folder is gone: a new one", [x for x, _ in again["loss"]], [8])


class Page(html.parser.HTMLParser):
    """Balanced tags, and what a page loads."""
    VOID = {"meta", "img", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.unbalanced, self.seen, self.loaded, self.text = [], 0, {}, [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen[tag] = self.seen.get(tag, 0) + 1
        self.loaded += [v for k, v in attrs if k in ("src", "href") and v is not None]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        self.unbalanced += not self.open or self.open.pop() != tag

    def handle_data(self, data):
        self.text += data


def case_report(b):
    """The page at the end: with samples, after an alarm, and where it cannot be written."""
    rng = np.random.default_rng(4)
    pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    os.makedirs(b.path("rep", "sample"))
    PIL.Image.fromarray(pixels).save(b.path("rep", "sample", "x_000001_00.png"))
    b.train("rep", "--logging_dir", b.path("logs7"), "--output_name", "a<b>&c", "--caption_prefix", "<i>")
    with open(os.path.join(run_folder(b.path("logs7")), "report.html"), encoding="utf-8") as f:
        text = f.read()
    page = Page(text)
    b.equal("report: tags are balanced", (page.unbalanced, page.open), (0, []))
    b.equal("report: no scripts", page.seen.get("script"), None)
    b.check("report: loads nothing", all(v.startswith("data:image/png;base64,") for v in page.loaded))
    b.check("report: names are escaped", "a<b>&c" in page.text and "<i>" in page.text and "i" not in page.seen)
    image, = page.loaded
    decoded = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(image.split(",")[1]))))
    b.check("report: the sample picture", np.array_equal(decoded, pixels))
    curves = re.findall(r"<svg.*?</svg>", text, re.S)
    tags = re.findall(r"<figcaption>(\S+) by (step|epoch)", text)
    b.equal("report: curves", sorted(t for t, _ in tags), sorted(DB_TAGS))
    points = xml.etree.ElementTree.fromstring(curves[0]).find("polyline").get("points").split()
    b.equal("report: points of the first curve", (tags[0][0], len(points)), ("loss", 7))
    heights = [float(p.split(",")[1]) for p in points]
    losses = [v for _, v in scalars_of_rows(rows_of(run_folder(b.path("logs7"))))["loss"]]
    b.check("report: which falls as the loss does", np.corrcoef(heights, losses)[0, 1] < -0.999)
    b.check("report: options and a warning", "learning_rate" in page.text and "lose more than" in page.text)
    done = b.train("rep2", "--report", b.path("page.html"), "--inject", "nan:step=4", check=False)
    with open(b.path("page.html"), encoding="utf-8") as f:
        b.equal("report: of a run that stopped", (done.returncode, "ended early: step 4: the loss is nan" in f.read()),
                (76, True))
    done = b.train("rep3", "--report", b.path("no", "such", "folder.html"))
    b.check("report: a place that does not exist is a warning", "no report:" in done.stderr)


def case_driver(b):
    """Texts and pictures."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(b.path("picture.png"))
    os.makedirs(b.path("driver"))
    text = "A line with `code`, ünïcode \U0001f600\nand another"
    subprocess.run([b.driver, "events", b.path("driver"), b.path("picture.png"), text], check=True)
    events = accumulate(b.path("driver"))
    image, = events.Images("sample/0")
    b.equal("driver: size of the picture", (image.step, image.width, image.height), (7, 56, 40))
    decoded = np.asarray(PIL.Image.open(io.BytesIO(image.encoded_image_string)))
    b.check("driver: the picture, decoded", np.array_equal(decoded, pixels))
    tensor, = events.Tensors("words/text_summary")
    b.equal("driver: the text", tensor.tensor_proto.string_val[0].decode(), text)
    b.equal("driver: its plugin", events.SummaryMetadata("words/text_summary").plugin_data.plugin_name, "text")
    values = [(e.step, e.value) for e in events.Scalars("odd")]
    b.equal("driver: large steps, negative and tiny values", values,
            [(0, -1.5), (2**40, float(np.float32(1e-30))), (2**62, float(np.float32(3.4e38)))])
    b.check("driver: NaN stays NaN", np.isnan(events.Scalars("nan")[0].value))


def case_refused(b):
    for flags, text in ((("--log_with", "wandb", "--logging_dir", b.path("x")), "no client"),
                        (("--log_with", "tensorboard"), "needs --logging_dir"),
                        (("--logging_dir", b.path("x"), "--log_prefix", "a/b"), "names of folders")):
        done = b.train("refused", *flags, check=False)
        b.equal(f"refused: {' '.join(flags[:2])}", (done.returncode, text in done.stderr), (64, True))
    done = b.train("out6", "--logging_dir", b.path("picture.png"), check=False)
    b.equal("refused: a logging_dir that is a file", (done.returncode != 0, "picture.png" in done.stderr),
            (True, True))


def main():
    b = Bench(sys.argv[1])
    for case in (case_plain, case_ranks, case_killed, case_report, case_driver, case_refused):
        try:
            case(b)
        except Exception:
            b.failed += 1
            print(f"FAILED: {case.__name__}\n{traceback.format_exc()}")
    shutil.rmtree(b.work)
    print(f"{b.passed} passed, {b.failed} failed")
    return 1 if b.failed else 0


if __name__ == "__main__":
    sys.exit(main())
