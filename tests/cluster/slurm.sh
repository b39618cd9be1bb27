# shellcheck shell=bash
# tests/cluster/slurm.sh - a real Slurm on the hosts of hosts.sh, controller on dn1, with two GPUs (of sorts) each.
#
#   slurm_up N     in $work/slurm; sets SLURM_CONF. Partitions: main, which high preempts after 8 s of grace.
#
# No munge and no cgroups are needed. A node that is lost is found out after 10 s; a requeued job starts again
# after 6 s (AuthInfo: 121 s without it).
slurm_config() {
    local n=$1 dir=$2
    cat <<END
ClusterName=dream
SlurmctldHost=dn1
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
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
TmpFS=$dir/tmp-%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
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
NodeName=dn[1-$n] CPUs=4 SocketsPerBoard=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=8
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
END
}

# shellcheck disable=SC2154 # $work is the caller's
slurm_up() {
    local n=$1 dir=$work/slurm i
    mkdir -p "$dir/state" "$dir/log" "$dir/dev"
    mknod "$dir/dev/gpu0" c 1 3 # /dev/null: Slurm only counts them
    mknod "$dir/dev/gpu1" c 1 3
    slurm_config "$n" "$dir" >"$dir/slurm.conf"
    echo "NodeName=dn[1-$n] Name=gpu File=$dir/dev/gpu[0-1]" >"$dir/gres.conf"
    export SLURM_CONF=$dir/slurm.conf
    on dn1 slurmctld
    for ((i = 1; i <= n; i++)); do
        mkdir -p "$dir/spool-dn$i" "$dir/tmp-dn$i"
        chmod 1777 "$dir/tmp-dn$i"
        on "dn$i" slurmd -N "dn$i"
    done
    for ((i = 0; i < 300; i++)); do
        [ "$(on dn1 sinfo -h -p main -t idle -o %D 2>/dev/null)" != "$n" ] || return 0
        sleep 0.1
    done
    tail -n 20 "$dir"/log/*
    echo "slurm: the nodes did not become idle"
    return 1
}
