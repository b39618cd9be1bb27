#!/usr/bin/env python3
"""LoRA files and the tools around them, beside diffusers, peft, lycoris-lora and torch.

    lora_tools_peers.py BUILD_DIR

- merge_lora into a model: the same LoRA in the dialects of sd-scripts, diffusers (old, new), peft and cloneofsimo
  gives what load_lora_weights + fuse_lora give, in every form of model
- real LoRA files: each module's product is that of diffusers' own conversion functions
- LyCORIS kinds (LoCon with a core, LoHa, LoKr, DoRA, full): what lycoris-lora's merge_to gives
- resize_lora: ranks, alphas, products and kept norm by sd-scripts' rules on torch.linalg.svd
- extract_lora: gives back what merge_lora put in; the nearest of a rank, clamped as torch.quantile does
- several LoRAs into one: exact with --concat, the nearest of its rank without; hashes and metadata of the new file

Ends with "N passed, N failed, N skipped"; exit status 1 when something failed.
"""
import hashlib
import json
import os
import re
import sys
import tempfile

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from diffusers.utils import convert_state_dict_to_kohya, convert_unet_state_dict_to_peft
from peft import LoraConfig, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from models_peers import Score, Tools, load_pipe, state_of, state_of_pipe

LIMIT = 1e-5  # relative L2 of weights and of what networks compute
UNET = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "time_emb_proj"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def distance(got, want):
    return (torch.linalg.vector_norm(got.double() - want.double()) /
            torch.linalg.vector_norm(want.double()).clamp_min(1e-30)).item()


def worst(got, want, base=None):
    """The largest distance of a tensor; of differences from base where it is given."""
    keys = sorted(want)
    if base is not None:
        changed = [k for k in keys if not torch.equal(want[k], base[k])]
        return max((distance(got[k] - base[k], want[k] - base[k]), k) for k in changed)
    return max((distance(got[k], want[k]), k) for k in keys)


def delta_of(state, name):
    """(alpha / rank) up down of a module of a kohya file, as a matrix."""
    up, down = state[name + ".lora_up.weight"].double(), state[name + ".lora_down.weight"].double()
    return state[name + ".alpha"].item() / down.shape[0] * up.flatten(1) @ down.flatten(1)


def percent(said):
    """The share that a tool prints: "... keep 93.3557 % of ..."."""
    return float(re.search(r"keeps? ([0-9.]+) %", said).group(1))


def modules_of(state):
    return sorted({k.rsplit(".lora_up.weight", 1)[0] for k in state if k.endswith(".lora_up.weight")})


def kohya_name(path, text=False):
    return ("lora_te_" if text else "lora_unet_") + path.replace(".", "_")


class Case:
    """A tiny model on disk and tools to run on it."""

    def __init__(self, tools, score, folder, kind):
        self.tools, self.score, self.folder = tools, score, folder
        self.base = os.path.join(folder, kind)
        code, _, err = tools.run([tools.tools, "init_model", kind, self.base])
        assert code == 0, err
        self.state = state_of(self.base)

    def path(self, name):
        return os.path.join(self.folder, name)

    def tool(self, name, *words):
        code, out, err = self.tools.run([self.tools.tools, name, *words])
        self.score.check(f"{name} {' '.join(os.path.basename(str(w)) for w in words)}", code == 0, err)
        return out + err

    def at_most(self, question, value, limit=LIMIT):
        number = value[0] if isinstance(value, tuple) else value
        self.score.check(question, number <= limit, f"{value} > {limit}")

    def merged(self, lora, *words, to="merged"):
        out = self.path(to)
        self.tool("merge_lora", "--sd_model", self.base, "--save_to", out, "--models", lora, *words)
        return out


# --- dialects ----------------------------------------------------------------------------------------------------


def peft_states(case):
    """Random adapters of U-Net and text encoder, with peft's names within each, alpha and rank."""
    pipe = load_pipe(case.base)
    torch.manual_seed(3)
    pipe.unet.add_adapter(LoraConfig(r=4, lora_alpha=2, target_modules=UNET, init_lora_weights=False))
    pipe.text_encoder.add_adapter(LoraConfig(r=4, lora_alpha=2, target_modules=TEXT, init_lora_weights=False))
    states = [{k: 0.3 * v for k, v in get_peft_model_state_dict(m).items()} for m in (pipe.unet, pipe.text_encoder)]
    return pipe, states


def attention_only(states):
    """What the oldest files hold: q, k, v and out of the U-Net's attentions."""
    return {k: v for k, v in states[0].items() if ".attn1.to_" in k or ".attn2.to_" in k}


def old_name(key):
    for part in ("q", "k", "v"):
        key = key.replace(f".to_{part}.lora", f".processor.to_{part}_lora")
    return key.replace(".to_out.0.lora", ".processor.to_out_lora").replace("_A.", ".down.").replace("_B.", ".up.")


def numbered(states):
    """cloneofsimo's numbers: down, up, mid; attention, half of the MLP, attention to the text."""
    names = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj",
             "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")
    blocks = sorted({k.split(".transformer_blocks.0.")[0] for k in states[0] if ".transformer_blocks.0." in k},
                    key=lambda b: (("down", "up_", "mid").index(b[:4].rstrip("_") if b[:2] != "up" else "up_"), b))
    out = {}
    for i, block in enumerate(blocks):
        for j, name in enumerate(names):
            for mine, theirs in (("down", "A"), ("up", "B")):
                out[f"unet:{9 * i + j}:{mine}"] = states[0][f"{block}.transformer_blocks.0.{name}.lora_{theirs}.weight"]
    for i in range(len({k.split(".")[3] for k in states[1]})):
        for j, name in enumerate(("k_proj", "v_proj", "q_proj", "out_proj")):
            for mine, theirs in (("down", "A"), ("up", "B")):
                key = f"text_model.encoder.layers.{i}.self_attn.{name}.lora_{theirs}.weight"
                out[f"text_encoder:{4 * i + j}:{mine}"] = next(v for k, v in states[1].items() if k.endswith(key))
    return out


def write_dialects(case):
    """{name: (file, file that diffusers loads)}"""
    pipe, states = peft_states(case)
    unet, text = states
    files = {}

    def write(name, state, meta=None, twin=None):
        path = case.path(name.replace(" ", "_") + ".safetensors")
        save_file({k: v.contiguous() for k, v in state.items()}, path, metadata=meta)
        files[name] = (path, twin or path)
        return path

    StableDiffusionPipeline.save_lora_weights(
        case.path("new"), unet_lora_layers=unet, text_encoder_lora_layers=text,
        unet_lora_adapter_metadata=pipe.unet.peft_config["default"].to_dict(),
        text_encoder_lora_adapter_metadata=pipe.text_encoder.peft_config["default"].to_dict())
    files["diffusers"] = (case.path("new/pytorch_lora_weights.safetensors"),) * 2
    joined = {f"unet.{k}": v for k, v in unet.items()} | {f"text_encoder.{k}": v for k, v in text.items()}
    kohya = convert_state_dict_to_kohya(joined)
    kohya = {k: torch.tensor(2.0) if k.endswith(".alpha") else v for k, v in kohya.items()}
    write("kohya half", {k: v.half() for k, v in kohya.items()})  # with "lora_te1_", which is read too
    kohya = {k.replace("lora_te1_", "lora_te_"): v for k, v in kohya.items()}
    write("kohya", kohya)
    whole = {k: torch.tensor(2) if k.endswith(".alpha") else v for k, v in kohya.items()}
    write("kohya whole alpha", whole, twin=case.path("kohya.safetensors"))
    doubled = {k.replace("lora_unet_", "lora_unet_unet_").replace("lora_te_", "lora_te_text_encoder_"): v
               for k, v in kohya.items()}
    write("kohya doubled", doubled, twin=case.path("kohya.safetensors"))
    few = attention_only(states)
    write("diffusers lora", {f"unet.{k}".replace("lora_A", "lora.down").replace("lora_B", "lora.up"): v
                             for k, v in few.items()})
    # diffusers 0.38 takes the oldest names through its conversion functions alone: see check_real
    write("diffusers old", {old_name(k): v for k, v in few.items()}, twin=case.path("diffusers_lora.safetensors"))
    torch.save({old_name(k): v for k, v in few.items()}, case.path("old.bin"))
    files["diffusers old bin"] = (case.path("old.bin"), case.path("diffusers_lora.safetensors"))
    write("cloneofsimo", numbered(states), twin=write_twin(case, states))
    os.mkdir(case.path("peft"))
    save_file({f"base_model.model.{k}": v for k, v in unet.items()}, case.path("peft/adapter_model.safetensors"))
    with open(case.path("peft/adapter_config.json"), "w", encoding="utf-8") as f:
        json.dump({"lora_alpha": 2, "r": 4, "peft_type": "LORA"}, f)
    twin = case.path("peft_twin.safetensors")
    save_file({k: v for k, v in kohya.items() if k.startswith("lora_unet_")}, twin)
    files["peft"] = (case.path("peft/adapter_model.safetensors"), twin)
    return files


def write_twin(case, states):
    """What cloneofsimo's file holds, in diffusers' names, for diffusers."""
    keep = {f"unet.{k}": v for k, v in states[0].items() if ".attn" in k or "ff.net.0.proj" in k}
    keep |= {f"text_encoder.{k}": v for k, v in states[1].items() if ".self_attn." in k}
    path = case.path("numbers_twin.safetensors")
    save_file(keep, path)
    return path


@torch.no_grad()
def fused(case, file, scale=1.0):
    pipe = load_pipe(case.base)
    pipe.load_lora_weights(os.path.dirname(file), weight_name=os.path.basename(file))
    pipe.fuse_lora(lora_scale=scale)
    pipe.unload_lora_weights()
    return pipe


@torch.no_grad()
def computed(pipe):
    g = torch.Generator().manual_seed(5)
    ids = torch.randint(0, 49000, (1, 77), generator=g)
    states = pipe.text_encoder(ids)[0]
    return pipe.unet(torch.randn(1, 4, 16, 16, generator=g), torch.tensor([321]), states).sample


def check_dialects(case):
    files = write_dialects(case)
    plain = computed(load_pipe(case.base))
    for i, (name, (file, twin)) in enumerate(files.items()):
        scale = (1.0, 0.7)[i % 2]
        pipe = fused(case, twin, scale)
        mine = load_pipe(case.merged(file, "--ratios", scale))
        want, got = state_of_pipe(pipe), state_of_pipe(mine)
        case.at_most(f"{name}: weights", worst(got, want))
        case.at_most(f"{name}: differences", worst(got, want, case.state), 2e-4)  # of small differences of floats
        case.at_most(f"{name}: forward", distance(computed(mine), computed(pipe)))
        case.score.check(f"{name}: changes the result", distance(plain, computed(pipe)) > 1e-3)
    back = case.path("back")
    merged = case.merged(files["kohya"][0])
    case.tool("merge_lora", "--sd_model", merged, "--save_to", back, "--models", files["kohya"][0], "--ratios", -1)
    case.at_most("a ratio of -1 takes it out", worst(state_of(back), case.state))
    return files


def check_forms(case, lora):
    """Single files, precisions; what no module changes keeps its bytes."""
    want = state_of(case.merged(lora))
    for name in ("one.safetensors", "one.ckpt"):
        single = case.path(name)
        case.tool("convert", case.base, single)
        merged, back = case.path("merged_" + name), case.path("back_" + name.replace(".", "_"))
        case.tool("merge_lora", "--sd_model", single, "--save_to", merged, "--models", lora)
        case.tool("convert", merged, back)
        case.score.equal(f"{name}: as into a directory", state_of(back), want)
    half = state_of(case.merged(lora, "--save_precision", "fp16", to="half"))
    case.score.equal("--save_precision fp16", half, {k: v.half() for k, v in want.items()})
    case.score.check("untouched bytes", all(
        torch.equal(want[k], v) for k, v in case.state.items() if k.startswith("vae.") or v.dim() == 1))
    with safe_open(case.path("merged_one.safetensors"), "pt") as f:
        case.score.check("merged_from", f.metadata().get("modelspec.merged_from") ==
                         f"one, {os.path.basename(lora).rsplit('.', 1)[0]}", f.metadata())


# --- real files --------------------------------------------------------------------------------------------------


def check_real(case, shared):
    lora = os.path.join(shared, "lora")
    for name in ("safetensors", "bin"):
        file, out = os.path.join(lora, "catundchat_pytorch_lora_weights." + name), case.path(f"cat_{name}.safetensors")
        theirs = load_file(file) if name == "safetensors" else torch.load(file, map_location="cpu", weights_only=True)
        want = {k: v.double() for k, v in convert_unet_state_dict_to_peft(theirs).items()}
        case.tool("merge_lora", "--models", file, "--save_to", out)
        mine = load_file(out)
        case.score.check(f"catundchat {name}: modules", len(modules_of(mine)) == 128)
        pairs = {k.rsplit(".lora_A", 1)[0] for k in want if ".lora_A" in k}
        case.at_most(f"catundchat {name}: products", max(
            (distance(delta_of(mine, kohya_name(p)), want[p + ".lora_B.weight"] @ want[p + ".lora_A.weight"]), p)
            for p in pairs))
    for name in ("lora_disney", "analog_svd_rank4"):
        out = case.path(name + ".safetensors")
        said = case.tool("merge_lora", "--models", os.path.join(lora, name + ".safetensors"), "--save_to", out)
        mine, theirs = load_file(out), load_file(os.path.join(lora, name + ".safetensors"))
        products = sorted(torch.linalg.vector_norm(delta_of(mine, m)).item() for m in modules_of(mine))
        wanted = sorted(torch.linalg.vector_norm(theirs[k].double() @ theirs[k[:-2] + "down"].double()).item()
                        for k in theirs if k.endswith(":up"))
        case.at_most(f"{name}: norms of all products", max(abs(a - b) for a, b in zip(products, wanted)))
        case.score.check(f"{name}: 192 modules", len(products) == len(wanted) == 192)
        case.score.check(f"{name}: embeddings are told of", ("token embedding" in said) == (name == "lora_disney"), said)
    code, _, err = case.tools.run([case.tools.tools, "merge_lora", "--save_to", case.path("x.safetensors"), "--models",
                                   os.path.join(lora, "Hirvita6_2byte.safetensors")])
    case.score.check("a broken file is named", code == 65 and "Hirvita6_2byte" in err, err)


# --- LyCORIS -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def merge_as_applied(lora, ratio, saved):
    """The weight with which forward() computes. (merge_to of LoHa and LoKr in 4.1.3 has alpha / rank in it twice.)"""
    weight = lora.org_module[0].weight
    for key, tensor in (("w_norm", weight), ("b_norm", lora.org_module[0].bias), ("diff_b", lora.org_module[0].bias)):
        if f"{lora.lora_name}.{key}" in saved:
            tensor.add_(ratio * saved[f"{lora.lora_name}.{key}"])
    if lora.name == "norm":
        return
    if lora.name == "full":
        delta = saved[lora.lora_name + ".diff"]
    elif hasattr(lora, "get_weight"):
        delta = lora.get_weight(lora.shape) * lora.scalar
    else:
        delta = lora.make_weight() * lora.scale
    delta = delta.view(weight.shape)
    decomposed = getattr(lora, "wd", False)
    weight.copy_(lora.apply_weight_decompose(weight + delta, ratio) if decomposed else weight + ratio * delta)


def check_lycoris(case):
    from lycoris import kohya as lycoris_kohya
    # 4.1.3 targets the two layers of the time embedding by class and by name and then stops at the second
    lycoris_kohya.PRESET["full"]["unet_target_module"].remove("TimestepEmbedding")
    kinds = {"locon": dict(algo="lora", conv_dim=3), "locon core": dict(algo="lora", conv_dim=3, use_tucker=True),
             "loha": dict(algo="loha", conv_dim=3), "loha core": dict(algo="loha", conv_dim=3, use_tucker=True),
             "lokr": dict(algo="lokr", conv_dim=2, factor=4), "lokr core": dict(algo="lokr", conv_dim=2, use_tucker=True),
             "lokr both": dict(algo="lokr", conv_dim=1, decompose_both=True, factor=8),
             "lokr full": dict(algo="lokr", full_matrix=True, factor=4),
             "dora": dict(algo="lora", conv_dim=3, dora_wd=True),
             "dora in": dict(algo="lora", conv_dim=3, dora_wd=True, wd_on_output=False),
             "doha": dict(algo="loha", conv_dim=3, dora_wd=True), "dokr": dict(algo="lokr", conv_dim=2, dora_wd=True),
             "full": dict(algo="full", conv_dim=3), "norms": dict(algo="lora", conv_dim=3, train_norm=True)}
    for name, words in kinds.items():
        pipe = load_pipe(case.base)
        torch.manual_seed(11)
        rank = 1 if "both" in name else 2
        net = lycoris_kohya.create_network(1.0, rank, 1.5, pipe.vae, pipe.text_encoder, pipe.unet, **words)
        net.apply_to(pipe.text_encoder, pipe.unet, True, True)
        with torch.no_grad():
            for key, p in net.named_parameters():
                if "dora_scale" in key:
                    p.mul_(1 + 0.1 * torch.rand_like(p))
                else:
                    p.add_(0.1 * torch.randn_like(p))
        file = case.path(name.replace(" ", "_") + "_lyco.safetensors")
        net.save_weights(file, torch.float32, {})
        net.restore()
        saved = load_file(file)
        for ending in {"full": ["diff_b"], "norms": ["w_norm", "b_norm"]}.get(name, []):
            case.score.check(f"lycoris {name}: has {ending}", any(k.endswith(ending) for k in saved))
        for lora in net.loras:
            merge_as_applied(lora, 0.8, saved)
        want = state_of_pipe(pipe)
        got = state_of(case.merged(file, "--ratios", 0.8))
        case.at_most(f"lycoris {name}: weights", worst(got, want))
        case.at_most(f"lycoris {name}: differences", worst(got, want, case.state), 2e-4)
    for name, what in (("full", "bias"), ("norms", "bias")):  # biases of norms
        code, _, err = case.tools.run([case.tools.tools, "resize_lora", "--model", case.path(f"{name}_lyco.safetensors"),
                                       "--save_to", case.path("x.safetensors")])
        case.score.check(f"lycoris {name}: no LoRA of two factors", code == 64 and f"changes a {what}" in err, err)


# --- LoRAs into one ----------------------------------------------------------------------------------------------


def check_join(case, file):
    state = load_file(file)
    torch.manual_seed(17)
    other = {k: v if k.endswith("alpha") else torch.randn_like(v) * 0.2 for k, v in state.items()}
    second = case.path("second.safetensors")
    save_file(other, second)
    names = modules_of(state)
    sums = {n: 0.5 * delta_of(state, n) - 0.75 * delta_of(other, n) for n in names}
    words = ("--models", file, second, "--ratios", 0.5, -0.75)
    joined = case.path("joined.safetensors")
    case.tool("merge_lora", *words, "--concat", "--save_to", joined)
    mine = load_file(joined)
    case.score.check("--concat: modules", modules_of(mine) == names)
    case.at_most("--concat: the exact sum", max((distance(delta_of(mine, n), sums[n]), n) for n in names), 1e-6)
    said = case.tool("merge_lora", *words, "--save_to", case.path("cut.safetensors"), "--new_rank", 3,
                     "--new_conv_rank", 5)
    mine = load_file(case.path("cut.safetensors"))
    errors, kept, total = [], 0.0, 0.0
    for n in names:
        rank = 5 if state[n + ".lora_down.weight"].shape[2:] == (3, 3) else 3
        u, s, v = torch.linalg.svd(sums[n], full_matrices=False)
        errors.append((distance(delta_of(mine, n), u[:, :rank] * s[:rank] @ v[:rank]), n))
        kept, total = kept + (s[:rank] ** 2).sum().item(), total + (s ** 2).sum().item()
    case.at_most("--new_rank: the nearest of that rank", max(errors))
    case.at_most("--new_rank: the share is told", abs(percent(said) - 100 * (kept / total) ** 0.5), 1e-4)
    one = case.path("single.safetensors")
    case.tool("merge_lora", "--models", file, "--save_to", one)
    case.score.equal("one LoRA keeps its bits", load_file(one), {k: v.float() for k, v in state.items()})
    for name in ("a.pt", "a.ckpt"):
        case.tool("merge_lora", "--models", file, "--save_to", case.path(name))
        case.score.equal(name, torch.load(case.path(name), weights_only=True), load_file(one))
    check_header(case, one)


def check_header(case, path):
    """The hashes as sd-scripts computes them, the keys as programs look for them."""
    with safe_open(path, "pt") as f:
        meta = f.metadata()
    ss = {k: v for k, v in meta.items() if k.startswith("ss_")}
    data = save(load_file(path), metadata=ss)
    begin = 8 + int.from_bytes(data[:8], "little")
    case.score.check("sshs_model_hash", meta["sshs_model_hash"] == hashlib.sha256(data[begin:]).hexdigest())
    legacy = hashlib.sha256(data[1 << 20:(1 << 20) + (1 << 16)]).hexdigest()[:8]
    case.score.check("sshs_legacy_hash", meta["sshs_legacy_hash"] == legacy, (meta["sshs_legacy_hash"], legacy))
    want = {"ss_v2": "False", "ss_base_model_version": "sd_v1", "ss_network_module": "networks.lora",
            "ss_network_dim": "4", "ss_network_alpha": "2.0"}
    case.score.check("ss_ keys", ss == want, ss)
    case.score.check("modelspec", meta["modelspec.architecture"] == "stable-diffusion-v1/lora" and
                     meta["modelspec.title"] == "single", meta)


# --- resize_lora, extract_lora -----------------------------------------------------------------------------------


def rank_by_rule(s, limit, method, param):
    """sd-scripts' networks/resize_lora.py, rank_resize, on all singular values of the product."""
    if s[0] <= 1e-6:
        return 1
    if method is None:
        return limit
    if method == "sv_ratio":
        index = int((s > s[0] / param).sum())
    elif method == "sv_fro":
        index = int(torch.searchsorted(torch.cumsum(s ** 2, 0) / (s ** 2).sum(), param ** 2)) + 1
    else:
        index = int(torch.searchsorted(torch.cumsum(s, 0) / s.sum(), param)) + 1
    return min(max(1, min(index, len(s) - 1)) + 1, limit)


def check_resize(case, file):
    state = load_file(file)
    names = modules_of(state)
    svds = {}
    for n in names:
        rank = state[n + ".lora_down.weight"].shape[0]
        svds[n] = torch.linalg.svd(delta_of(state, n) * (rank / state[n + ".alpha"].item()), full_matrices=False)
    for rank, conv, method, param in ((2, 3, None, None), (9, None, None, None), (4, 4, "sv_ratio", 2.5),
                                      (3, 4, "sv_fro", 0.9), (4, None, "sv_fro", 0.6), (4, 2, "sv_cumulative", 0.5)):
        words = ["--new_rank", rank] + (["--new_conv_rank", conv] if conv else [])
        words += ["--dynamic_method", method, "--dynamic_param", param] if method else []
        out = case.path("resized.safetensors")
        said = case.tool("resize_lora", "--model", file, "--save_to", out, *words)
        mine, label = load_file(out), f"resize {rank} {conv} {method} {param}"
        wrong, errors, kept, total = [], [], 0.0, 0.0
        for n in names:
            u, s, v = svds[n]
            own, is_conv = state[n + ".lora_down.weight"].shape[0], state[n + ".lora_down.weight"].dim() == 4
            want = min(rank_by_rule(s, conv if conv and is_conv else rank, method, param), own)
            down, scale = mine[n + ".lora_down.weight"], state[n + ".alpha"].item() / own
            if down.shape[0] != want or abs(mine[n + ".alpha"].item() - scale * want) > 1e-6:
                wrong.append((n, down.shape[0], want))
            errors.append((distance(delta_of(mine, n), scale * u[:, :want] * s[:want] @ v[:want]), n))
            kept, total = kept + scale ** 2 * (s[:want] ** 2).sum().item(), total + scale ** 2 * (s ** 2).sum().item()
        case.score.check(f"{label}: ranks and alphas", not wrong, wrong[:3])
        case.at_most(f"{label}: products", max(errors))
        case.at_most(f"{label}: the kept share is told", abs(percent(said) - 100 * (kept / total) ** 0.5), 1e-4)
    with safe_open(out, "pt") as f:
        meta = f.metadata()
    case.score.check("resize: comment", meta["ss_training_comment"] ==
                     "Dynamic resize with sv_cumulative: 0.5 from 4; ", meta["ss_training_comment"])


def check_dense(case):
    """Whole differences, which have no factors, beside numpy's gesdd in double: what is kept, and the singular values."""
    rng = np.random.default_rng(5)

    def shaped(*size):
        return rng.standard_normal(size)

    steep = shaped(300, 300) * 0.5 ** np.arange(300)[:, None]
    matrices = {"flat wide": shaped(320, 700), "flat tall": shaped(700, 320), "square": shaped(257, 257), "steep": steep,
                "rank 3": shaped(90, 3) @ shaped(3, 400), "conv": shaped(64, 40, 3, 3), "row": shaped(1, 9),
                "column": shaped(9, 1), "small": 1e-12 * shaped(30, 20)}
    names = {what: f"lora_unet_m{i}" for i, what in enumerate(matrices)}
    file, out = case.path("whole.safetensors"), case.path("whole_16.safetensors")
    save_file({f"{names[k]}.diff": torch.from_numpy(v.astype(np.float32)) for k, v in matrices.items()}, file)
    case.tool("resize_lora", "--model", file, "--new_rank", 16, "--save_to", out)
    mine = load_file(out)
    for what, matrix in matrices.items():
        a = matrix.astype(np.float32).astype(np.float64).reshape(matrix.shape[0], -1)
        u, s, v = np.linalg.svd(a, full_matrices=False)
        r = min(16, len(s)) if s[0] > 1e-6 else 1  # sd-scripts keeps one of what is as good as zero
        kept = torch.from_numpy(u[:, :r] * s[:r] @ v[:r])
        case.score.check(f"whole, {what}: rank", mine[names[what] + ".alpha"] == r)
        got = delta_of(mine, names[what])
        case.at_most(f"whole, {what}: product beside numpy", (np.linalg.norm(got - kept) / np.linalg.norm(a)))
        values = np.linalg.norm(mine[names[what] + ".lora_up.weight"].double().flatten(1), axis=0)
        case.at_most(f"whole, {what}: singular values beside numpy", np.abs(values - s[:r]).max() / s[0], 1e-6)
    for bad in (np.nan, np.inf):
        matrix = shaped(8, 8)
        matrix[3, 4] = bad
        save_file({"lora_unet_m.diff": torch.from_numpy(matrix.astype(np.float32))}, file)
        code, _, err = case.tools.run([case.tools.tools, "resize_lora", "--model", file, "--save_to", out])
        case.score.check(f"whole, with {bad}: refused", code == 76 and "a NaN or an infinity" in err, (code, err))


def check_extract(case, file):
    lora = load_file(file)
    names = modules_of(lora)
    tuned = case.merged(file, to="tuned")
    both = ("--model_org", case.base, "--model_tuned", tuned)
    out = case.path("extracted.safetensors")
    case.tool("extract_lora", *both, "--dim", 4, "--conv_dim", 4, "--clamp_quantile", 1, "--min_diff", 0, "--save_to", out)
    mine = load_file(out)
    case.score.check("extract: modules", set(names) <= set(modules_of(mine)))
    case.score.check("extract: shapes", all(mine[f"{n}.lora_{p}.weight"].shape == lora[f"{n}.lora_{p}.weight"].shape
                                            for n in names for p in ("up", "down")))
    case.at_most("extract(merge(x)): products of x", max((distance(delta_of(mine, n), delta_of(lora, n)), n)
                                                         for n in names), 2e-4)  # differences of floats
    again = load_pipe(case.merged(out, to="again"))
    case.at_most("extract(merge(x)): effect of x", distance(computed(again), computed(load_pipe(tuned))))

    words = ("--dim", 2, "--conv_dim", 3, "--min_diff", 0, "--load_precision", "bf16")
    case.tool("extract_lora", *both, *words, "--clamp_quantile", 1, "--save_to", out)
    clamped = case.path("clamped.safetensors")
    case.tool("extract_lora", *both, *words, "--save_to", clamped, "--save_precision", "float")
    plain, mine, after = load_file(out), load_file(clamped), state_of(tuned)
    keys = {kohya_name(k[5:-7]): k for k in after if k.startswith("unet.")}
    errors, limits = [], []
    for n in names:
        up, down = plain[n + ".lora_up.weight"], plain[n + ".lora_down.weight"]
        if n in keys:
            diff = (after[keys[n]].bfloat16().float() - case.state[keys[n]].bfloat16().float()).flatten(1).double()
            s = torch.linalg.svdvals(diff)
            r = down.shape[0]
            best = torch.linalg.vector_norm(s[r:]).item()  # as close as that rank can come, where values are close too
            errors.append((torch.linalg.vector_norm(delta_of(plain, n) - diff).item() / best - 1, n))
        limit = torch.quantile(torch.cat([up.flatten(), down.flatten()]), 0.99).item()
        for part, full in (("up", up), ("down", down)):
            limits.append((distance(mine[f"{n}.lora_{part}.weight"], full.clamp(-limit, limit)), n))
    case.at_most("extract: the nearest of that rank", max(errors))
    case.at_most("extract: clamped as torch.quantile does", max(limits), 1e-6)
    unet = case.path("unet_only.safetensors")
    save_file({k: v for k, v in lora.items() if k.startswith("lora_unet_")}, unet)
    said = case.tool("extract_lora", "--model_org", case.base, "--model_tuned", case.merged(unet, to="tuned2"),
                     "--save_to", out)
    mine = modules_of(load_file(out))
    case.score.check("extract: text encoder left out", "text encoders are the same" in said and
                     all(n.startswith("lora_unet_") for n in mine), said)
    case.score.check("extract: 192 modules of the transformer blocks", len(mine) == 192, len(mine))
    check_extract_errors(case)


def check_extract_errors(case):
    other = case.path("other")
    case.tool("init_model", "tiny2", other)
    for model, text in ((other, "different shapes"), (case.base, "do not differ")):
        code, _, err = case.tools.run([case.tools.tools, "extract_lora", "--model_org", case.base, "--model_tuned", model,
                                       "--save_to", case.path("x.safetensors")])
        case.score.check(f"extract: {text}", code == 65 and text in err, err)


def main():
    diffusers_logging.disable_progress_bar()
    score, tools = Score(), Tools(sys.argv[1])
    shared = os.environ.get("DR_SHARED", "")
    with tempfile.TemporaryDirectory() as folder:
        case = Case(tools, score, folder, "tiny")
        files = check_dialects(case)
        check_forms(case, files["kohya"][0])
        check_join(case, files["kohya"][0])
        check_resize(case, files["kohya"][0])
        check_dense(case)
        check_extract(case, files["kohya"][0])
        check_lycoris(case)
        if os.path.isdir(os.path.join(shared, "lora")):
            check_real(case, shared)
        else:
            score.skipped += 1
        two = os.path.join(folder, "sd2")
        os.mkdir(two)
        second = Case(tools, score, two, "tiny2v")
        check_forms(second, check_dialects(second)["kohya"][0])
    print(f"{score.passed} passed, {score.failed} failed, {score.skipped} skipped")
    return 1 if score.failed else 0


if __name__ == "__main__":
    sys.exit(main())
