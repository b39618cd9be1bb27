#!/usr/bin/env bash
# tests/cluster/test_slurm.sh BIN_DIR - dreamrun submit and launch on a real Slurm of three nodes: layout, the
# time limit and preemption that save and requeue, a node that is lost, scancel. The final weights are
# those of an undisturbed run. Where namespaces are not permitted, or without Slurm, it counts as skipped (77).
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" slurm "$1"
# shellcheck source=../support/background_runs.sh
. "$here/../support/background_runs.sh"
# shellcheck source=nodes.sh
. "$here/nodes.sh"
# shellcheck source=slurm.sh
. "$here/slurm.sh"
unset DREAMRUN_CONFIG OMPI_MCA_btl
if ! nodes_up 3 2>/dev/null || ! slurm_up >"$work/log" 2>&1; then
    cat "$work/log"
    nodes_down
    echo "0 passed, 0 failed, 1 skipped: no Slurm, or network namespaces are not permitted here"
    exit 77
fi
make_material
export HOME=$work XDG_CONFIG_HOME=$work OMPI_MCA_btl_tcp_if_include=e0 OMPI_MCA_oob_tcp_if_include=e0

# submit_job submit-options... -- flags...: one rank on each of three nodes; the job's number.
submit_job() {
    local options=()
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    slurm "$bin/dreamrun" submit --nodes 3 --ranks_per_node 1 --cpus_per_rank 1 "${options[@]}" \
        launch --restart_delay 0 --max_restarts 2 --min_processes 2 train_db --pretrained_model_name_or_path "$model" \
        --train_data_dir "$data/train" "${flags[@]}" --output_dir "$PWD/out" "$@" | sed 's/.* //'
}

job_state() {
    slurm scontrol show job -o "$1" | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p'
}

in_state() {
    [ "$(job_state "$1")" = "$2" ]
}

# reaches JOB STATE seconds
reaches() {
    wait_for "job $1 in state $2" "$3" in_state "$1" "$2" || {
        cat ./*.out "$slurm_dir/slurmctld.log" | tail -n 50
        return 1
    }
}

has_steps_in() {
    [ -e "$1" ] && [ "$(grep -c '"step"' "$1")" -ge "$2" ]
}

# No waiting for the delay after a requeue.
start_now() {
    slurm scontrol update job="$1" StartTime=now
}

same_as_straight() {
    train straight --virtual_shards 3 "$@"
    same_models straight/last out/last
}

layout() {
    slurm salloc --quiet -N 3 --ntasks-per-node=2 "$bin/dreamrun" test --restart_delay 0 >test.out 2>test.err || true
    cat test.out test.err
    equal "$(grep -c '^ok rank' test.out)" 18 'ranks of three starts'
    holds test.out 'ok rank 0: host n1, 0 there'
    holds test.out 'ok rank 5: host n3, 1 there'
    holds test.out 'all tests passed'
    slurm salloc --quiet -N 2 --ntasks-per-node=1 "$bin/dreamrun" env --json >env.json
    python3 -c "
import json
env = json.load(open('env.json'))
assert env['ranks'] == {'value': '2', 'source': '\$SLURM_NTASKS'}, env['ranks']
assert env['ranks start through']['value'] == 'srun', env
assert env['this is']['value'] == 'an allocation of Slurm', env"
}

# One task per node, as `srun accelerate launch` starts them, and a rank of plain srun.
per_node() {
    slurm salloc --quiet -N 2 --ntasks-per-node=2 \
        srun --overlap --ntasks=2 --ntasks-per-node=1 "$bin/dreamrun" launch --num_processes 4 dreamrun_selftest >out
    equal "$(grep -c '^ok rank' out)" 4 'ranks'
    slurm srun -N 2 --ntasks-per-node=1 "$bin/dreamrun" launch dreamrun_selftest >out
    equal "$(grep -c '^ok rank' out)" 2 'ranks of plain srun'
    local got=0
    slurm srun --mpi=none -N 2 --ntasks-per-node=2 "$bin/dreamrun" launch dreamrun_selftest >out 2>&1 || got=$?
    equal "$got" 69 'exit code without PMIx'
    holds out 'without PMIx they cannot find each other'
}

# slow FIRST LAST: an --inject that makes these steps take a second each, so that there is time for something to
# happen on a fast machine too.
slow() {
    local i list=
    for ((i = $1; i <= $2; i++)); do
        list+="delay:step=$i,seconds=1;"
    done
    printf '%s' "${list%;}"
}

preempted() {
    local job other
    job=$(submit_job -- --max_train_steps 14 --inject "$(slow 4 12)")
    wait_for 'three steps' 60 has_steps_in "dreamrun-$job.out" 3
    other=$(slurm sbatch --parsable -p high -N 3 --exclusive -o other.out --wrap 'sleep 1')
    reaches "$other" COMPLETED 40
    holds "dreamrun-$job.out" 'its state is saved'
    holds "dreamrun-$job.out" "job $job goes back into the queue"
    start_now "$job"
    reaches "$job" COMPLETED 90
    holds "dreamrun-$job.out" 'resumed from'
    same_as_straight --max_train_steps 14
}

time_is_up() {
    local job
    job=$(submit_job --time 1 --lead 55 -- --max_train_steps 100000)
    wait_for 'the requeue' 70 grep -qsF "goes back into the queue" "dreamrun-$job.out"
    holds "dreamrun-$job.out" 'was stopped by SIGUSR1'
    slurm scancel "$job"
    reaches "$job" CANCELLED 20
}

# Subjects side by side from cluster/subjects.sbatch, as a user adapts it; one is told to save, and comes back.
subjects() {
    local job i
    for i in 0 1 2; do
        cp -r "$data/train" "subject$i"
        rm -f "subject$i/10_sks shape/0$i".*
        echo "$PWD/subject$i" >>subjects.txt
    done
    sed -e '/gpus-per-node/d; s/--device=cuda//; s/--cpus-per-task=8/--cpus-per-task=1/; s/--time=4:00:00/--time=10/' \
        -e 's/--resolution=512/--resolution=64 --seed=1 --progress=json/; s/max_train_steps=1600/max_train_steps=8/' \
        "$here/../../cluster/subjects.sbatch" >subjects.sbatch
    job=$(DREAMRUN="$bin/dreamrun" SUBJECTS=$PWD/subjects.txt MODEL=$model DREAMRUN_INJECT="$(slow 4 7)" \
        slurm sbatch --parsable --array=0-2 subjects.sbatch)
    wait_for 'three steps of task 1' 60 has_steps_in "dreamrun-${job}_1.out" 3
    slurm scancel --signal=USR1 "${job}_1"
    wait_for 'the requeue' 30 grep -qsF "job ${job}_1 goes back into the queue" "dreamrun-${job}_1.out"
    start_now "${job}_1"
    for i in 0 1 2; do
        reaches "${job}_$i" COMPLETED 60
    done
    holds "dreamrun-${job}_1.out" 'resumed from'
    train straight --train_data_dir "$PWD/subject1" --learning_rate 2e-6 --max_train_steps 8 --cache_latents \
        --gradient_checkpointing --output_name subject1
    same_models straight/subject1 subject1-output/subject1
    differ "subject0-output/subject0/$unet" "subject2-output/subject2/$unet"
}

node_lost() {
    local job
    job=$(submit_job -- --max_train_steps 14 --save_state --save_every_n_steps 2 --save_last_n_steps 2 \
        --inject "$(slow 6 12)")
    wait_for 'five steps' 60 has_steps_in "dreamrun-$job.out" 5
    node_kill n2
    # a node's processes do not end at one moment: the first restart may still have its daemon
    (wait_for 'the restart' 40 grep -qE 'starting again \(attempt [23]\) with 2 ranks' "dreamrun-$job.out") ||
        fail "$(cat "dreamrun-$job.out")"
    reaches "$job" COMPLETED 90
    holds "dreamrun-$job.out" '(host n2) is gone without a word'
    same_as_straight --max_train_steps 14
    on_host n2 slurmd -N n2
    wait_for 'idle nodes' 60 all_idle
}

cancelled() {
    local job
    job=$(submit_job -- --max_train_steps 100000)
    wait_for 'three steps' 60 has_steps_in "dreamrun-$job.out" 3
    slurm scancel "$job"
    reaches "$job" CANCELLED 20
    lacks "dreamrun-$job.out" 'goes back into the queue'
    wait_for 'the end of all ranks' 10 none_left
    holds "dreamrun-$job.out" 'was stopped by SIGTERM; its state is saved'
}

check 'layout in an allocation; a killed rank comes back' layout
check 'one task per node, a rank of srun, no PMIx' per_node
check 'preempted, requeued: the same bits' preempted
check 'the time limit saves and requeues' time_is_up
check 'an array over subjects; one task is requeued' subjects
check 'scancel' cancelled
check 'a node is lost: the rest goes on, the same bits' node_lost
finish
