# Labels and taints of one node, set through the API on the server: nothing restarts.
# Values: HOST NODE ROLE LABELS TAINTS (one key=value or key=value:effect a line), GONE (yes: the node's host no longer
# exists, so the node goes now, and with it a server from etcd's members, which take no new one while one is lost; no).
# Keys set here are remembered in an annotation, so one that is dropped from the settings is taken off.
kubectl() { /usr/local/bin/k3s kubectl --request-timeout=20s "$@"; }

# A server whose cluster just got another member may be away for a moment: then it is asked again, for a minute.
k() {
    until kubectl "$@"; do
        if [ "$(($(date +%s) - started))" -ge 60 ]; then return 1; fi
        # It may be back since the attempt failed: only what fails while it answers is an answer.
        if kubectl get --raw /readyz >/dev/null 2>&1; then
            kubectl "$@"
            return
        fi
        sleep 2
    done
}
memory=edge.inference/managed

# K3s takes a server out of etcd's members before its node object goes, so a server's is waited for. A server that
# ends its own membership can't see the end of it: the others finish what was asked for.
other_servers() { k get node -l node-role.kubernetes.io/control-plane -o name | grep -vx "node/$NODE" || true; }
leave() {
    k -n kube-system delete secret "$NODE.node-password.k3s" --ignore-not-found >&2
    k delete node "$NODE" --ignore-not-found --wait=false >&2
    if [ "$ROLE" != server ] || [ "$NODE" = "$HOST" ]; then return; fi
    until [ -z "$(k get node "$NODE" --ignore-not-found -o name)" ]; do
        [ "$(($(date +%s) - started))" -lt 150 ] ||
            fail "node $NODE is still a member of etcd: do most servers run? k3s kubectl get nodes, then again"
        sleep 1
    done
    say "node $NODE is no member of etcd any more"
}

# Each call of kubectl takes its third of a second of a small host: one reads, one writes.
apply_node() {
    found=$(k get node "$NODE" -o "jsonpath={.status.nodeInfo.kubeletVersion} {.status.nodeInfo.containerRuntimeVersion}\
{'\n'}{.metadata.annotations.edge\.inference/managed}")
    new='' changes=''
    for pair in $LABELS; do
        new="$new l:${pair%%=*}"
        changes="$changes\"${pair%%=*}\":\"${pair#*=}\","
    done
    for taint in $TAINTS; do new="$new t:${taint%%=*}"; done
    for entry in $(echo "$found" | tail -n +2); do
        case " $new " in *" $entry "*) continue ;; esac
        case $entry in
        l:*) changes="$changes\"${entry#l:}\":null," ;;
        t:*) k taint node "$NODE" "${entry#t:}-" >&2 || true ;;
        esac
    done
    for taint in $TAINTS; do k taint --overwrite node "$NODE" "$taint" >&2; done
    k patch node "$NODE" --type=merge \
        -p "{\"metadata\":{\"labels\":{${changes%,}},\"annotations\":{\"$memory\":\"${new# }\"}}}" >&2
    {
        for pair in $LABELS; do printf 'label\t%s\t%s\n' "$NODE" "$pair"; done
        for taint in $TAINTS; do printf 'taint\t%s\t%s\n' "$NODE" "$taint"; done
    } | keep
    echo "$found" | head -n 1
}

remove_node() {
    if [ "$NODE" = "$HOST" ] && [ -z "$(other_servers)" ]; then
        say "node $NODE goes with its host: no other server is known here"
        return
    fi
    if [ -z "$(k get node "$NODE" --ignore-not-found -o name)" ]; then return; fi
    timeout 60 /usr/local/bin/k3s kubectl drain "$NODE" --ignore-daemonsets --delete-emptydir-data --force \
        --timeout=45s >&2 || say "node $NODE could not be drained in time; going on"
    leave
}

case $action in
apply) if [ "$GONE" = yes ]; then forget && leave; else apply_node; fi ;;
remove)
    forget
    remove_node
    ;;
esac
