//! What is done in the guest by shell: pods by hand, what they are charged for, what they may tamper with.

/// Backends with a VF of the second card, pods with those of the first, the node's own leg on the first PF; all in VLAN 100.
/// Pods send to addresses that nobody translates to the backends' VF.
pub(super) const SET_UP: &str = r#"
station() {
    ip link set "$2" vf "$3" vlan 100
    ip netns add "$1"
    ip link set "$2v$3" netns "$1"
    ip -n "$1" link set "$2v$3" name eth0
    ip -n "$1" link set lo up
    ip -n "$1" address add "10.9.0.$4/24" dev eth0
    ip -n "$1" link set eth0 up
}
modprobe -a nf_tables nft_chain_nat nft_masq nft_reject_ipv4
mkdir -p /sys/fs/cgroup/pods /run/services/samples /run/services/bpf
mount -t bpf bpf /run/services/bpf
station server enp2s0 0 2
ip -n server route add local 10.128.0.0/12 dev lo
ip -n server route add local 10.111.0.0/16 dev lo
index=0
for pod in bare bpf nft leg; do
    station $pod enp1s0 $index $((11 + index))
    ip -n $pod route add default via 10.9.0.2
    index=$((index + 1))
done
ip link add link enp1s0 name enp1s0.100 type vlan id 100
ip address add 10.9.0.254/24 dev enp1s0.100
ip link set enp1s0.100 up
for range in 10.96.0.0/12 10.128.0.0/12; do ip route add $range via 10.9.0.2; done
for range in 10.96.0.0/15; do ip -n leg route add $range via 10.9.0.254; done
echo 1 > /proc/sys/net/ipv4/ip_forward
for setting in all default enp1s0.100; do echo 0 > /proc/sys/net/ipv4/conf/$setting/send_redirects; done
for pod in bare bpf nft leg; do
    for address in 10.9.0.2 10.9.0.254; do
        try=0
        until ip netns exec $pod ping -c 1 -W 1 $address > /dev/null; do
            try=$((try + 1))
            [ $try -lt 60 ]
        done
    done
done
"#;

/// Runs a program in a pod. One alone is in the control group with the programs, which would be first with the others too.
pub(super) const ENTER: &str = r#"
pod=$1
shift
[ "$pod" != bpf ] || echo $$ > /sys/fs/cgroup/pods/cgroup.procs
exec ip netns exec "$pod" "$@"
"#;

/// Runs a program in a control group of its own and says what the kernel keeps on its behalf once it has ended: maps and rules
/// stay charged to it.
pub(super) const CHARGE: &str = r#"
name=$1
shift
group=/sys/fs/cgroup/charge-$name
mkdir $group
sh -ec 'echo $$ > $1/cgroup.procs; shift; exec "$@"' charge $group "$@"
echo 3 > /proc/sys/vm/drop_caches
awk '$1 == "kernel" { printf "  %-58s %d KiB\n", "kernel memory of it", $2 / 1024 }' $group/memory.stat
"#;

pub(super) const REMOVE: &str = r"
rm -f /run/services/bpf/* /run/services/samples/*
ip netns exec nft nft flush ruleset
nft flush ruleset
";

/// What each hook takes, by the kernel's own count.
pub(super) const HOOK_TIMES: &str = r#"
bpftool -j prog show | sed 's/},{/}\n{/g' | grep cgroup_sock_addr |
    sed -E 's/.*"name":"([^"]+)".*"run_time_ns":([0-9]+),"run_cnt":([0-9]+).*/\1 \2 \3/' |
    awk 'NF == 3 { printf "  %-58s %8.0f ns, %d runs\n", "bpf: " $1 ", mean of a run", $2 / $3, $3 }'
"#;

/// Connections that conntrack remembers, and what the maps take by the kernel's count.
pub(super) const KEPT: &str = r#"
for pod in bare bpf nft leg; do
    echo "  connections in the conntrack of $pod: $(ip netns exec $pod cat /proc/sys/net/netfilter/nf_conntrack_count)"
done
echo "  connections in the conntrack of the node: $(cat /proc/sys/net/netfilter/nf_conntrack_count)"
awk '$1 == "nf_conntrack" { print "  bytes of a connection in conntrack: " $4 }' /proc/slabinfo
bpftool map show | awk '/name (services|backends|asked)/ { name = $4 } /memlock/ && name {
    sub("B", "", $NF); for (i = 1; i < NF; i++) if ($i == "memlock") bytes = $(i + 1); sub("B", "", bytes);
    print "  memory of map " name ": " bytes " bytes"; name = "" }'
"#;

/// What a pod with its capabilities can do to its own translation. NET_ADMIN is what a pod may be given; SYS_ADMIN and BPF are
/// the node's.
pub(super) const TAMPER: &str = r#"
reaches() { ip netns exec "$1" timeout 3 bash -c ': < /dev/tcp/10.97.0.5/80' 2> /dev/null; }
as_pod() {
    pod=$1
    shift
    sh -ec 'pod=$1; shift
        [ "$pod" != bpf ] || echo $$ > /sys/fs/cgroup/pods/cgroup.procs
        exec nsenter --net="/run/netns/$pod" setpriv --bounding-set=-all,+net_admin,+net_raw --inh-caps=-all "$@"' tamper "$pod" "$@"
}
id=$(bpftool prog show | awk '/name connect4/ { sub(":", "", $1); print $1; exit }')
refused() {
    if said=$("$@" 2>&1); then echo "$*: was not refused: $said"; exit 1; fi
    echo "  refused: $(echo "$said" | head -n 1)"
}
refused as_pod bpf bpftool cgroup detach /sys/fs/cgroup/pods connect4 id "$id"
refused as_pod bpf bpftool map show
as_pod nft nft list ruleset | grep -c dnat | sed 's/^/  dnat rules that a pod with NET_ADMIN sees: /'
reaches nft
as_pod nft nft flush ruleset
if reaches nft; then echo "a flushed table still translates"; exit 1; fi
echo "  a pod with NET_ADMIN has removed its nftables, and with them its Services"
"#;

/// The node as gateway that leaves the pod's source address: the backend answers past the node.
pub(super) const AS_IS: &str = r#"
nft flush ruleset
"$1" nft --hook gateway-as-is --services 10 > /dev/null
if ip netns exec leg timeout 5 bash -c ': < /dev/tcp/10.97.0.5/80' 2> /dev/null; then
    echo "an answer that passes the node by is taken for the Service's"; exit 1
fi
echo "  leg without masquerade: no connection, the answer comes from an address that was not asked"
"#;
