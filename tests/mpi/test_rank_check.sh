#!/usr/bin/env bash
# tests/mpi/test_rank_check.sh BIN_DIR - a rank whose weights are not those of the others is found
# and named, and all ranks end together.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" rank_check "$1"
command -v mpirun >/dev/null || {
    echo "no mpirun"
    exit 77
}
make_material

two_ranks() {
    refused 76 'step 2: rank 1 has other weights than rank 0 (which of them is right cannot be told): 1 of' 2 \
        --max_train_steps 3 --check_ranks_every 1 --inject flip:rank=1,step=2
    holds error_text 'After step 1 all ranks were equal'
}

# Of three the odd one is known, also when it is rank 0.
odd_one() {
    refused 76 'step 1: rank 0 has other weights than rank 1 and most others: 1 of' 3 \
        --check_ranks_every 1 --inject flip:rank=0,step=1,param=conv_in.bias
    holds error_text 'the first is conv_in.bias of the U-Net'
}

# Masters in 32 bits beside what the networks read.
masters() {
    refused 76 'rank 1 has other weights than rank 0' 2 --mixed_precision bf16 --check_ranks_every 1 \
        --inject flip:rank=1,step=1,param=conv_in.bias
    holds error_text 'conv_in.bias'
}

# By default the last step looks; what happened in between is found then.
at_the_end() {
    refused 76 'step 2: rank 1 has other weights' 2 --inject flip:rank=1,step=1
    holds error_text 'After step 0 all ranks were equal'
}

never() {
    ranks 2 out --check_ranks_every 0 --inject flip:rank=1,step=2
    ranks 2 other --check_ranks_every 1
    same_models out/last other/last
}

wrong_name() {
    refused 64 "no parameter 'nothing' is trained" 2 --inject flip:rank=1,step=1,param=nothing
}

check 'a flipped bit ends two ranks with exit code 76' two_ranks
check 'of three ranks the odd one is named, with the tensor' odd_one
check 'weights in 32 bits beside rounded copies' masters
check 'the last step always compares' at_the_end
check 'nothing is compared with 0, and comparing changes nothing' never
check 'a parameter that is not there' wrong_name
finish
