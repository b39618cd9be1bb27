"""Training steps done again with torch, diffusers, transformers and the optimizers' packages from what --dump_dir wrote."""
import contextlib
import glob
import json
import os

import lion_pytorch
import numpy as np
import prodigyopt
import torch
import transformers
from diffusers import DDPMScheduler, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTextModel

import loss_formulas
import optim_peers

MICRO_BATCH = ("latents", "noise", "noisy_latents", "model_pred", "target", "timesteps", "input_ids",
               "encoder_hidden_states", "loss_weights", "loss")


class Dump:
    """One step of all ranks. groups: dicts of tensors whose samples have one shape."""

    def __init__(self, folder, step):
        files = sorted(glob.glob(os.path.join(folder, f"step-{step:06d}-rank*.safetensors")))
        self.n_files, self.groups, self.keys, self.samples, self.grads = len(files), [], [], [], {}
        for rank, path in enumerate(files):
            with safe_open(path, "pt") as f:
                meta = f.metadata()
                tensors = {k: f.get_tensor(k) for k in f.keys()}
            self.meta = meta if rank == 0 else self.meta
            self.keys += json.loads(meta["image_keys"])
            self.samples += json.loads(meta["samples"])
            self.grads.update({k[5:]: v for k, v in tensors.items() if k.startswith("grad.")})
            self.groups += split_leaves(tensors)

    def number(self, key):
        return float(self.meta[key])

    def all_samples(self, name):
        """Tensors of every sample, in the order of keys."""
        return [row for group in self.groups for row in group[name]]


def split_leaves(tensors):
    names = MICRO_BATCH + tuple(k for k in ("token_weights", "loss_mask") if k in tensors or k + ".leaf0" in tensors)
    leaves = sorted({int(k.rpartition(".leaf")[2]) for k in tensors if ".leaf" in k})
    if not leaves:
        return [{k: tensors[k] for k in names}] if "latents" in tensors else []
    return [{k: tensors[f"{k}.leaf{i}"] for k in names} for i in leaves]


def relative(got, want):
    """||got - want|| / ||want|| in double precision."""
    want = want.double()
    return ((got.double() - want).norm() / want.norm()).item()


@contextlib.contextmanager
def default_dtype(dtype):
    """transformers makes its causal mask from the smallest number of the model's type in torch's default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def text_states(text_encoder, ids, clip_skip):
    """(N,length) ids or (N,rows,77) to (N,length,C) or (N,75*rows+2,C), sd-scripts' way."""
    n, rows, length = ids.shape[0], ids.shape[1] if ids.dim() == 3 else 1, ids.shape[-1]
    with default_dtype(text_encoder.dtype):
        hidden = text_encoder(ids.reshape(-1, length), output_hidden_states=True).hidden_states[-clip_skip]
    states = text_encoder.text_model.final_layer_norm(hidden).reshape(n, rows, length, -1)
    if rows == 1:
        return states[:, 0]
    middle = states[:, :, 1:76].reshape(n, 75 * rows, -1)
    return torch.cat([states[:, 0, :1], middle, states[:, -1, 76:]], 1)


class AdamW8bit(torch.optim.Optimizer):
    """bitsandbytes' algorithm (optim_peers) on torch parameters, blocks in memory order."""

    def __init__(self, groups):
        super().__init__(groups, {"lr": 0.0})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.step_one(p, group["lr"])

    def step_one(self, p, lr, b1=0.9, b2=0.999, eps=1e-8, wd=0.01):
        f, state = np.float32, self.state[p]
        g, x = (optim_peers.memory_order(v.numpy()) for v in (p.grad, p.detach()))
        state.setdefault("m", np.zeros_like(x))
        state.setdefault("v", np.zeros_like(x))
        state["t"] = t = state.get("t", 0) + 1
        c1, c2 = 1 - b1**t, np.sqrt(1 - b2**t)
        m = f(b1) * state["m"] + f(1 - b1) * g
        v = f(b2) * state["v"] + f(1 - b2) * g * g
        x = (x + f(-lr * c2 / c1) * (m / (np.sqrt(v) + f(eps * c2)))) * f(1 - lr * wd)
        coded = x.size >= 4096
        state["m"] = optim_peers.encode(m, optim_peers.MAPS[0]) if coded else m
        state["v"] = optim_peers.encode(v, optim_peers.MAPS[1]) if coded else v
        p.copy_(torch.from_numpy(np.ascontiguousarray(optim_peers.file_order(x, p.shape))))


OPTIMIZERS = {  # with the settings of train_peers' cases
    "AdamW": lambda g: torch.optim.AdamW(g, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01),
    "AdamW8bit": AdamW8bit,
    "Lion": lambda g: lion_pytorch.Lion(g, weight_decay=0.1),
    "AdaFactor": lambda g: transformers.Adafactor(g, relative_step=False, scale_parameter=False),
    "Prodigy": lambda g: prodigyopt.Prodigy(g, weight_decay=0.01),
}


class Replay:
    """Weights of the run so far: the case's optimizer in f32, fed with the dumped gradients."""

    def __init__(self, model_dir, case):
        self.case = case
        self.unet = UNet2DConditionModel.from_pretrained(os.path.join(model_dir, "unet"))
        self.text_encoder = CLIPTextModel.from_pretrained(os.path.join(model_dir, "text_encoder"))
        kind = "v_prediction" if case.v_prediction else "epsilon"
        self.schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                      num_train_timesteps=1000, clip_sample=False, prediction_type=kind)
        self.initial = {k: p.detach().clone() for k, p in self.parameters()}
        groups = [{"params": list(m.parameters()), "lr": 0.0} for m in (self.unet, self.text_encoder)]
        self.optimizer = OPTIMIZERS[case.optimizer](groups)

    def parameters(self):
        for prefix, model in (("unet", self.unet), ("text_encoder", self.text_encoder)):
            for name, p in model.named_parameters():
                yield f"{prefix}.{name}", p

    def target(self, latents, noise, t):
        return self.schedule.get_velocity(latents, noise, t) if self.case.v_prediction else noise

    def compute(self, dump, train_text_encoder):
        """The step's forward and backward in f64. Returns ({what: relative error}, {name: gradient})."""
        unet = UNet2DConditionModel.from_config(self.unet.config).double()
        unet.load_state_dict(self.unet.state_dict())
        text_encoder = CLIPTextModel(self.text_encoder.config).double()
        text_encoder.load_state_dict(self.text_encoder.state_dict())
        errors, total = {}, 0.0
        for g in dump.groups:
            with torch.set_grad_enabled(train_text_encoder):
                states = text_states(text_encoder, g["input_ids"], self.case.clip_skip)
                if "token_weights" in g:
                    states = states * g["token_weights"].double()[..., None]
            noisy = self.schedule.add_noise(g["latents"], g["noise"], g["timesteps"])
            target = self.target(g["latents"], g["noise"], g["timesteps"])
            pred = unet(g["noisy_latents"].double(), g["timesteps"], states).sample
            losses = loss_formulas.loss(self.case.loss, pred - g["target"].double(), g["timesteps"])
            if "loss_mask" in g:
                losses = losses * g["loss_mask"].double()[:, None]
            loss = losses.mean((1, 2, 3))
            step_loss = (loss * g["loss_weights"].double()).sum() / dump.number("global_batch")
            step_loss.backward()
            total += step_loss.item()
            found = {"encoder_hidden_states": states, "noisy_latents": noisy, "target": target, "model_pred": pred}
            for name, want in found.items():
                errors[name] = max(errors.get(name, 0.0), relative(g[name], want.detach()))
            per_sample = ((g["loss"].double() - loss.detach()) / loss.detach()).abs().max().item()
            errors["loss of a sample"] = max(errors.get("loss of a sample", 0.0), per_sample)
        errors["loss of the step"] = abs(dump.number("loss") - total) / total
        grads = {f"{prefix}.{k}": p.grad for prefix, m in (("unet", unet), ("text_encoder", text_encoder))
                 for k, p in m.named_parameters() if p.grad is not None}
        norm = torch.stack([v.norm() for v in grads.values()]).norm().item()
        errors["gradient norm"] = abs(dump.number("grad_norm") - norm) / norm
        return errors, grads

    def advance(self, dump, lr, max_grad_norm, frozen=()):
        """The optimizer with the dumped gradients; frozen: prefixes that take no step. lr: (unet, text_encoder)."""
        for name, p in self.parameters():
            given = dump.grads.get(name)
            p.grad = None if given is None or name.startswith(tuple(frozen)) else given.clone()
        if max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_([p for _, p in self.parameters()], max_grad_norm)
        for group, value in zip(self.optimizer.param_groups, lr):
            group["lr"] = value
        self.optimizer.step()


def gradient_errors(got, want):
    """
    ([(relative L2 error, name)], worst first; names whose true gradient is zero; largest norm of those, of the whole).

    Some gradients are zero by mathematics (a key's bias under softmax, a bias before a norm of one channel per group);
    there only rounding noise is left, which is compared with the norm of the whole gradient.
    """
    whole = torch.stack([v.norm() for v in want.values()]).norm().item()
    zeros = [k for k, v in want.items() if v.norm().item() < 1e-12 * whole]
    noise = max((got[k].double().norm().item() / whole for k in zeros), default=0.0)
    errors = sorted(((relative(got[k], v), k) for k, v in want.items() if k not in zeros), reverse=True)
    return errors, zeros, noise
