/*
 * train/hub/hub.h - model IDs of the Hugging Face hub: owner/name[@revision] to a folder on this
 * disk.
 *
 * Layer:    train.
 * Source:   behaviour of the Python package huggingface_hub 0.36.
 *
 * A path that exists is always that path. Else an ID is looked for in the local cache, the one that
 * huggingface_hub, diffusers and transformers use (HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE,
 * HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub), and nothing is asked of
 * the network when the model is there. Else it is downloaded into that cache from HF_ENDPOINT, with
 * the token of HF_TOKEN or of the token file, unless HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set.
 * Only what a Stable Diffusion model needs is fetched; each file is checked by its hash.
 *
 * owner/name[@revision]/path/file.safetensors names one file of a repository.
 */
#ifndef DR_TRAIN_HUB_H
#define DR_TRAIN_HUB_H

#include "base/arena.h"
#include "dist/dist.h"
#include "train/model/model_file.h"

typedef enum dr_hub_use { DR_HUB_MODEL, DR_HUB_VAE } dr_hub_use; /* which files are needed */

/*
 * Where the model is: given itself when something exists there or when it is no ID (whoever opens
 * it says what is wrong), else a folder or file of the cache, living in the arena.
 *
 * Errors: DR_INVALID (no such repository, revision or file; no permission; offline and not in the
 * cache; a path with a typing error), DR_IO (network, disk), DR_FORMAT (not the model it should be,
 * wrong hash).
 */
DR_MUST_USE dr_status dr_hub_resolve(dr_arena *a, dr_hub_use use, const char *given,
                                     const char **out);
/*
 * Resolves o->path and o->vae (NULL is fine) in place; strings live in the arena. d NULL: alone.
 * Collective: rank 0 looks and downloads, the others wait as long as that takes; each rank then
 * checks that it sees the files.
 */
DR_MUST_USE dr_status dr_hub_resolve_model(dr_dist *d, dr_arena *a, dr_model_open_options *o);

#endif
