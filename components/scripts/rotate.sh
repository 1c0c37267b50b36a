# Functions of k3s.sh: another join token, and new certificates, on a node that has K3s already.

# K3s has its token in the datastore, as the key to the cluster's own keys: a server that starts with another one ends. So
# the first server, running, is asked to change it (docs.k3s.io/cli/token, `k3s token rotate`, which would show both tokens
# in the process list); then the servers start with it one by one, as for any other change.
rotate_token() {
    token_file=/etc/rancher/k3s/token
    if [ "$ROTATES" = no ] || [ ! -f "$token_file" ] || [ ! -d /var/lib/rancher/k3s/server/db ]; then return 0; fi
    old=$(cat "$token_file")
    if [ "$old" = "$TOKEN" ]; then return 0; fi
    systemctl is-active --quiet "$unit" ||
        fail "$unit does not run, and only it can change the cluster's token: systemctl start $unit, then up again"
    say "another token"
    ask=$home/token.kubeconfig
    as_server https://127.0.0.1:6443 "$old" | put "$ask" 600 || true
    if ! printf '{"newToken":"%s"}' "$TOKEN" |
        "$k3s" kubectl --kubeconfig "$ask" --request-timeout=60s replace --raw /v1-k3s/token -f - >&2; then
        rm -f "$ask"
        fail "the cluster's token could not be changed, see above; nothing was: up again tries it again"
    fi
    rm -f "$ask"
    if on_etcd; then
        # A server reads its own copy of etcd before it joins the others, and that may lack the last entry that was written
        # just before: K3s' own command waits a second. Where it lacks it all the same, K3s ends, because its file is newer
        # than the datastore: its remedy is to remove the file, which comes back from there and gets the token.
        sleep 5
        rm -f /var/lib/rancher/k3s/server/cred/passwd
    fi
}

# Another text in the setting: K3s makes new ones when it starts next (docs.k3s.io/cli/certificate).
rotate_certificates() {
    done_for=$home/certificates
    if [ "$CERTIFICATES" = "$(cat "$done_for" 2>/dev/null)" ]; then return 1; fi
    if [ -n "$CERTIFICATES" ] && [ -f "/etc/systemd/system/$unit.service" ]; then
        say "new certificates"
        systemctl stop "$unit"
        "$k3s" certificate rotate >&2
        rotated=yes
    fi
    printf '%s\n' "$CERTIFICATES" | put "$done_for" 600 || true
    [ -n "$rotated" ]
}
