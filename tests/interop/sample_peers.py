#!/usr/bin/env python3
"""Compares dreamrun sample with diffusers' StableDiffusionPipeline, start latent by start latent.

    sample_peers.py BUILD_DIR [--only TEXT]

Tiny models with random weights (SD 1.x and 2.x kinds, epsilon and v prediction) are written by diffusers. dreamrun
samples two prompts from given latents (--latents_in) and dumps where it ends and what noise it added (--latents_out);
the pipeline does the same in f32 with the scheduler of that name (sd_schedulers.py), the same noise, guidance, and the
prompts' states by sd-scripts' rules (sample_text.py). Compared are the final latents (relative L2) and the pixels of
the PNG files (8-bit steps). TAESD as --vae is compared where $DR_SHARED has it. Then: files of prompts in all forms,
the text of the PNG files, the grid, the reuse of dumped latents. LoRAs (--lora) beside diffusers' load_lora_weights
and beside the merged model.
Prints each check with the measured number; ends with "N passed, N failed"; exit status 1 on failure.
"""
import argparse
import dataclasses
import filecmp
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging
from peft import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file, save_file

import lora_reference
import sample_text
import sd_schedulers
import tiny_models

LATENT_LIMIT = 5e-5  # the largest measured (Heun with clipped latents: 2.1e-5, the others: 1.4e-5) times 2.5
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
    sd_scripts: bool = False  # --compat
    karras: bool = False
    zero_snr: bool = False
    prompts: tuple = None

    def flags(self):
        return ["--sampler", self.sampler, "--steps", self.steps, "--cfg_scale", self.cfg, "--width", self.size[0],
                "--height", self.size[1], "--clip_skip", self.clip_skip, *(["--compat", "sd-scripts"] * self.sd_scripts),
                *(["--karras"] * self.karras), *(["--zero_terminal_snr"] * self.zero_snr)]


WEIGHTED = ("a (red:1.4) [round] dog, (((shiny))) fur", "plain")
LONG = (", ".join(f"a (thing:1.{i}) of kind {i}" for i in range(30)), "dog " * 300 + "!")
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
    Case("SD2 v DDIM", "sd2v", "ddim"),
    Case("SD2 v wide Euler", "sd2v_wide", "euler", size=(64, 128), cfg=3.0),
    Case("SD1 with TAESD", "sd1", "ddim", taesd=True),
    Case("SD1 weights", "sd1", "euler", prompts=WEIGHTED),
    Case("SD1 long prompts", "sd1", "euler", steps=4, prompts=LONG, clip_skip=2),
    Case("SD2 long prompts", "sd2", "euler", steps=4, prompts=LONG),
    Case("SD2 long prompts as sd-scripts", "sd2", "euler", steps=4, prompts=LONG, sd_scripts=True),
    Case("SD2 weights as sd-scripts", "sd2v", "ddim", prompts=WEIGHTED, sd_scripts=True),
    Case("SD2 v zero terminal SNR DDIM", "sd2v", "ddim", zero_snr=True),
    Case("SD2 v zero terminal SNR Euler a", "sd2v", "euler_a", zero_snr=True),
    Case("SD2 v zero terminal SNR DPM++ 2M", "sd2v", "dpmsolver++", zero_snr=True),
    Case("SD1 PLMS", "sd1", "pndm", steps=12),
    Case("SD1 one step PLMS", "sd1", "pndm", steps=1),
] + [
    Case(f"{model} {name} as sd-scripts, {steps} steps", model, name, steps=steps, sd_scripts=True)
    for model, name, steps in
    [("sd1", n, 16) for n in sd_schedulers.CLASSES if n != "ddim"] + [("sd2v", n, 7) for n in sd_schedulers.CLASSES] +
    [("sd1", "ddim", 3)] +  # more steps: clipping makes this model chaotic, f32 and f64 of diffusers part too
    [("sd1", n, 1) for n in ("lms", "euler_a", "heun", "dpm_2", "dpm_2_a", "dpmsolver", "dpmsolver++", "dpmsingle")]
] + [
    Case(f"{model} {name} Karras", model, name, steps=8, karras=True)
    for model, name in [("sd1", "euler"), ("sd2v", "lms"), ("sd1", "heun"), ("sd2v", "dpm_2"), ("sd1", "dpm_2_a"),
                        ("sd1", "dpmsolver"), ("sd2v", "dpmsolver++"), ("sd1", "dpmsolver++"), ("sd1", "dpmsingle")]
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


class Bench:
    """The models, made when they are first needed."""

    def __init__(self, build, work):
        self.build, self.work = build, work
        self.tools = os.path.join(build, "bin", "dreamrun_tools")
        self.made, self.pipes = {}, {}

    def model(self, name):
        if name not in self.made:
            spec, v_prediction = MODELS[name]
            folder = os.path.join(self.work, name)
            tokenizer = tiny_models.write_tokenizer(self.build, os.path.join(self.work, f"{name}_tokenizer"), spec["v2"])
            tiny_models.write_model(folder, spec, tokenizer, seed=len(self.made), v_prediction=v_prediction)
            self.made[name] = folder
        return self.made[name]

    def pipe(self, name):
        if name not in self.pipes:
            self.pipes[name] = StableDiffusionPipeline.from_pretrained(
                self.model(name), safety_checker=None, requires_safety_checker=False)
            self.pipes[name].set_progress_bar_config(disable=True)
        return self.pipes[name]

    def sample(self, *args):
        done = subprocess.run([self.tools, "sample", *map(str, args)], capture_output=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"dreamrun sample: exit code {done.returncode}: {done.stderr.decode()}")
        return done.stdout.decode().split("\n")[:-1]


def run_peer(bench, case, initial, noise, vae):
    prediction = "v_prediction" if MODELS[case.model][1] else "epsilon"
    pipe = bench.pipe(case.model)
    finals, pixels = [], []
    noises = iter(noise)
    sd_schedulers.draw_from(case.sampler, lambda shape: next(noises)[None])
    for i, (prompt, latent) in enumerate(zip(case.prompts or PROMPTS, initial)):
        noises = iter([*noise[i * len(noise) // len(initial):(i + 1) * len(noise) // len(initial)],
                       torch.zeros_like(latent)])  # the last step draws, and multiplies by 0
        pipe.scheduler = sd_schedulers.make(case.sampler, prediction, case.sd_scripts, case.karras, case.zero_snr)
        states, negative = sample_text.states(pipe, prompt, NEGATIVE if case.cfg > 1 else "", case.clip_skip,
                                              case.sd_scripts)
        final = pipe(prompt_embeds=states, negative_prompt_embeds=negative, latents=latent[None].clone(),
                     output_type="latent", num_inference_steps=case.steps, guidance_scale=case.cfg, width=case.size[0],
                     height=case.size[1]).images
        finals.append(final[0])
        with torch.no_grad():
            image = (vae or pipe.vae).decode(final / (vae or pipe.vae).config.scaling_factor).sample
        pixels.append(np.round(pipe.image_processor.postprocess(image, "np")[0] * 255).astype(np.int32))
    return torch.stack(finals), pixels


def run_case(bench, case, score, loras=()):
    """loras: (file, weight), which the pipe has already."""
    print(f"--- {case.name}")
    folder = tempfile.mkdtemp(dir=bench.work)
    width, height = case.size
    torch.manual_seed(len(case.name))
    prompts = case.prompts or PROMPTS
    initial = torch.randn(len(prompts), 4, height // 8, width // 8)
    save_file({"initial": initial}, os.path.join(folder, "in.safetensors"))
    taesd = os.path.join(os.environ.get("DR_SHARED", ""), "taesd")
    vae = tiny_models.load_taesd(taesd) if case.taesd else None
    paths = bench.sample(
        "--model", bench.model(case.model), *[w for p in prompts for w in ("--prompt", p)], "--negative_prompt",
        NEGATIVE, *case.flags(), "--seed", 5, "--output_dir", folder, "--latents_in",
        os.path.join(folder, "in.safetensors"), "--latents_out", os.path.join(folder, "out.safetensors"),
        *(["--vae", taesd] if case.taesd else []), *[w for f, r in loras for w in ("--lora", f"{f}:{r}")])
    dumped = load_file(os.path.join(folder, "out.safetensors"))
    finals, pixels = run_peer(bench, case, initial, dumped.get("noise", torch.zeros(0)), vae)
    score.check("the dump has the given latents", torch.equal(dumped["initial"], initial))
    for i, want in enumerate(finals):
        error = torch.linalg.norm((dumped["final"][i] - want).double()) / torch.linalg.norm(want.double())
        score.limit(f"final latents of prompt {i}: relative L2", float(error), LATENT_LIMIT)
        got = np.asarray(Image.open(paths[i])).astype(np.int32)
        score.check(f"picture {i} has its size", got.shape == (height, width, 3), got.shape)
        score.limit(f"pixels of picture {i}: largest difference", int(np.abs(got - pixels[i]).max()), PIXEL_LIMIT)
    return paths


def write_loras(bench, pipe, folder):
    """One in sd-scripts' names, of half precision and with 3x3 convolutions, and one that diffusers writes."""
    os.mkdir(folder)
    files = []
    for i, rank in enumerate((4, 3)):
        net = lora_reference.Network(pipe.unet, pipe.text_encoder, dim=rank, alpha=2, conv_dim=rank, conv_alpha=1)
        generator = torch.Generator().manual_seed(50 + i)
        for m in net.modules():
            m.start(generator)
        files.append(os.path.join(folder, f"kohya {i}.safetensors"))
        save_file({k: v.half() for k, v in net.state().items()}, files[-1])
    twin = StableDiffusionPipeline.from_pretrained(bench.model("sd1"), safety_checker=None,
                                                   requires_safety_checker=False)
    twin.load_lora_weights(folder, weight_name=os.path.basename(files[1]), adapter_name="default")
    parts = {"unet": twin.unet, "text_encoder": twin.text_encoder}
    StableDiffusionPipeline.save_lora_weights(
        folder, **{f"{k}_lora_layers": get_peft_model_state_dict(m) for k, m in parts.items()},
        **{f"{k}_lora_adapter_metadata": m.peft_config["default"].to_dict() for k, m in parts.items()})
    return [files[0], os.path.join(folder, "pytorch_lora_weights.safetensors")]


def run_loras(bench, score):
    """--lora beside load_lora_weights + set_adapters, and beside the model that merge_lora writes."""
    pipe, folder = bench.pipe("sd1"), os.path.join(bench.work, "loras")
    files, weights = write_loras(bench, pipe, folder), (0.8, -0.5)
    case = Case("SD1 two LoRAs", "sd1", "euler", clip_skip=2)
    for i, file in enumerate(files):
        pipe.load_lora_weights(folder, weight_name=os.path.basename(file), adapter_name="first" if i == 0 else "second")
    pipe.set_adapters(["first", "second"], list(weights))
    paths = run_case(bench, case, score, list(zip(files, weights)))
    pipe.unload_lora_weights()
    merged, latents = os.path.join(folder, "merged"), os.path.join(os.path.dirname(paths[0]), "in.safetensors")
    done = subprocess.run([bench.tools, "merge_lora", "--sd_model", bench.model("sd1"), "--save_to", merged, "--models",
                           *files, "--ratios", *map(str, weights)], capture_output=True, check=False)
    score.check("merge_lora", done.returncode == 0, done.stderr.decode())
    prompts = [w for p in PROMPTS for w in ("--prompt", p)]
    common = [*prompts, "--negative_prompt", NEGATIVE, *case.flags(), "--seed", 5, "--latents_in", latents]
    same = bench.sample("--model", merged, *common, "--output_dir", f"{folder}/same")
    plain = bench.sample("--model", bench.model("sd1"), *common, "--output_dir", f"{folder}/plain")
    for i, path in enumerate(paths):
        got, want, without = (np.asarray(Image.open(p)).astype(np.int32) for p in (path, same[i], plain[i]))
        score.check(f"picture {i} is that of the merged model", np.array_equal(got, want))
        score.check(f"picture {i} shows the LoRAs", np.abs(got - without).max() > 10 * PIXEL_LIMIT, np.abs(got - without).max())
    text = Image.open(paths[1]).text["parameters"]
    hashes = [hashlib.sha256(data[8 + int.from_bytes(data[:8], "little"):]).hexdigest()[:12]
              for data in (open(f, "rb").read() for f in files)]
    tags = [f"{PROMPTS[1]} <lora:kohya 0:0.8> <lora:pytorch_lora_weights:-0.5>\nNegative",
            f', Lora hashes: "kohya 0: {hashes[0]}, pytorch_lora_weights: {hashes[1]}"']
    score.check("the PNG tells of them", text.startswith(tags[0]) and text.endswith(tags[1]), text)


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
    marked = os.path.join(folder, "marked")
    shutil.copytree(bench.model("sd2v"), marked)
    with open(os.path.join(marked, "scheduler", "scheduler_config.json"), "r+", encoding="utf-8") as f:
        config = json.load(f)
        f.seek(0)
        json.dump(dict(config, rescale_betas_zero_snr=True), f)
        f.truncate()
    small = ["--prompt", "a", "--steps", 2, "--width", 64, "--height", 64, "--seed", 1]
    flag, file, plain = (bench.sample("--model", model, *small, "--output_dir", f"{folder}/{i}", *more)[0] for i, (model, more)
                         in enumerate([(bench.model("sd2v"), ["--zero_terminal_snr"]), (marked, []), (bench.model("sd2v"), [])]))
    score.check("zero terminal SNR by the scheduler's file", filecmp.cmp(flag, file, shallow=False))
    score.check("it matters", not filecmp.cmp(file, plain, shallow=False))
    noise = load_file(dump)["initial"]
    score.limit("the seeds' noise: mean", float(noise.mean().abs()), 4 / noise.numel()**0.5)
    score.limit("the seeds' noise: deviation from 1", abs(float(noise.std()) - 1), 4 / (2 * noise.numel())**0.5)
    score.check("each seed has its own noise", not torch.equal(noise[0], noise[1]))


PROMPT_LINES = """# a comment, and blank lines

a (red:1.3) house --n ugly, blurry --w 64 --h 70 --d 3 --s 2 --l 5.5 --ss euler
w 512 house --w 64 --h 64 --s 2
  a dog --D 17 --S 3 --W 130 --H 64 --L 1 --SS dpmsolver++ --n none used
n ugly dog --s 2 --w 64 --h 64 --unknown 3
"""
# prompt, negative, width, height, seed, steps, scale, title of the sampler: by spec/sdscripts.md 11.2, the prompt itself
# never an option, sides down to multiples of the tiny model's 32
PROMPT_MEANING = [
    ("a (red:1.3) house", "ugly, blurry", 64, 64, 3, 2, 5.5, "Euler"),
    ("w 512 house", "", 64, 64, None, 2, 7.5, "Euler a"),
    ("a dog", "none used", 128, 64, 17, 3, 1, "DPM++ 2M"),
    ("n ugly dog", "", 64, 64, None, 2, 7.5, "Euler a"),
]
PROMPT_TOML = """
[prompt]
width = 64
height = 64
sample_steps = 2
negative_prompt = "blurry"
[[prompt.subset]]
prompt = "a cat"
seed = 5
scale = 3
[[prompt.subset]]
prompt = "a \\"dog\\""
height = 100
sample_sampler = "heun"
negative_prompt = ""
"""
TOML_MEANING = [("a cat", "blurry", 64, 64, 5, 2, 3, "Euler a"), ('a "dog"', "", 64, 96, None, 2, 7.5, "Heun")]
PROMPT_JSON = """["a line --w 64 --h 64 --s 2 --d 8",
 {"prompt": "an object", "negative_prompt": "bad", "width": 96, "height": 64, "seed": 9, "sample_steps": 1,
  "scale": 2.5, "sample_sampler": "k_dpm_2_a", "unknown": 1, "guidance_scale": null}]"""
JSON_MEANING = [("a line", "", 64, 64, 8, 2, 7.5, "Euler a"), ("an object", "bad", 96, 64, 9, 1, 2.5, "DPM2 a")]


def parameters(meaning, seed):
    prompt, negative, width, height, own_seed, steps, scale, title = meaning
    return (f"{prompt}\n" + (f"Negative prompt: {negative}\n" if negative else "") +
            f"Steps: {steps}, Sampler: {title}, CFG scale: {scale:g}, Seed: {seed if own_seed is None else own_seed}, "
            f"Size: {width}x{height}")


def run_prompt_files(bench, score):
    print("--- files of prompts")
    folder = tempfile.mkdtemp(dir=bench.work)
    for ending, text, meanings in ((".txt", PROMPT_LINES, PROMPT_MEANING), (".toml", PROMPT_TOML, TOML_MEANING),
                                   (".json", PROMPT_JSON, JSON_MEANING)):
        path = os.path.join(folder, f"prompts{ending}")
        with open(path, "w", encoding="utf-8", newline="\r\n" if ending == ".txt" else None) as f:
            f.write(text)
        paths = bench.sample("--model", bench.model("sd1"), "--sample_prompts", path, "--sampler", "euler_a", "--seed", 40,
                             "--output_dir", os.path.join(folder, ending[1:]), "--n", 1)
        score.check(f"{ending}: number of pictures", len(paths) == len(meanings), len(paths))
        for i, (path, meaning) in enumerate(zip(paths, meanings)):
            got, want = Image.open(path).text["parameters"], parameters(meaning, 40 + i)
            score.check(f"{ending}: prompt {i}", got == want, "" if got == want else f"{got!r} {want!r}")


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
        if args.only in "SD1 two LoRAs":
            run_loras(bench, score)
        if args.only in "files":
            run_files(bench, score)
            run_prompt_files(bench, score)
            run_nan(bench, score)
    print(f"{score.passed} passed, {score.failed} failed")
    return 1 if score.failed or not score.passed else 0


if __name__ == "__main__":
    sys.exit(main())
