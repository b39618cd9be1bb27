"""diffusers' schedulers by sd-scripts' names, made as sd-scripts makes them (get_my_scheduler), or as Stable Diffusion's
own scheduler_config.json says."""
import sys

import diffusers

CLASSES = {"ddim": diffusers.DDIMScheduler, "pndm": diffusers.PNDMScheduler, "lms": diffusers.LMSDiscreteScheduler,
           "euler": diffusers.EulerDiscreteScheduler, "euler_a": diffusers.EulerAncestralDiscreteScheduler,
           "heun": diffusers.HeunDiscreteScheduler, "dpm_2": diffusers.KDPM2DiscreteScheduler,
           "dpm_2_a": diffusers.KDPM2AncestralDiscreteScheduler, "dpmsolver": diffusers.DPMSolverMultistepScheduler,
           "dpmsolver++": diffusers.DPMSolverMultistepScheduler, "dpmsingle": diffusers.DPMSolverSinglestepScheduler}
ANCESTRAL = ("euler_a", "dpm_2_a")


def make(kind, prediction, sd_scripts=True, karras=False, zero_snr=False):
    args = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction)
    if kind in ("dpmsolver", "dpmsolver++"):
        args["algorithm_type"] = kind
    if kind == "dpmsolver":
        args["final_sigmas_type"] = "sigma_min"  # its default is refused
    if karras:
        args["use_karras_sigmas"] = True
    if zero_snr:
        args["rescale_betas_zero_snr"] = True
    if zero_snr and kind == "ddim":
        args["timestep_spacing"] = "trailing"
    if not sd_scripts and kind in ("ddim", "pndm"):
        args.update(steps_offset=1, set_alpha_to_one=False)
        args.update(dict(clip_sample=False) if kind == "ddim" else dict(skip_prk_steps=True))
    scheduler = CLASSES[kind](**args)
    if sd_scripts and hasattr(scheduler.config, "clip_sample"):
        scheduler.register_to_config(clip_sample=True)
    return scheduler


def draw_from(kind, draw):
    """The ancestral samplers draw noise for themselves: now draw(like=tensor shape) does it."""
    if kind in ANCESTRAL:
        sys.modules[CLASSES[kind].__module__].randn_tensor = lambda shape, *_, **__: draw(shape)
