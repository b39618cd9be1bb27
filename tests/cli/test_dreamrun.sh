#!/bin/sh
# tests/cli/test_dreamrun.sh DREAMRUN - exit codes and messages of the dreamrun command.
#
# dreamrun is copied beside a stand-in for train_db, so that only the launcher is under test.
set -eu
# shellcheck source-path=SCRIPTDIR source=cases.sh
. "$(dirname "$0")/cases.sh"

work=$(mktemp -d "${TMPDIR:-/tmp}/dreamrun_cli.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin with blank"
bin="$work/bin with blank"
cp "$1" "$bin/dreamrun"
cat >"$bin/train_db" <<'STANDIN'
#!/bin/sh
rank=${OMPI_COMM_WORLD_RANK:-none}
case "$1" in
    --show) echo "rank $rank of ${OMPI_COMM_WORLD_SIZE:-none}, $OMP_NUM_THREADS threads: $2" ;;
    --end)
        if [ "$rank" = "$2" ]; then
            echo "error: the cause of it" >&2
            exit "$3"
        fi
        ;;
    --fall) if [ "$rank" = "$2" ]; then kill -9 $$; fi ;;
    --wait) echo "$$" >>"$2"; exec sleep 300 ;;
esac
STANDIN
chmod +x "$bin/train_db"
dreamrun="$bin/dreamrun"
unset OMP_NUM_THREADS SLURM_CPUS_PER_TASK OMPI_COMM_WORLD_SIZE || true

# --- usage ---
expect 64 'Usage: dreamrun [launch]' "$dreamrun"
expect 0 '--num_processes N' "$dreamrun" --help
expect 0 '--num_processes N' "$dreamrun" launch -h
expect 0 'dreamrun 0.1.0' "$dreamrun" --version
expect 64 'dreamrun: error: dreamrun launch: no program given' "$dreamrun" launch
expect 64 'dreamrun submit: no program given' "$dreamrun" submit
expect 0 '#SBATCH --signal=USR1@90' "$dreamrun" submit --print --lead 90 --nodes 2 launch train_db --x
# shellcheck disable=SC2016
expect 0 'launch --requeue --max_restarts 2 train_db --x '"'a b'"' "out-$SLURM_ARRAY_TASK_ID"' "$dreamrun" submit --print \
    launch --max_restarts 2 train_db --x 'a b' 'out-$SLURM_ARRAY_TASK_ID'
expect 64 'did you mean --num_processes?' "$dreamrun" submit --print launch --num_proceses 2 train_db
expect 64 "dreamrun config: found 'x'" "$dreamrun" config x
expect 64 'dreamrun merge-weights is not available: there are no sharded states' "$dreamrun" merge-weights
expect 71 'dreamrun_selftest: there is no such program' "$dreamrun" env
expect 64 'did you mean --num_processes?' "$dreamrun" launch --num_proceses 2 train_db
expect 64 '--multi_gpu needs at least 2 ranks, found 1 (default)' "$dreamrun" launch --multi_gpu train_db
expect 64 '--use_fsdp is not supported' "$dreamrun" launch --use_fsdp train_db
expect 71 'there is no such program' "$dreamrun" launch train_network.py
expect 71 'dreamrun_tools cannot be started' "$dreamrun" tokenize
expect 69 'apt install openmpi-bin' env PATH=/nowhere "$dreamrun" --num_processes 2 train_db

# --- one rank ---
expect 0 'rank none of none, 3 threads: a  b' "$dreamrun" launch \
    --num_cpu_threads_per_process 3 /some/where/train_db.py --show 'a  b'
expect 65 '' "$dreamrun" train_db --end none 65
refuse 'dreamrun:' "$dreamrun" train_db --end none 65
expect 0 "-n 2 --bind-to none" "$dreamrun" launch --dry_run --num_processes 2 train_db --show

# --- more ranks ---
if command -v mpirun >/dev/null; then
    expect 0 'rank 1 of 2, 1 threads: x y' "$dreamrun" launch --cpu --num_processes 2 \
        --num_cpu_threads_per_process 1 train_db --show 'x y'
    expect 65 'train_db with 2 ranks failed: rank 1 (host' "$dreamrun" launch --num_processes 2 train_db --end 1 65
    expect 65 ': exit code 65 (bad input data or model file): the cause of it' \
        "$dreamrun" launch --num_processes 2 train_db --end 1 65
    expect 137 'was ended by signal 9: exit code 137 (Killed)' \
        "$dreamrun" launch --num_processes 2 train_db --fall 1
    # a job in a job: stale variables do not reach the new one
    expect 0 'rank 0 of 2' env OMPI_UNIVERSE_SIZE=7 PMIX_RANK=5 PMIX_NAMESPACE=1 \
        "$dreamrun" launch --num_processes 2 train_db --show x

    # a stop request ends all ranks and leaves none behind
    for signal in TERM INT KILL; do
        "$dreamrun" launch --num_processes 2 train_db --wait "$work/$signal" >"$work/out" 2>&1 &
        pid=$!
        for _ in $(seq 200); do
            if [ -f "$work/$signal" ] && [ "$(wc -l <"$work/$signal")" = 2 ]; then
                break
            fi
            sleep 0.1
        done
        kill -s "$signal" "$pid"
        code=0
        wait "$pid" || code=$?
        case "$signal" in
            TERM) same 143 "$code" 'exit code after SIGTERM' ;;
            INT) same 130 "$code" 'exit code after SIGINT' ;;
            KILL) same 137 "$code" 'exit code after SIGKILL' ;;
        esac
        while read -r rank; do
            for _ in $(seq 100); do
                kill -0 "$rank" 2>/dev/null || break
                sleep 0.1
            done
            expect 1 '' kill -0 "$rank"
        done <"$work/$signal"
    done
else
    echo "no mpirun: cases with several ranks are left out"
fi
finish
