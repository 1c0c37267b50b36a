# Another K3s on a node that has one: its way there and its way back. Part of k3s.sh, which sets unit, admin and changed.
# Values: DRAIN (on, off) DRAIN_SECONDS DRAIN_LATE (fail, continue) SNAPSHOTS (how many are kept; 0: none).
k3s=/usr/local/bin/k3s
config_file=/etc/rancher/k3s/config.yaml
# It holds the version that ran before, for as long as the upgrade is not over; a cut does not end it.
upgrade=$home/upgrade
# On nodes that an upgrade cordoned: those that were cordoned before stay so.
cordoned=edge.inference/cordoned

db=/var/lib/rancher/k3s/server/db

k() { "$k3s" kubectl --kubeconfig "$admin" --request-timeout=20s "$@"; }

# Other nodes that take pods; an agent always has its servers, and may not look.
others() {
    k get nodes -o 'jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status} {.spec.unschedulable}{"\n"}{end}' |
        awk -v own="$NODE" '$1 != own && $2 == "True" && $3 != "true" { print $1 }'
}

cordon() {
    if [ "$(k get node "$NODE" -o 'jsonpath={.spec.unschedulable}')" = true ]; then return 0; fi
    k annotate --overwrite node "$NODE" "$cordoned=upgrade" >/dev/null
    k cordon "$NODE" >&2
}

uncordon() {
    if [ -n "$(k get node "$NODE" -o 'jsonpath={.metadata.annotations.edge\.inference/cordoned}')" ]; then
        k uncordon "$NODE" >&2
        k annotate node "$NODE" "$cordoned-" >/dev/null
    elif [ "$(k get node "$NODE" -o 'jsonpath={.spec.unschedulable}')" = true ]; then
        say "node $NODE was cordoned before the upgrade, and stays so"
    fi
}

drain() {
    if [ "$DRAIN" = off ]; then return 0; fi
    if [ "$ROLE" = server ] && [ -z "$(others)" ]; then
        say "not drained: no other node takes pods, which run on while K3s restarts"
        return 0
    fi
    cordon
    say "draining node $NODE, at most ${DRAIN_SECONDS}s"
    if "$k3s" kubectl --kubeconfig "$admin" drain "$NODE" --ignore-daemonsets --delete-emptydir-data \
        --timeout="${DRAIN_SECONDS}s" >&2; then return 0; fi
    if [ "$DRAIN_LATE" = continue ]; then
        say "not drained after ${DRAIN_SECONDS}s: what is left runs on while K3s restarts"
        return 0
    fi
    abandon "node $NODE could not be drained (cluster.upgrade.drainSeconds: $DRAIN_SECONDS), what holds it is above: mend it" \
        "(k3s kubectl get pdb -A), allow more time, or set cluster.upgrade.onDrainTimeout: continue"
}

# Nothing was put in place yet: the node goes on as it was.
abandon() {
    if ! systemctl is-active --quiet "$unit"; then
        restart_k3s
        wait_ready || true
    fi
    uncordon || true
    rm -f "$upgrade"
    fail "$* - K3s $found runs on"
}

on_etcd() { [ -d "$db/etcd/member/wal" ]; }

# It warns of every flag in config.yaml that is the server's.
etcd_snapshot() {
    printed=$("$k3s" etcd-snapshot "$@" 2>&1) || {
        printf '%s\n' "$printed" | grep -v 'Unknown flag' >&2
        return 1
    }
}

# A running etcd makes its own snapshot; files can be copied once nothing writes them.
snapshot() {
    kept=$db/snapshots
    if on_etcd && systemctl is-active --quiet "$unit"; then
        etcd_snapshot save --name pre-upgrade || abandon "etcd's snapshot failed: mend it, or set cluster.upgrade.snapshots: 0"
        etcd_snapshot prune --name pre-upgrade --snapshot-retention "$SNAPSHOTS" || true
        say "snapshot of etcd in $kept"
        return 0
    fi
    # Whatever fails from here on, K3s does not stay down.
    trap 'systemctl start --no-block "$unit"' EXIT
    systemctl stop "$unit"
    mkdir -p "$kept"
    file=$kept/pre-upgrade-$(date -u +%Y%m%dT%H%M%SZ)-$found.tar
    (umask 077 && tar -C "$db" --exclude=./snapshots -cf "$file.part" . && mv "$file.part" "$file") || {
        rm -f "$file.part"
        abandon "the datastore could not be copied to $kept: free disk there"
    }
    find "$kept" -name 'pre-upgrade-*.tar' | sort -r | tail -n "+$((SNAPSHOTS + 1))" | xargs -r rm -f
    say "copy of the datastore: $file"
}

# Pods of kube-system on this node that should be ready and are not; fails without an answer.
unready_pods() {
    listed=$(k get pods -n kube-system --field-selector "spec.nodeName=$NODE,status.phase!=Succeeded,status.phase!=Failed" \
        -o 'jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}') || return 1
    echo "$listed" | awk 'NF && $2 != "True" { print $1 }' | xargs
}

# An upgrade of a node that is not well would hide what ails it.
await_pods() {
    began=$(date +%s)
    until sick=$(unready_pods) && [ -z "$sick" ]; do
        [ $(($(date +%s) - began)) -lt "$WAIT_SECONDS" ] ||
            fail "not upgraded, K3s $found runs on: mend these pods of kube-system on node $NODE, which are not ready: $sick"
        sleep 2
    done
}

save() { if [ "$ROLE" = server ] && [ "$SNAPSHOTS" -gt 0 ]; then snapshot; fi; }

# Before another K3s is put in place of the one that is there.
begin_upgrade() {
    if [ ! -x "$k3s" ] || cmp -s "$BINARY" "$k3s"; then return 0; fi
    found=$(k3s_found)
    cp "$BINARY" "$k3s.new"
    chmod 755 "$k3s.new"
    wanted=$(version_of "$k3s.new")
    rm -f "$k3s.new"
    [ -n "$wanted" ] || fail "artifact k3s does not run on this $(uname -m) host: name one that does in the artifact manifest"
    if [ -z "$found" ] || [ "$found" = "$wanted" ]; then return 0; fi
    why=$(refusal "$found" "$wanted" "$ROLE")
    [ -z "$why" ] || fail "K3s $found found, artifact k3s is $wanted: $why"
    say "upgrade of K3s $found to $wanted"
    if [ ! -e "$upgrade" ]; then
        if systemctl is-active --quiet "$unit"; then await_pods; fi
        cp -p "$k3s" "$k3s.previous"
        cp -p "$config_file" "$config_file.previous"
        printf '%s\n' "$found" | put "$upgrade" 600
    fi
    # A running etcd's snapshot comes first; sqlite's copy needs K3s stopped, so it comes when the pods are elsewhere.
    if on_etcd; then save; fi
    if systemctl is-active --quiet "$unit"; then drain; fi
    if ! on_etcd; then save; fi
}

# The health gate of a node that is Ready: the new K3s, an API server that is ready, the system's pods. Sets missing.
upgraded() {
    if [ ! -e "$upgrade" ]; then return 0; fi
    version=$(k get node "$NODE" -o 'jsonpath={.status.nodeInfo.kubeletVersion}' 2>/dev/null) || version=none
    missing="the kubelet is $version"
    [ "$version" = "$(version_of "$k3s")" ] || return 1
    missing="the API server is not ready"
    k get --raw /readyz >/dev/null 2>&1 || return 1
    missing="the API server does not list the node's pods"
    sick=$(unready_pods 2>/dev/null) || return 1
    missing="pods of kube-system are not ready: $sick"
    [ -z "$sick" ]
}

end_upgrade() {
    if [ ! -e "$upgrade" ]; then return 0; fi
    uncordon
    rm -f "$upgrade"
    say "K3s $(version_of "$k3s") runs, $(version_of "$k3s.previous") is kept as $k3s.previous"
}

# The node did not come back: the K3s before, with its config, is put back.
roll_back() {
    found=$(cat "$upgrade") wanted=$(version_of "$k3s") reason=$missing
    [ "$(version_of "$k3s.previous")" = "$found" ] ||
        fail "node $NODE did not come back with K3s $wanted ($reason), and $k3s.previous is not $found: see docs/upgrade.md"
    say "K3s $wanted did not come back ($reason): putting $found back"
    cp -p "$k3s.previous" "$k3s.new"
    mv -f "$k3s.new" "$k3s"
    cp -p "$config_file.previous" "$config_file"
    restart_k3s
    wait_ready ||
        fail "node $NODE came back neither with K3s $wanted nor with $found, which is in place ($missing): see docs/upgrade.md"
    uncordon
    rm -f "$upgrade"
    fail "K3s $wanted did not come back on node $NODE ($reason; the unit's last lines are above): rolled back to $found," \
        "the node is Ready again, nodes after it were not touched: mend the cause, then pulumi up again"
}
