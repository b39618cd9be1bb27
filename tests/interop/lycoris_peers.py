#!/usr/bin/env python3
"""Trains with --network_module lycoris.kohya and does every step again with lycoris-lora, as lora_train_peers.py does.

    lycoris_peers.py BUILD_DIR [--only NAME] [--keep FOLDER]

The peer's modules are those that lycoris.kohya.create_network makes over diffusers' and transformers' models; they run
themselves, in f64, with the run's factors. Their random numbers in training are the run's (dropout_masks.py).

- module names, shapes and alphas of the saved file are those of the peer's state_dict; lycoris-lora loads the file
- losses, predictions, the gradient of every factor (f64), ten steps of AdamW
- what a fresh LoHa starts from; the same bits on any number of ranks, resumed, with checkpointing

Prints each check with the measured number; ends with "N passed, N failed, N skipped"; exit status 1 on failure.
"""
import contextlib
import dataclasses
import io
import os
import sys
import unittest.mock

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import safetensors.torch
import torch
from diffusers import UNet2DConditionModel
from lycoris import kohya
from lycoris.logging import logger
from transformers import CLIPTextModel

import dropout_masks
import lora_train_peers
import peer_script
from lora_train_peers import Place, base_models, check_file, check_steps, check_weights, choose_limit, open_file
from step_replay import Dump, relative, text_states
from train_peers import Score

logger.setLevel("ERROR")
# 4.1.3 targets the layers of the time embedding by class and by name, and then stops at the second
for preset in ("full", "full-lin", "unet-only"):
    kohya.PRESET[preset]["unet_target_module"] = [
        c for c in kohya.PRESET[preset]["unet_target_module"] if c != "TimestepEmbedding"]


@dataclasses.dataclass
class Case(lora_train_peers.Case):
    settings: dict = dataclasses.field(default_factory=dict)  # of create_network
    network_args: tuple = ()

    def arguments(self, place):
        args = [a.replace("networks.lora", "lycoris.kohya") for a in super().arguments(place)]
        return args + ["--network_args"] + [f"{k}={v}" for k, v in self.settings.items()]


class Module:
    """One adapter of lycoris-lora, by what its file holds."""

    def __init__(self, lora, path):
        self.name, self.path = lora.lora_name, path
        self.tensors = {k: v.detach().clone() for k, v in lora.state_dict().items()}

    def start(self, generator):
        for key, value in self.tensors.items():
            if key == "dora_scale":
                self.tensors[key] = value * (1 + 0.1 * torch.randn(value.shape, generator=generator))
            elif key != "alpha":
                small = 0.02 if "lora_up" in key else 0.3
                self.tensors[key] = torch.randn(value.shape, generator=generator) * small

    def state(self):
        return {f"{self.name}.{k}": v for k, v in self.tensors.items()}


def create(unet, text_encoder, case):
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        return kohya.create_network(1.0, case.dim, case.alpha, None, text_encoder, unet, **case.settings)


def run_with(lora, factors, batch):
    """The forward of lycoris-lora's module with other parameters, and in a batch with dropout's numbers of the program."""
    lora.train(batch is not None)

    def rand(n, **kwargs):
        if n == 1 and lora.module_dropout:
            return batch.numbers(dropout_masks.MODULE, lora.lora_name, 1)
        bypass = lora.bypass_mode and hasattr(lora, "lora_up")
        return batch.numbers(dropout_masks.RANKS if bypass else dropout_masks.ROWS, lora.lora_name, n)

    def drop(x):
        chance = lora_chance if batch is not None else 0.0
        return x * batch.elements(dropout_masks.OUTPUT, lora.lora_name, chance, x) if chance else x

    # nn.Dropout of what is added; both are modules of their own names in locon and the others
    lora_chance = lora.drop.p if isinstance(lora.drop, torch.nn.Dropout) else 0.0
    lora.drop = Call(drop)
    if isinstance(lora.dropout, torch.nn.Module):
        lora.dropout = Call(drop)

    def forward(x, *args, **kwargs):
        with unittest.mock.patch("torch.rand", rand):
            return torch.func.functional_call(lora, factors, (x,))

    return forward


class Call(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


class Network:
    def __init__(self, unet, text_encoder, case):
        net = create(unet, text_encoder, case)
        paths = [{id(m): name for name, m in model.named_modules()} for model in (text_encoder, unet)]
        self.text = [Module(lora, paths[0][id(lora.org_module[0])]) for lora in net.text_encoder_loras]
        self.unet = [Module(lora, paths[1][id(lora.org_module[0])]) for lora in net.unet_loras]

    def modules(self):
        return self.text + self.unet

    def state(self):
        return {k: v for m in self.modules() for k, v in m.state().items()}


class Replay(lora_train_peers.Replay):
    computed = (1, 10)

    def __init__(self, place, case):
        self.case = case
        self.bases = base_models(place, case)
        self.network = Network(*self.bases, case)
        generator = torch.Generator().manual_seed(case.seed)
        for m in self.network.modules():
            m.start(generator)
        self.factors = {k: torch.nn.Parameter(v.clone()) for k, v in self.network.state().items()
                        if not k.endswith(".alpha")}
        if case.settings.get("use_scalar"):  # in a file they are in the factors
            self.factors.update({f"{m.name}.scalar": torch.nn.Parameter(torch.ones(())) for m in self.network.modules()})
        self.fixed = {}  # scalars that are not trained
        if case.limits_norms and not case.settings.get("use_scalar"):
            self.fixed = {m.name: torch.ones(()) for m in self.network.modules()}
        self.initial = {k: v.detach().clone() for k, v in self.factors.items()}
        self.optimizer = torch.optim.AdamW(self.groups(), betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)

    def groups(self):
        """LycorisNetworkKohya.prepare_optimizer_params."""
        groups = []
        for modules, lr, ratio in ((self.network.text, self.case.text_lr, self.case.plus[1]),
                                   (self.network.unet, self.case.unet_lr, self.case.plus[0])):
            for side in (False, True):
                names = {m.name for m in modules}
                params = [p for k, p in self.factors.items()
                          if k.partition(".")[0] in names and (bool(ratio) and "lora_up" in k) == side]
                if params:
                    groups.append({"params": params, "lr": lr * ratio if side else lr})
        return groups

    def as_saved(self, factors):
        scalars = {k.partition(".")[0]: v for k, v in factors.items() if k.endswith(".scalar")}
        scalars.update(self.fixed if factors is self.factors else {})
        ends = ("lora_up.weight", "hada_w1_a", "lokr_w1", "lokr_w1_a")
        return {k: v * scalars.get(k.partition(".")[0], 1.0) if k.endswith(ends) else v
                for k, v in factors.items() if not k.endswith(".scalar")}

    def peer(self):
        """lycoris-lora's modules with the factors of the run."""
        net = create(*self.bases, self.case)
        with torch.no_grad():
            for lora in net.unet_loras + net.text_encoder_loras:
                for k, v in lora.named_parameters():
                    v.copy_(self.factors[f"{lora.lora_name}.{k}"])
                if lora.lora_name in self.fixed:
                    lora.scalar.copy_(self.fixed[lora.lora_name])
        return {lora.lora_name: lora for lora in net.eval().unet_loras + net.text_encoder_loras}

    def norms(self):
        return [max(lora.apply_max_norm(1e9)[1].item(), 0.0) for lora in self.peer().values()]

    @torch.no_grad()
    def limit_norms(self):
        for name, lora in self.peer().items():
            self.n_limited += bool(lora.apply_max_norm(self.case.norm_limit)[0])
            for k, v in lora.named_parameters():
                self.factors[f"{name}.{k}"].copy_(v)
            if name in self.fixed:
                self.fixed[name] = lora.scalar.clone()

    def judged(self, grads):
        """All scalars as one: a single number may be next to nothing, which f32 cannot tell to four digits."""
        scalars = [v.double().reshape(1) for k, v in sorted(grads.items()) if k.endswith(".scalar")]
        others = {k: v for k, v in grads.items() if not k.endswith(".scalar")}
        return {**others, "scalars": torch.cat(scalars)} if scalars else others

    def models(self, dtype, factors, batch=None):
        unet = UNet2DConditionModel.from_config(self.bases[0].config).to(dtype)
        unet.load_state_dict(self.bases[0].state_dict())
        text_encoder = CLIPTextModel(self.bases[1].config).to(dtype)
        text_encoder.load_state_dict(self.bases[1].state_dict())
        net = create(unet, text_encoder, self.case).to(dtype)
        factors_of_run = batch is not None  # else a file's, which holds the scalars
        for model in (unet, text_encoder):
            model.requires_grad_(False)
        for lora in net.unet_loras + net.text_encoder_loras:
            prefix = lora.lora_name + "."
            own = {k[len(prefix):]: v for k, v in factors.items() if k.startswith(prefix) and not k.endswith(".alpha")}
            if lora.lora_name in self.fixed and factors_of_run:
                own["scalar"] = self.fixed[lora.lora_name].to(dtype)
            elif self.case.settings.get("use_scalar"):
                own.setdefault("scalar", torch.ones((), dtype=dtype))
            lora.org_module[0].forward = run_with(lora, own, batch)
        self.kept = net  # the modules know their layers, not the other way round
        return unet, text_encoder


CASES = [
    Case("lora, attn-mlp", settings=dict(algo="lora", preset="attn-mlp"), dim=3, alpha=2.0),
    Case("locon, full, LoRA+, rs_lora, module dropout", model="sd2-v", plus=(4.0, 4.0), dim=3, alpha=3.0,
         settings=dict(algo="locon", conv_dim=2, conv_alpha=1, loraplus_lr_ratio=4, rs_lora=True, module_dropout=0.3)),
    Case("locon with cores, scalars, bypassed with dropout", model="sd1-odd", dim=3, alpha=2.0,
         settings=dict(algo="locon", use_tucker=True, use_scalar=True, bypass_mode=True, dropout=0.2, rank_dropout=0.3)),
    Case("dora, full, rank dropout", model="sd1-odd", dim=3, alpha=2.0,
         settings=dict(algo="lora", dora_wd=True, rank_dropout=0.25), flags=("--gradient_checkpointing",)),
    Case("locon, norms limited", dim=3, alpha=2.0, settings=dict(algo="locon"), limits_norms=True),
    Case("lokr, norms limited", dim=2, alpha=2.0, settings=dict(algo="lokr", decompose_both=True), limits_norms=True),
    Case("loha, full, two ranks", model="sd1-odd", ranks=2, settings=dict(algo="loha", conv_dim=3, conv_alpha=1.5), dim=2,
         alpha=1.0, flags=("--gradient_checkpointing",)),
    Case("loha, full-lin, dora of inputs", model="sd1-wide", dim=2, alpha=4.0,
         settings=dict(algo="loha", preset="full-lin", dora_wd=True, wd_on_output=False)),
    Case("loha with cores, scalars, rank dropout", model="sd2-v", dim=2, alpha=1.0,
         settings=dict(algo="loha", preset="unet-convblock-only", use_tucker=True, use_scalar=True, rank_dropout=0.3)),
    Case("lokr", model="sd1-odd", dim=2, alpha=1.5, settings=dict(algo="lokr")),
    Case("lokr, factor, both decomposed, bypassed with dropout", model="sd1-odd", dim=2, alpha=3.0,
         settings=dict(algo="lokr", factor=8, decompose_both=True, bypass_mode=True, dropout=0.2)),
    Case("lokr, whole, unbalanced, dora of inputs, scalars", dim=2, alpha=1.0,
         settings=dict(algo="lokr", full_matrix=True, unbalanced_factorization=True, dora_wd=True, wd_on_output=False,
                       use_scalar=True)),
    Case("lokr with cores, dora, rank dropout", model="sd2-v", dim=2, alpha=1.0,
         settings=dict(algo="lokr", use_tucker=True, dora_wd=True, rank_dropout=0.3)),
]


def check_loads(score, replay, path, dump):
    """lycoris-lora takes the file, and computes with it what the peer computes."""
    unet, text_encoder = base_models(score.place, replay.case)
    net = create(unet, text_encoder, replay.case)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        net.load_weights(path)
        net.apply_to(text_encoder, unet, True, True)
    net.eval()
    saved, _ = open_file(path)
    g = dump.groups[0]
    want_unet, want_text = replay.models(torch.float64, {k: v.double() for k, v in saved.items()})
    with torch.no_grad():
        states = text_states(want_text, g["input_ids"], 1)
        want = want_unet(g["noisy_latents"].double(), g["timesteps"], states).sample
        got = unet(g["noisy_latents"], g["timesteps"], states.float()).sample
        got_states = text_states(text_encoder, g["input_ids"], 1)
    score.at_most("prediction of lycoris-lora with the file", relative(got, want), 1e-5)
    score.at_most("text states of lycoris-lora with the file", relative(got_states, states), 1e-5)


def run_case(score, place, case):
    replay = Replay(place, case)
    choose_limit(replay)
    start = os.path.join(place.folder, f"lycoris-{case.seed}.safetensors")
    safetensors.torch.save_file({k: v.contiguous() for k, v in replay.network.state().items()}, start)
    out, dump_folder = place.train(case.name, case, (f"--network_weights={start}",))
    dumps = [Dump(dump_folder, step) for step in range(1, case.steps + 1)]
    for dump in dumps:  # a LoHa's factor of a convolution has the window in its columns, as a parameter it has not
        for k, v in dump.grads.items():
            dump.grads[k] = v.reshape(replay.factors[k].shape)
    check_steps(score, replay, dumps)
    path = os.path.join(out, "lora.safetensors")
    check_weights(score, replay, check_file(score, replay, path))
    score.place = place
    check_loads(score, replay, path, dumps[-1])


def check_mixed(score, place):
    """16 bits: differences are formed in F32 from the masters, so the gradient is about as good as a plain LoRA's."""
    forms = {"lora": dict(algo="lora"), "loha, dora": dict(algo="loha", dora_wd=True),
             "lokr, cores, scalars": dict(algo="lokr", use_tucker=True, use_scalar=True, factor=8)}
    for flag in ("--mixed_precision=bf16", "--mixed_precision=fp16", "--full_bf16"):
        flags = (flag,) if "mixed" in flag else ("--mixed_precision=bf16", flag)
        yardstick = 0.0
        for name, settings in forms.items():
            case = Case(f"mixed {name}", model="sd1-odd", dim=2, alpha=2.0, seed=61, steps=2, settings=settings, flags=flags)
            replay = Replay(place, case)
            start = os.path.join(place.folder, "mixed.safetensors")
            safetensors.torch.save_file({k: v.contiguous() for k, v in replay.network.state().items()}, start)
            _, dump_folder = place.train(f"mixed {flag} {name}", case, (f"--network_weights={start}",))
            dump = Dump(dump_folder, 1)
            _, grads = replay.compute(dump)
            got = torch.cat([dump.grads[k].double().flatten() for k in grads])
            error = relative(got, torch.cat([v.flatten() for v in grads.values()]))
            score.at_most(f"{flag} {name}: the gradient", error, 3 * yardstick if yardstick else 0.1)
            yardstick = yardstick or error


def check_start(score, place):
    """A fresh LoHa, by one step that does not move it."""
    case = Case("start", model="sd1-odd", seed=31, unet_lr=1e-30, text_lr=1e-30, steps=1, settings=dict(algo="loha"))
    out, _ = place.train("loha start", case)
    saved, _ = open_file(os.path.join(out, "lora.safetensors"))

    def values(end):
        return torch.cat([v.double().flatten() for k, v in saved.items() if k.endswith(end)])

    score.at_most("w2_a starts at zero (largest)", values("hada_w2_a").abs().max().item(), 1e-25)
    for end, deviation in (("hada_w1_b", 1.0), ("hada_w1_a", 0.1), ("hada_w2_b", 1.0)):
        v = values(end) / deviation
        score.at_most(f"{end}: |mean| of {v.numel()}", abs(v.mean().item()), 5 / v.numel()**0.5)
        score.at_most(f"{end}: variance, from 1", abs(v.var().item() - 1), 5 * (2 / v.numel())**0.5)


def check_laws(score, place):
    base = Case("laws", data="shapes", seed=41, steps=4, flags=("--shuffle_caption", "--virtual_shards=4", "--scale_weight_norms=0.05"),
                settings=dict(algo="loha", dora_wd=True, rank_dropout=0.2, module_dropout=0.1))

    def result(name, extra=(), ranks=None, case=base):
        out, _ = place.train(name, case, extra, ranks)
        return open_file(os.path.join(out, "lora.safetensors"))[0]

    first = result("loha laws 1")
    for name, extra, ranks in (("2 ranks", (), 2), ("checkpointing", ("--gradient_checkpointing",), None)):
        other = result(f"loha laws {name}", extra, ranks)
        score.check(f"{name}: the same bits", all(torch.equal(v, other[k]) for k, v in first.items()))
    stopped, _ = place.train("loha stopped", dataclasses.replace(base, steps=2), ("--save_state",))
    other = result("loha resumed", (f"--resume={os.path.join(stopped, 'lora-state')}",), 2)
    score.check("gone on with from step 2 on 2 ranks: the same bits",
                all(torch.equal(v, other[k]) for k, v in first.items()))


def main():
    score = Score()

    def body(build, folder, wanted):
        for seed, case in enumerate(CASES, 1):
            case.seed = seed
        checks = [(c.name, lambda s, p, c=c: run_case(s, p, c)) for c in CASES]
        peer_script.run_sections(score, Place(build, folder), checks + [("mixed", check_mixed), ("start", check_start),
                                                       ("laws", check_laws)],
                                 wanted)

    return peer_script.run(score, "lycoris", "mixed, start, laws", body)


if __name__ == "__main__":
    sys.exit(main())
