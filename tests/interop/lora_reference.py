"""sd-scripts' networks.lora in plain torch, written from its description: which modules, their names, their forward."""
import math

import torch

import dropout_masks

TEXT_TARGETS = ("CLIPAttention", "CLIPSdpaAttention", "CLIPMLP")
UNET_TARGETS = ("Transformer2DModel",)
CONV_TARGETS = ("ResnetBlock2D", "Downsample2D", "Upsample2D")
BLOCKS = 25


def block_index(path):
    """Of 25: 12 down (0 has no module), the middle, 12 up."""
    parts = path.split(".")
    if parts[0] == "mid_block":
        return 12
    i, kind, j = int(parts[1]), parts[2], int(parts[3])
    down = parts[0] == "down_blocks"
    if kind in ("downsamplers", "upsamplers"):
        return (3 if down else 15) + 3 * i
    return (1 if down else 13) + 3 * i + j


class Module:
    """One adapter: y += scale * up(down(x)); factors are in a file's shapes."""

    def __init__(self, name, path, layer, rank, alpha):
        self.name, self.path, self.layer, self.rank = name, path, layer, rank
        self.alpha = float(alpha or rank)
        if isinstance(layer, torch.nn.Conv2d):
            self.down = torch.empty(rank, layer.in_channels, *layer.kernel_size)
            self.up = torch.empty(layer.out_channels, rank, 1, 1)
        else:
            self.down, self.up = torch.empty(rank, layer.in_features), torch.empty(layer.out_features, rank)

    def bound(self):
        return 1 / math.sqrt(self.down[0].numel())

    def start(self, generator):
        self.down = (torch.rand(self.down.shape, generator=generator) * 2 - 1) * self.bound()
        self.up = torch.randn(self.up.shape, generator=generator) * 0.02

    def state(self):
        return {f"{self.name}.alpha": torch.tensor(self.alpha), f"{self.name}.lora_down.weight": self.down,
                f"{self.name}.lora_up.weight": self.up}

    def attach(self, model, factors, dropout=None, batch=None):
        """Patches the module of that path in model; factors: name of a tensor to its value; dropout: (elements, ranks)."""
        layer = model.get_submodule(self.path)
        down, up = factors[f"{self.name}.lora_down.weight"], factors[f"{self.name}.lora_up.weight"]
        scale, base = self.alpha / self.rank, layer.forward

        def dropped(inner):
            if batch is None or dropout is None:
                return inner
            elements, ranks = dropout
            if elements:
                inner = inner * batch.elements(dropout_masks.ELEMENTS, self.name, elements, inner)
            return inner * batch.ranks(self.name, ranks, inner) if ranks else inner

        def forward(x, *args, **kwargs):
            if isinstance(layer, torch.nn.Conv2d):
                inner = dropped(torch.nn.functional.conv2d(x, down, None, layer.stride, layer.padding))
                delta = torch.nn.functional.conv2d(inner, up)
            else:
                delta = dropped(x @ down.T) @ up.T
            return base(x, *args, **kwargs) + delta * scale

        layer.forward = forward


def find_modules(model, prefix, targets, choose):
    """choose(path, layer) gives (rank, alpha), rank 0: none."""
    found = []
    for parent_path, parent in model.named_modules():
        if parent.__class__.__name__ not in targets:
            continue
        for child_path, child in parent.named_modules():
            if child.__class__.__name__ not in ("Linear", "Conv2d", "LoRACompatibleLinear", "LoRACompatibleConv"):
                continue
            path = f"{parent_path}.{child_path}"
            rank, alpha = choose(path, child)
            if rank:
                found.append(Module(f"{prefix}_{path}".replace(".", "_"), path, child, rank, alpha))
    return found


def is_large(layer):
    return isinstance(layer, torch.nn.Conv2d) and layer.kernel_size != (1, 1)


class Network:
    def __init__(self, unet, text_encoder, dim=4, alpha=1.0, conv_dim=0, conv_alpha=1.0, parts=("unet", "te"),
                 block_dims=None, block_alphas=None, weights=None, exclude=lambda path: False):
        def choose_text(path, layer):
            return (0, 0) if exclude(path) else (dim, alpha)

        def choose_unet(path, layer):
            if exclude(path) or (weights and weights[block_index(path)] == 0):
                return 0, 0
            if is_large(layer):
                return conv_dim, conv_alpha
            if block_dims:
                i = block_index(path)
                return block_dims[i], block_alphas[i] if block_alphas else alpha
            return dim, alpha

        self.text = find_modules(text_encoder, "lora_te", TEXT_TARGETS, choose_text) if "te" in parts else []
        targets = UNET_TARGETS + (CONV_TARGETS if conv_dim else ())
        self.unet = find_modules(unet, "lora_unet", targets, choose_unet) if "unet" in parts else []

    def modules(self):
        return self.text + self.unet

    def state(self):
        return {k: v for m in self.modules() for k, v in m.state().items()}
