#!/usr/bin/env python3
"""Trains LoRAs on tiny models and does every step again with torch, from what --dump_dir wrote.

    lora_train_peers.py BUILD_DIR [--only NAME] [--keep FOLDER]

The peer's LoRA is lora_reference.py: sd-scripts' module walk over diffusers' and transformers' models, plain matrix
products. Each case starts from a LoRA file that this script writes (--network_weights), so that no gradient is zero.

- module names, shapes, ranks and alphas of the saved file are the peer's
- losses, predictions and the gradient of every factor, in f64; the base gets none
- AdamW by torch over the groups that sd-scripts makes, fed with the dumped gradients, ten steps
- the file: its hashes by sd-scripts' rule over safetensors.torch.save, its metadata, diffusers' load_lora_weights
- every ss_* key and value of a run, and of --no_metadata; --base_weights; --initial_step
- a fresh LoRA: bounds and moments of down, zeros in up, the same for any ranks
- 1, 2 and 4 ranks and a resumed run end in the same bytes; torch files

Prints each check with the measured number; ends with "N passed, N failed, N skipped"; exit status 1 on failure.
"""
import dataclasses
import hashlib
import io
import json
import os
import sys

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import diffusers
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTextModel

import dropout_masks
import loss_formulas
import lora_reference
import peer_script
import train_peers
from step_replay import Dump, gradient_errors, relative, text_states
from train_peers import Score

STEPS = 10
COMPUTED = (1, 2, 10)  # steps whose networks are run again
GRADIENT_LIMIT = 1e-4  # the project's goals for f32 training against an f64 peer
UPDATE_LIMIT = 1e-5
OUTPUT_LIMIT = 1e-5    # diffusers with the saved file against the peer


@dataclasses.dataclass
class Case:
    name: str
    model: str = "sd1"
    data: str = "plain"
    flags: tuple = ()
    network_args: tuple = ()
    reference: dict = dataclasses.field(default_factory=dict)
    dim: int = 4
    alpha: float = 1.0
    ranks: int = 1
    launcher: str = "mpirun"
    batch: int = 2
    clip_skip: int = 1
    config: str = ""          # a dataset file in place of a folder
    unet_lr: float = 1e-3
    text_lr: float = 5e-4
    plus: tuple = (0.0, 0.0)  # ratio of the U-Net, of the text encoder
    weights: list = None      # of the rate, by block
    seed: int = 1
    module_dropout: float = 0.0
    dropout: tuple = None     # chances of an element, of a rank
    limits_norms: bool = False  # --scale_weight_norms with the median of the norms that the run starts with
    norm_limit: float = 0.0
    mixed_alphas: bool = False  # diffusers 0.38 loses those of attention in sd-scripts' names: its own names then
    steps: int = STEPS

    def arguments(self, place):
        spec, v_prediction = train_peers.MODELS[self.model]
        a = [f"--pretrained_model_name_or_path={place.models[self.model]}",
             *([f"--dataset_config={self.config}"] if self.config else
               [f"--train_data_dir={place.data[self.data][0]}", "--resolution=64"]), f"--max_train_steps={self.steps}",
             f"--seed={self.seed}", f"--unet_lr={self.unet_lr}", f"--text_encoder_lr={self.text_lr}",
             f"--train_batch_size={self.batch}", "--network_module=networks.lora", f"--network_dim={self.dim}",
             f"--network_alpha={self.alpha}", "--output_name=lora", *self.flags]
        a += ["--network_args", *self.network_args] if self.network_args else []
        a += [f"--scale_weight_norms={self.norm_limit}"] if self.norm_limit else []
        a += ["--v2"] if spec["v2"] else []
        a += ["--v_parameterization"] if v_prediction else []
        a += [f"--clip_skip={self.clip_skip}"] if self.clip_skip > 1 else []
        return a


DOWN_WEIGHTS = [0.0, 1.0, 0.5, 0.0, 1.0, 0.25, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
BLOCK_DIMS = [4] * 6 + [2] * 6 + [3] + [5] * 12
BLOCK_ALPHAS = [2.0] * 12 + [3.0] + [5.0] * 12

CASES = [
    Case("sd1, both networks"),
    Case("sd2 v, convolutions, U-Net only, two ranks, checkpointing", model="sd2-v", ranks=2, dim=3, alpha=3.0,
         network_args=("conv_dim=2", "conv_alpha=1.5"),
         flags=("--network_train_unet_only", "--gradient_checkpointing"),
         reference=dict(conv_dim=2, conv_alpha=1.5, parts=("unet",))),
    Case("sd1, module dropout", network_args=("module_dropout=0.4",), module_dropout=0.4),
    Case("sd1, network and rank dropout, convolutions, checkpointing", dropout=(0.2, 0.3),
         network_args=("rank_dropout=0.3", "conv_dim=3", "conv_alpha=1.5"), reference=dict(conv_dim=3, conv_alpha=1.5),
         flags=("--network_dropout=0.2", "--gradient_checkpointing")),
    Case("sd2 v, norms limited", model="sd2-v", network_args=("conv_dim=2",), reference=dict(conv_dim=2), limits_norms=True),
    Case("sd1 odd, text encoder only, clip skip 2", model="sd1-odd", data="captions", clip_skip=2,
         flags=("--network_train_text_encoder_only",), reference=dict(parts=("te",))),
    Case("sd1 wide, blocks, rates by block, LoRA+, launched ranks", model="sd1-wide", ranks=2, launcher="launch",
         plus=(4.0, 2.0), mixed_alphas=True, weights=DOWN_WEIGHTS + [1.0] + [1.0] * 12,
         network_args=("down_lr_weight=" + ",".join(map(str, DOWN_WEIGHTS)), "loraplus_lr_ratio=4",
                       "loraplus_text_encoder_lr_ratio=2", "block_dims=" + ",".join(map(str, BLOCK_DIMS)),
                       "block_alphas=" + ",".join(map(str, BLOCK_ALPHAS))),
         reference=dict(block_dims=BLOCK_DIMS, block_alphas=BLOCK_ALPHAS, weights=DOWN_WEIGHTS + [1.0] * 13)),
    Case("sd2 wide, up blocks only, frozen text part", model="sd2-wide", text_lr=0.0,
         network_args=("exclude_patterns=['down_blocks.*', 'mid_block.*', 'text_model.*mlp.*', 'up_blocks']",),
         reference=dict(exclude=lambda p: p.startswith(("down_blocks", "mid_block")) or "mlp" in p)),
]


def base_models(place, case):
    folder = place.models[case.model]
    return (UNet2DConditionModel.from_pretrained(os.path.join(folder, "unet")),
            CLIPTextModel.from_pretrained(os.path.join(folder, "text_encoder")))


class Replay:
    """The LoRA of the run so far: AdamW in f32, fed with the dumped gradients."""

    computed = COMPUTED
    n_left_out = 0  # modules that the computed steps dropped
    n_limited = 0   # modules that --scale_weight_norms scaled, in all steps

    def __init__(self, place, case):
        self.case = case
        self.bases = base_models(place, case)
        self.network = lora_reference.Network(*self.bases, dim=case.dim, alpha=case.alpha, **case.reference)
        generator = torch.Generator().manual_seed(case.seed)
        for m in self.network.modules():
            m.start(generator)
        self.factors = {k: torch.nn.Parameter(v.clone()) for k, v in self.network.state().items()
                        if not k.endswith(".alpha")}
        self.initial = {k: v.detach().clone() for k, v in self.factors.items()}
        self.schedule = diffusers.DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000,
            clip_sample=False, prediction_type="v_prediction" if train_peers.MODELS[case.model][1] else "epsilon")
        self.optimizer = torch.optim.AdamW(self.groups(), betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)

    def groups(self):
        """sd-scripts' prepare_optimizer_params."""
        groups = []

        def add(modules, lr, ratio):
            sides = {"lora_down": lr, "lora_up": lr * ratio if ratio else lr}
            for side, rate in sides.items():
                params = [self.factors[f"{m.name}.{side}.weight"] for m in modules]
                if rate and params:
                    groups.append({"params": params, "lr": rate})

        add(self.network.text, self.case.text_lr, self.case.plus[1])
        for i in range(lora_reference.BLOCKS):
            weight = self.case.weights[i] if self.case.weights else 1.0
            add([m for m in self.network.unet if lora_reference.block_index(m.path) == i],
                self.case.unet_lr * weight, self.case.plus[0])
        return groups

    def as_saved(self, factors):
        """What a file holds of the factors."""
        return factors

    def judged(self, grads):
        """The gradients whose errors are judged one by one."""
        return grads

    def trained(self):
        """Names of the factors in a group."""
        ids = {id(p) for g in self.optimizer.param_groups for p in g["params"]}
        return {k for k, p in self.factors.items() if id(p) in ids}

    def models(self, dtype, factors, batch=None):
        """Copies of the networks in dtype with the LoRA on them; batch: the dropout masks of one of training."""
        unet = UNet2DConditionModel.from_config(self.bases[0].config).to(dtype)
        unet.load_state_dict(self.bases[0].state_dict())
        text_encoder = CLIPTextModel(self.bases[1].config).to(dtype)
        text_encoder.load_state_dict(self.bases[1].state_dict())
        for model, modules in ((unet, self.network.unet), (text_encoder, self.network.text)):
            model.requires_grad_(False)
            for m in modules:
                if batch is None or not self.left_out(batch, m):
                    m.attach(model, factors, self.case.dropout, batch)
        return unet, text_encoder

    def left_out(self, batch, m):
        out = batch.numbers(dropout_masks.MODULE, m.name, 1).item() < self.case.module_dropout
        self.n_left_out += out
        return out

    def batch_of(self, dump, first):
        """The masks of the leaf that begins with the dump's sample number `first`."""
        return dropout_masks.Batch(self.case.seed, int(dump.meta["epoch"]), dump.samples[first])

    def compute(self, dump):
        """The step in f64: ({what: relative error}, {name: gradient})."""
        factors = {k: v.detach().double().requires_grad_(True) for k, v in self.factors.items()}
        first = 0
        errors, total = {}, 0.0
        for g in dump.groups:
            unet, text_encoder = self.models(torch.float64, factors, self.batch_of(dump, first))
            first += len(g["timesteps"])
            states = text_states(text_encoder, g["input_ids"], self.case.clip_skip)
            pred = unet(g["noisy_latents"].double(), g["timesteps"], states).sample
            loss = loss_formulas.loss("l2", pred - g["target"].double(), g["timesteps"]).mean((1, 2, 3))
            step_loss = (loss * g["loss_weights"].double()).sum() / dump.number("global_batch")
            step_loss.backward()
            total += step_loss.item()
            for name, want in {"encoder_hidden_states": states, "model_pred": pred}.items():
                errors[name] = max(errors.get(name, 0.0), relative(g[name], want.detach()))
        errors["loss of the step"] = abs(dump.number("loss") - total) / total
        trained = self.trained()
        grads = {k: v.grad for k, v in factors.items() if v.grad is not None and k in trained}
        norm = torch.stack([v.norm() for v in grads.values()]).norm().item()
        errors["gradient norm"] = abs(dump.number("grad_norm") - norm) / norm
        return errors, grads

    def advance(self, dump):
        trained = self.trained()
        for name, p in self.factors.items():
            given = dump.grads.get(name) if name in trained else None
            p.grad = None if given is None else given.clone()
        torch.nn.utils.clip_grad_norm_([p for p in self.factors.values() if p.grad is not None], 1.0)
        self.optimizer.step()
        if self.case.norm_limit:
            self.limit_norms()

    def norms(self):
        return [self.norm_of(m) for m in self.network.modules()]

    def norm_of(self, m):
        """Of the difference of a module."""
        up, down = (self.factors[f"{m.name}.lora_{side}.weight"].detach().double().flatten(1) for side in ("up", "down"))
        return (up @ down).norm().item() * m.alpha / m.rank

    @torch.no_grad()
    def limit_norms(self):
        """sd-scripts' apply_max_norm_regularization."""
        for m in self.network.modules():
            norm = max(self.norm_of(m), self.case.norm_limit / 2)
            ratio = min(norm, self.case.norm_limit) / norm
            self.n_limited += ratio != 1
            for side in ("up", "down"):
                self.factors[f"{m.name}.lora_{side}.weight"] *= ratio**0.5


# ---- the steps -----------------------------------------------------------------------------------

def check_steps(score, replay, dumps):
    worst, grad_errors, noise, names_good = {}, [], 0.0, True
    for step, dump in enumerate(dumps, 1):
        if step in replay.computed:
            errors, grads = replay.compute(dump)
            for key, value in errors.items():
                worst[key] = max(worst.get(key, 0.0), value)
            extra = {k for k, v in dump.grads.items() if k not in grads and v.any()}
            names_good = names_good and not extra and grads.keys() <= dump.grads.keys()
            step_errors, _, step_noise = gradient_errors(replay.judged(dump.grads), replay.judged(grads))
            noise = max(noise, step_noise)
            grad_errors += [(e, f"{name}, step {step}") for e, name in step_errors]
        replay.advance(dump)
    for key, value in worst.items():
        score.at_most(key, value, 1e-5)
    grad_errors.sort(reverse=True)
    listed = "".join(f"\n           {e:.2e} {name}" for e, name in grad_errors[:3])
    score.check("gradients are there for exactly the trained factors", names_good)
    if replay.case.module_dropout:
        share = replay.n_left_out / (len(replay.computed) * len(replay.network.modules()))
        score.check("0.4 of the modules are left out of a batch", 0.25 < share < 0.55, f"{share:.2f}")
    if replay.case.norm_limit:
        score.check("modules were scaled down, others not",
                    0 < replay.n_limited < len(dumps) * len(replay.network.modules()), str(replay.n_limited))
    score.at_most(f"worst of {len(grad_errors)} gradients", grad_errors[0][0], GRADIENT_LIMIT, listed)
    score.at_most("gradients that are zero, of the whole norm", noise, 1e-6)


def check_weights(score, replay, saved):
    for prefix in ("lora_te_", "lora_unet_"):
        last, first = replay.as_saved(replay.factors), replay.as_saved(replay.initial)
        names = [k for k in last if k.startswith(prefix)]
        if not names:
            continue
        got = torch.cat([saved[k].double().flatten() for k in names])
        want = torch.cat([last[k].detach().double().flatten() for k in names])
        before = torch.cat([first[k].double().flatten() for k in names])
        update = (want - before).norm().item()
        if update == 0.0:
            score.check(f"{prefix}* are the values of the file it started from", torch.equal(got, before))
            continue
        score.at_most(f"{prefix}* after ten steps of AdamW, of the update", (got - want).norm().item() / update,
                      UPDATE_LIMIT)


# ---- the file --------------------------------------------------------------------------------------

def sd_scripts_hashes(tensors, metadata):
    """precalculate_safetensors_hashes of sd-scripts' train_util."""
    data = safetensors.torch.save(tensors, {k: v for k, v in metadata.items() if k.startswith("ss_")})
    b = io.BytesIO(data)
    header = int.from_bytes(b.read(8), "little")
    b.seek(header + 8)
    model = hashlib.sha256(b.read()).hexdigest()
    b.seek(0x100000)
    return model, hashlib.sha256(b.read(0x10000)).hexdigest()[:8]


def open_file(path):
    with safe_open(path, "pt") as f:
        return {k: f.get_tensor(k) for k in f.keys()}, f.metadata()


def check_file(score, replay, path):
    saved, metadata = open_file(path)
    want = replay.network.state()
    score.check(f"{len(replay.network.modules())} modules have the peer's names", saved.keys() == want.keys(),
                " ".join(sorted(saved.keys() ^ want.keys())[:4]))
    wrong = [k for k in want if k in saved and saved[k].shape != want[k].shape]
    score.check("shapes and alphas are the peer's", not wrong and all(
        saved[k] == v for k, v in want.items() if k.endswith(".alpha")), " ".join(wrong[:3]))
    hashes = sd_scripts_hashes(saved, metadata)
    score.check("sshs_model_hash and sshs_legacy_hash are sd-scripts'",
                hashes == (metadata.get("sshs_model_hash"), metadata.get("sshs_legacy_hash")), hashes[1])
    return saved


def check_diffusers(score, place, replay, path, dump, saved, limit=OUTPUT_LIMIT):
    """diffusers with the file on the pipeline predicts what the peer predicts with the file's factors."""
    pipe = StableDiffusionPipeline.from_pretrained(place.models[replay.case.model], safety_checker=None,
                                                   local_files_only=True)
    pipe.load_lora_weights(os.path.dirname(path), weight_name=os.path.basename(path))
    g = dump.groups[0]
    unet, text_encoder = replay.models(torch.float64, {k: v.double() for k, v in saved.items()})
    with torch.no_grad():
        states = text_states(text_encoder, g["input_ids"], 1)
        want = unet(g["noisy_latents"].double(), g["timesteps"], states).sample
        got = pipe.unet(g["noisy_latents"], g["timesteps"], states.float()).sample
        got_states = text_states(pipe.text_encoder, g["input_ids"], 1)
    base = replay.bases[0](g["noisy_latents"], g["timesteps"], states.float()).sample.detach()
    score.at_most("prediction of diffusers with the file", relative(got, want), limit,
                  f"; without it {relative(base, want):.1e} off")
    score.at_most("text states of diffusers with the file", relative(got_states, states), limit)


def choose_limit(replay):
    if replay.case.limits_norms:
        norms = sorted(replay.norms())
        replay.case.norm_limit = round(norms[len(norms) // 2], 6)


def run_case(score, place, case):
    replay = Replay(place, case)
    choose_limit(replay)
    start = os.path.join(place.folder, f"start-{case.seed}.safetensors")
    safetensors.torch.save_file(replay.network.state(), start)
    out, dump_folder = place.train(case.name, case, (f"--network_weights={start}",))
    dumps = [Dump(dump_folder, step) for step in range(1, case.steps + 1)]
    check_steps(score, replay, dumps)
    saved = check_file(score, replay, os.path.join(out, "lora.safetensors"))
    check_weights(score, replay, saved)
    if case.mixed_alphas:
        out, _ = place.train(f"{case.name} diffusers", case, (f"--network_weights={start}", "--lora_format=diffusers"))
    check_diffusers(score, place, replay, os.path.join(out, "lora.safetensors"), dumps[-1], saved)
    return replay, start, saved, dumps


# ---- forms, starts, laws ----------------------------------------------------------------------------

def check_forms(score, place):
    case = Case("forms", seed=21, steps=2)
    replay, start, saved, dumps = run_case(score, place, case)
    out, _ = place.train("forms diffusers", case, (f"--network_weights={start}", "--lora_format=diffusers"))
    path = os.path.join(out, "lora.safetensors")
    tensors, _ = open_file(path)
    score.check("--lora_format diffusers: PEFT's names",
                "unet.mid_block.attentions.0.proj_in.lora_A.weight" in tensors and
                "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_B.weight" in tensors, f"{len(tensors)} tensors")
    check_diffusers(score, place, replay, path, dumps[-1], saved)
    for ending in ("ckpt", "pt"):
        out, _ = place.train(f"forms {ending}", case, (f"--network_weights={start}", f"--save_model_as={ending}"))
        loaded = torch.load(os.path.join(out, f"lora.{ending}"), weights_only=True)
        score.check(f"--save_model_as {ending}: the same tensors",
                    loaded.keys() == saved.keys() and all(torch.equal(v, saved[k]) for k, v in loaded.items()))
    out, _ = place.train("forms half", case, (f"--network_weights={start}", "--save_precision=fp16"))
    half, _ = open_file(os.path.join(out, "lora.safetensors"))
    score.check("--save_precision fp16: rounded to nearest, alphas too",
                all(torch.equal(v, saved[k].half()) for k, v in half.items()))
    out, _ = place.train("forms dims", dataclasses.replace(case, dim=7, alpha=7.0),
                         (f"--network_weights={start}", "--dim_from_weights"))
    same, _ = open_file(os.path.join(out, "lora.safetensors"))
    score.check("--dim_from_weights: the ranks and alphas of the file", same.keys() == saved.keys() and
                all(torch.equal(v, saved[k]) for k, v in same.items()))


PLAIN = {  # ss_* of a run that says nothing of them; sd-scripts' str() of its arguments
    "None": "lr_warmup network_dropout clip_skip max_token_length noise_offset multires_noise_iterations unet_lr "
            "adaptive_noise_scale face_crop_aug_range min_snr_gamma scale_weight_norms ip_noise_gamma validation_seed "
            "max_validation_steps validate_every_n_epochs validate_every_n_steps resize_interpolation",
    "False": "gradient_checkpointing full_fp16 v2 cache_latents lowram zero_terminal_snr debiased_estimation "
             "noise_offset_random_strength ip_noise_gamma_random_strength fp8_base fp8_base_unet color_aug flip_aug "
             "random_crop shuffle_caption bucket_no_upscale",
    "0": "num_validation_images lr_warmup_steps caption_dropout_every_n_epochs keep_tokens",
    "0.0": "caption_dropout_rate caption_tag_dropout_rate validation_split",
    "1.0": "max_grad_norm prior_loss_weight huber_scale",
    "0.1": "huber_c", "0.3": "multires_noise_discount", "snr": "huber_schedule", "l2": "loss_type",
    "constant": "lr_scheduler", "no": "mixed_precision", "networks.lora": "network_module",
    "(unknown)": "sd_scripts_commit_hash", "torch.optim.adamw.AdamW(weight_decay=0.1,eps=1e-07,betas=(0.9, 0.99))": "optimizer",
}


def check_metadata(score, place):
    case = Case("metadata", data="reg", seed=51, steps=4, dim=8, alpha=4.0, network_args=("conv_dim=2",),
                flags=("--enable_bucket", "--min_bucket_reso=64", "--max_bucket_reso=128", "--clip_skip=1",
                       "--training_comment=h\u00e9llo, \u732b", "--optimizer_args", "weight_decay=0.1", "eps=1e-7", "betas=0.9,0.99",
                       f"--reg_data_dir={place.data['reg'][1]}"))
    os.environ["SOURCE_DATE_EPOCH"] = "1700000000"
    try:
        out, _ = place.train("metadata", case)
        minimal, _ = place.train("metadata minimal", case, ("--no_metadata",))
    finally:
        del os.environ["SOURCE_DATE_EPOCH"]
    path = os.path.join(out, "lora.safetensors")
    _, got = open_file(path)
    want = {f"ss_{name}": value for value, names in PLAIN.items() for name in names.split()}
    want.pop("ss_lr_warmup")
    model = place.models[case.model]
    want.update({
        "ss_training_started_at": "1700000000.0", "ss_training_finished_at": "1700000000.0",
        "ss_output_name": "lora", "ss_learning_rate": "2e-06", "ss_unet_lr": "0.001", "ss_text_encoder_lr": "0.0005",
        "ss_num_train_images": "3", "ss_num_reg_images": "4", "ss_num_batches_per_epoch": "3", "ss_num_epochs": "2",
        "ss_gradient_accumulation_steps": "1", "ss_max_train_steps": "4", "ss_network_dim": "8",
        "ss_network_alpha": "4.0", "ss_base_model_version": "sd_v1", "ss_clip_skip": "1", "ss_seed": "51",
        "ss_training_comment": "h\u00e9llo, \u732b", "ss_batch_size_per_device": "2", "ss_total_batch_size": "2",
        "ss_resolution": "(64, 64)", "ss_enable_bucket": "True", "ss_min_bucket_reso": "64",
        "ss_max_bucket_reso": "128", "ss_network_args": json.dumps({"conv_dim": "2", "dropout": None}),
        "ss_dataset_dirs": json.dumps({"1_sks dog": {"n_repeats": 1, "img_count": 3}}),
        "ss_reg_dataset_dirs": json.dumps({"1_dog": {"n_repeats": 1, "img_count": 4}}),
        "ss_sd_model_name": os.path.basename(model), "ss_sd_model_hash": "IsADirectory",
        "ss_new_sd_model_hash": "IsADirectory", "ss_steps": "4", "ss_epoch": "2",
    })
    open_values = {"ss_session_id", "ss_tag_frequency", "ss_bucket_info"}
    keys = {k for k in got if k.startswith("ss_")}
    score.check(f"{len(keys)} ss_ keys are sd-scripts'", keys == want.keys() | open_values,
                " ".join(sorted(keys ^ (want.keys() | open_values))))
    wrong = [f"{k}={got.get(k)!r}, not {v!r}" for k, v in want.items() if got.get(k) != v]
    score.check("their values are str() of its arguments", not wrong, "; ".join(wrong[:5]))
    tags = json.loads(got["ss_tag_frequency"])
    score.check("ss_tag_frequency: JSON by folder", tags.keys() == {"1_sks dog", "1_dog"} and
                all(isinstance(n, int) for t in tags.values() for n in t.values()), str(tags)[:80])
    info = json.loads(got["ss_bucket_info"])
    score.check("ss_bucket_info", sum(b["count"] for b in info["buckets"].values()) == 6 and
                info["mean_img_ar_error"] >= 0, str(info)[:80])
    spec = {"sai_model_spec": "1.0.1", "architecture": "stable-diffusion-v1/lora", "implementation": "diffusers",
            "title": "lora", "resolution": "64x64", "prediction_type": "epsilon", "encoder_layer": None}
    score.check("modelspec.* keys", all(got.get(f"modelspec.{k}") == v for k, v in spec.items()), str(got.get("modelspec.date")))
    _, small = open_file(os.path.join(minimal, "lora.safetensors"))
    score.check("--no_metadata keeps six", {k for k in small if k.startswith("ss_")} == {
        "ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args"})


def check_datasets(score, place):
    """ss_datasets and what goes with it, as train_network.py builds it from the datasets of a file."""
    train, reg = ([os.path.join(folder, name) for name in sorted(os.listdir(folder))][0] for folder in place.data["reg"])
    config = os.path.join(place.folder, "datasets.toml")
    with open(config, "w", encoding="utf-8") as f:
        f.write(f"""
[general]
shuffle_caption = true
[[datasets]]
resolution = 64
batch_size = 2
[[datasets.subsets]]
image_dir = "{train}"
class_tokens = "sks dog, New"
num_repeats = 2
caption_prefix = "a"
resize_interpolation = "area"
[[datasets.subsets]]
image_dir = "{reg}"
class_tokens = "dog"
is_reg = true
[[datasets]]
resolution = [128, 64]
batch_size = 1
enable_bucket = true
min_bucket_reso = 64
max_bucket_reso = 128
[[datasets.subsets]]
image_dir = "{train}"
class_tokens = "other"
keep_tokens = 1
keep_tokens_separator = "|||"
secondary_separator = ";"
enable_wildcard = true
caption_suffix = "z"
""")
    out, _ = place.train("datasets", Case("datasets", seed=52, steps=1, config=config))
    _, got = open_file(os.path.join(out, "lora.safetensors"))
    name, reg_name = os.path.basename(train), os.path.basename(reg)
    subset = {"img_count": 3, "num_repeats": 1, "color_aug": False, "flip_aug": False, "random_crop": False,
              "shuffle_caption": True, "keep_tokens": 0, "keep_tokens_separator": "", "secondary_separator": None,
              "enable_wildcard": False, "caption_prefix": None, "caption_suffix": None, "resize_interpolation": None,
              "image_dir": name, "is_reg": False}
    want = [
        {"is_dreambooth": True, "batch_size_per_device": 2, "num_train_images": 6, "num_reg_images": 4,
         "resolution": [64, 64], "enable_bucket": False, "min_bucket_reso": None, "max_bucket_reso": None,
         "tag_frequency": {name: {"sks dog": 3, "new": 3}, reg_name: {"dog": 4}}, "bucket_info": None,
         "resize_interpolation": "area",
         "subsets": [{**subset, "num_repeats": 2, "caption_prefix": "a", "resize_interpolation": "area",
                      "class_tokens": "sks dog, New"},
                     {**subset, "img_count": 4, "image_dir": reg_name, "class_tokens": "dog", "is_reg": True}]},
        {"is_dreambooth": True, "batch_size_per_device": 1, "num_train_images": 3, "num_reg_images": 0,
         "resolution": [128, 64], "enable_bucket": True, "min_bucket_reso": 64, "max_bucket_reso": 128,
         "tag_frequency": {name: {"other": 3}}, "resize_interpolation": None,
         "subsets": [{**subset, "keep_tokens": 1, "keep_tokens_separator": "|||", "secondary_separator": ";",
                      "enable_wildcard": True, "caption_suffix": "z", "class_tokens": "other"}]}]
    datasets = json.loads(got["ss_datasets"])
    info = datasets[1].pop("bucket_info")
    score.check("ss_datasets: keys and values of train_network.py", datasets == want, str(
        [{k: (a.get(k), b.get(k)) for k in a.keys() | b.keys() if a.get(k) != b.get(k)} for a, b in zip(datasets, want)]))
    score.check("its bucket_info", sum(b["count"] for b in info["buckets"].values()) == 3, str(info)[:80])
    score.check("ss_dataset_dirs: without regularisation, repeated names numbered", json.loads(got["ss_dataset_dirs"]) == {
        name: {"n_repeats": 2, "img_count": 3}, f"{name} (2)": {"n_repeats": 1, "img_count": 3}}, got["ss_dataset_dirs"])
    score.check("ss_tag_frequency: a name counts once", json.loads(got["ss_tag_frequency"]) == want[0]["tag_frequency"],
                got["ss_tag_frequency"])
    folders = {"ss_resolution", "ss_batch_size_per_device", "ss_bucket_info", "ss_reg_dataset_dirs", "ss_keep_tokens"}
    score.check("and none of the keys of folders", not folders & got.keys(), str(folders & got.keys()))


def check_base_weights(score, place):
    """A LoRA merged into the model first, half of it; the run itself starts from another one."""
    case = Case("base weights", model="sd1-wide", seed=61, steps=2)
    first, replay = Replay(place, case), Replay(place, dataclasses.replace(case, seed=62))
    paths = []
    for i, r in enumerate((first, replay)):
        paths.append(os.path.join(place.folder, f"base-{i}.safetensors"))
        safetensors.torch.save_file(r.network.state(), paths[-1])
    for model, modules in zip(replay.bases, (first.network.unet, first.network.text)):
        for m in modules:
            weight = model.get_submodule(m.path).weight.data
            weight += (0.5 * m.alpha / m.rank * (m.up.flatten(1) @ m.down.flatten(1))).reshape(weight.shape)
    _, dump_folder = place.train("base weights", case, (f"--network_weights={paths[1]}", f"--base_weights={paths[0]}",
                                                        "--base_weights_multiplier=0.5"))
    errors, grads = replay.compute(Dump(dump_folder, 1))
    for key, value in errors.items():
        score.at_most(f"--base_weights x 0.5: {key}", value, 1e-5)
    worst = gradient_errors(Dump(dump_folder, 1).grads, grads)[0][0]
    score.at_most("worst gradient", worst[0], GRADIENT_LIMIT, f" {worst[1]}")


def check_initial(score, place):
    """--initial_step: the samples of that step on, with the schedule from its start."""
    case = Case("initial", data="shapes", seed=71, steps=30, flags=("--lr_scheduler=linear",))
    start = Replay(place, case)
    path = os.path.join(place.folder, "initial.safetensors")
    safetensors.torch.save_file(start.network.state(), path)
    _, whole = place.train("initial whole", case, (f"--network_weights={path}",))
    for name, extra, first in (("skipping", ("--initial_step=5", "--skip_until_initial_step"), 6),):
        _, dump = place.train(f"initial {name}", case, (f"--network_weights={path}", *extra))
        a, b = Dump(whole, first), Dump(dump, first)
        score.check(f"--initial_step {name}: step {first} has the samples of the whole run",
                    a.keys == b.keys and all(torch.equal(x["noise"], y["noise"]) for x, y in zip(a.groups, b.groups)))
        score.check("the schedule begins there", abs(b.number("lr_unet") / Dump(whole, 1).number("lr_unet") - 1) < 1e-9)
        score.check("nothing before it was trained", not os.path.exists(os.path.join(dump, "step-000001-rank0.safetensors")))


def check_start(score, place):
    """A fresh LoRA, by one step that does not move it."""
    case = Case("start", model="sd1-wide", seed=31, unet_lr=1e-30, text_lr=1e-30, steps=1)
    out, _ = place.train("start", case)
    saved, _ = open_file(os.path.join(out, "lora.safetensors"))
    ups = [v for k, v in saved.items() if "lora_up" in k]
    score.at_most("up starts at zero (largest)", max(v.abs().max().item() for v in ups), 1e-25)
    values, inside = [], True
    for m in lora_reference.Network(*base_models(place, case)).modules():
        down = saved[f"{m.name}.lora_down.weight"].double() / m.bound()
        inside = inside and down.abs().max() <= 1
        values.append(down.flatten())
    values = torch.cat(values)
    n = values.numel()
    score.check("down is within 1/sqrt(inputs)", inside)
    score.at_most(f"{n} values of down, |mean|", abs(values.mean().item()), 5 / (3 * n)**0.5)
    score.at_most("their variance, from that of a uniform draw", abs(values.var().item() * 3 - 1), 5 * (0.8 / n)**0.5)
    score.check("no two modules start alike", len({v[:16].numpy().tobytes() for v in values.split(40)}) > 100)


def check_laws(score, place):
    base = Case("laws", data="shapes", seed=41, steps=4, network_args=("module_dropout=0.3", "rank_dropout=0.2"),
                flags=("--shuffle_caption", "--virtual_shards=4", "--network_dropout=0.1", "--scale_weight_norms=0.01"))

    def result(name, extra=(), ranks=None):
        out, _ = place.train(name, base, extra, ranks)
        return open_file(os.path.join(out, "lora.safetensors"))[0]

    first = result("laws 1")
    for name, extra, ranks in (("2 ranks", (), 2), ("4 ranks", (), 4),
                               ("checkpointing", ("--gradient_checkpointing",), None),
                               ("one thread", ("--num_cpu_threads_per_process=1",), None)):
        other = result(f"laws {name}", extra, ranks)
        score.check(f"{name}: the same bits", all(torch.equal(v, other[k]) for k, v in first.items()))
    stopped, _ = place.train("laws stopped", dataclasses.replace(base, steps=2), ("--save_state",))
    state = os.path.join(stopped, "lora-state")
    for ranks in (1, 2):
        other = result(f"laws resumed {ranks}", (f"--resume={state}",), ranks)
        score.check(f"gone on with from step 2 on {ranks} ranks: the same bits",
                    all(torch.equal(v, other[k]) for k, v in first.items()))


class Place(train_peers.Place):
    PROGRAM = "train_network"

    def command(self, ranks, launcher):
        return [word.replace("train_db", self.PROGRAM) for word in super().command(ranks, launcher)]


def main():
    score = Score()

    def body(build, folder, wanted):
        for seed, case in enumerate(CASES, 1):
            case.seed = seed
        checks = [(c.name, lambda s, p, c=c: run_case(s, p, c)) for c in CASES]
        checks += [("forms", check_forms), ("start", check_start), ("metadata", check_metadata), ("datasets", check_datasets),
                   ("base weights", check_base_weights), ("initial", check_initial), ("laws", check_laws)]
        peer_script.run_sections(score, Place(build, folder), checks, wanted)

    return peer_script.run(score, "lora", "forms, start, metadata, datasets, base weights, initial, laws", body)


if __name__ == "__main__":
    sys.exit(main())
