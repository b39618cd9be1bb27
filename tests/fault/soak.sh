#!/usr/bin/env bash
# tests/fault/soak.sh BIN_DIR [FAULTS] [SEED] - one training over many faults in a row (default 100): ranks are
# killed, leave, run out of disk or stand still at random steps, and the launcher starts the run again each
# time. At the end the weights are those of an undisturbed run, and no announced state was lost.
# Too long for every commit: minutes per 20 faults on two cores.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" soak "$1"
# shellcheck disable=SC2034 # read by train_cases.sh
limit_s=7200
n_faults=${2:-100}
seed=${3:-1}
make_material
unset DREAMRUN_CONFIG
export HOME=$work XDG_CONFIG_HOME=$work

# One fault per attempt, each one to three steps behind the one before, so that a state of every step
# lets each attempt come further; the last line is the number of steps.
make_faults() {
    python3 - "$n_faults" "$seed" <<'END'
import random
import sys
n, seed = int(sys.argv[1]), int(sys.argv[2])
rng = random.Random(seed)
step, faults = 1, []
for attempt in range(1, n + 1):
    step += rng.randint(1, 3)
    kind = rng.choice(["kill"] * 5 + ["exit"] * 3 + ["stop"])
    faults.append(f"{kind}:rank={rng.randint(0, 1)},step={step},attempt={attempt}" + (",code=9" if kind == "exit" else ""))
print(";".join(faults))
print(step + 2)
END
}

soak() {
    local faults steps
    make_faults >faults
    faults=$(head -n 1 faults)
    steps=$(tail -n 1 faults)
    start out "${mpi[@]}" "$bin/dreamrun" launch --num_processes 2 --oversubscribe --max_restarts 3 --restart_delay 0 \
        --hang_timeout 5 --inject "$faults" train_db -- --virtual_shards 2 --max_train_steps "$steps" \
        --save_state --save_every_n_steps 1 --save_last_n_steps 1 --save_last_n_steps_state 1
    python3 - "$n_faults" <<'END'
import json
import sys
ends = [e for e in map(json.loads, open("out/.dreamrun/events.jsonl")) if e["event"] == "end"]
assert len(ends) == int(sys.argv[1]) + 1, f"{len(ends)} attempts"
assert ends[-1]["code"] == 0 and all(e["code"] for e in ends[:-1])
states = [e["state_step"] for e in ends]
assert states == sorted(states), f"a state was lost: {states}"
END
    train straight --virtual_shards 2 --max_train_steps "$steps"
    same_models straight/last out/last
}

check "$n_faults faults (seed $seed): the same bits, no state lost" soak
finish
