#!/usr/bin/env bash
# tests/gpu/test_network_gpu.sh BIN_DIR GPU_BIN_DIR emulated|real - train_network on GPUs, those of tests/emu or real
# ones: close to the CPU, the same bits on any number of them and after a stop.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" network_gpu "$1"
on_gpu=$(cd "$2" && pwd)
kind=$3
make_material
limit_s=300 # an emulated kernel's threads run one after another
gpus=4
if [ "$kind" = emulated ]; then
    export DREAMRUN_NCCL=$on_gpu/libnccl_emulated.so
else
    gpus=$(nvidia-smi -L | wc -l)
fi
few_pictures "$work/few"

options=(--train_data_dir "$work/few" --network_module networks.lora --network_dim 2 --network_alpha 1 --no_metadata
    --max_train_steps 3 --resolution 128)

# network OUT flags...: one rank; networks N OUT flags...: N ranks.
network() {
    start "$1" "$bin/train_network" -- "${options[@]}" "${@:2}"
}
networks() {
    start "$2" "${mpi[@]}" mpirun -n "$1" --oversubscribe --bind-to none "$bin/train_network" -- "${options[@]}" "${@:3}"
}

network "$work/cpu" --virtual_shards 1 || exit 1
bin=$on_gpu
network "$work/base" --virtual_shards 2 --device cuda --max_train_steps 1 || exit 1

# as_cpu LOSS NORM flags...: losses and norms of three steps, the last two with recordings where they can be.
as_cpu() {
    network gpu --virtual_shards 1 --device cuda "${@:3}"
    holds gpu.err 'CUDA graphs: one for each shape of a batch'
    close "$1" "$(of_steps loss gpu.json)" "$(of_steps loss "$work/cpu.json")"
    [ "$2" = any ] || close "$2" "$(of_steps grad_norm gpu.json)" "$(of_steps grad_norm "$work/cpu.json")"
}

needs_gpus() {
    command -v mpirun >/dev/null || skip "no mpirun"
    [ "$gpus" -ge "$1" ] || skip "$gpus GPUs"
}

two_gpus() {
    needs_gpus 2
    networks 2 out --device cuda --deterministic strict --max_train_steps 1
    cmp "$work/base/last.safetensors" out/last.safetensors
    networks 2 parts --device cuda --deterministic strict --max_train_steps 1 --zero_stage 1
    cmp "$work/base/last.safetensors" parts/last.safetensors
}

resumed() {
    local all=(--virtual_shards 1 --device cuda --save_state --save_every_n_steps 2 "$@")
    network whole "${all[@]}"
    quiet=1 network out "${all[@]}" --inject 'exit:step=3,code=9' || equal $? 9 'exit code'
    network out "${all[@]}" --resume auto
    holds out.err 'resumed from'
    cmp whole/last.safetensors out/last.safetensors
}

# Limits: those of test_train_gpu.sh. Real GPUs: not measured yet, PyTorch's own backends differ by up to 1e-5 and 1e-4.
loss_limit=5e-7
norm_limit=2.6e-6
if [ "$kind" = real ]; then
    loss_limit=1e-5
    norm_limit=1e-4
fi

check 'losses and norms of the CPU, up to rounding' as_cpu $loss_limit $norm_limit
check 'bf16 is close to that' as_cpu 2e-3 1e-2 --mixed_precision bf16
check 'fp16 is close to that' as_cpu 1e-3 any --mixed_precision fp16
check 'two GPUs give the bits of one' two_gpus
check 'stopped and gone on with, the same bits' resumed --mixed_precision bf16
finish
