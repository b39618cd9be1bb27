#!/usr/bin/env python3
"""Trains tiny models on real photos and does every step again with diffusers, transformers and torch.

    train_peers.py BUILD_DIR [--only NAME] [--keep FOLDER]

Models are written by diffusers with random weights (SD 1.x and 2.x kinds, several shapes), photos come from
$DR_SHARED/dreambooth (drawn pictures where that is missing). Each case runs train_db for three steps with
--dump_dir. Then, from the dump:

- inputs: token ids by CLIPTokenizer, pixels by Pillow and OpenCV as sd-scripts has them, latents by diffusers' VAE,
  noise and timesteps by their statistics, noisy latents and targets by DDPMScheduler
- text states, prediction, losses and every gradient by transformers and diffusers in f64
- the optimizer by torch.optim.AdamW and clip_grad_norm_ fed with the dumped gradients, learning rates by transformers'
  schedules
- the saved model: loaded by StableDiffusionPipeline, its weights compared, two denoising steps run

And: 1, 2 and 4 ranks, accumulation and checkpointing end in the same bytes; h5py reads the latent cache.
Prints each check with the measured number; ends with "N passed, N failed, N skipped"; exit status 1 on failure.
"""
import contextlib
import dataclasses
import filecmp
import glob
import os
import subprocess
import sys
import time
import traceback

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import h5py
import numpy as np
import PIL.Image
import torch
import transformers
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import load_file

import loss_formulas
import peer_script
import photo_folders
import tiny_models
import weighted_captions
from step_replay import Dump, Replay, gradient_errors, relative

STEPS = 3
# Tolerances: those of the project's goals for f32 training against an f64 peer. Measured values are printed.
LIMITS = {
    "encoder_hidden_states": 1e-5, "noisy_latents": 1e-6, "target": 1e-6, "model_pred": 1e-5,
    "loss of a sample": 1e-5, "loss of the step": 1e-5, "gradient norm": 1e-5,
}
GRADIENT_LIMIT = 1e-4
UPDATE_LIMIT = 1e-5
PIPELINE_LIMIT = 1e-5


@dataclasses.dataclass
class Case:
    name: str
    model: str = "sd1"
    data: str = "plain"
    flags: tuple = ()
    ranks: int = 1
    launcher: str = "mpirun"
    resolution: int = 64
    limits: tuple = None      # (smallest, largest) bucket side
    clip_skip: int = 1
    tokens: int = 75
    stop: int = None          # --stop_text_encoder_training
    prior: float = 1.0
    seed: int = 1
    lr: float = 1e-3
    lr_te: float = None
    schedule: tuple = ("constant", 0)
    max_grad_norm: float = 1.0
    save: str = "diffusers_safetensors"
    taesd: bool = False
    flip: bool = False
    batch: int = 1
    accumulation: int = 1
    steps: int = STEPS
    optimizer: str = "AdamW"
    optimizer_args: tuple = ()
    update_limit: float = UPDATE_LIMIT
    loss: str = "l2"
    weights: dict = dataclasses.field(default_factory=dict)  # of loss_formulas.weight
    plain_noise: bool = True
    v_prediction: bool = False  # set from the model

    def arguments(self, place):
        base = place.models[self.model]
        train, reg = place.data[self.data]
        a = [f"--pretrained_model_name_or_path={base}", f"--train_data_dir={train}", f"--resolution={self.resolution}",
             f"--max_train_steps={self.steps}", f"--seed={self.seed}", f"--learning_rate={self.lr}", f"--save_model_as={self.save}",
             f"--train_batch_size={self.batch}", f"--gradient_accumulation_steps={self.accumulation}",
             f"--max_grad_norm={self.max_grad_norm}", f"--lr_scheduler={self.schedule[0]}",
             f"--lr_warmup_steps={self.schedule[1]}", f"--prior_loss_weight={self.prior}", *(f.replace("MASKS", place.masks) for f in self.flags)]
        a += [f"--reg_data_dir={reg}"] if reg else []
        a += ["--v2"] if sizes_of(self.model)["v2"] else []
        a += ["--v_parameterization"] if self.v_prediction else []
        a += ["--enable_bucket", f"--min_bucket_reso={self.limits[0]}", f"--max_bucket_reso={self.limits[1]}"] \
            if self.limits else []
        a += [f"--clip_skip={self.clip_skip}"] if self.clip_skip > 1 else []
        a += [f"--max_token_length={self.tokens}"] if self.tokens > 75 else []
        a += [f"--stop_text_encoder_training={self.stop}"] if self.stop is not None else []
        a += [f"--learning_rate_te={self.lr_te}"] if self.lr_te is not None else []
        a += [f"--vae={place.taesd_folder}"] if self.taesd else []
        a += ["--flip_aug"] if self.flip else []
        a += [f"--optimizer_type={self.optimizer}", f"--loss_type={self.loss}"]
        a += ["--optimizer_args", *self.optimizer_args] if self.optimizer_args else []
        return a

    def trains_text_encoder(self, step):
        """In step (from 1)?"""
        return self.stop is None or step <= self.stop


MODELS = {  # name: (sizes, predicts v)
    "sd1": (tiny_models.SD1, False),
    "sd1-wide": (tiny_models.SD1_WIDE, False),
    "sd1-odd": (tiny_models.SD1_ODD, False),
    "sd2-v": (tiny_models.SD2, True),
    "sd2-wide": (tiny_models.SD2_WIDE, False),
}

CASES = [
    Case("sd1, one picture a step", flags=("--cache_latents",)),
    Case("sd2 v, two ranks, batch 2, frozen text encoder", model="sd2-v", ranks=2, batch=2, stop=-1, lr=2e-3,
         schedule=("cosine", 2)),
    Case("sd1 wide, regularisation, accumulation 2, checkpointing", model="sd1-wide", data="reg", batch=2,
         resolution=128, accumulation=2, prior=0.5, flags=("--gradient_checkpointing",), save="safetensors"),
    Case("sd1 odd, clip skip 2, 150 tokens, no clipping", model="sd1-odd", data="captions", batch=2, clip_skip=2,
         tokens=150, max_grad_norm=0.0, lr_te=5e-4, schedule=("linear", 0)),
    Case("sd2 wide, 225 tokens, text encoder stops after 2, launched ranks", model="sd2-wide", data="captions",
         resolution=128, ranks=2, launcher="launch", tokens=225, stop=2, max_grad_norm=0.1, save="safetensors"),
    Case("sd1, buckets, batch 3, four ranks of unequal leaves", data="shapes", ranks=4, batch=3, resolution=128,
         limits=(64, 256), flags=("--cache_latents",), schedule=("polynomial", 1)),
    Case("sd1, real TAESD, flips", data="plain", taesd=True, flip=True, batch=2, flags=("--gradient_checkpointing",)),
    Case("sd1 odd, weighted captions of 150 tokens", model="sd1-odd", data="weighted", batch=2, tokens=150,
         flags=("--weighted_captions",)),
    Case("sd2 v, weighted captions, two ranks", model="sd2-v", data="weighted", ranks=2, flags=("--weighted_captions",)),
    Case("sd1, masked loss, flips", batch=2, flip=True, flags=("--masked_loss", "--conditioning_data_dir=MASKS")),
    Case("sd1, alpha masks, buckets, flips, cached", data="alpha", batch=2, flip=True, resolution=128, limits=(64, 256),
         flags=("--alpha_mask", "--alpha_color=hidden", "--cache_latents")),
    Case("sd1, captions without padding", data="captions", batch=2, flags=("--no_token_padding",)),
    Case("sd1, AdamW8bit, ten steps", optimizer="AdamW8bit", steps=10, max_grad_norm=0.0, batch=2),
    Case("sd1, Lion, ten steps", optimizer="Lion", optimizer_args=("weight_decay=0.1",), steps=10, lr=1e-4,
         max_grad_norm=0.0, accumulation=2),
    Case("sd1, AdaFactor, ten steps", optimizer="AdaFactor", steps=10, lr=1e-3, schedule=("constant_with_warmup", 3),
         optimizer_args=("relative_step=False", "scale_parameter=False"), update_limit=1e-4),
    Case("sd1, Prodigy, ten steps, two ranks", optimizer="Prodigy", optimizer_args=("weight_decay=0.01",), steps=10,
         lr=1.0, ranks=2, stop=8, update_limit=1e-4),
    Case("sd1, AdamW, ten steps", steps=10, lr_te=5e-4, schedule=("cosine", 2)),
    Case("sd1, min-SNR, debiased, huber, timesteps 200 to 700", loss="huber", batch=2,
         weights={"min_snr_gamma": 5.0, "debiased": True},
         flags=("--min_snr_gamma=5", "--debiased_estimation_loss", "--min_timestep=200", "--max_timestep=700")),
    Case("sd2 v, scale_v_pred, smooth_l1, noise offset, multires", model="sd2-v", loss="smooth_l1", plain_noise=False,
         weights={"scale_v_pred": True}, batch=2,
         flags=("--scale_v_pred_loss_like_noise_pred", "--noise_offset=0.1", "--multires_noise_iterations=4")),
    Case("sd1, v_pred_like, l1", loss="l1", weights={"v_pred_like": 0.5}, flags=("--v_pred_like_loss=0.5",)),
    Case("from a single file of our own", model="single", resolution=128, batch=2, save="diffusers_safetensors"),
]


def sizes_of(model):
    """"single" is sd1-wide after training, as one file."""
    return MODELS["sd1-wide" if model == "single" else model][0]


class Score:
    passed = failed = skipped = 0

    def check(self, what, good, note=""):
        self.passed += bool(good)
        self.failed += not good
        print(f"  {'ok    ' if good else 'FAILED'} {what}{': ' if note else ''}{note}", flush=True)

    def at_most(self, what, value, limit, note=""):
        self.check(what, value <= limit, f"{value:.2e} (at most {limit:.0e}){note}")  # NaN fails

    def skip(self, what):
        self.skipped += 1
        print(f"  skipped {what}", flush=True)

    @contextlib.contextmanager
    def section(self, name):
        """A peer that raises is one failed check, not the end."""
        start = time.monotonic()
        print(name, flush=True)
        try:
            yield
        except Exception as e:  # whatever a peer raises
            where = traceback.extract_tb(e.__traceback__)[-1]
            self.check(f"{name}: {type(e).__name__} at {where.filename}:{where.lineno}", False, str(e)[:2000])
        print(f"  {time.monotonic() - start:.1f} s", flush=True)


class Place:
    """Where models, pictures and results of this run lie."""

    def __init__(self, build, folder):
        self.build, self.folder = build, folder
        self.taesd_folder = os.path.join(os.environ.get("DR_SHARED", ""), "taesd")
        self.tokenizers = {v2: tiny_models.write_tokenizer(build, os.path.join(folder, f"tokenizer{v2:d}"), v2)
                           for v2 in (False, True)}
        self.models = {}
        for i, (name, (spec, v_prediction)) in enumerate(MODELS.items()):
            self.models[name] = os.path.join(folder, "models", name)
            tiny_models.write_model(self.models[name], spec, self.tokenizers[spec["v2"]], i, v_prediction)
        self.write_data()

    def write_data(self):
        def base(name):
            return os.path.join(self.folder, "data", name)

        photo_folders.write_folder(base("plain"), "2_sks dog", "dog", 5)
        photo_folders.write_folder(base("reg"), "1_sks dog", "dog", 3)
        photo_folders.write_folder(base("reg class"), "1_dog", "dog2", 4)
        captions = ["a photo of sks cat, best quality!, \u201clovely\u201d", photo_folders.LONG_CAPTION,
                    photo_folders.LONG_CAPTION[:700], "!"]
        photo_folders.write_folder(base("captions"), "1_sks cat", "cat2", 5, captions=captions)
        weighted = ["a (red:1.3) [round] ((sks cat)) :0.5) \\(x\\)", "(" + photo_folders.LONG_CAPTION[:500] + ":0.7), more",
                    "[[a (b] c", "!"]
        photo_folders.write_folder(base("weighted"), "1_sks cat", "cat2", 5, captions=weighted)
        photo_folders.write_folder(base("shapes"), "3_sks can", "can", 6, aspects=(1.0, 3.0, 0.3, 1.1))
        photo_folders.write_folder(base("shapes"), "1_sks backpack", "backpack", 2, aspects=(0.25, 2.0))
        photo_folders.write_alpha(os.path.join(base("shapes"), "3_sks can"), os.path.join(base("alpha"), "1_sks can"))
        self.masks = base("masks")
        os.makedirs(self.masks)
        for i, path in enumerate(sorted(glob.glob(os.path.join(base("plain"), "*", "*.[jp]*g")))):
            size = PIL.Image.open(path).size
            mask = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), np.uint8)
            mask[: size[1] // 2, :, 0] //= 4
            PIL.Image.fromarray(mask).save(os.path.join(self.masks, os.path.splitext(os.path.basename(path))[0] + ".png"))
        self.data = {"plain": (base("plain"), None), "reg": (base("reg"), base("reg class")),
                     "captions": (base("captions"), None), "weighted": (base("weighted"), None), "shapes": (base("shapes"), None),
                     "alpha": (base("alpha"), None)}

    def command(self, ranks, launcher):
        program = os.path.join(self.build, "bin", "train_db")
        if launcher == "launch":
            return [os.path.join(self.build, "bin", "dreamrun"), "launch", "--cpu", "--num_processes", str(ranks),
                    "train_db"]
        if ranks > 1:
            return ["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none", program]
        return [program]

    def train(self, name, case, extra=(), ranks=None):
        """Runs train_db. Returns (output folder, dump folder)."""
        out = os.path.join(self.folder, "out", name.replace(" ", "_").replace(",", ""))
        command = self.command(ranks or case.ranks, case.launcher) + case.arguments(self) + [
            f"--output_dir={out}", f"--dump_dir={out}-dump", f"--dump_steps={case.steps}", *extra]
        env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\nexit status {done.returncode}\n{done.stderr[-1500:]}")
        return out, out + "-dump"


# ---- what a step saw -----------------------------------------------------------------------------

def check_samples(score, place, case, dumps):
    """Captions, weights, noise and timesteps of all samples."""
    tokenizer = place.tokenizers[sizes_of(case.model)["v2"]]
    reg = place.data[case.data][1]
    wrong_ids, wrong_weights, n = [], [], 0
    for dump in dumps:
        ids, weights = dump.all_samples("input_ids"), dump.all_samples("loss_weights")
        weights_of_tokens = dump.all_samples("token_weights") if "--weighted_captions" in case.flags else []
        if "--no_token_padding" in case.flags:
            wrong_ids += [k for g in dump.groups for k in ["length"] if not any(
                row[-1] == 49407 and row[-2] != 49407 for row in g["input_ids"].tolist())]
        times = dump.all_samples("timesteps")
        for key, row, weight, t in zip(dump.keys, ids, weights, times, strict=True):
            n += 1
            caption = photo_folders.caption_of(key)
            if "--weighted_captions" in case.flags:
                want, want_weights = weighted_captions.token_ids(tokenizer, caption, case.tokens)
                got_weights = weights_of_tokens.pop(0).tolist()
                if got_weights != [float(np.float32(x)) for x in want_weights]:
                    wrong_ids.append(key + " (weights)")
            elif "--no_token_padding" in case.flags:
                want = photo_folders.token_ids(tokenizer, caption, case.tokens)[: len(row)]
            else:
                want = photo_folders.token_ids(tokenizer, caption, case.tokens)
            if row.tolist() != want:
                wrong_ids.append(key)
            is_reg = reg is not None and key.startswith(reg + os.sep)
            expected = (case.prior if is_reg else 1.0) * loss_formulas.weight(t.item(), case.v_prediction, **case.weights)
            if abs(weight.item() - expected) > 1e-6 * expected:
                wrong_weights.append(key)
    score.check(f"input_ids of {n} samples equal CLIPTokenizer's", not wrong_ids, " ".join(wrong_ids[:3]))
    score.check("loss weights", not wrong_weights, " ".join(wrong_weights[:3]))
    timesteps = [t.item() for d in dumps for t in d.all_samples("timesteps")]
    score.check("timesteps in 0..999", all(0 <= t < 1000 for t in timesteps), f"{min(timesteps)}..{max(timesteps)}")
    score.check("every rank wrote its part", all(d.n_files == case.ranks for d in dumps))
    batches = [(len(d.keys), d.number("global_batch")) for d in dumps]
    score.check("global batch is the number of samples", all(a == b for a, b in batches), str(batches))


def posterior_or_latent(place, case, vae, image):
    """Mean and standard deviation of the unscaled latents, (4,h,w) in f64; TAESD has no deviation."""
    x = torch.from_numpy(image).double().unsqueeze(0)
    with torch.no_grad():
        if case.taesd:
            return vae.encode(x).latents[0], None
        posterior = vae.encode(x).latent_dist
        return posterior.mean[0], posterior.std[0]


def open_vae(place, case):
    if case.taesd:
        return tiny_models.load_taesd(place.taesd_folder).double().eval()
    folder = place.models["sd1-wide" if case.model == "single" else case.model]
    return AutoencoderKL.from_pretrained(os.path.join(folder, "vae")).double().eval()


def explain_latent(place, case, vae, key, latent, memo):
    """The posterior noise that explains a sample's latents, or their error where there is no posterior."""
    best = None
    for flip in ((False, True) if case.flip else (False,)):
        if (key, flip) not in memo:
            image = photo_folders.pixels(key, case.resolution, case.limits, flip)
            memo[key, flip] = posterior_or_latent(place, case, vae, image)
        mean, std = memo[key, flip]
        if mean.shape != latent.shape:
            raise ValueError(f"{key}: latents are {tuple(latent.shape)}, expected {tuple(mean.shape)}")
        scale = 1.0 if case.taesd else vae.config.scaling_factor
        rest = latent.double() / scale - mean
        rest = rest if std is None else rest / std
        best = rest if best is None or rest.norm() < best.norm() else best
    return best


def check_latents(score, place, case, dumps):
    vae, memo, rest = open_vae(place, case), {}, {}
    for dump in dumps:
        for key, latent in zip(dump.keys, dump.all_samples("latents"), strict=True):
            noise = explain_latent(place, case, vae, key, latent, memo)
            rest[latent.numpy().tobytes()] = noise.flatten()  # a cached latent counts once
    values = torch.cat(list(rest.values()))
    if case.taesd:
        score.at_most(f"{len(rest)} latents equal AutoencoderTiny's, largest difference", values.abs().max().item(),
                      1e-4)
        return
    n = values.numel()
    score.at_most(f"posterior noise of {len(rest)} latents, |mean|", abs(values.mean().item()), 5 / n**0.5)
    score.at_most("posterior noise, |std - 1|", abs(values.std().item() - 1), 5 / (2 * n)**0.5)
    score.at_most("posterior noise, largest", values.abs().max().item(), 6.5)


def check_masks(score, place, case, dumps):
    masks = place.masks if "--masked_loss" in case.flags else None
    wrong, whole, n = [], 0, 0
    for dump in dumps:
        for key, mask in zip(dump.keys, dump.all_samples("loss_mask"), strict=True):
            sides = [photo_folders.loss_mask(key, masks, case.resolution, case.limits, flip) for flip in (False, True)]
            n += 1
            whole += bool((mask == 1).all())
            if not any(np.array_equal(mask.numpy(), side) for side in sides):
                wrong.append(key)
    score.check(f"{n} masks are Pillow's and OpenCV's, bit for bit", not wrong and whole < n,
                " ".join(wrong[:3]) or f"{whole} of them are whole")


# ---- what a step made ----------------------------------------------------------------------------

def expected_rates(case):
    """(lr_unet, lr_text_encoder) of each step by transformers' schedules."""
    rates = (case.lr, case.lr if case.lr_te is None else case.lr_te)
    probe = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": r} for r in rates])
    schedule = transformers.get_scheduler(case.schedule[0], probe, num_warmup_steps=case.schedule[1],
                                          num_training_steps=case.steps)
    result = []
    for _ in range(case.steps):
        result.append(tuple(schedule.get_last_lr()))
        probe.step()
        schedule.step()
    return result


def check_steps(score, case, replay, dumps):
    """Networks, losses, gradients of each step; leaves replay with the weights after the last one."""
    worst, grad_errors, zeros, noise, names_good = {}, [], set(), 0.0, True
    rates, rate_error = expected_rates(case), 0.0
    for step, (dump, lr) in enumerate(zip(dumps, rates), 1):
        trains_text = case.trains_text_encoder(step)
        for name, want in zip(("lr_unet", "lr_text_encoder"), lr):
            rate_error = max(rate_error, abs(dump.number(name) - want))
        if step > STEPS and step < case.steps:  # long traces: networks in the first steps and the last
            replay.advance(dump, lr, case.max_grad_norm, () if trains_text else ("text_encoder.",))
            continue
        errors, grads = replay.compute(dump, trains_text)
        for key, value in errors.items():
            worst[key] = max(worst.get(key, 0.0), value)
        extra = [k for k, v in dump.grads.items() if k not in grads and v.any()]
        names_good = names_good and not extra and grads.keys() <= dump.grads.keys()
        step_errors, step_zeros, step_noise = gradient_errors(dump.grads, grads)
        grad_errors += [(e, f"{name}, step {step}") for e, name in step_errors]
        zeros |= set(step_zeros)
        noise = max(noise, step_noise)
        replay.advance(dump, lr, case.max_grad_norm, () if trains_text else ("text_encoder.",))
    for key, limit in LIMITS.items():
        score.at_most(key, worst[key], limit)
    grad_errors.sort(reverse=True)
    listed = "".join(f"\n           {e:.2e} {name}" for e, name in grad_errors[:3])
    score.check("gradients are there for exactly the trained tensors", names_good)
    score.at_most(f"worst of {len(grad_errors)} gradients", grad_errors[0][0], GRADIENT_LIMIT, listed)
    score.at_most(f"{len(zeros)} gradients that are zero, of the whole norm", noise, 1e-6)
    score.at_most("learning rates", rate_error / case.lr, 1e-7)


def update_errors(replay, prefix, state):
    """(relative error of the whole update, worst tensor in units in the last place of its largest weight)."""
    difference, update, worst = 0.0, 0.0, (0.0, "")
    for name, p in replay.parameters():
        if not name.startswith(prefix):
            continue
        got, want = state[name[len(prefix):]].double(), p.detach().double()
        difference += (got - want).square().sum().item()
        update += (want - replay.initial[name].double()).square().sum().item()
        ulp = np.spacing(np.float32(p.detach().abs().max().item()))
        worst = max(worst, ((got - want).abs().max().item() / float(ulp), name))
    return difference, update, worst


def check_weights(score, case, replay, pipe):
    for prefix, model in (("unet.", pipe.unet), ("text_encoder.", pipe.text_encoder)):
        difference, update, worst = update_errors(replay, prefix, model.state_dict())
        if update == 0.0:
            score.check(f"{prefix}* is untouched", difference == 0.0)
            continue
        score.at_most(f"{prefix}* after {case.optimizer}, of the update", (difference / update)**0.5, case.update_limit,
                      f"; largest {worst[0]:.1f} ulp, {worst[1]}")


# ---- the saved model -----------------------------------------------------------------------------

def open_saved(place, case, out):
    """StableDiffusionPipeline of the saved model, which is named "last"."""
    if case.save == "safetensors":
        path = os.path.join(out, "last.safetensors")
        base = place.models["sd1-wide" if case.model == "single" else case.model]
        return StableDiffusionPipeline.from_single_file(path, config=base, local_files_only=True, safety_checker=None)
    return StableDiffusionPipeline.from_pretrained(os.path.join(out, "last"), safety_checker=None,
                                                   local_files_only=True)


def check_saved(score, place, case, pipe):
    source = place.models["sd1-wide" if case.model == "single" else case.model]
    if not case.taesd:
        before = load_file(os.path.join(source, "vae", "diffusion_pytorch_model.safetensors"))
        after = pipe.vae.state_dict()
        score.check("the VAE is the source's, bit for bit",
                    before.keys() == after.keys() and all(torch.equal(v, after[k]) for k, v in before.items()))
    score.check("prediction type", pipe.scheduler.config.get("prediction_type", "epsilon") ==
                ("v_prediction" if case.v_prediction else "epsilon"))
    pipe.set_progress_bar_config(disable=True)
    picture = pipe("a photo of sks dog", num_inference_steps=2, height=64, width=64, output_type="np",
                   generator=torch.manual_seed(1)).images[0]
    score.check("two denoising steps", picture.shape == (64, 64, 3) and np.isfinite(picture).all() and
                picture.std() > 0, f"std {picture.std():.3f}")


def run_case(score, place, case):
    out, dump_folder = place.train(case.name, case)
    dumps = [Dump(dump_folder, step) for step in range(1, case.steps + 1)]
    check_samples(score, place, case, dumps)
    check_latents(score, place, case, dumps)
    if {"--masked_loss", "--alpha_mask"} & set(case.flags):
        check_masks(score, place, case, dumps)
    source = place.models["sd1-wide-trained" if case.model == "single" else case.model]
    replay = Replay(source, case)
    check_steps(score, case, replay, dumps)
    pipe = open_saved(place, case, out)
    check_weights(score, case, replay, pipe)
    check_saved(score, place, case, pipe)
    return out, dumps


def prepare_single(place, out):
    """The next case starts from a single file that a run before it made; diffusers converts it for the replay."""
    place.models["single"] = os.path.join(out, "last.safetensors")
    pipe = StableDiffusionPipeline.from_single_file(place.models["single"], config=place.models["sd1-wide"],
                                                    local_files_only=True, safety_checker=None)
    place.models["sd1-wide-trained"] = os.path.join(place.folder, "models", "sd1-wide-trained")
    pipe.save_pretrained(place.models["sd1-wide-trained"])


def check_noise(score, dumps):
    """Over all cases: the noise is normal, and no two samples share it."""
    rows = [x for d in dumps for x in d.all_samples("noise")]
    values = torch.cat([x.flatten() for x in rows]).double()
    n = values.numel()
    score.at_most(f"noise of {len(rows)} samples, {n} values, |mean|", abs(values.mean().item()), 5 / n**0.5)
    score.at_most("|std - 1|", abs(values.std().item() - 1), 5 / (2 * n)**0.5)
    score.at_most("|kurtosis - 3|", abs((values**4).mean().item() - 3), 5 * (96 / n)**0.5)
    score.check("no two samples share their noise", len({x.numpy().tobytes() for x in rows}) == len(rows))
    timesteps = torch.stack([t for d in dumps for t in d.all_samples("timesteps")]).double()
    score.at_most("mean of the timesteps, from 499.5", abs(timesteps.mean().item() - 499.5), 5 * 289 / len(rows)**0.5)


# ---- laws ----------------------------------------------------------------------------------------

def same_files(a, b):
    """Weight files of two Diffusers directories, byte for byte."""
    names = ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"]
    return all(filecmp.cmp(os.path.join(a, "last", n), os.path.join(b, "last", n), shallow=False) for n in names)


def check_laws(score, place):
    base = Case("laws", data="shapes", resolution=128, limits=(64, 256), batch=2, flip=True)
    shards = ("--virtual_shards=4",)
    first, _ = place.train("laws 1 rank", base, shards)
    for ranks in (2, 4):
        out, _ = place.train(f"laws {ranks} ranks", base, shards, ranks=ranks)
        score.check(f"{ranks} ranks end in the bytes of one, 4 virtual shards", same_files(first, out))
    launched = dataclasses.replace(base, launcher="launch")
    out, _ = place.train("laws launched", launched, shards, ranks=2)
    score.check("dreamrun launch: the same bytes as mpirun", same_files(first, out))
    accumulated = dataclasses.replace(base, accumulation=4)
    out, _ = place.train("laws accumulation", accumulated, ("--virtual_shards=1",))
    score.check("accumulation 4 ends in the bytes of 4 virtual shards", same_files(first, out))
    out, _ = place.train("laws checkpointing", base, (*shards, "--gradient_checkpointing"))
    score.check("checkpointing ends in the same bytes", same_files(first, out))
    other, _ = place.train("laws seed", base, (*shards, "--seed=2"))
    score.check("another seed ends in other bytes", not same_files(first, other))


def check_cache(score, place):
    """h5py opens the latent cache; a second run reads it and is the same run."""
    case = Case("cache", data="shapes", resolution=128, limits=(64, 256), batch=2, flip=True,
                flags=("--cache_latents_to_disk", "--latent_cache_content", "latents"))
    out, dump_folder = place.train("cache", case, ranks=2)
    files = sorted(glob.glob(os.path.join(place.data["shapes"][0], ".latent_cache", "latents-*.h5")))
    score.check("the cache is there", bool(files), str(len(files)))
    entries = {}
    for path in files:
        with h5py.File(path) as f:
            for data in f["latents"].values():
                entries[data.attrs["image"].decode(), int(data.attrs["flip"])] = data[...]
    pictures = glob.glob(os.path.join(place.data["shapes"][0], "*", "*.[jp][pn]g"))
    score.check("it holds both sides of every picture", len(entries) == 2 * len(pictures), str(len(entries)))
    scale, n, wrong = np.float32(0.18215), 0, []
    for dump in (Dump(dump_folder, s) for s in range(1, case.steps + 1)):
        for key, latent in zip(dump.keys, dump.all_samples("latents"), strict=True):
            sides = [entries[key, flip] * scale for flip in (0, 1)]
            n += 1
            if not any(np.array_equal(latent.numpy(), side) for side in sides):
                wrong.append(key)
    score.check(f"{n} dumped latents are cache entries times the scale", not wrong, " ".join(wrong[:3]))
    times = {path: os.stat(path).st_mtime_ns for path in files}
    place.train("cache again", case)
    score.check("a run that reads the cache leaves it alone", times == {p: os.stat(p).st_mtime_ns for p in files})
    two, _ = place.train("cache again, two ranks", case, ranks=2)
    score.check("and ends in the same bytes", same_files(out, two))


def run_all(score, place, wanted):
    all_dumps = []
    for seed, case in enumerate(CASES, 1):
        if not wanted(case.name):
            continue
        case.seed = seed
        if case.taesd and not os.path.isdir(place.taesd_folder):
            score.skip(f"{case.name}: no $DR_SHARED/taesd")
            continue
        with score.section(case.name):
            case.v_prediction = MODELS["sd1-wide" if case.model == "single" else case.model][1]
            out, dumps = run_case(score, place, case)
            all_dumps += dumps if case.plain_noise else []
            if case.model == "sd1-wide":
                prepare_single(place, out)
    if all_dumps:
        with score.section("noise of all cases"):
            check_noise(score, all_dumps)
    peer_script.run_sections(score, place, [("laws", check_laws), ("cache", check_cache)], wanted)


def main():
    score = Score()
    return peer_script.run(score, "peers", "laws, cache",
                           lambda build, folder, wanted: run_all(score, Place(build, folder), wanted))


if __name__ == "__main__":
    sys.exit(main())
