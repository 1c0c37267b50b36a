# Reads what the host is and compares it with what is needed; changes nothing. remove takes what is left of ours.
# Values: HOST ROLE ARCHITECTURE (amd64, arm64; empty: either) ETCD (on, off) MIN_MEMORY_MIB MIN_DISK_MIB K3S (the version that will be installed; empty: not known).
# Prints the facts as JSON; every problem is one line on stderr.
if [ "$action" = remove ]; then
    # A step that failed while it was made is in no state: what it left behind goes here.
    if [ -e "$home/k3s" ]; then
        for script in /usr/local/bin/k3s-uninstall.sh /usr/local/bin/k3s-agent-uninstall.sh; do
            if [ -x "$script" ]; then "$script" >/dev/null 2>&1 || true; fi
        done
        rm -rf /usr/local/bin/k3s /usr/local/bin/k3s.previous /etc/rancher /var/lib/rancher
    fi
    rm -rf "$home"
    exit 0
fi

problems=0
problem() {
    printf 'error: host %s: %s\n' "$HOST" "$*" >&2
    problems=$((problems + 1))
}

[ "$(id -u)" -eq 0 ] || problem "steps run as $(id -un), need root: log in as root or allow this user 'sudo -n'"

os_id=unknown os_version=unknown
if [ -r /etc/os-release ]; then
    # shellcheck disable=SC1091
    os_id=$(. /etc/os-release && echo "${ID:-unknown}")
    # shellcheck disable=SC1091
    os_version=$(. /etc/os-release && echo "${VERSION_ID:-unknown}")
fi
arch=$(uname -m)
kernel=$(uname -r)
case $arch in
x86_64) processor=amd64 ;;
aarch64) processor=arm64 ;;
*) problem "architecture $arch found, need x86_64 or aarch64: use another host" processor= ;;
esac
if [ -n "$ARCHITECTURE" ] && [ -n "$processor" ] && [ "$processor" != "$ARCHITECTURE" ]; then
    problem "architecture $arch ($processor) found, the settings say $ARCHITECTURE: set hosts[].architecture of $HOST to" \
        "$processor, and name a manifest with files for it in artifacts.manifests"
fi
if [ ! -d /run/systemd/system ]; then problem "no systemd found, need systemd as init: K3s runs as its unit"; fi

for tool in ip iptables mount ps pkill sha256sum tar cmp systemctl; do
    command -v "$tool" >/dev/null 2>&1 || problem "command $tool not found: install it (Debian: iproute2 iptables mount procps coreutils tar diffutils)"
done

# A feature counts when the kernel shows it loaded or built in, or a module for it lies ready.
has_module() {
    [ -d "/sys/module/$1" ] || modprobe -n -q "$1" 2>/dev/null ||
        grep -q "/$1\.ko" "/lib/modules/$kernel/modules.builtin" 2>/dev/null
}
has_config() { [ -r /proc/config.gz ] && zcat /proc/config.gz | grep -q "^$1=[ym]"; }
features=
check_feature() { # NAME CONFIG TRIAL…
    name=$1 config=$2
    shift 2
    if has_module "$name" || has_config "$config" || "$@" >/dev/null 2>&1; then
        features="$features${features:+,}\"$name\""
    else
        problem "kernel $kernel has no $name: install the kernel's modules package or a kernel with $config"
    fi
}
try_vxlan() { ip link add edge-probe type vxlan id 4095 dstport 4789 && ip link delete edge-probe; }
check_feature overlay CONFIG_OVERLAY_FS grep -qw overlay /proc/filesystems
check_feature br_netfilter CONFIG_BRIDGE_NETFILTER test -e /proc/sys/net/bridge/bridge-nf-call-iptables
check_feature vxlan CONFIG_VXLAN try_vxlan
check_feature nf_tables CONFIG_NF_TABLES iptables -w 5 -t nat -S

controllers="$(cat /sys/fs/cgroup/cgroup.controllers 2>/dev/null || true) $(awk '$4 == 1 { print $1 }' /proc/cgroups | tr '\n' ' ')"
for controller in cpu memory pids; do
    case " $controllers " in
    *" $controller "*) ;;
    *) problem "cgroup controller $controller is off: add cgroup_enable=$controller to the kernel command line" ;;
    esac
done

memory=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
[ "$memory" -ge "$MIN_MEMORY_MIB" ] ||
    problem "$memory MiB memory found, need $MIN_MEMORY_MIB: add memory or lower cluster.minimums.memoryMiB"
disk=$(df -Pm /var/lib | awk 'NR == 2 { print $4 }')
year=$(date -u +%Y)
[ "$year" -ge 2024 ] || problem "clock says $year: set the clock or start time synchronisation (certificates would be invalid)"
synced=$(timedatectl show -p NTPSynchronized --value 2>/dev/null || echo unknown)

owned=no
if [ -e "$home/k3s" ]; then owned=yes; fi
if [ "$ROLE" = server ]; then other=k3s-agent; else other=k3s; fi
if [ "$owned" = yes ] && [ -e "/etc/systemd/system/$other.service" ]; then
    problem "its node is no $ROLE so far: take the host out of hosts, pulumi up, then add it with its new role"
fi
if [ "$owned" = no ]; then
    [ "$disk" -ge "$MIN_DISK_MIB" ] ||
        problem "$disk MiB free in /var/lib found, need $MIN_DISK_MIB: free some or lower cluster.minimums.diskMiB"
    for unit in k3s k3s-agent kubelet rke2-server rke2-agent microk8s.daemon-kubelite; do
        if systemctl cat "$unit.service" >/dev/null 2>&1; then
            problem "another cluster's unit $unit found: remove it or take the host out of 'hosts'"
        fi
    done
    # Of a cluster whose unit is gone: K3s would take over its datastore, or its node's identity.
    for left in /var/lib/rancher/k3s/server/db /var/lib/rancher/k3s/agent/client-kubelet.crt /etc/kubernetes/kubelet.conf; do
        if [ -e "$left" ]; then
            problem "another cluster's $left found: save what you need, remove that cluster or take the host out of 'hosts'"
        fi
    done
    ports="10250"
    if [ "$ROLE" = server ]; then ports="6443 10250"; fi
    if [ "$ETCD" = on ]; then ports="$ports 2379 2380"; fi
    for port in $ports; do
        hex=$(printf '%04X' "$port")
        if awk -v p=":$hex\$" '$2 ~ p && $4 == "0A" { f = 1 } END { exit !f }' /proc/net/tcp /proc/net/tcp6 2>/dev/null; then
            problem "TCP port $port is taken: stop what listens there (ss -ltnp 'sport = :$port')"
        fi
    done
    if awk '$2 ~ /:2118$/ { f = 1 } END { exit !f }' /proc/net/udp 2>/dev/null; then
        problem "UDP port 8472 is taken: stop what uses it, the pod network needs it"
    fi
fi

# All hosts are asked before the first one is changed, so that a site is not left halfway by a version that can't follow.
check_version() {
    found=$(k3s_found)
    case $K3S in
    "$found") return 0 ;;
    v1.[0-9]*.*) [ -n "$found" ] || return 0 ;;
    *) return 0 ;;
    esac
    why=$(refusal "$found" "$K3S" "$ROLE")
    [ -z "$why" ] || problem "K3s $found found, artifact k3s is $K3S: $why"
    [ "$disk" -ge 1000 ] || problem "$disk MiB free in /var/lib found, an upgrade of K3s needs 1000: free some"
    if [ "$ROLE" != server ]; then return 0; fi
    # Nodes of the cluster that are no hosts of this stack count, too; without an answer the hosts' own checks must do.
    nodes=$(/usr/local/bin/k3s kubectl --request-timeout=10s get nodes \
        -o 'jsonpath={range .items[*]}{.metadata.name}={.status.nodeInfo.kubeletVersion} {end}' 2>/dev/null) || return 0
    for node in $nodes; do
        kubelet=${node#*=}
        if older "$K3S" "$kubelet" || [ $(($(minor_of "$K3S") - $(minor_of "$kubelet"))) -gt 3 ]; then
            problem "node ${node%%=*} has K3s $kubelet, artifact k3s is $K3S: a node is never newer than its servers, and" \
                "three minor versions older at most: upgrade it, or name another version in the artifact manifest"
        fi
    done
}
if [ "$owned" = yes ]; then check_version; fi

printf '{"os":"%s","osVersion":"%s","arch":"%s","kernel":"%s","features":[%s],"memoryMiB":%s,"diskFreeMiB":%s,"clockSynced":"%s"}\n' \
    "$os_id" "$os_version" "$arch" "$kernel" "$features" "$memory" "$disk" "$synced"
[ "$problems" -eq 0 ] || fail "$problems problem(s) above; nothing was changed on the host"
