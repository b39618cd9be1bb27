#!/usr/bin/env bash
# tests/fault/test_precision.sh BIN_DIR - runs in 16 bits: the same bits on any number of ranks and threads,
# exact resume, overflows of fp16 that leave a step out, what may not be combined.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" precision "$1"
make_material
has_mpirun=$(command -v mpirun)
mkdir "$work/few"
few_pictures "$work/few"

# Four shards on one rank; the others must equal it, losses and gradient norms too.
same_bits() {
    local all=(--virtual_shards 4 --max_train_steps 3 "$@")
    train base "${all[@]}"
    train out "${all[@]}" --num_cpu_threads_per_process 2 --gradient_checkpointing
    same_models base/last out/last
    [ -n "$has_mpirun" ] || skip 'no mpirun'
    local n key
    for n in 2 4; do
        ranks "$n" out "${all[@]}"
        same_models base/last out/last
        for key in loss grad_norm loss_scale skipped_steps; do
            equal "$(of_steps "$key" out.json)" "$(of_steps "$key" base.json)" "$key on $n ranks"
        done
    done
}

one_leaf() { # gradients in 16 bits, where weights are
    train base --max_train_steps 3 --train_batch_size 2 "$@"
    train out --max_train_steps 3 --train_batch_size 2 "$@" --num_cpu_threads_per_process 2
    same_models base/last out/last
}

resumed() {
    local all=(--train_data_dir "$work/few" --save_state --max_train_steps 8 "$@") file
    train straight "${all[@]}"
    quiet=1 train out "${all[@]}" --save_every_n_steps 2 --inject exit:step=6,code=9 || equal $? 9 'exit code'
    train out "${all[@]}" --resume auto
    same_models straight/last out/last
    for file in model.safetensors optimizer.safetensors train_state.json; do
        cmp "straight/last-state/$file" "out/last-state/$file"
    done
}


# The optimizer inside backward: the same bits, with 16-bit weights too.
fused() {
    local all=("$@" --max_grad_norm 0 --train_data_dir "$work/few" --max_train_steps 3)
    train base "${all[@]}"
    train out "${all[@]}" --fused_backward_pass
    same_models base/last out/last
}

# Regularisation pictures of an absurd weight: gradients overflow fp16, no step touches a weight, the scale
# halves; alike on two ranks and after a resume.
overflows() {
    local all=(--mixed_precision fp16 --reg_data_dir "$data/reg" --prior_loss_weight 1e6 --train_batch_size 6
        --max_grad_norm 0 --virtual_shards 2 --save_state) file
    train zero --mixed_precision fp16 --learning_rate 0 --max_train_steps 1
    train straight "${all[@]}" --max_train_steps 6
    equal "$(of_steps skipped_steps straight.json)" '1 2 3 4 5 6' 'steps left out'
    equal "$(of_steps loss_scale straight.json)" '32768.0 16384.0 8192.0 4096.0 2048.0 1024.0' 'loss scale'
    same_models zero/last straight/last
    train plain "${all[@]}" --max_train_steps 3 --progress plain
    holds plain.err 'skipped 3, scale 8192'
    quiet=1 train out "${all[@]}" --max_train_steps 6 --save_every_n_steps 2 --inject exit:step=4,code=9 ||
        equal $? 9 'exit code'
    train out "${all[@]}" --max_train_steps 6 --resume auto
    for file in model.safetensors optimizer.safetensors train_state.json; do
        cmp "straight/last-state/$file" "out/last-state/$file"
    done
    [ -n "$has_mpirun" ] || skip 'no mpirun'
    ranks 2 two "${all[@]}" --max_train_steps 6
    for file in model.safetensors optimizer.safetensors train_state.json; do
        cmp "straight/last-state/$file" "two/last-state/$file"
    done
}

# --- what is saved ---------------------------------------------------------------------------------

dtypes() { # FILE: the types of its tensors
    header "$1" | grep -o '"dtype":"[A-Z0-9]*"' | sort -u | tr -d '\n'
}

saved_as_trained() {
    train out --mixed_precision bf16
    equal "$(dtypes out/last/$unet)" '"dtype":"F32"' 'bf16'
    train out --mixed_precision bf16 --full_bf16
    equal "$(dtypes out/last/$unet)" '"dtype":"BF16"' 'full bf16'
    train out --mixed_precision fp16 --full_fp16
    equal "$(dtypes out/last/$unet)" '"dtype":"F16"' 'full fp16'
    train out --mixed_precision fp16 --full_fp16 --save_precision float
    equal "$(dtypes out/last/$unet)" '"dtype":"F32"' 'save_precision'
    equal "$(dtypes out/last/$vae)" "$(dtypes "$model/$vae")" 'the VAE is as it was'
}

refusals() {
    refused 64 '--full_fp16 needs --mixed_precision fp16, found bf16' 1 --full_fp16 --mixed_precision bf16
    refused 64 '--full_bf16 needs --mixed_precision' 1 --full_bf16
    refused 64 '--fp8_base is not supported: there is no fp8 arithmetic here' 1 --fp8_base
    refused 64 '--ema_decay: an average needs weights in 32 bits' 1 \
        --full_bf16 --mixed_precision bf16 --ema_decay 0.9
    refused 64 '--fused_backward_pass needs --mixed_precision bf16 or no' 1 \
        --mixed_precision fp16 --fused_backward_pass --max_grad_norm 0
}

check 'bf16: ranks and threads do not matter' same_bits --mixed_precision bf16
check 'fp16: ranks and threads do not matter' same_bits --mixed_precision fp16
check 'full bf16: ranks and threads do not matter' same_bits --mixed_precision bf16 --full_bf16
check 'full fp16: ranks and threads do not matter' same_bits --mixed_precision fp16 --full_fp16
check 'full bf16, one batch a step' one_leaf --mixed_precision bf16 --full_bf16
check 'full fp16, one batch a step' one_leaf --mixed_precision fp16 --full_fp16
check 'bf16: resumed = straight' resumed --mixed_precision bf16
check 'fp16: resumed = straight' resumed --mixed_precision fp16
check 'full bf16: resumed = straight' resumed --mixed_precision bf16 --full_bf16
check 'full fp16, AdamW8bit: resumed = straight' resumed --mixed_precision fp16 --full_fp16 --optimizer_type AdamW8bit
check 'full bf16, Prodigy: resumed = straight' resumed --mixed_precision bf16 --full_bf16 --optimizer_type Prodigy
check 'full bf16, schedule-free: resumed = straight' \
    resumed --mixed_precision bf16 --full_bf16 --optimizer_type AdamWScheduleFree
check 'bf16, optimizer inside backward' fused --mixed_precision bf16
check 'full bf16, optimizer inside backward' fused --mixed_precision bf16 --full_bf16
check 'steps that overflow fp16 are left out' overflows
check 'saved in the type of training' saved_as_trained
check 'what is refused' refusals
finish
