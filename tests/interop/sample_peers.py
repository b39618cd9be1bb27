#!/usr/bin/env python3
"""Compares dreamrun sample with diffusers' StableDiffusionPipeline, start latent by start latent.

    sample_peers.py BUILD_DIR [--only TEXT]

Tiny models with random weights (SD 1.x and 2.x kinds, epsilon and v prediction) are written by diffusers. dreamrun
samples two prompts from given latents (--latents_in) and dumps where it ends (--latents_out); the pipeline does the
same in f32 with DDIMScheduler or EulerDiscreteScheduler, guidance and negative prompt. Compared are the final latents
(relative L2) and the pixels of the PNG files (8-bit steps). TAESD as --vae is compared where $DR_SHARED has it. The
text of the PNG files, the grid and the reuse of dumped latents are checked too.
Prints each check with the measured number; ends with "N passed, N failed"; exit status 1 on failure.
"""
import argparse
import dataclasses
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionPipeline
from diffusers.utils import logging
from PIL import Image
from safetensors.torch import load_file, save_file

import tiny_models

LATENT_LIMIT = 2e-5  # the largest measured (one Euler step: 3.9e-6) times 5; the project's goal is 1e-3
PIXEL_LIMIT = 1      # of 255: two roundings of nearly the same number
PROMPTS = ["a photo of sks dog, 8k!", "ein Schloß am Fluß, 日本語"]
NEGATIVE = "blurry, lowres (worst quality)!"


@dataclasses.dataclass
class Case:
    name: str
    model: str
    sampler: str
    steps: int = 10
    cfg: float = 7.5
    size: tuple = (64, 96)  # width, height
    clip_skip: int = 1
    taesd: bool = False


CASES = [
    Case("SD1 epsilon DDIM", "sd1", "ddim"),
    Case("SD1 epsilon Euler", "sd1", "euler"),
    Case("SD1 one step DDIM", "sd1", "ddim", steps=1),
    Case("SD1 one step Euler", "sd1", "euler", steps=1),
    Case("SD1 30 steps DDIM", "sd1", "ddim", steps=30),
    Case("SD1 no guidance", "sd1", "ddim", cfg=1.0),
    Case("SD1 clip skip 2", "sd1", "euler", clip_skip=2),
    Case("SD1 wide DDIM", "sd1_wide", "ddim", size=(128, 64)),
    Case("SD2 epsilon DDIM", "sd2", "ddim"),
    Case("SD2 epsilon Euler", "sd2", "euler"),
    Case("SD2 v DDIM", "sd2v", "ddim"),
    Case("SD2 v Euler", "sd2v", "euler"),
    Case("SD2 v wide Euler", "sd2v_wide", "euler", size=(64, 128), cfg=3.0),
    Case("SD1 with TAESD", "sd1", "ddim", taesd=True),
]
MODELS = {"sd1": (tiny_models.SD1_ODD, False), "sd1_wide": (tiny_models.SD1_WIDE, False),
          "sd2": (tiny_models.SD2, False), "sd2v": (tiny_models.SD2, True),
          "sd2v_wide": (tiny_models.SD2_WIDE, True)}


class Score:
    passed = failed = 0

    def check(self, what, ok, number=""):
        self.passed += ok
        self.failed += not ok
        print(f"{'ok    ' if ok else 'FAILED'} {what} {number}", flush=True)

    def limit(self, what, value, limit):
        self.check(what, value <= limit, f"{value:.3g} (limit {limit:g})")


def make_scheduler(sampler, v_prediction):
    common = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
                  prediction_type="v_prediction" if v_prediction else "epsilon")
    if sampler == "ddim":
        return DDIMScheduler(**common, clip_sample=False, set_alpha_to_one=False)
    return EulerDiscreteScheduler(**common)


class Bench:
    """The models, made when they are first needed."""

    def __init__(self, build, work):
        self.build, self.work = build, work
        self.tools = os.path.join(build, "bin", "dreamrun_tools")
        self.made = {}

    def model(self, name):
        if name not in self.made:
            spec, v_prediction = MODELS[name]
            folder = os.path.join(self.work, name)
            tokenizer = tiny_models.write_tokenizer(self.build, os.path.join(self.work, f"{name}_tokenizer"), spec["v2"])
            tiny_models.write_model(folder, spec, tokenizer, seed=len(self.made), v_prediction=v_prediction)
            self.made[name] = folder
        return self.made[name]

    def sample(self, *args):
        done = subprocess.run([self.tools, "sample", *map(str, args)], capture_output=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"dreamrun sample: exit code {done.returncode}: {done.stderr.decode()}")
        return done.stdout.decode().split("\n")[:-1]


def text_states(pipe, text, clip_skip):
    """As sd-scripts has them; the pipeline's own clip_skip leaves the negative prompt alone."""
    ids = pipe.tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        hidden = pipe.text_encoder(ids, output_hidden_states=True).hidden_states
        return pipe.text_encoder.text_model.final_layer_norm(hidden[-clip_skip])


def run_peer(bench, case, initial, vae):
    v_prediction = MODELS[case.model][1]
    pipe = StableDiffusionPipeline.from_pretrained(bench.model(case.model), safety_checker=None,
                                                   requires_safety_checker=False)
    pipe.scheduler = make_scheduler(case.sampler, v_prediction)
    pipe.set_progress_bar_config(disable=True)
    if vae is not None:
        pipe.vae = vae
    finals, pixels = [], []
    for prompt, latent in zip(PROMPTS, initial):
        texts = dict(prompt=prompt, negative_prompt=NEGATIVE)
        if case.clip_skip > 1:
            texts = dict(prompt_embeds=text_states(pipe, prompt, case.clip_skip),
                         negative_prompt_embeds=text_states(pipe, NEGATIVE, case.clip_skip))
        final = pipe(**texts, latents=latent[None].clone(), output_type="latent",
                     num_inference_steps=case.steps, guidance_scale=case.cfg, width=case.size[0],
                     height=case.size[1]).images
        finals.append(final[0])
        with torch.no_grad():
            image = pipe.vae.decode(final / pipe.vae.config.scaling_factor).sample
        pixels.append(np.round(pipe.image_processor.postprocess(image, "np")[0] * 255).astype(np.int32))
    return torch.stack(finals), pixels


def run_case(bench, case, score):
    print(f"--- {case.name}")
    folder = tempfile.mkdtemp(dir=bench.work)
    width, height = case.size
    torch.manual_seed(len(case.name))
    initial = torch.randn(len(PROMPTS), 4, height // 8, width // 8)
    save_file({"initial": initial}, os.path.join(folder, "in.safetensors"))
    taesd = os.path.join(os.environ.get("DR_SHARED", ""), "taesd")
    vae = tiny_models.load_taesd(taesd) if case.taesd else None
    paths = bench.sample(
        "--model", bench.model(case.model), *[w for p in PROMPTS for w in ("--prompt", p)], "--negative_prompt",
        NEGATIVE, "--steps", case.steps, "--cfg_scale", case.cfg, "--sampler", case.sampler, "--width", width,
        "--height", height, "--clip_skip", case.clip_skip, "--seed", 5, "--output_dir", folder, "--latents_in",
        os.path.join(folder, "in.safetensors"), "--latents_out", os.path.join(folder, "out.safetensors"),
        *(["--vae", taesd] if case.taesd else []))
    dumped = load_file(os.path.join(folder, "out.safetensors"))
    finals, pixels = run_peer(bench, case, initial, vae)
    score.check("the dump has the given latents", torch.equal(dumped["initial"], initial))
    for i, want in enumerate(finals):
        error = torch.linalg.norm((dumped["final"][i] - want).double()) / torch.linalg.norm(want.double())
        score.limit(f"final latents of prompt {i}: relative L2", float(error), LATENT_LIMIT)
        got = np.asarray(Image.open(paths[i])).astype(np.int32)
        score.check(f"picture {i} has its size", got.shape == (height, width, 3), got.shape)
        score.limit(f"pixels of picture {i}: largest difference", int(np.abs(got - pixels[i]).max()), PIXEL_LIMIT)


def run_files(bench, score):
    print("--- files")
    folder = tempfile.mkdtemp(dir=bench.work)
    common = ["--model", bench.model("sd1"), "--prompt", PROMPTS[1], "--steps", 2, "--width", 64, "--height", 64, "--n",
              3, "--seed", 41, "--negative_prompt", NEGATIVE, "--clip_skip", 2]
    dump = os.path.join(folder, "dump.safetensors")
    paths = bench.sample(*common, "--output_dir", f"{folder}/a", "--latents_out", dump, "--grid", f"{folder}/g.png",
                         "--columns", 2)
    score.check("names", [os.path.basename(p) for p in paths] == ["00000_41.png", "00001_42.png", "00002_43.png"], paths)
    want = (f"{PROMPTS[1]}\nNegative prompt: {NEGATIVE}\n"
            "Steps: 2, Sampler: DDIM, CFG scale: 7.5, Seed: 42, Size: 64x64, Clip skip: 2")
    got = Image.open(paths[1]).text["parameters"]
    score.check("the PNG's text", got == want, "" if got == want else repr(got))
    grid = np.asarray(Image.open(f"{folder}/g.png"))
    score.check("the grid's size", grid.shape == (2 * 64 + 6, 2 * 64 + 6, 3), grid.shape)
    score.check("the grid's third picture", np.array_equal(grid[68:132, 2:66], np.asarray(Image.open(paths[2]))))
    again = bench.sample(*common, "--output_dir", f"{folder}/b", "--latents_in", dump)
    score.check("dumped latents give the same files",
                all(filecmp.cmp(a, b, shallow=False) for a, b in zip(paths, again)))
    noise = load_file(dump)["initial"]
    score.limit("the seeds' noise: mean", float(noise.mean().abs()), 4 / noise.numel()**0.5)
    score.limit("the seeds' noise: deviation from 1", abs(float(noise.std()) - 1), 4 / (2 * noise.numel())**0.5)
    score.check("each seed has its own noise", not torch.equal(noise[0], noise[1]))


def run_nan(bench, score):
    """Exit code 76 and no picture."""
    print("--- damaged weights")
    for part, tensor in (("unet", "conv_out.bias"), ("vae", "decoder.conv_out.bias")):
        folder = os.path.join(bench.work, f"nan_{part}")
        shutil.copytree(bench.model("sd1"), folder)
        path = os.path.join(folder, part, "diffusion_pytorch_model.safetensors")
        state = load_file(path)
        state[tensor][0] = float("nan")
        save_file(state, path)
        done = subprocess.run([bench.tools, "sample", "--model", folder, "--prompt", "a", "--steps", "1", "--width", "64",
                               "--height", "64", "--output_dir", f"{folder}/out"], capture_output=True, check=False)
        score.check(f"NaN in the {part}: exit code", done.returncode == 76, done.returncode)
        score.check(f"NaN in the {part}: message and no picture",
                    b"NaN or infinity" in done.stderr and os.listdir(f"{folder}/out") == [])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--only", default="", help="cases whose names contain this")
    args = parser.parse_args()
    score = Score()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(args.build, work)
        for case in CASES:
            if args.only not in case.name:
                continue
            if case.taesd and not os.path.isdir(os.path.join(os.environ.get("DR_SHARED", ""), "taesd")):
                print(f"--- {case.name}: left out, $DR_SHARED/taesd is missing")
                continue
            run_case(bench, case, score)
        if args.only in "files":
            run_files(bench, score)
            run_nan(bench, score)
    print(f"{score.passed} passed, {score.failed} failed")
    return 1 if score.failed or not score.passed else 0


if __name__ == "__main__":
    sys.exit(main())
