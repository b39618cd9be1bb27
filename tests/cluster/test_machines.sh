#!/usr/bin/env bash
# tests/cluster/test_machines.sh BIN_DIR - dreamrun launch started once on each of three hosts, which have no ssh
# between them: meeting, refusals, requests to stop from anywhere, machines that are lost. Where namespaces are
# not permitted it counts as skipped (77).
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" machines "$1"
# shellcheck source=../support/background_runs.sh
. "$here/../support/background_runs.sh"
# shellcheck source=nodes.sh
. "$here/nodes.sh"
if ! command -v mpirun >/dev/null || ! nodes_up 3 2>/dev/null; then
    nodes_down
    echo "0 passed, 0 failed, 1 skipped: network namespaces are not permitted here, or no mpirun"
    exit 77
fi
make_material
unset DREAMRUN_CONFIG DREAMRUN_RUN_TOKEN OMPI_MCA_btl
export HOME=$work XDG_CONFIG_HOME=$work
meeting=(--num_machines 3 --main_process_ip 10.77.0.1)
saving=(--save_state --save_every_n_steps 2)
pids=()

# command R words...: `dreamrun words` in the background on the host of machine R; output in out.R, err.R.
command_on() {
    local number=$1
    shift
    set -m # without it bash lets background jobs ignore SIGINT
    timeout "$limit_s" "$on_host_script" "n$((number + 1))" "$bin/dreamrun" "$@" >"out.$number" 2>"err.$number" </dev/null &
    pids[number]=$!
    set +m
    # a case that fails must not leave its run behind
    trap 'for n in n1 n2 n3; do node_kill "$n"; done' EXIT
}

# machines 'launch options' flags...: a training of three ranks over three machines, in the background.
machines() {
    local options number
    read -ra options <<<"$1"
    shift
    for number in 2 1 0; do
        command_on "$number" launch "${meeting[@]}" --machine_rank "$number" --num_processes 3 --restart_delay 0 \
            "${options[@]}" train_db --pretrained_model_name_or_path "$model" --train_data_dir "$data/train" \
            "${flags[@]}" --output_dir "$PWD/out" "$@"
    done
}

# all_ended CODE0 CODE1 CODE2: the exit codes of the three; nothing is left on any host.
all_ended() {
    local number got codes=()
    for number in 0 1 2; do
        got=0
        wait "${pids[number]}" || got=$?
        codes+=("$got")
    done
    head -v -n 40 err.*
    equal "${codes[*]}" "$*" 'exit codes of the three machines'
    wait_for 'the end of all processes on all hosts' 5 nodes_idle
    trap - EXIT
}

five_steps() {
    [ "$(grep -c '"step"' out.0)" -ge 5 ]
}

# launch_of R: the process of the launch of machine R.
launch_of() {
    pgrep -f -- "^$bin/dreamrun launch .*--machine_rank $1 .*--output_dir $PWD/" | head -n 1
}

# --- what goes well --------------------------------------------------------------------------------

layout() {
    local number
    for number in 0 2 1; do
        command_on "$number" test "${meeting[@]}" --machine_rank "$number" --num_processes 5
    done
    all_ended 0 0 0
    cat out.0
    equal "$(grep -c '^ok rank' out.0)" 15 'ranks of three starts' # one, and one that is killed and comes back
    holds out.0 'ok rank 1: host n1, 1 there'
    holds out.0 'ok rank 2: host n2, 0 there'
    holds out.0 'ok rank 4: host n3, 0 there'
    holds out.0 'all tests passed'
}

# From a file as accelerate config writes it for each machine.
same_bits() {
    local number
    for number in 0 1 2; do
        cat >"config.$number" <<END
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_CPU
machine_rank: $number
main_process_ip: 10.77.0.1
main_process_port: 29511
main_training_function: main
mixed_precision: 'no'
num_machines: 3
num_processes: 3
rdzv_backend: static
same_network: true
use_cpu: true
END
        command_on "$number" launch --config_file "config.$number" train_db.py --pretrained_model_name_or_path "$model" \
            --train_data_dir "$data/train" "${flags[@]}" --output_dir "$PWD/out" --max_train_steps 6
    done
    all_ended 0 0 0
    train straight --max_train_steps 6 --virtual_shards 3
    same_models straight/last out/last
}

# --- what is refused -------------------------------------------------------------------------------

# alone R: the launch of machine R by itself, with few seconds to wait; its exit code is printed.
alone() {
    local got=0 number=$1
    shift
    on_host "n$((number + 1))" timeout 20 "$bin/dreamrun" launch "${meeting[@]}" --start_timeout 1 "$@" dreamrun_selftest \
        >out 2>&1 || got=$?
    cat out >&2
    echo "$got"
}

nobody_there() {
    equal "$(alone 1 --machine_rank 1)" 69 'exit code'
    holds out 'machine 0 did not answer within --start_timeout (1 s): nobody answers at 10.77.0.1:29500: Connection refused'
    equal "$(alone 0 --machine_rank 0)" 69 'exit code'
    holds out 'after --start_timeout (1 s) 1 of 3 machines had come to 10.77.0.1:29500; missing: --machine_rank 1, 2'
    equal "$(alone 1 --machine_rank 0)" 64 'exit code'
    holds out '--main_process_ip: 10.77.0.1 is no address of this host'
}

# A machine that is refused leaves; machine 0 goes on waiting for one that belongs to it.
refused_machines() {
    local number
    command_on 0 launch "${meeting[@]}" --machine_rank 0 dreamrun_selftest
    wait_for 'machine 0' 10 grep -q 'machine 0 of 3 waits' err.0
    equal "$(alone 0 --machine_rank 0)" 69 'exit code'
    holds out 'Address already in use (process '
    command_on 1 launch "${meeting[@]}" --machine_rank 1 dreamrun_selftest
    wait_for 'machine 1' 10 grep -q 'machine 1 has come: n2 (10.77.0.2)' err.0
    equal "$(alone 2 --machine_rank 1)" 64 'exit code'
    holds out 'dreamrun: machine 1: machine 0 refuses this machine: --machine_rank 1 is taken by n2 (10.77.0.2)'
    equal "$(alone 2 --machine_rank 2 --num_processes 9)" 64 'exit code'
    holds out "it was started with '--num_processes 9' where machine 0 has '--num_processes (not given)'"
    # shellcheck disable=SC2097,SC2098
    equal "$(DREAMRUN_RUN_TOKEN=x alone 2 --machine_rank 2)" 64 'exit code'
    holds out "its \$DREAMRUN_RUN_TOKEN is not machine 0's"
    equal "$(alone 1 --machine_rank 2)" 64 'exit code'
    holds out 'it is on the host of machine 1 (10.77.0.2); start one launch per host'
    command_on 2 launch "${meeting[@]}" --machine_rank 2 dreamrun_selftest
    all_ended 0 0 0
}

# --- requests to stop ------------------------------------------------------------------------------

stopped_elsewhere() {
    machines '' --max_train_steps 1000000
    wait_for 'five steps' 60 five_steps
    kill -s INT "$(launch_of 2)"
    all_ended 75 75 75
    holds err.0 'was stopped by SIGINT; its state is saved'
    holds err.1 'dreamrun: machine 1: train_db with 3 ranks was stopped by SIGINT; its state is saved'
    equal "$(find out -name manifest.json -printf '%P')" "at-step$(printf %08d "$(grep -c '"step"' out.0)")-state/manifest.json" 'states'
}

# A second request ends everything at once.
stopped_twice() {
    machines '--inject delay:rank=1,step=3,seconds=60' --max_train_steps 1000000
    wait_for 'a step' 60 grep -q '"step": 2' out.0
    kill -s INT "$(launch_of 1)"
    sleep 0.7 # requests that lie closer together are one
    kill -s INT "$(launch_of 0)"
    all_ended 130 130 130
}

# --- what is lost ----------------------------------------------------------------------------------

machine_lost() {
    machines '--min_processes 2 --max_restarts 2' --max_train_steps 12 "${saving[@]}"
    wait_for 'five steps' 60 five_steps
    node_kill n2
    all_ended 0 137 0
    holds err.0 'rank 1 (host n2) is gone without a word'
    holds err.0 'starting again (attempt 2) with 2 ranks'
    train straight --max_train_steps 12 --virtual_shards 3
    same_models straight/last out/last
}

cable_pulled() {
    machines '' --max_train_steps 1000000
    wait_for 'five steps' 60 five_steps
    node_cut n3
    all_ended 137 137 69
    node_join n3
    holds err.0 'rank 2 (host n3) is gone without a word'
    holds err.1 'rank 2 (host n3) is gone without a word'
    holds err.2 'machine 0 (10.77.0.1:29500) is gone without a word'
}

launch_killed() {
    machines '' --max_train_steps 1000000
    wait_for 'five steps' 60 five_steps
    kill -s KILL "$(launch_of "$1")"
    if [ "$1" = 0 ]; then
        all_ended 137 69 69
    else
        all_ended 137 137 137
        holds err.2 'rank 1 (host n2) is gone without a word'
    fi
}

check 'layout, a killed rank comes back' layout
check "accelerate's file for each machine: the same bits as one rank" same_bits
check 'machines that do not come, addresses of others' nobody_there
check 'machines that do not belong' refused_machines
check 'SIGINT to one machine saves on all' stopped_elsewhere
check 'a second SIGINT ends all' stopped_twice
check 'a machine dies: the rest goes on, the same bits' machine_lost
check 'a cable is pulled: all sides end' cable_pulled
check 'the launch of machine 0 is killed' launch_killed 0
check 'the launch of machine 1 is killed' launch_killed 1
finish
