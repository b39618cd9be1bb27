# shellcheck shell=bash disable=SC2154
# tests/cluster/nodes.sh - several hosts on one machine: network namespaces on a bridge, each with its own
# host name, /dev/shm and hosts file; no route leads out. Sourced after train_cases.sh.
#
#   nodes_up N           hosts n1 .. nN at 10.77.0.1 .. 10.77.0.N, interface e0; fails where that is not allowed
#   on_host HOST cmd...  runs the command there
#   $agent               a script that does the same, for --rsh_agent
#   node_kill HOST       kills all its processes
#   node_cut, node_join HOST   pulls and plugs its cable
#   nodes_down           everything away again
#
# The namespaces carry this process's number in their names, so tests may run side by side.
node_dir=$work/nodes
agent=$node_dir/agent
on_host_script=$node_dir/on_host

netns() {
    echo "dr$$-$1"
}

node_add() {
    local name=n$1 ns
    ns=$(netns "$name")
    ip netns add "$ns" &&
        ip link add e0 netns "$ns" type veth peer name "p$1" netns "$(netns bridge)" &&
        ip -n "$(netns bridge)" link set "p$1" master br0 up &&
        ip -n "$ns" addr add "10.77.0.$1/24" dev e0 && ip -n "$ns" link set e0 up && ip -n "$ns" link set lo up &&
        mkdir -p "$node_dir/shm/$name" && mount -t tmpfs none "$node_dir/shm/$name"
}

# nsenter and not `ip netns exec`, which mounts another /sys: slurmd fails without its cgroups.
write_scripts() {
    cat >"$on_host_script" <<END
#!/usr/bin/env bash
host=\$1
shift
exec nsenter --net="/run/netns/dr$$-\$host" unshare --uts --ipc --mount --propagation private -- bash -c '
    hostname "\$0"
    mount --bind "$node_dir/hosts" /etc/hosts
    mount --bind "$node_dir/shm/\$0" /dev/shm
    exec "\$@"' "\$host" "\$@"
END
    cat >"$agent" <<END
#!/usr/bin/env bash
host=\$1
shift
exec "$on_host_script" "\$host" bash -c "\$*"
END
    chmod +x "$on_host_script" "$agent"
}

nodes_up() {
    local i
    [ "$(id -u)" = 0 ] && command -v ip >/dev/null && command -v nsenter >/dev/null || return 1
    mkdir -p "$node_dir"
    trap 'nodes_down; rm -rf "$work"' EXIT
    echo "127.0.0.1 localhost" >"$node_dir/hosts"
    n_nodes=$1
    write_scripts
    ip netns add "$(netns bridge)" 2>/dev/null && ip -n "$(netns bridge)" link add br0 type bridge &&
        ip -n "$(netns bridge)" link set br0 up || return 1
    for i in $(seq "$n_nodes"); do
        echo "10.77.0.$i n$i" >>"$node_dir/hosts"
        node_add "$i" || return 1
    done
}

on_host() {
    "$on_host_script" "$@"
}

# Until none is left: one that was being started while the others were listed lives on.
node_kill() {
    local pids
    while pids=$(ip netns pids "$(netns "$1")") && [ -n "$pids" ]; do
        xargs -r kill -9 <<<"$pids" 2>/dev/null || true
    done
}

node_cut() {
    ip -n "$(netns "$1")" link set e0 down
}

node_join() {
    ip -n "$(netns "$1")" link set e0 up
}

# Succeeds when no process is left on the hosts.
nodes_idle() {
    local i
    for i in $(seq "$n_nodes"); do
        [ -z "$(ip netns pids "$(netns "n$i")")" ] || return 1
    done
}

nodes_down() {
    local i
    for i in $(seq "${n_nodes:-0}"); do
        node_kill "n$i" 2>/dev/null
        ip netns del "$(netns "n$i")" 2>/dev/null
        umount -l "$node_dir/shm/n$i" 2>/dev/null
    done
    ip netns del "$(netns bridge)" 2>/dev/null
    return 0
}
