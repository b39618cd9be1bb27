/*
 * The config of an SD 2.x checkpoint in the words of its original program, as other programs look
 * for beside the file. Values are the network's; the rest is what every such model has.
 */
#include "base/file.h"
#include "train/model/model_output.h"

/* Channels as multiples of the first level's; false when they are none. */
static bool channel_mult(const int64_t *channels, int n, int64_t *mult)
{
    for (int i = 0; i < n; i++) {
        mult[i] = channels[i] / channels[0];
        if (channels[i] % channels[0] != 0) {
            return false;
        }
    }
    return true;
}

/* The width of heads, when it is the same at all levels; else 0. */
static int64_t head_width(const dr_unet_config *c)
{
    const int64_t width = c->channels[0] / c->heads[0];
    for (int i = 0; i < c->n_levels; i++) {
        if (c->depth[i] != c->depth[0] || c->channels[i] != width * c->heads[i]) {
            return 0;
        }
    }
    return width;
}

static void add_list(dr_str *s, const char *indent, const char *key, const int64_t *list, int n)
{
    dr_str_printf(s, "%s%s: [", indent, key);
    for (int i = 0; i < n; i++) {
        dr_str_printf(s, "%s%lld", i > 0 ? ", " : "", (long long)list[i]);
    }
    dr_str_add(s, "]\n");
}

static void add_head(dr_str *s, bool v_prediction)
{
    dr_str_add(s, "# Config of a Stable Diffusion 2.x checkpoint, written by dreamrun.\n"
                  "model:\n"
                  "  base_learning_rate: 1.0e-4\n"
                  "  target: ldm.models.diffusion.ddpm.LatentDiffusion\n"
                  "  params:\n");
    if (v_prediction) {
        dr_str_add(s, "    parameterization: \"v\"\n");
    }
    dr_str_add(s, "    linear_start: 0.00085\n"
                  "    linear_end: 0.0120\n"
                  "    num_timesteps_cond: 1\n"
                  "    log_every_t: 200\n"
                  "    timesteps: 1000\n"
                  "    first_stage_key: \"jpg\"\n"
                  "    cond_stage_key: \"txt\"\n"
                  "    image_size: 64\n");
}

static void add_unet(dr_str *s, const dr_unet_config *c, const int64_t *mult)
{
    int64_t attention[DR_UNET_MAX_LEVELS];
    int n = 0;
    for (int i = c->n_levels; i-- > 0;) { /* by how far the picture has shrunk, the most first */
        if (c->attention[i]) {
            attention[n++] = (int64_t)1 << i;
        }
    }
    dr_str_add(s, "\n    unet_config:\n"
                  "      target: ldm.modules.diffusionmodules.openaimodel.UNetModel\n"
                  "      params:\n"
                  "        use_checkpoint: True\n"
                  "        use_fp16: True\n"
                  "        image_size: 32\n");
    dr_str_printf(s, "        in_channels: %lld\n        out_channels: %lld\n",
                  (long long)c->in_channels, (long long)c->out_channels);
    dr_str_printf(s, "        model_channels: %lld\n", (long long)c->channels[0]);
    add_list(s, "        ", "attention_resolutions", attention, n);
    dr_str_printf(s, "        num_res_blocks: %d\n", c->layers_per_block);
    add_list(s, "        ", "channel_mult", mult, c->n_levels);
    dr_str_printf(s, "        num_head_channels: %lld\n", (long long)head_width(c));
    dr_str_printf(s,
                  "        use_spatial_transformer: True\n"
                  "        use_linear_in_transformer: True\n"
                  "        transformer_depth: %d\n"
                  "        context_dim: %lld\n"
                  "        legacy: False\n",
                  c->depth[0], (long long)c->context_dim);
}

static void add_vae(dr_str *s, const dr_vae_config *c, const int64_t *mult)
{
    dr_str_printf(s,
                  "\n    first_stage_config:\n"
                  "      target: ldm.models.autoencoder.AutoencoderKL\n"
                  "      params:\n"
                  "        embed_dim: %lld\n"
                  "        monitor: val/rec_loss\n"
                  "        ddconfig:\n"
                  "          double_z: true\n"
                  "          z_channels: %lld\n"
                  "          resolution: 256\n"
                  "          in_channels: %lld\n"
                  "          out_ch: %lld\n"
                  "          ch: %lld\n",
                  (long long)c->latent_channels, (long long)c->latent_channels,
                  (long long)c->in_channels, (long long)c->out_channels, (long long)c->channels[0]);
    add_list(s, "          ", "ch_mult", mult, c->n_levels);
    dr_str_printf(s,
                  "          num_res_blocks: %d\n"
                  "          attn_resolutions: []\n"
                  "          dropout: 0.0\n"
                  "        lossconfig:\n"
                  "          target: torch.nn.Identity\n",
                  c->layers_per_block);
}

dr_status dr_model_yaml_write(const dr_model_config *c, const char *path, bool *written)
{
    int64_t unet_mult[DR_UNET_MAX_LEVELS];
    int64_t vae_mult[DR_VAE_MAX_LEVELS];
    dr_str s = {0};
    *written = c->vae.kind == DR_VAE_KL && head_width(&c->unet) > 0 &&
               channel_mult(c->unet.channels, c->unet.n_levels, unet_mult) &&
               channel_mult(c->vae.kl.channels, c->vae.kl.n_levels, vae_mult);
    if (!*written) {
        return DR_OK;
    }
    add_head(&s, c->v_prediction);
    dr_str_printf(&s, "    channels: %lld\n", (long long)c->unet.in_channels);
    dr_str_add(&s, "    cond_stage_trainable: false\n"
                   "    conditioning_key: crossattn\n"
                   "    monitor: val/loss_simple_ema\n");
    dr_str_printf(&s, "    scale_factor: %g\n", c->vae.kl.scaling_factor);
    dr_str_add(&s, "    use_ema: False\n");
    add_unet(&s, &c->unet, unet_mult);
    add_vae(&s, &c->vae.kl, vae_mult);
    dr_str_add(&s, "\n    cond_stage_config:\n"
                   "      target: ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder\n"
                   "      params:\n"
                   "        freeze: True\n"
                   "        layer: \"penultimate\"\n");
    const dr_status st = dr_file_write(path, s.data, s.len);
    dr_str_free(&s);
    return st;
}
