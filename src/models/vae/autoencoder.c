#include "models/vae/autoencoder.h"

#include "ops/diffusion_ops.h"

dr_status dr_autoencoder_config_check(const dr_autoencoder_config *c)
{
    return c->kind == DR_VAE_KL ? dr_vae_config_check(&c->kl) : dr_taesd_config_check(&c->tiny);
}

void dr_autoencoder_init(dr_autoencoder *ae, const dr_autoencoder_config *config, dr_params *set,
                         bool encoder, bool decoder)
{
    *ae = (dr_autoencoder){.kind = config->kind};
    const size_t first = set->n;
    if (config->kind == DR_VAE_KL) {
        dr_vae_init(&ae->kl, &config->kl, set, encoder, decoder);
    } else {
        dr_taesd_init(&ae->tiny, &config->tiny, set, encoder, decoder);
    }
    for (size_t i = first; i < set->n; i++) {
        set->at[i]->trainable = false;
    }
}

double dr_autoencoder_scale(const dr_autoencoder *ae)
{
    return ae->kind == DR_VAE_KL ? ae->kl.config.scaling_factor : ae->tiny.config.scaling_factor;
}

int64_t dr_autoencoder_factor(const dr_autoencoder *ae)
{
    const int levels = ae->kind == DR_VAE_KL ? ae->kl.config.n_levels : ae->tiny.config.n_stages;
    return (int64_t)1 << (levels - 1);
}

int64_t dr_autoencoder_channels(const dr_autoencoder *ae)
{
    return ae->kind == DR_VAE_KL ? ae->kl.config.latent_channels : ae->tiny.config.latent_channels;
}

int64_t dr_autoencoder_moment_channels(const dr_autoencoder *ae)
{
    return dr_autoencoder_channels(ae) * (ae->kind == DR_VAE_KL ? 2 : 1);
}

dr_status dr_autoencoder_moments(dr_context *cx, const dr_autoencoder *ae, const dr_tensor *images,
                                 dr_tensor *moments)
{
    return ae->kind == DR_VAE_TINY ? dr_taesd_encode(cx, &ae->tiny, images, moments)
                                   : dr_vae_encode(cx, &ae->kl, images, moments);
}

dr_status dr_autoencoder_encode(dr_context *cx, const dr_autoencoder *ae, const dr_tensor *images,
                                const dr_tensor *noise, dr_tensor *latents)
{
    if (ae->kind == DR_VAE_TINY) {
        return dr_taesd_encode(cx, &ae->tiny, images, latents);
    }
    const int64_t *d = latents->dim;
    dr_frame f = dr_frame_begin(cx);
    dr_tensor moments = dr_new(cx, f, 4, DR_DIMS(d[0], d[1], d[2], 2 * d[3]));
    DR_TRY(dr_vae_encode(cx, &ae->kl, images, &moments));
    DR_TRY(dr_posterior_sample(
        cx, &(dr_posterior_sample_args){.moments = &moments, .noise = noise, .z = latents}));
    dr_frame_end(cx, f);
    return DR_OK;
}

dr_status dr_autoencoder_decode(dr_context *cx, const dr_autoencoder *ae, const dr_tensor *latents,
                                dr_tensor *images)
{
    if (ae->kind == DR_VAE_TINY) {
        return dr_taesd_decode(cx, &ae->tiny, latents, images);
    }
    return dr_vae_decode(cx, &ae->kl, latents, images);
}
