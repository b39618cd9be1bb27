#!/usr/bin/env python3
"""Trains with --network_module lycoris.kohya and does every step again with lycoris-lora, as lora_train_peers.py does.

    lycoris_peers.py BUILD_DIR [--only NAME] [--keep FOLDER]

The peer's modules are those that lycoris.kohya.create_network makes over diffusers' and transformers' models; their
differences come from lycoris.functional, in f64.

- module names, shapes and alphas of the saved file are those of the peer's state_dict; lycoris-lora loads the file
- losses, predictions, the gradient of every factor (f64), ten steps of AdamW
- what a fresh LoHa starts from; the same bits on any number of ranks, resumed, with checkpointing

Prints each check with the measured number; ends with "N passed, N failed, N skipped"; exit status 1 on failure.
"""
import argparse
import contextlib
import dataclasses
import io
import os
import shutil
import sys
import tempfile
import time

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import diffusers
import safetensors.torch
import torch
import transformers
from lycoris import kohya
from lycoris.functional import locon, loha

import lora_train_peers
from lora_train_peers import Place, base_models, check_file, check_steps, check_weights, open_file
from step_replay import Dump, relative, text_states
from train_peers import Score

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
    """One adapter of lycoris-lora; factors are the tensors of its state_dict but for alpha."""

    def __init__(self, lora, path):
        self.name, self.path, self.scale = lora.lora_name, path, lora.scale
        self.tensors = {k: v.detach().clone() for k, v in lora.state_dict().items()}

    def start(self, generator):
        for key, value in self.tensors.items():
            if key != "alpha":
                small = 0.02 if "lora_up" in key else 0.3
                self.tensors[key] = torch.randn(value.shape, generator=generator) * small

    def state(self):
        return {f"{self.name}.{k}": v for k, v in self.tensors.items()}

    def attach(self, model, factors):
        layer = model.get_submodule(self.path)
        base = layer.forward
        w = {k: factors[f"{self.name}.{k}"] for k in self.tensors if k != "alpha"}

        def forward(x, *args, **kwargs):
            if "hada_w1_a" in w:
                gamma = torch.tensor(self.scale, dtype=x.dtype)
                delta = loha.diff_weight(w["hada_w1_b"], w["hada_w1_a"], w["hada_w2_b"], w["hada_w2_a"], None, None,
                                         gamma=gamma, backend="torch")
            else:
                delta = locon.diff_weight(w["lora_down.weight"], w["lora_up.weight"], None, gamma=self.scale,
                                          backend="torch")
            delta = delta.reshape(layer.weight.shape)
            if isinstance(layer, torch.nn.Conv2d):
                more = torch.nn.functional.conv2d(x, delta, None, layer.stride, layer.padding)
            else:
                more = x @ delta.T
            return base(x, *args, **kwargs) + more

        layer.forward = forward


class Network:
    def __init__(self, unet, text_encoder, case):
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            net = kohya.create_network(1.0, case.dim, case.alpha, None, text_encoder, unet, **case.settings)
        paths = [{id(m): name for name, m in model.named_modules()} for model in (text_encoder, unet)]
        self.text = [Module(lora, paths[0][id(lora.org_module[0])]) for lora in net.text_encoder_loras]
        self.unet = [Module(lora, paths[1][id(lora.org_module[0])]) for lora in net.unet_loras]

    def modules(self):
        return self.text + self.unet

    def state(self):
        return {k: v for m in self.modules() for k, v in m.state().items()}


class Replay(lora_train_peers.Replay):
    def __init__(self, place, case):
        self.case = case
        self.bases = base_models(place, case)
        self.network = Network(*self.bases, case)
        generator = torch.Generator().manual_seed(case.seed)
        for m in self.network.modules():
            m.start(generator)
        self.factors = {k: torch.nn.Parameter(v.clone()) for k, v in self.network.state().items()
                        if not k.endswith(".alpha")}
        self.initial = {k: v.detach().clone() for k, v in self.factors.items()}
        self.optimizer = torch.optim.AdamW(self.groups(), betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)

    def groups(self):
        """LycorisNetworkKohya.prepare_optimizer_params."""
        groups = []
        for modules, lr, ratio in ((self.network.text, self.case.text_lr, self.case.plus[1]),
                                   (self.network.unet, self.case.unet_lr, self.case.plus[0])):
            for side in (False, True):
                params = [self.factors[k] for m in modules for k in m.state()
                          if not k.endswith(".alpha") and (bool(ratio) and "lora_up" in k) == side]
                if params:
                    groups.append({"params": params, "lr": lr * ratio if side else lr})
        return groups


CASES = [
    Case("lora, attn-mlp", settings=dict(algo="lora", preset="attn-mlp"), dim=3, alpha=2.0),
    Case("locon, full, LoRA+", model="sd2-v", settings=dict(algo="locon", conv_dim=2, conv_alpha=1, loraplus_lr_ratio=4),
         plus=(4.0, 4.0), dim=3, alpha=3.0),
    Case("loha, full, two ranks", model="sd1-odd", ranks=2, settings=dict(algo="loha", conv_dim=3, conv_alpha=1.5), dim=2,
         alpha=1.0, flags=("--gradient_checkpointing",)),
    Case("loha, full-lin", model="sd1-wide", settings=dict(algo="loha", preset="full-lin"), dim=2, alpha=4.0),
    Case("loha, unet-convblock-only", model="sd2-v", dim=2, alpha=1.0,
         settings=dict(algo="loha", preset="unet-convblock-only")),
]


def check_loads(score, replay, path, dump):
    """lycoris-lora takes the file, and computes with it what the peer computes."""
    unet, text_encoder = base_models(score.place, replay.case)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        net = kohya.create_network(1.0, replay.case.dim, replay.case.alpha, None, text_encoder, unet,
                                   **replay.case.settings)
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
    base = Case("laws", data="shapes", seed=41, steps=4, flags=("--shuffle_caption", "--virtual_shards=4"),
                settings=dict(algo="loha"))

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
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--only", help="cases whose name holds this text; also start, laws")
    parser.add_argument("--keep", help="folder for models, pictures and results, kept")
    args = parser.parse_args()
    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    score, start = Score(), time.monotonic()
    folder = args.keep or tempfile.mkdtemp(prefix="dreamrun-lycoris-")
    checks = [(c.name, lambda s, p, c=c: run_case(s, p, c)) for c in CASES]
    checks += [("start", check_start), ("laws", check_laws)]
    for seed, case in enumerate(CASES, 1):
        case.seed = seed
    try:
        place = Place(os.path.abspath(args.build), folder)
        for name, check in checks:
            if args.only is None or args.only in name:
                with score.section(name):
                    check(score, place)
    finally:
        if args.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{time.monotonic() - start:.0f} s")
    print(f"{score.passed} passed, {score.failed} failed, {score.skipped} skipped")
    return 1 if score.failed else 0


if __name__ == "__main__":
    sys.exit(main())
