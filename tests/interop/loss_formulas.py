"""sd-scripts' loss weights and element losses (custom_train_functions.py, train_util.py), in torch doubles."""
import torch

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
AC = torch.cumprod(1 - BETAS, 0).double()


def weight(t, v_prediction, min_snr_gamma=0.0, scale_v_pred=False, v_pred_like=0.0, debiased=False):
    snr = (AC[t] / (1 - AC[t])).item()
    capped, factor = min(snr, 1000.0), 1.0
    if min_snr_gamma:
        factor *= min(snr, min_snr_gamma) / (snr + 1 if v_prediction else snr)
    if scale_v_pred:
        factor *= capped / (capped + 1)
    if v_pred_like:
        factor *= 1 + v_pred_like * (capped + 1) / capped
    if debiased:
        factor *= 1 / (capped + 1) if v_prediction else capped**-0.5
    return factor


def huber_c(t):
    """--huber_schedule snr, --huber_c 0.1."""
    sigma = ((1 - AC[t]) / AC[t]).sqrt()
    return 0.9 / (1 + sigma) ** 2 + 0.1


def loss(kind, d, timesteps):
    """Of every element; d = prediction - target, (N,C,H,W)."""
    if kind == "l1":
        return d.abs()
    if kind == "l2":
        return d.square()
    c = huber_c(timesteps.long()).reshape(-1, 1, 1, 1)
    root = (d.square() + c.square()).sqrt() - c
    return 2 * c * root if kind == "huber" else 2 * root
