# shellcheck shell=bash
# tests/support/train_cases.sh - helpers for cases that run the trainer as its user does.
#
#   . train_cases.sh NAME BIN_DIR     sets $bin and $work (a temporary folder, removed at the end)
#   check 'what is true' function args...
#   finish
#
# check runs the function in a new folder of its own, with set -e: the first command that fails ends the
# case, and its output is shown. Exit code 77 (call skip) counts as skipped. Models and pictures are
# made by dreamrun itself, so no other material is needed.
set -uo pipefail

bin=$(cd "$2" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/dreamrun_$1.XXXXXX")
trap 'rm -rf "$work"' EXIT
n_ok=0
n_failed=0
n_skipped=0
limit_s=120 # of one run: ten times what the slowest takes on a busy machine

unset OMP_NUM_THREADS DREAMRUN_THREADS OMPI_COMM_WORLD_SIZE PMIX_NAMESPACE SLURM_STEP_ID
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_MCA_mpi_yield_when_idle=1
export SOURCE_DATE_EPOCH=1700000000 # the date in saved files: the same run makes the same bytes

# --- cases ---------------------------------------------------------------------------------------

check() {
    local what=$1 number=$((n_ok + n_failed + n_skipped + 1)) rc
    shift
    mkdir "$work/case"
    (
        set -eE
        trap 'echo "failed: $BASH_COMMAND (line $LINENO)"' ERR
        cd "$work/case"
        "$@"
    ) >"$work/log" 2>&1
    rc=$?
    rm -rf "$work/case"
    case $rc in
        0)
            n_ok=$((n_ok + 1))
            echo "ok $number - $what"
            ;;
        77)
            n_skipped=$((n_skipped + 1))
            echo "ok $number - $what # SKIP $(tail -n 1 "$work/log")"
            ;;
        *)
            n_failed=$((n_failed + 1))
            echo "not ok $number - $what"
            tail -n 60 "$work/log" | sed 's/^/  | /'
            ;;
    esac
}

finish() {
    echo "$n_ok passed, $n_failed failed, $n_skipped skipped"
    [ "$n_failed" = 0 ] && [ "$n_ok" != 0 ]
}

fail() {
    echo "$*"
    return 1
}

skip() {
    echo "$*"
    exit 77
}

# equal GOT WANT 'what'
equal() {
    [ "$1" = "$2" ] || fail "$3: found '$1', expected '$2'"
}

differ() {
    ! cmp -s "$1" "$2" || fail "$1 and $2 are equal"
}

# holds FILE 'text', lacks FILE 'text'
holds() {
    grep -qF -- "$2" "$1" || {
        cat "$1"
        fail "$1: expected the text: $2"
    }
}

lacks() {
    ! grep -qF -- "$2" "$1" || {
        cat "$1"
        fail "$1: unexpected text: $2"
    }
}

# --- material ------------------------------------------------------------------------------------

unet=unet/diffusion_pytorch_model.safetensors
text_encoder=text_encoder/model.safetensors
vae=vae/diffusion_pytorch_model.safetensors

# make_material: $data/train, $data/reg, the model $model (directory).
make_material() {
    data=$work/data
    model=$work/tiny
    if ! { "$bin/dreamrun" make_pictures "$data" --n 4 --size 128 &&
        "$bin/dreamrun" init_model tiny "$model"; } >"$work/log" 2>&1; then
        cat "$work/log"
        echo "not ok - make_pictures and init_model"
        exit 1
    fi
}

# few_pictures DIR: two pictures of the set, in DIR/1_sks; an epoch of two samples.
few_pictures() {
    mkdir -p "$1/1_sks"
    cp "$data/train/10_sks shape/00.png" "$data/train/10_sks shape/01.png" "$1/1_sks"
    echo "photo of sks shape, red, round" >"$1/1_sks/00.caption"
    echo "sks shape" >"$1/1_sks/01.caption"
}

# picture FILE.png WIDTH HEIGHT: a grey picture.
picture() {
    python3 -c '
import struct, sys, zlib
w, h = int(sys.argv[2]), int(sys.argv[3])
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
with open(sys.argv[1], "wb") as f:
    f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress((b"\0" + b"\x80" * w) * h))
            + chunk(b"IEND", b""))' "$@"
}

# --- runs ----------------------------------------------------------------------------------------

flags=(--num_cpu_threads_per_process 1 --resolution 64 --seed 1 --learning_rate 1e-4
    --progress json)

program=train_db # a script may set train_network

# train OUT flags...: one rank; 2 steps unless told otherwise. stdout in OUT.json, stderr in OUT.err.
train() {
    start "$1" "$bin/$program" -- "${@:2}"
}

# Open MPI leaks by design: builds with sanitizers look for leaks in lone processes only.
mpi=(env "ASAN_OPTIONS=detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}")

# ranks N OUT flags...: the same as N ranks of mpirun.
ranks() {
    start "$2" "${mpi[@]}" mpirun -n "$1" --oversubscribe --bind-to none "$bin/train_db" -- "${@:3}"
}

# launch N OUT flags...: the same through dreamrun launch.
launch() {
    start "$2" "${mpi[@]}" "$bin/dreamrun" launch --cpu --num_processes "$1" --oversubscribe train_db -- "${@:3}"
}

# start OUT command... -- flags...
start() {
    local out=$1 command=()
    shift
    while [ "$1" != -- ]; do
        command+=("$1")
        shift
    done
    shift
    timeout -k 5 "$limit_s" "${command[@]}" --pretrained_model_name_or_path "$model" \
        --train_data_dir "$data/train" --output_dir "$out" --max_train_steps 2 "${flags[@]}" "$@" \
        >"$out.json" 2>"$out.err" </dev/null || {
        local rc=$?
        [ -n "${quiet:-}" ] || cat "$out.json" "$out.err"
        return $rc
    }
}

# refused CODE 'text' OUT command...: a run through train, ranks or launch that must end with the
# exit code and one error line that holds the text, and leave nothing in the output folder.
refused() {
    local code=$1 text=$2 how=$3 got=0 quiet=1
    shift 3
    case $how in
        1) train out "$@" || got=$? ;;
        *) ranks "$how" out "$@" || got=$? ;;
    esac
    cat out.err
    equal "$got" "$code" "exit code"
    equal "$(grep -cE '^(\[rank [0-9]+\] )?error: ' out.err)" 1 "error lines"
    sed -En '/^(\[rank [0-9]+\] )?error: /,$p' out.err >error_text
    holds error_text "$text"
    nothing_left out
}

# nothing_left DIR: no file was left behind in it, or in this folder.
nothing_left() {
    local files
    files=$([ ! -d "$1" ] || find "$1" -mindepth 1)
    equal "$files" "" "files in $1"
    no_leftovers
}

no_leftovers() {
    equal "$(find . -name '*.tmp*' -o -name '*.old.*')" "" "temporary files"
}

# of_steps KEY FILE.json: that value of every step, in one line.
of_steps() {
    python3 -c '
import json, sys
print(*(row[sys.argv[1]] for row in map(json.loads, open(sys.argv[2])) if sys.argv[1] in row))' "$1" "$2"
}

# close LIMIT A B: lists of numbers, one per step, that agree to a part of their size.
close() {
    python3 -c '
import sys
limit, a, b = float(sys.argv[1]), sys.argv[2].split(), sys.argv[3].split()
assert len(a) == len(b) > 0, (a, b)
worst = max(abs(x - y) / abs(y) for x, y in zip(map(float, a), map(float, b)))
print("differ by", worst, "of", limit)
assert worst <= limit' "$@" || fail "$2 and $3 differ"
}

# header FILE: the JSON header of a safetensors file.
header() {
    local n
    n=$(od -An -tu8 -N8 "$1" | tr -d ' ')
    head -c $((8 + n)) "$1" | tail -c +9
}

# same_models A B: two model directories with the same weights.
same_models() {
    local part
    for part in "$unet" "$text_encoder" "$vae"; do
        cmp "$1/$part" "$2/$part" || return 1
    done
}
