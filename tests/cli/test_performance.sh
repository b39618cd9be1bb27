#!/usr/bin/env bash
# tests/cli/test_performance.sh BIN_DIR - what can be promised of speed on any machine: timelines, page faults.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" performance "$1"
make_material
profiled() {
    python3 "$here/../support/check_profile.py" "$@" >threads
}

# A timeline shows the first steps, and changes nothing.
of_train_db() {
    train plain --max_train_steps 4 --save_every_n_steps 2
    train out --max_train_steps 4 --save_every_n_steps 2 --profile out.trace --profile_steps 2
    holds out.err 'profile: out.trace'
    profiled out.trace 1,2 1
    same_models plain/last out/last
    no_leftovers
}

of_train_network() {
    start out "$bin/train_network" -- --network_module networks.lora --network_dim 2 --profile out.trace
    profiled out.trace 1,2 1
}

of_two_ranks() {
    command -v mpirun >/dev/null || skip 'no mpirun'
    ranks 2 out --max_train_steps 2 --profile out.trace
    profiled out.trace 1,2 2
    holds threads gradients
}

of_a_resumed_run() {
    train out --max_train_steps 2 --save_state
    train out --max_train_steps 4 --resume auto --profile out.trace --profile_steps 1
    profiled out.trace 3 1
}

refuses() {
    refused 73 'missing/out.trace' 1 --profile missing/out.trace
    refused 64 '--profile_steps needs --profile too' 1 --profile_steps 2
}

# From the third step on nothing is allocated: 0 page faults, but for the page that lists in memory (losses for
# the report) need now and then. Loaders are out of the way: each picture they read ahead is new memory.
no_page_faults() {
    train out --max_train_steps 40 --cache_latents "$@"
    of_steps page_faults out.json >faults
    python3 - faults <<'END'
import sys
faults = list(map(int, open(sys.argv[1]).read().split()))
later = faults[2:]
assert len(faults) == 40 and faults[0] > 0, faults
assert later.count(0) >= len(later) - 4 and sum(later) <= 8, faults
END
}

# memory_of NAME PROGRAM flags...: the plan and the peak of a run, in MiB.
memory_of() {
    local name=$1 program=$2
    shift 2
    start "$name" python3 "$here/../support/peak_memory.py" "$name.kib" "$bin/$program" -- --num_cpu_threads_per_process 2 \
        --base_check off --max_train_steps 1 "$@"
    sed -En 's/^memory: needs ([0-9.]+) ([KMG])iB per rank.*/\1 \2/p' "$name.err" >"$name.plan"
}

# What a run takes beyond a small one is what its plan takes beyond the small one's: to 3 %, and two huge pages.
# (Code of libraries and their own heaps, about 35 MiB, are in no plan.)
plan_is_right() {
    local data=$work/case/wide
    "$bin/dreamrun" make_pictures "$data" --n 4 --size 256
    local wide=(--resolution 256 --train_batch_size 8)
    memory_of small train_db --cache_latents
    memory_of cached train_db "${wide[@]}" --cache_latents
    memory_of encoded train_db "${wide[@]}"
    memory_of frozen train_db "${wide[@]}" --cache_latents --stop_text_encoder_training=-1
    memory_of checkpointed train_db "${wide[@]}" --cache_latents --gradient_checkpointing
    memory_of averaged train_db "${wide[@]}" --cache_latents --ema_decay 0.999
    memory_of summed train_db "${wide[@]}" --cache_latents --gradient_accumulation_steps 2
    memory_of lora train_network "${wide[@]}" --cache_latents --network_module networks.lora --network_dim 8
    memory_of saved train_db "${wide[@]}" --cache_latents --save_state --save_every_n_steps 1
    python3 - <<'END'
import glob
def read(name):
    number, unit = open(name + ".plan").read().split()
    return float(number) * {"K": 1 / 1024, "M": 1, "G": 1024}[unit], int(open(name + ".kib").read()) / 1024
small_plan, small_peak = read("small")
names = sorted(path[:-5] for path in glob.glob("*.plan") if path != "small.plan")
rows = [(name, read(name)[0] - small_plan, read(name)[1] - small_peak) for name in names]
for name, plan, peak in rows:
    print(f"{name}: planned {plan:.1f} MiB more, took {peak:.1f} MiB more: {peak / plan - 1:+.1%}")
assert len(rows) == 8
assert all(abs(peak - plan) <= 0.03 * plan + 4 for name, plan, peak in rows)
END
}

check 'a timeline of train_db' of_train_db
check 'a timeline of train_network' of_train_network
check 'a timeline of two ranks' of_two_ranks
check 'a timeline of a run that goes on' of_a_resumed_run
check 'timelines that cannot be' refuses
check 'no page faults after the second step' no_page_faults
check 'the same with checkpointing and two threads' no_page_faults --gradient_checkpointing \
    --num_cpu_threads_per_process 2
check 'the plan of memory is what a run takes' plan_is_right
finish
