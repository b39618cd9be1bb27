#!/usr/bin/env python3
"""validation_peers.py BUILD - validation beside sd-scripts' numbers, torch and diffusers.

Which pictures are kept: as many as sd-scripts keeps, chosen by one permutation (Philox, done again here), none of them
in any dumped step, all others exactly as often as they should be. The loss: from the saved model, the cached latents
and the noise of its key, by diffusers and transformers in f64. When: the steps. And for 1, 2 and 3 ranks the same value.
"""
import glob
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import h5py
import numpy as np
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

import loss_formulas
import photo_folders
import tiny_models
from caption_rules import Stream
from step_replay import Dump, text_states

NOISE, VALIDATION = 2, 16  # purposes


class Score:
    passed = failed = 0

    def check(self, what, good, detail=""):
        self.passed += bool(good)
        self.failed += not good
        print(f"{'ok    ' if good else 'FAILED'} {what} {detail if not good else ''}", flush=True)


def normals(seed, sample, n):
    """dr_philox_normal: Box-Muller on pairs of draws."""
    stream, out = Stream(seed, 0, sample, NOISE), []
    while len(out) < n:
        u1, u2 = (stream.u32() + 1) * 2.0**-32, stream.u32() * 2.0**-32
        r = math.sqrt(-2 * math.log(u1))
        out += [r * math.cos(2 * math.pi * u2), r * math.sin(2 * math.pi * u2)]
    return np.array(out[:n], np.float32)


def kept(names, split, seed):
    """The last round(n * split) of one permutation, but one is left to train on."""
    n = round(len(names) * split)
    n = n - 1 if n == len(names) and split < 1 else n
    order = list(range(len(names)))
    Stream(seed, 0, 0, VALIDATION).shuffle(order)
    return sorted(names[i] for i in order[len(names) - n:])


class Place:
    def __init__(self, build, folder):
        self.bin, self.folder = os.path.join(build, "bin"), folder
        self.models = {}
        for name, spec, v in (("sd1", tiny_models.SD1, False), ("sd2-v", tiny_models.SD2, True)):
            tokenizer = tiny_models.write_tokenizer(build, os.path.join(folder, "tokenizer-" + name), spec["v2"])
            self.models[name] = os.path.join(folder, name)
            tiny_models.write_model(self.models[name], spec, tokenizer, 3, v)
        aspects = (1.0, 2.0, 0.5)
        photo_folders.write_folder(self.path("photos"), "2_sks dog", "dog", 9, aspects=aspects, captions=["one", "a, dog", "c"])
        photo_folders.write_folder(self.path("photos"), "1_sks can", "can", 4, aspects=aspects)
        photo_folders.write_alpha(self.path("photos", "2_sks dog"), self.path("clear", "1_sks dog"))

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def run(self, program, *words, ranks=1):
        command = [os.path.join(self.bin, program), *map(str, words)]
        if ranks > 1:
            command = ["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none", *command]
        env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        got = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
        if got.returncode != 0:
            raise RuntimeError(f"{command}: {got.returncode}\n{got.stderr[-2000:]}")
        return got.stdout, got.stderr

    def train(self, out, data, *words, model="sd1", ranks=1):
        """{step: validation loss}, and the folder of the run."""
        folder = self.path(out)
        shutil.rmtree(folder, ignore_errors=True)
        text, _ = self.run("train_db", "--pretrained_model_name_or_path", self.models[model], "--train_data_dir",
                           self.path(data), "--resolution", 128, "--enable_bucket", "--min_bucket_reso", 64,
                           "--max_bucket_reso", 256, "--learning_rate", 1e-3, "--seed", 5, "--output_dir", folder,
                           "--save_model_as", "diffusers_safetensors", "--progress", "json", *words, ranks=ranks)
        rows = [json.loads(line) for line in text.splitlines()]
        self.at = [list(r["at"].items()) for r in rows if "at" in r]
        return {r["step"]: r["validation_loss"] for r in rows if "validation_loss" in r}, folder


def check_split(score, place):
    names = {sub: sorted(os.path.join(place.path("photos"), sub, f) for f in os.listdir(place.path("photos", sub))
                         if not f.endswith(".caption")) for sub in ("1_sks can", "2_sks dog")}
    for split in (0.05, 0.1, 0.125, 0.25, 0.3, 0.5, 0.9):
        for seed in (0, 1, 77):
            want = sorted(sum((kept(paths, split, seed) for paths in names.values()), []))
            if not want:
                continue
            got = json.loads(place.run("dreamrun", "check", "--json", "--train_data_dir", place.path("photos"),
                                       "--resolution", 128, "--enable_bucket", "--min_bucket_reso", 64,
                                       "--validation_split", split, "--validation_seed", seed)[0])
            held = sorted(i["path"] for i in got["images"] if i["repeats"] == 0)
            total = got["totals"]
            score.check(f"split {split}, seed {seed}: {len(want)} pictures", held == want, f"{held} {want}")
            score.check("they are in no sample", total["validation_images"] == len(want)
                        and total["samples_per_epoch"] == sum(i["repeats"] for i in got["images"]), str(total))


def check_never_trained(score, place):
    _, folder = place.train("seen", "photos", "--validation_split", 0.3, "--max_train_epochs", 2, "--train_batch_size", 2,
                            "--dump_dir", place.path("seen-dump"), "--dump_steps", 99)
    uses = {}
    steps = len(glob.glob(os.path.join(place.path("seen-dump"), "step-*")))
    for step in range(1, steps + 1):
        for key in Dump(place.path("seen-dump"), step).keys:
            uses[key] = uses.get(key, 0) + 1
    want = {}
    for sub, repeats in (("1_sks can", 1), ("2_sks dog", 2)):
        paths = sorted(p for p in glob.glob(os.path.join(place.path("photos"), sub, "*.[jp][pn]g")))
        held = kept(paths, 0.3, 0)
        want |= {p: 2 * repeats for p in paths if p not in held}
    score.check(f"two epochs see {len(want)} pictures as often as they should, and no other", uses == want, str(uses))


def check_when(score, place):
    """13 pictures, 4 of them kept: 6 x 2 + 3 samples an epoch."""
    common = ("--validation_split", 0.3, "--train_batch_size", 15, "--virtual_shards", 1, "--cache_latents")
    cases = (("--max_train_epochs", 2), ("--max_train_epochs", 3, "--validate_every_n_epochs", 2),
             ("--max_train_epochs", 2, "--validate_every_n_steps", 3),
             ("--max_train_steps", 4, "--validate_every_n_epochs", 9))
    for words in cases:
        text, _ = place.run("dreamrun", "check", "--json", "--train_data_dir", place.path("photos"), "--resolution", 128,
                            "--enable_bucket", "--min_bucket_reso", 64, "--max_bucket_reso", 256,
                            *common[:4], *words)
        total = json.loads(text)["totals"]
        option = dict(zip(words[::2], words[1::2]))
        per_epoch, last = total["steps_per_epoch"], total["steps"]
        n_epochs, n_steps = option.get("--validate_every_n_epochs", 1), option.get("--validate_every_n_steps")
        want = {s for s in range(1, last + 1) if s % per_epoch == 0 and s // per_epoch % n_epochs == 0} | {last}
        want |= {s for s in range(1, last + 1) if n_steps and s % n_steps == 0}
        got, _ = place.train("when", "photos", *common, *words)
        score.check(f"{words}: after steps {sorted(want)}", set(got) == want, str(sorted(got)))
    whole, _ = place.train("when", "photos", *common, "--max_train_steps", 1)
    part, _ = place.train("when", "photos", *common, "--max_train_steps", 1, "--max_validation_steps", 1)
    score.check("15 pictures are a batch of 15", whole == part, f"{whole} {part}")
    models = []
    for out, words in (("often", ("--validate_every_n_steps", 1)), ("seldom", ("--validate_every_n_epochs", 9))):
        place.train(out, "photos", "--validation_split", 0.3, "--optimizer_type", "AdamWScheduleFree", "--max_train_steps", 5, *words)
        with open(place.path(out, "last", "unet", "diffusion_pytorch_model.safetensors"), "rb") as f:
            models.append(f.read())
    score.check("validation changes nothing of the training", models[0] == models[1])


def cached_latents(folder):
    found = {}
    for path in glob.glob(os.path.join(folder, "latents-*.h5")):
        with h5py.File(path) as f:
            for data in f["latents"].values():
                if not int(data.attrs["flip"]):
                    found[data.attrs["image"].decode()] = data[...]
    return found


def torch_loss(place, case, folder):
    """{timestep: mean loss of the kept pictures} by the saved model."""
    pipe = StableDiffusionPipeline.from_pretrained(os.path.join(folder, "last"), safety_checker=None, local_files_only=True)
    unet, text = pipe.unet.double().eval(), pipe.text_encoder.double().eval()
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    latents = cached_latents(place.path(case["cache"]))
    v = case["model"] == "sd2-v"
    low, high = case["timesteps"]
    pictures = sorted(glob.glob(os.path.join(place.path(case["data"]), "*", "*.[jp][pn]g")))
    folders = sorted({os.path.dirname(p) for p in pictures})
    held = [p for d in folders for p in kept([q for q in pictures if os.path.dirname(q) == d], case["split"], case["seed"])]
    total = {}
    for number, path in enumerate(held):
        latent = torch.from_numpy(latents[path]).double()[None] * np.float64(np.float32(0.18215))
        c, h, w = latent.shape[1:]
        ids = torch.tensor(photo_folders.token_ids(pipe.tokenizer, photo_folders.caption_of(path), case["tokens"]))
        with torch.no_grad():
            states = text_states(text, ids[None], 1)
        for k in range(4):
            t = torch.tensor([low + (k + 1) * (high - low) // 5])
            noise = torch.from_numpy(normals(case["seed"], 4 * number + k, c * h * w).reshape(1, h, w, c)).permute(0, 3, 1, 2).double()
            noisy = scheduler.add_noise(latent, noise, t)
            target = scheduler.get_velocity(latent, noise, t) if v else noise
            with torch.no_grad():
                losses = (unet(noisy, t, states).sample - target).square()
            if "--alpha_mask" in case["flags"]:
                losses = losses * torch.from_numpy(photo_folders.loss_mask(path, None, 128, (64, 256), False))
            loss = losses.mean().item() * loss_formulas.weight(t.item(), v, **case["weights"])
            total[t.item()] = total.get(t.item(), 0.0) + loss / len(held)
    return total


def check_log(score, place, got, at):
    """What --logging_dir has of the last validation."""
    path, = glob.glob(os.path.join(place.path("logs"), "*", "steps.jsonl"))
    with open(path, encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    last = {k: v for r in rows if r["step"] == 4 for k, v in r.items() if k.startswith("loss/validation/")}
    want = {f"loss/validation/timestep_{t}": float(v) for t, v in at} | {"loss/validation/epoch_average": got[4]}
    close = all(abs(last[k] - v) <= 1e-8 * v for k, v in want.items()) if last.keys() == want.keys() else False
    score.check("the log has it too", close, f"{last} {want}")
    shutil.rmtree(place.path("logs"))


CASES = (
    dict(model="sd1", data="clear", split=0.5, seed=3, timesteps=(0, 1000), tokens=75, weights={"min_snr_gamma": 5.0},
         flags=("--alpha_mask", "--alpha_color=hidden", "--min_snr_gamma=5", "--flip_aug", "--shuffle_caption")),
    dict(model="sd2-v", data="photos", split=0.3, seed=0, timesteps=(100, 700), tokens=150, weights={},
         flags=("--v2", "--v_parameterization", "--min_timestep=100", "--max_timestep=700", "--max_token_length=150",
                "--caption_dropout_rate=0.5", "--train_batch_size=2")),
)


def check_losses(score, place):
    for case in CASES:
        case["cache"] = "cache-" + case["model"]
        flags = ("--validation_split", case["split"], "--validation_seed", case["seed"], "--max_train_steps", 4,
                 "--cache_latents_to_disk", "--latent_cache_content", "latents", "--latent_cache_dir",
                 place.path(case["cache"]), "--virtual_shards", 6, *case["flags"])
        got, folder = place.train("one", case["data"], *flags, "--logging_dir", place.path("logs"), model=case["model"])
        at, by_torch = place.at[-1], torch_loss(place, case, folder)
        check_log(score, place, got, at)
        worst = max(abs(float(v) / by_torch[int(t)] - 1) for t, v in at)
        score.check(f"each of {list(by_torch)}, apart by {worst:.1e} (at most 1e-5)", worst <= 1e-5 and len(at) == 4)
        want = sum(by_torch.values()) / 4
        error = abs(got[4] - want) / want
        score.check(f"{case['model']}: loss {want:.6f} by torch, apart by {error:.1e} (at most 1e-5)", error <= 1e-5)
        for ranks in (2, 3):
            again, _ = place.train("more", case["data"], *flags, model=case["model"], ranks=ranks)
            score.check(f"{ranks} ranks: the same value", again == got, f"{again} {got}")
        other, _ = place.train("other", case["data"], *flags, "--validation_seed", 99, model=case["model"])
        score.check("another seed: another value", other != got)


def main():
    score = Score()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory(prefix="dreamrun-validation-") as folder:
        place = Place(os.path.abspath(sys.argv[1]), folder)
        check_split(score, place)
        check_never_trained(score, place)
        check_when(score, place)
        check_losses(score, place)
    print(f"{score.passed} passed, {score.failed} failed, 0 skipped")
    return 1 if score.failed or not score.passed else 0


if __name__ == "__main__":
    sys.exit(main())
