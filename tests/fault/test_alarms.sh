#!/usr/bin/env bash
# tests/fault/test_alarms.sh BIN_DIR - numbers that go wrong: NaN, parameters that learn nothing, a model of
# the other prediction type. Each alarm rings when it must, on any number of ranks, and changes nothing else.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" alarms "$1"
make_material
has_mpirun=$(command -v mpirun)
layer=mid_block.resnets.0.conv1.weight

# on N OUT flags...: one rank or several.
on() {
    case $1 in
        1) train "${@:2}" ;;
        *) [ -n "$has_mpirun" ] || skip 'no mpirun' && ranks "$@" ;;
    esac
}

# ends CODE N OUT flags...: that exit code and no model.
ends() {
    local code=$1 got=0 quiet=1
    shift
    on "$@" || got=$?
    cat "$2.err"
    equal "$got" "$code" 'exit code'
    equal "$(find "$2" -name '*.safetensors' -not -path '*-state/*' -not -path '*-step*')" '' 'saved models'
}

# --- NaN -----------------------------------------------------------------------------------------

# The picture is named; on two ranks it is one of rank 1's.
nan_stops() {
    local n=$1 where=nan:step=3
    [ "$n" = 1 ] || where+=,rank=$((n - 1))
    ends 76 "$n" out --inject "$where" --max_train_steps 5 --virtual_shards 2
    holds out.err 'error: step 3: the loss is nan'
    holds out.err 'before the weights were touched. First not finite: the latent, of '
    grep -E "10_sks shape/0[0-3].png, timestep [0-9]+, caption '.*sks" out.err
    equal "$(wc -l <out.json)" 2 'steps'
}

nan_of_a_gradient() {
    ends 76 1 out --inject "nan:step=2,param=$layer" --max_train_steps 5
    holds out.err "First not finite: the gradient of $layer, of which every batch alone is finite"
    ends 76 1 fused --inject nan:step=2 --max_train_steps 5 --fused_backward_pass --max_grad_norm 0
    holds fused.err 'before the weights were touched. First not finite: the latent, of '
    quiet=1 train fused --fused_backward_pass --max_grad_norm 0 --nan skip && return 1
    holds fused.err '--fused_backward_pass needs --nan stop or rollback'
}

# Weights that exploded: the first part of the U-Net that overflows.
explosion() {
    ends 76 1 out --learning_rate 1e15 --max_grad_norm 0 --max_train_steps 5 --dead_check off
    grep -E "First not finite: the (output of the U-Net's part that begins with|text encoder's states)" out.err
}

# A step that is skipped, or left out after going back, ends in the same bits, on any number of ranks.
skip_and_roll_back() {
    local all=(--max_train_steps 7 --virtual_shards 2 --inject nan:step=5) n
    train clean --max_train_steps 7 --virtual_shards 2
    train skipped "${all[@]}" --nan skip
    holds skipped.err '--nan skip: the step changes nothing'
    equal "$(sed -n 5p skipped.json | grep -c '"loss": null')" 1 'losses that are null'
    differ "clean/last/$unet" "skipped/last/$unet"
    for n in 1 2; do
        [ "$n" = 1 ] || [ -n "$has_mpirun" ] || continue
        on "$n" "back$n" "${all[@]}" --nan rollback --save_state --save_every_n_steps 2 --output_name m \
            --logging_dir "logs$n"
        holds "back$n.err" '--nan rollback: back to step 4 ('
        equal "$(of_steps step "back$n.json")" '1 2 3 4 6 7' 'steps'
        equal "$(grep -oE '"step": [0-9]+, "epoch": [0-9]+, "time": [0-9.]+, "(loss|alarm/left_out)"' logs"$n"/*/steps.jsonl |
            grep -oE '^"step": [0-9]+' | tr -dc '0-9\n' | xargs)" '1 2 3 4 5 6 7' 'steps of the log'
        same_models skipped/last "back$n/m"
    done
    [ -z "$has_mpirun" ] || {
        ranks 2 skipped2 "${all[@]}" --nan skip
        same_models skipped/last skipped2/last
    }
}

# Back over the end of an epoch and over the moment from which the text encoder stays as it is.
far_back() {
    few_pictures pictures
    local all=(--train_data_dir "$PWD/pictures" --max_train_steps 9 --inject nan:step=8
        --stop_text_encoder_training 5)
    train skipped "${all[@]}" --nan skip
    train back "${all[@]}" --nan rollback --save_state --save_every_n_steps 3 --save_last_n_steps_state 1 \
        --output_name m
    same_models skipped/last back/m
    quiet=1 train again "${all[@]}" --save_state --save_every_n_steps 3 --output_name m && return 1
    train again "${all[@]}" --nan rollback --resume auto --output_name m
    holds again.err '--nan rollback: back to step 6'
    same_models skipped/last again/m
}

no_endless_loop() {
    local steps
    ends 76 1 out --nan rollback --inject nan:step=2 --max_train_steps 4
    holds out.err 'there is no state to go back to yet'
    printf -v steps 'nan:step=%d;' 3 4 5 6
    ends 76 1 back --nan rollback --inject "${steps%;}" --max_train_steps 8 --save_state --save_every_n_steps 2 \
        --save_last_n_steps 1
    holds back.err 'the run went back 3 times already'
}

too_many_skips() {
    local steps
    printf -v steps 'nan:step=%d;' 2 3 4 5 6 7 8 9 10 11
    ends 76 1 out --nan skip --inject "${steps%;}" --max_train_steps 20
    holds out.err 'this is step 10 of that kind in a row'
    equal "$(wc -l <out.json)" 10 'steps'
}

# No state of weights that are not finite, and what was saved before stays.
no_bad_state() {
    local quiet=1 got=0
    train out --learning_rate 1e39 --max_grad_norm 0 --max_train_steps 3 --save_state --save_every_n_steps 1 \
        --dead_check off || got=$?
    cat out.err
    equal "$got" 76 'exit code'
    nothing_left out
}

# Gradients of 1e25 are finite, their squares in AdamW's state are not.
no_bad_optimizer_state() {
    local got=0 quiet=1
    train out --reg_data_dir "$data/reg" --prior_loss_weight 1e25 --max_grad_norm 0 --save_state || got=$?
    cat out.err
    equal "$got" 76 'exit code'
    holds out.err 'exp_avg_sq holds NaN or infinity, so no state is saved'
    equal "$(find out -name '*-state*')" '' 'states'
    no_leftovers
}

# fp16: the first step is the loss scale's affair, the second in a row is not.
fp16() {
    train once --mixed_precision fp16 --max_train_steps 6 --inject nan:step=4
    equal "$(of_steps skipped_steps once.json)" '0 0 0 1 1 1' 'skipped steps'
    ends 76 1 twice --mixed_precision fp16 --max_train_steps 6 --inject 'nan:step=4;nan:step=5'
    holds twice.err 'error: step 5: the loss is nan'
    holds twice.err 'the loss scale of fp16 is 32768'
}

# The same of a LoRA, whose up matrices begin at zero.
lora() {
    local run=("$bin/train_network" -- --network_module networks.lora --network_dim 4 --max_train_steps 12)
    local dead=dead:step=1,param=lora_unet_mid_block_attentions_0_proj_in.lora_up.weight got=0
    start straight "${run[@]}"
    start dropped "${run[@]}" --network_args module_dropout=0.9
    start skipped "${run[@]}" --inject nan:step=8 --nan skip
    start back "${run[@]}" --inject nan:step=8 --nan rollback --save_state --save_every_n_steps 3 --output_name m
    cmp skipped/last.safetensors back/m.safetensors || skip_names skipped/last.safetensors back/m.safetensors
    quiet=1 start dead "${run[@]}" --inject "$dead" || got=$?
    equal "$got" 76 'exit code'
    holds dead.err 'unet: lora_unet_mid_block_attentions_0_proj_in.lora_down.weight'
    holds dead.err '2 never had a gradient'
}

# The names of the outputs differ, so the headers do; the tensors behind them must not.
skip_names() {
    python3 -c '
import struct, sys
def tensors(path):
    data = open(path, "rb").read()
    return data[8 + struct.unpack("<Q", data[:8])[0]:]
sys.exit(tensors(sys.argv[1]) != tensors(sys.argv[2]))' "$1" "$2"
}

# --- dead parameters -----------------------------------------------------------------------------

dead_layer() {
    ends 76 "$1" out --inject "dead:step=1,param=$layer" --max_train_steps 12 --virtual_shards 2
    holds out.err 'error: step 10: dead parameters:'
    holds out.err '1 never had a gradient:'
    holds out.err "unet: $layer"
    equal "$(wc -l <out.json)" 9 'steps'
}

dead_variants() {
    ends 76 1 short --inject "dead:step=1,param=$layer" --max_train_steps 4
    holds short.err 'error: step 4: dead parameters:'
    train few --inject "dead:step=1,param=$layer" --max_train_steps 2 # too few to tell
    ends 76 1 text --inject dead:step=1,param=text_model.encoder.layers.0.mlp.fc1.bias --max_train_steps 4
    holds text.err 'text_encoder: text_model.encoder.layers.0.mlp.fc1.bias'
    train warned --inject "dead:step=1,param=$layer" --max_train_steps 4 --dead_check warn
    holds warned.err 'warning: step 4: dead parameters:'
    train off --inject "dead:step=1,param=$layer" --max_train_steps 4 --dead_check off
    lacks off.err 'dead parameters'
}

# Nothing is dead: a warm-up that begins at 0, a rate of 0, a text encoder that stops, a late start.
not_dead() {
    local all=(--max_train_steps 13)
    train warm "${all[@]}" --lr_scheduler constant_with_warmup --lr_warmup_steps 5
    train no_text "${all[@]}" --learning_rate_te 0
    train stopped "${all[@]}" --stop_text_encoder_training 2
    train skipped "${all[@]}" --clip_skip 2
    train lost "${all[@]}" --learning_rate 1e-12
    lacks warm.err 'dead parameters'
    lacks warm.err 'lost in the rounding'
    holds lost.err 'have a gradient but do not change'
}

# --- the model of the other kind -----------------------------------------------------------------

# Models that learned to predict noise and velocity, whose configurations say the opposite.
wrong_base() {
    local kind other flag=() got
    cp "$model/scheduler/scheduler_config.json" scheduler_epsilon
    sed 's/"epsilon"/"v_prediction"/' scheduler_epsilon >scheduler_v_prediction
    for kind in epsilon v_prediction; do
        cp "scheduler_$kind" "$model/scheduler/scheduler_config.json"
        [ $kind = epsilon ] && other=v_prediction flag=() || other=epsilon flag=(--v_parameterization)
        train "$kind" "${flag[@]}" --learning_rate 3e-3 --train_batch_size 8 --max_train_steps 40 \
            --min_timestep 600 --max_timestep 800 \
            --cache_latents --stop_text_encoder_training=-1 --num_cpu_threads_per_process 2
        holds "$kind.err" 'it predicts neither clearly'
    done
    cp scheduler_epsilon "$model/scheduler/scheduler_config.json"
    for kind in epsilon v_prediction; do
        [ $kind = epsilon ] && other=v_prediction flag=() || other=epsilon flag=(--v_parameterization)
        train right "${flag[@]}" --pretrained_model_name_or_path "$kind/last"
        grep -E "it predicts the (noise|velocity)$" right.err
        cp "scheduler_$other" "$kind/last/scheduler/scheduler_config.json"
        [ $kind = v_prediction ] && flag=() || flag=(--v_parameterization)
        for n in 1 2; do
            [ "$n" = 1 ] || [ -n "$has_mpirun" ] || continue
            ends 64 "$n" wrong "${flag[@]}" --pretrained_model_name_or_path "$kind/last"
            grep -E '(add|leave out) --v_parameterization' wrong.err
            equal "$(wc -l <wrong.json)" 0 'steps'
        done
        train warned "${flag[@]}" --pretrained_model_name_or_path "$kind/last" --base_check warn
        grep -E '^warning: the model predicts the' warned.err
    done
}

# --- nothing rings -------------------------------------------------------------------------------

# Alarms change no bit of a run that needs none.
same_bits() {
    local all=(--max_train_steps 12 --save_state_on_train_end)
    train on "${all[@]}" --nan rollback --logging_dir logs
    train off "${all[@]}" --dead_check off --base_check off
    same_models on/last off/last
    cmp on/last-state/optimizer.safetensors off/last-state/optimizer.safetensors
}

refusals() {
    local spec
    for spec in nan:write=3 dead:step=1 nan:step=1,rank=0,param=a kill:step=1,param=a; do
        refused 64 '--inject' 1 --inject "$spec"
    done
    refused 64 "--inject: no parameter 'a' is trained" 1 --inject nan:step=1,param=a
}

check 'NaN: stop, with the picture named' nan_stops 1
check 'NaN on the second of two ranks' nan_stops 2
check 'NaN in a gradient; --fused_backward_pass' nan_of_a_gradient
check 'weights that exploded: where they overflow first' explosion
check '--nan skip and rollback end in the same bits' skip_and_roll_back
check '--nan rollback over epochs and a stopped text encoder' far_back
check '--nan rollback gives up' no_endless_loop
check '--nan skip gives up' too_many_skips
check 'no state of weights that are not finite' no_bad_state
check 'no state of an optimizer that is not finite' no_bad_optimizer_state
check 'fp16: one overflow, and two in a row' fp16
check 'alarms of a LoRA' lora
check 'a dead parameter' dead_layer 1
check 'a dead parameter on two ranks' dead_layer 2
check 'dead parameters: short runs, text encoder, warn, off' dead_variants
check 'no false alarm of dead parameters' not_dead
check 'a model of the other prediction type' wrong_base
check 'without an alarm nothing changes' same_bits
check 'faults that make no sense' refusals
finish
