#!/usr/bin/env bash
# tests/cluster/test_hosts.sh BIN_DIR - dreamrun launch over three hosts by mpirun: layout, stop requests, a
# host that dies, a cable that is pulled, a launcher that is killed. Where namespaces are not permitted it
# counts as skipped (77).
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" hosts "$1"
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
unset DREAMRUN_CONFIG OMPI_MCA_btl
export HOME=$work XDG_CONFIG_HOME=$work
printf 'n1 slots=2\nn2 slots=2\nn3 slots=2\n' >"$work/hostfile"
over_hosts=("$on_host_script" n1 "$bin/dreamrun" launch --hostfile "$work/hostfile" --interface e0 --rsh_agent "$agent"
    --restart_delay 0)
saving=(--save_state --save_every_n_steps 2)

layout() {
    on_host n1 "$bin/dreamrun" test --hostfile "$work/hostfile" --interface e0 --rsh_agent "$agent" \
        --num_processes 5 >test.out
    cat test.out
    equal "$(grep -c '^ok rank' test.out)" 15 'ranks of three starts' # one, and one that is killed and comes back
    holds test.out 'ok rank 1: host n1, 1 there'
    holds test.out 'ok rank 2: host n2, 0 there'
    holds test.out 'ok rank 4: host n3, 0 there'
    holds test.out 'all tests passed'
    nodes_idle
}

too_many() {
    local got=0
    "${over_hosts[@]}" --num_processes 7 train_db >out 2>&1 || got=$?
    cat out
    equal "$got" 69 'exit code'
    holds out 'but the 3 hosts offer 6 slots'
}

straight_and_same() {
    train straight --max_train_steps 12 --virtual_shards 3
    same_models straight/last out/last
}

# begin flags...: a run on the three hosts in the background; waits for its fifth step.
begin() {
    in_background "${over_hosts[@]}" --num_processes 3 --min_processes 2 --max_restarts 2 train_db -- \
        --output_dir "$PWD/out" --max_train_steps 12 "$@"
    # shellcheck disable=SC2154
    trap 'kill -9 $pid $(mine) 2>/dev/null || true' EXIT
    wait_for 'five steps' 60 has_five
}

has_five() {
    [ "$(grep -c '"step"' steps.json)" -ge 5 ]
}

restarted() {
    grep -qF 'starting again (attempt 2) with 2 ranks' run.err
}

host_dies() {
    begin "${saving[@]}"
    node_kill n2
    wait_for 'the restart' 5 restarted
    ended 0 60
    holds run.err 'rank 1 (host n2) is gone without a word'
    straight_and_same
}

cable_pulled() {
    begin "${saving[@]}"
    node_cut n2
    # shellcheck disable=SC2154
    trap 'node_join n2; kill -9 $pid $(mine) 2>/dev/null || true' EXIT
    wait_for 'the restart' 60 restarted # after 6 s without an answer; as much again and more on a busy machine
    wait_for 'the end of the side that was cut off' 10 none_on_n2
    ended 0 60
    node_join n2
    holds run.err 'rank 1 (host n2) is gone without a word'
    straight_and_same
}

none_on_n2() {
    [ -z "$(ip netns pids "$(netns n2)")" ]
}

asked_to_stop() {
    begin
    kill -s TERM "$pid"
    ended 75 30
    holds run.err 'its state is saved'
    train straight --max_train_steps 12 --virtual_shards 3
    "${over_hosts[@]}" --num_processes 2 train_db --pretrained_model_name_or_path "$model" \
        --train_data_dir "$data/train" "${flags[@]}" --output_dir "$PWD/out" --max_train_steps 12 --resume auto
    same_models straight/last out/last
}

launcher_killed() {
    begin
    kill -s KILL "$(pgrep -f -- "^$bin/dreamrun launch .*--output_dir $PWD/" | head -n 1)"
    wait_for 'the end of all processes on all hosts' 4 nodes_idle
    ended 137 5
}

check 'layout, a killed rank comes back' layout
check 'more ranks than slots' too_many
check 'a host dies: the rest goes on, the same bits' host_dies
check 'a cable is pulled: the rest goes on, the same bits' cable_pulled
check 'SIGTERM saves; gone on with elsewhere' asked_to_stop
check 'SIGKILL to the launcher: all hosts idle' launcher_killed
finish
