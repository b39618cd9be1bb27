#!/usr/bin/env bash
# tests/mpi/test_same_bits.sh BIN_DIR - the same virtual shards give the same model, bit for bit, on any
# number of ranks and threads, with any split into accumulated batches.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" same_bits "$1"
command -v mpirun >/dev/null || {
    echo "no mpirun"
    exit 77
}
make_material

# Two steps with captions shuffled, regularisation pictures and two bucket shapes: everything that
# could depend on which rank holds which sample.
options=(--train_batch_size 2 --enable_bucket --min_bucket_reso 64
    --max_bucket_reso 256 --resolution 128 --shuffle_caption --flip_aug --reg_data_dir "$work/data/reg")
picture "$work/data/train/10_sks shape/wide.png" 260 70

small=(--train_batch_size 2 --shuffle_caption --flip_aug --reg_data_dir "$work/data/reg") # 64 x 64

# The run that all others must equal: one rank, four shards.
train "$work/base" "${options[@]}" --virtual_shards 4 || exit 1

# Same number of shards, other ranks; the losses are those of the base, too.
as_base() {
    same_models "$work/base/last" out/last
    equal "$(of_steps loss out.json)" "$(of_steps loss "$work/base.json")" losses
    equal "$(of_steps grad_norm out.json)" "$(of_steps grad_norm "$work/base.json")" "gradient norms"
}

on_ranks() {
    ranks "$1" out "${options[@]}" --virtual_shards 4
    as_base
}

accumulated() {
    train out "${options[@]}" --gradient_accumulation_steps 4
    as_base
}

both() {
    train out "${options[@]}" --virtual_shards 2 --gradient_accumulation_steps 2
    as_base
}

both_on_two() {
    ranks 2 out "${options[@]}" --virtual_shards 2 --gradient_accumulation_steps 2
    as_base
}

shards_default_to_ranks() {
    ranks 4 out "${options[@]}"
    as_base
}

threads() {
    train out "${options[@]}" --virtual_shards 4 --num_cpu_threads_per_process 2
    as_base
    train out "${options[@]}" --virtual_shards 4 --num_cpu_threads_per_process 3
    as_base
}

# Pictures decoded when they are needed, or ahead of it, into later epochs.
loaders() {
    train out "${options[@]}" --virtual_shards 4 --max_data_loader_n_workers 0
    as_base
    train a "${small[@]}" --max_train_steps 9 --num_cpu_threads_per_process 4 --max_data_loader_n_workers 0
    train b "${small[@]}" --max_train_steps 9 --num_cpu_threads_per_process 4 --max_data_loader_n_workers 3
    same_models a/last b/last
}

checkpointed() {
    ranks 2 out "${options[@]}" --virtual_shards 4 --gradient_checkpointing
    as_base
}

launched() {
    launch 2 out "${options[@]}" --virtual_shards 4
    as_base
}

single_file() {
    train a "${small[@]}" --virtual_shards 4 --save_model_as safetensors
    ranks 3 b "${small[@]}" --virtual_shards 4 --save_model_as safetensors
    cmp a/last.safetensors b/last.safetensors
}

# Cached or not, where the cache lies, who fills it and in which batches changes nothing.
caches() {
    local cached=(--virtual_shards 4 --latent_cache_dir cache)
    train live "${small[@]}" --virtual_shards 4
    train memory "${small[@]}" --virtual_shards 4 --cache_latents
    same_models live/last memory/last
    ranks 3 disk "${small[@]}" "${cached[@]}" --cache_latents_to_disk --vae_batch_size 3
    holds disk.err ' are cached, '
    same_models live/last disk/last
    ranks 2 again "${small[@]}" "${cached[@]}" --cache_latents_to_disk
    holds again.err ', 0 to encode'
    same_models live/last again/last
    ranks 2 two "${small[@]}" --virtual_shards 4 --cache_latents --vae_batch_size 2
    same_models live/last two/last
    train one "${small[@]}" "${cached[@]}" --cache_latents_to_disk
    holds one.err ', 0 to encode'
    same_models live/last one/last
}

# One draw for all uses, or 16 bits: other numbers, the same on any number of ranks.
cache_forms() {
    local form
    train live "${small[@]}" --virtual_shards 4
    for form in '--latent_cache_content latents' '--latent_cache_dtype f16' \
        '--latent_cache_content latents --latent_cache_dtype bf16'; do
        rm -rf cache
        # shellcheck disable=SC2086
        train memory "${small[@]}" --virtual_shards 4 --cache_latents $form
        # shellcheck disable=SC2086
        ranks 2 disk "${small[@]}" --virtual_shards 4 --latent_cache_dir cache --cache_latents_to_disk $form
        same_models memory/last disk/last
        differ live/last/$unet memory/last/$unet
    done
}

# A relative folder is another one in another working directory: rank 1 cannot see rank 0's files.
blind_rank() {
    mkdir here there
    train live "${small[@]}" --virtual_shards 4
    local command=("$bin/train_db" --pretrained_model_name_or_path "$model" --train_data_dir
        "$data/train" --output_dir "$PWD/out" --max_train_steps 2 "${flags[@]}" "${small[@]}"
        --virtual_shards 4 --cache_latents_to_disk --latent_cache_dir cache)
    local pass
    for pass in first second; do
        timeout -k 5 "$limit_s" "${mpi[@]}" mpirun --oversubscribe --bind-to none \
            -n 1 --wdir "$PWD/here" "${command[@]}" : -n 1 --wdir "$PWD/there" "${command[@]}" \
            >out.json 2>$pass.err </dev/null || cat $pass.err
        same_models live/last out/last
        holds $pass.err '1 rank cannot see cache and gets all latents from rank 0'
    done
    holds second.err ', 0 to encode'
    [ ! -e there/cache ]
}

# More leaves than an epoch has batches: leaves without samples, and the end of the epoch.
few_samples() {
    few_pictures few
    local few=(--train_data_dir few --max_train_epochs 3)
    train a "${few[@]}" --virtual_shards 4
    ranks 4 b "${few[@]}"
    ranks 3 c "${few[@]}" --virtual_shards 4
    same_models a/last b/last
    same_models a/last c/last
    equal "$(of_steps samples b.json)" "2 2 2" samples
}

frozen_text_encoder() {
    local frozen=(--virtual_shards 3 --stop_text_encoder_training=-1)
    train a "${small[@]}" "${frozen[@]}"
    ranks 2 b "${small[@]}" "${frozen[@]}"
    same_models a/last b/last
    local stopped=(--virtual_shards 3 --stop_text_encoder_training=1)
    train c "${small[@]}" "${stopped[@]}"
    ranks 3 d "${small[@]}" "${stopped[@]}"
    same_models c/last d/last
    # what the frozen encoder gave is kept, or computed anew each time
    train e "${small[@]}" "${frozen[@]}" --text_encoder_cache_mib 0
    same_models a/last e/last
    train f "${small[@]}" "${frozen[@]}" --text_encoder_cache_mib 1 --train_batch_size 3 --max_train_steps 6
    train g "${small[@]}" "${frozen[@]}" --text_encoder_cache_mib 0 --train_batch_size 3 --max_train_steps 6
    same_models f/last g/last
}

dumps_of_ranks() {
    ranks 2 out "${options[@]}" --virtual_shards 4 --dump_dir dump --dump_steps 2
    as_base
    equal "$(ls dump)" "$(printf 'step-00000%d-rank%d.safetensors\n' 1 0 1 1 2 0 2 1)" dumps
    # rank 0 holds the gradients, each rank its own samples
    header dump/step-000001-rank0.safetensors >rank0
    header dump/step-000001-rank1.safetensors >rank1
    holds rank0 '"grad.unet.'
    lacks rank1 '"grad.'
    holds rank1 '"latents'
}

seeds_differ() {
    train out "${options[@]}" --virtual_shards 4 --seed 2
    differ "$work/base/last/$unet" out/last/$unet
    train out "${options[@]}" --virtual_shards 3
    differ "$work/base/last/$unet" out/last/$unet
}

for n in 1 2 3 4; do
    check "four shards on $n ranks" on_ranks $n
done
check 'four accumulated batches' accumulated
check 'two shards x two accumulated batches' both
check 'the same on two ranks' both_on_two
check 'virtual_shards unset: one per rank' shards_default_to_ranks
check 'one, two, three threads' threads
check 'pictures decoded ahead, or not' loaders
check 'gradient checkpointing' checkpointed
check 'dreamrun launch' launched
check 'single file' single_file
check 'latent caches in memory and on disk' caches
check 'latent caches of one draw and of 16 bits' cache_forms
check 'a rank without the cache folder' blind_rank
check 'fewer samples than ranks' few_samples
check 'text encoder frozen or stopped' frozen_text_encoder
check 'dumps' dumps_of_ranks
check 'another seed or number of shards is another run' seeds_differ
finish
