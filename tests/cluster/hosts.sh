# shellcheck shell=bash
# tests/cluster/hosts.sh - several hosts on one machine: network namespaces dn1, dn2, ... on a bridge, without
# a route to anywhere else (10.77.0.x).
#
#   cluster_enter "$0" "$@"   runs the script again in mount and process namespaces of its own, so that whatever
#                             it starts ends with it; exit code 77 where this user may not make them
#   hosts_up N                makes the hosts in $work
#   on HOST command...        runs it there
#   host_kill HOST            all its processes, at once (node loss)
#   host_cut HOST, host_join HOST   its cable
#   hosts_down                all processes of all hosts, and what is mounted in $work
cluster=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

cluster_enter() {
    [ -z "${DR_CLUSTER_INSIDE:-}" ] || return 0
    if ! unshare --mount --pid --net --fork --mount-proc true 2>/dev/null || ! command -v ip >/dev/null; then
        echo "0 passed, 0 failed, 1 skipped: this user may not make namespaces, or iproute2 is missing"
        exit 77
    fi
    DR_CLUSTER_INSIDE=1 exec unshare --mount --pid --fork --kill-child --mount-proc --propagation private -- "$@"
}

# shellcheck disable=SC2154 # $work is the caller's
hosts_up() {
    local n=$1 i host
    export DR_HOSTS=$work/hosts
    mkdir -p "$DR_HOSTS" /run/netns
    mount -t tmpfs none /run/netns
    ip netns add switch
    ip -n switch link add bridge type bridge
    ip -n switch link set bridge up
    echo '127.0.0.1 localhost' >"$DR_HOSTS/hosts"
    for ((i = 1; i <= n; i++)); do
        host=dn$i
        echo "10.77.0.$i $host" >>"$DR_HOSTS/hosts"
        ip netns add "$host"
        ip link add e0 netns "$host" type veth peer name "p$i" netns switch
        ip -n switch link set "p$i" master bridge up
        ip -n "$host" addr add "10.77.0.$i/24" dev e0
        ip -n "$host" link set e0 up
        ip -n "$host" link set lo up
        mkdir "$DR_HOSTS/shm-$host"
        mount -t tmpfs none "$DR_HOSTS/shm-$host"
    done
}

on() {
    "$cluster/on" "$@"
}

host_kill() {
    ip netns pids "$1" | xargs -r kill -9
}

host_cut() {
    ip -n "$1" link set e0 down
}

host_join() {
    ip -n "$1" link set e0 up
}

hosts_down() {
    local host
    while read -r host _; do
        host_kill "$host"
    done < <(ip netns list)
    umount "$DR_HOSTS"/shm-*
}
