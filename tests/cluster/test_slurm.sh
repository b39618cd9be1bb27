#!/usr/bin/env bash
# tests/cluster/test_slurm.sh BIN_DIR - several hosts, by mpirun alone and by a real Slurm of three nodes, in
# network namespaces. Whatever happens to a run, it ends with the weights of one that was left alone.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hosts.sh
. "$here/hosts.sh"
cluster_enter "$0" "$@"
# shellcheck source=slurm.sh
. "$here/slurm.sh"
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" slurm "$1"
make_material
hosts_up 3
trap 'hosts_down; rm -rf "$work"' EXIT

# Between hosts TCP is needed; train_cases.sh allows shared memory only.
export OMPI_MCA_btl=self,vader,tcp OMPI_MCA_btl_tcp_if_include=e0 OMPI_MCA_oob_tcp_if_include=e0

# the_same DIR: the model there has the weights of an undisturbed run on one rank, $straight.
the_same() {
    same_models "$straight/last" "$1/last"
}

straight=$work/straight
(cd "$work" && train straight --virtual_shards 3 --max_train_steps 4) || exit 1

# on_hosts command... -- flags...: start, from dn1
on_hosts() {
    start out "$here/on" dn1 "$@"
}

by_mpirun() {
    on_hosts mpirun --mca plm_rsh_agent "$here/agent" --host dn1,dn2,dn3 -n 3 --bind-to none "$bin/train_db" -- \
        --max_train_steps 4
    holds out.err '3 ranks'
    the_same out
}

by_srun() {
    on_hosts srun -N3 --mpi=pmix --cpu-bind=none "$bin/train_db" -- --max_train_steps 4
    holds out.err '3 ranks'
    the_same out
}

check 'mpirun alone over three hosts' by_mpirun
if command -v slurmctld slurmd srun >/dev/null; then
    slurm_up 3 || exit 1
    check 'srun over three nodes' by_srun
else
    check 'srun over three nodes' skip 'Slurm is not installed'
fi
finish
