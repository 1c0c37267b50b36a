# Installs K3s by upstream's own script from staged files and waits until the node is Ready.
# Values: HOST ROLE NODE BINARY INSTALLER IMAGES IMAGES_FILE CONFIG TOKEN CDI (on, off) WAIT_SECONDS,
# PROFILE (see hardened.sh), ENCRYPT (on, off), ROTATES (yes: here the cluster's token is changed; no),
# CERTIFICATES (another text: new ones),
# ETCD (on, off); with etcd: BEGINS (yes: the first `up` began the cluster here; no), JOIN (URLs of the other servers).
# Prints `k3s --version`'s first line.
case $ROLE in
server) unit=k3s admin=/etc/rancher/k3s/k3s.yaml ;;
agent) unit=k3s-agent admin=/var/lib/rancher/k3s/agent/kubelet.kubeconfig ;;
*) fail "role $ROLE is not known: hosts[].role is server or agent" ;;
esac
images=/var/lib/rancher/k3s/agent/images
# The owner's own containerd template, where one lies ready before the first install, outlives the removal.
template=/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl
unit_file=/etc/systemd/system/$unit.service
drop_in=$unit_file.d/50-edge-inference.conf
modes=$unit_file.d/60-edge-inference-modes.conf

# On cgroup v1 the shim's library makes no systemd scopes: its containers would lie outside their pods, without
# figures of their use. K3s takes the plain cgroup driver when it does not see that systemd started it.
plain_cgroups() {
    if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then return 1; fi
    mkdir -p "${drop_in%/*}"
    printf '[Service]\nUnsetEnvironment=INVOCATION_ID\n' | put "$drop_in" 644
}

# The template's two lines of ours end in this mark; every other line is the owner's and stays.
mark='# edge-inference'
own_template() { grep -v "$mark\$" "$template" 2>/dev/null || true; }

# CDI is a key of a table that K3s' base writes. Written as a dotted key before the base, containerd 1 puts it into that
# table, and nothing of the base is copied; the table of an imported file would replace the base's as a whole.
# containerd 2 has CDI on by itself.
cdi_template() {
    own=$(own_template)
    wanted=$own
    if [ "$CDI" = on ] && /usr/local/bin/k3s ctr help | grep -q '^ *v1\.'; then
        case $own in
        *enable_cdi*)
            echo "$own" | grep -Eq '^[^#]*enable_cdi *= *true' ||
                fail "$template has an enable_cdi that is not true, and hosts[].gpu is true: take the line out"
            ;;
        *)
            wanted=$(
                echo "plugins.\"io.containerd.grpc.v1.cri\".enable_cdi = true $mark"
                if [ -n "$own" ]; then echo "$own"; else echo "{{ template \"base\" . }} $mark"; fi
            )
            ;;
        esac
    fi
    if [ "$wanted" = "$(cat "$template" 2>/dev/null)" ]; then return 1; fi
    say "containerd's template: CDI is $CDI"
    if [ -z "$wanted" ]; then
        rm -f "$template"
    else
        mkdir -p "${template%/*}"
        printf '%s\n' "$wanted" | put "$template" 600
    fi
}

# A kubeconfig for what servers ask each other, by the token, which so stays off the command line.
as_server() { # URL TOKEN
    printf '{"clusters":[{"name":"k","cluster":{"server":"%s","insecure-skip-tls-verify":true}}],
        "users":[{"name":"k","user":{"username":"server","password":"%s"}}],
        "contexts":[{"name":"k","context":{"cluster":"k","user":"k"}}],"current-context":"k"}' "$1" "$2"
}

# A server with etcd and this token tells its members, as to a server that K3s joins.
has_etcd() {
    as_server "$1" "$TOKEN" |
        /usr/local/bin/k3s kubectl --kubeconfig /dev/stdin --request-timeout=5s get --raw /db/info 2>/dev/null |
        grep -q '"members"'
}

# How a server comes into its cluster is read by K3s once, while it has no data of etcd's: the file is gone when the
# node is Ready. Whoever finds another server of the cluster joins it, so that a server with a fresh disk does not
# begin a second cluster.
entry=/etc/rancher/k3s/config.yaml.d/50-edge-inference.yaml
enter_etcd() {
    if [ "$ETCD" = off ] || [ -d /var/lib/rancher/k3s/server/db/etcd/member/wal ]; then return 1; fi
    how=
    for url in $JOIN; do
        if has_etcd "$url"; then
            how="server: $url"
            break
        fi
    done
    if [ -z "$how" ] && [ "$BEGINS" = yes ]; then how='cluster-init: true'; fi
    [ -n "$how" ] || fail "no server that has etcd answers, to join it: $JOIN: start one; the first server goes first in hosts"
    say "etcd: $how"
    mkdir -p "${entry%/*}"
    printf '%s\n' "$how" | put "$entry" 600 || true
}

# What a node says of itself: Ready, since it was restarted here, and a full member of etcd where it joined one.
condition() {
    /usr/local/bin/k3s kubectl --kubeconfig "$admin" --request-timeout=5s get node "$NODE" \
        -o "jsonpath={.status.conditions[?(@.type==\"$1\")]['status','lastHeartbeatTime']}" 2>/dev/null
}
node_ready() {
    condition Ready | awk -v since="$restarted" '$1 == "True" && $2 >= since { ok = 1 } END { exit !ok }' || return 1
    if [ -e "$entry" ]; then condition EtcdIsVoter | grep -q ^True; fi
}

# Cheap to ask while K3s needs the processor for its start: systemd has heard that it is up, and its kubeconfig is there.
# An agent says so two seconds after its node is Ready; what asks for its unit then finds it at work.
started() { systemctl is-active --quiet "$unit" && [ -s "$admin" ]; }

# Returns 1 when the node is not back in time; missing says what it lacked.
wait_ready() {
    began=$(date +%s) told=0
    while true; do
        missing="the node is not Ready"
        if started && node_ready && upgraded; then break; fi
        waited=$(($(date +%s) - began))
        if [ "$waited" -ge "$WAIT_SECONDS" ]; then
            journalctl -u "$unit" -n 100 --no-pager -o cat | grep -v -e 'left-over process' -e 'unclean termination' -e 'remains running' |
                tail -n 25 | cut -c1-300 >&2
            return 1
        fi
        if [ $((waited - told)) -ge 5 ]; then
            told=$waited
            say "waiting for node $NODE: $missing"
        fi
        sleep 0.5
    done
    say "node $NODE is Ready"
}

restart_k3s() {
    say "starting $unit"
    restarted=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    systemctl restart --no-block "$unit"
}

# An agent drains itself with the rights of its kubelet, which may evict its own pods; kubectl reads their DaemonSets, too.
# K3s applies what lies in its folder of manifests.
let_nodes_drain() {
    mkdir -p /var/lib/rancher/k3s/server/manifests
    put /var/lib/rancher/k3s/server/manifests/edge-inference-drain.yaml 600 <<'END' || true
{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"edge-inference:drain"},
 "rules":[{"apiGroups":["apps"],"resources":["daemonsets"],"verbs":["get"]}]}
---
{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"edge-inference:drain"},
 "roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"edge-inference:drain"},
 "subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"Group","name":"system:nodes"}]}
END
}

apply_k3s() {
    changed=no restarted='' rotated=''
    drifted=$(differences)
    check_encryption
    mkdir -p "$home" "$images" /etc/rancher/k3s
    if [ ! -e "$home/k3s" ] && [ -f "$template" ]; then cp -p "$template" "$home/config.toml.tmpl"; fi
    : >"$home/k3s"
    begin_upgrade
    if [ -e "$upgrade" ]; then changed=yes; fi
    if copy "$BINARY" "$k3s" 755; then changed=yes; fi
    # shellcheck disable=SC2153
    if copy "$IMAGES" "$images/$IMAGES_FILE" 644; then changed=yes; fi
    # A token that was changed by hand is put back; the cluster has the one from before.
    case $drifted in *"/etc/rancher/k3s/token "*) ;; *) rotate_token ;; esac
    if printf '%s\n' "$TOKEN" | put /etc/rancher/k3s/token 600; then changed=yes; fi
    if printf '%s\n' "$CONFIG" | put "$config_file" 600; then changed=yes; fi
    if plain_cgroups; then changed=yes; fi
    if cdi_template; then changed=yes; fi
    if apply_profile; then changed=yes; fi
    if restore_backup; then changed=yes; fi
    prepare_encryption
    if enter_etcd; then changed=yes; fi
    if rotate_certificates; then changed=yes; fi
    # K3s may have been started by a changed unit.
    case $drifted in *"$unit_file has other"* | *"$unit_file.env"*) changed=yes ;; esac
    if [ "$changed" = yes ] || [ -n "$drifted" ] || [ ! -f "$unit_file" ]; then
        say "installing $("$k3s" --version | head -n 1)"
        # kubectl, ctr and crictl stay `k3s kubectl` and so on: no link is made that another program may own.
        INSTALL_K3S_SKIP_DOWNLOAD=true INSTALL_K3S_SKIP_START=true INSTALL_K3S_SYMLINK=skip \
            sh "$INSTALLER" "$ROLE" >&2
    fi
    if [ "$ROLE" = server ]; then let_nodes_drain; fi
    if [ "$changed" = yes ] || ! systemctl is-active --quiet "$unit"; then restart_k3s; fi
    if ! wait_ready; then
        if [ -e "$upgrade" ]; then roll_back; fi
        if journalctl -u "$unit" -n 30 --no-pager -o cat | grep -q 'from server: not authorized'; then
            fail "the servers refuse the token of node $NODE, the stack's state has another: take the state that made the cluster"
        fi
        fail "node $NODE not Ready after ${WAIT_SECONDS}s; the unit's last lines are above, all of them: journalctl -u $unit"
    fi
    end_upgrade
    rm -f "$entry"
    rmdir "${entry%/*}" 2>/dev/null || true
    record "$k3s" "$images/$IMAGES_FILE" /etc/rancher/k3s/token "$config_file" "$unit_file" "$unit_file.env" "$drop_in" \
        "$modes" "$sysctl_file" "$admission_file" "$audit_file" "$template" "$unit.service"
    "$k3s" --version | head -n 1
}

# Shims outlive containerd, and upstream's script knows only the ones that K3s brings.
kill_shims() {
    pids=$(ps -e -o pid= -o args= | awk '/containerd-shim-/ && /\/run\/k3s\/containerd\// && !/awk/ { print $1 }')
    while [ -n "$pids" ]; do
        children=
        for pid in $pids; do
            children="$children $(ps -e -o pid= -o ppid= | awk -v p="$pid" '$2 == p { print $1 }' | tr '\n' ' ')"
            kill -9 "$pid" 2>/dev/null || true
        done
        pids=$(echo "$children" | xargs)
    done
}

remove_k3s() {
    forget
    uninstall=/usr/local/bin/$unit-uninstall.sh
    systemctl stop "$unit" 2>/dev/null || true
    kill_shims
    if [ -x /usr/local/bin/k3s-killall.sh ]; then /usr/local/bin/k3s-killall.sh >/dev/null 2>&1 || true; fi
    ipset=/var/lib/rancher/k3s/data/current/bin/ipset
    if [ -x "$ipset" ] || ipset=$(command -v ipset); then
        for set in $("$ipset" list -n 2>/dev/null | grep -E '^(inet6:)?KUBE-'); do "$ipset" destroy "$set" || true; done
    fi
    if [ -x "$uninstall" ]; then "$uninstall" >/dev/null 2>&1 || true; fi
    # Kubelet leaves the pods' cgroups behind: slices of systemd's, or folders.
    systemctl stop kubepods.slice 2>/dev/null || true
    for pods in /sys/fs/cgroup/kubepods /sys/fs/cgroup/*/kubepods; do
        find "$pods" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
    rm -rf /etc/rancher/k3s /etc/rancher/node /var/lib/rancher/k3s /var/lib/kubelet /var/lib/cni /run/k3s /run/flannel \
        /var/log/pods /var/log/containers "$k3s" "$k3s.previous" /usr/local/bin/k3s-killall.sh "$uninstall" "$home/k3s" \
        "$home/certificates" "$upgrade"
    restore_sysctls
    rm -f "$drop_in" "$modes" "$encrypting" "$unit_file" "$unit_file.env"
    systemctl daemon-reload
    if [ -f "$home/config.toml.tmpl" ]; then
        mkdir -p "${template%/*}"
        mv "$home/config.toml.tmpl" "$template"
    fi
    rmdir "${drop_in%/*}" /etc/rancher /var/lib/rancher 2>/dev/null || true
    (cd /usr/libexec && rmdir -p kubernetes/kubelet-plugins/volume/exec) 2>/dev/null || true
    say "K3s removed"
}

case $action in
apply) apply_k3s ;;
remove) remove_k3s ;;
esac
