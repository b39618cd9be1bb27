# shellcheck shell=bash disable=SC2154
# tests/cluster/slurm.sh - a Slurm of its own on the hosts of nodes.sh: no munge, systemd or cgroups; two
# partitions (high preempts main); each node has 4 CPUs and 2 things called GPU. Sourced after nodes.sh.
#
#   slurm_up      controller on n1, one slurmd per node; fails where Slurm is missing or does not come up
#   slurm CMD...  a command of Slurm, on n1
slurm_dir=$work/slurm

slurm_conf() {
    cat <<END
ClusterName=dream
SlurmctldHost=n1
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
MpiDefault=pmix
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
StateSaveLocation=$slurm_dir/state
SlurmdSpoolDir=$slurm_dir/spool-%n
TmpFS=$slurm_dir/tmp-%n
SlurmctldPidFile=$slurm_dir/slurmctld.pid
SlurmdPidFile=$slurm_dir/slurmd-%n.pid
SlurmctldLogFile=$slurm_dir/slurmctld.log
SlurmdLogFile=$slurm_dir/slurmd-%n.log
SlurmctldTimeout=30
SlurmdTimeout=10
KillWait=3
UnkillableStepTimeout=20
MessageTimeout=10
MinJobAge=300
JobRequeue=1
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=100000
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=n[1-$n_nodes] CPUs=4 SocketsPerBoard=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
END
}

slurm() {
    on_host n1 "$@"
}

all_idle() {
    [ "$(slurm sinfo -h -p main -t idle -o %D 2>/dev/null)" = "$n_nodes" ]
}

slurm_up() {
    local i
    command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v srun >/dev/null || return 1
    mkdir -p "$slurm_dir/state" "$slurm_dir/dev"
    mknod "$slurm_dir/dev/gpu0" c 1 3 && mknod "$slurm_dir/dev/gpu1" c 1 3 || return 1
    slurm_conf >"$slurm_dir/slurm.conf"
    echo "NodeName=n[1-$n_nodes] Name=gpu File=$slurm_dir/dev/gpu[0-1]" >"$slurm_dir/gres.conf"
    export SLURM_CONF=$slurm_dir/slurm.conf
    slurm slurmctld
    for i in $(seq "$n_nodes"); do
        mkdir -p "$slurm_dir/spool-n$i" "$slurm_dir/tmp-n$i"
        chmod 1777 "$slurm_dir/tmp-n$i"
        on_host "n$i" slurmd -N "n$i"
    done
    wait_for 'idle nodes' 20 all_idle
}
