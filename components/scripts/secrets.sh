# Turns on encryption in a cluster that ran without it, once k3s.sh has given every server the key: enable and restart, one
# server after the other (docs.k3s.io/cli/secrets-encrypt), then write each secret again (kubernetes.io, "Encrypting
# Confidential Data at Rest"). Not by `k3s secrets-encrypt reencrypt`: in K3s 1.30.0 each server's controller takes the
# request, and one that was not asked itself removes the last key.
# Values: HOST NODE TURNS_ON (yes: the first server) ENCRYPTS (yes: the last server) WAIT_SECONDS,
# INSTALLED (what k3s.sh printed), which it prints, too: the node is Ready after this step.
encryption=/var/lib/rancher/k3s/server/cred/encryption-config.json
encrypting=$home/encrypting
k3s=/usr/local/bin/k3s

writes_plain() { grep -q '"providers":\[{"identity"' "$encryption"; }

# until_true MESSAGE COMMAND…
until_true() {
    message=$1 began=$(date +%s)
    shift
    until "$@" >/dev/null 2>&1; do
        [ $(($(date +%s) - began)) -lt "$WAIT_SECONDS" ] || fail "$message after ${WAIT_SECONDS}s: journalctl -u k3s, then up again"
        sleep 1
    done
}
api_ready() { "$k3s" kubectl --request-timeout=5s get --raw /readyz; }

# `enable` also asks the server to rewrite secrets, before it encrypts; K3s says `start` when that is over.
settled() { "$k3s" secrets-encrypt status | grep -q '^Current Rotation Stage: start$'; }
turn_on() {
    said=$("$k3s" secrets-encrypt enable 2>&1) || fail "k3s secrets-encrypt enable: $(echo "$said" | grep -v 'Unknown flag' | tail -n 3)"
    until_true "secrets-encrypt enable is not over" settled
}

# A secret that was changed meanwhile is encrypted already; kubectl then says so and fails, and all are written again.
rewrite() {
    secrets=$("$k3s" kubectl --request-timeout=60s get secrets -A -o json) || return 1
    printf '%s\n' "$secrets" | "$k3s" kubectl --request-timeout=60s replace -f -
}

restart() {
    say "secrets: restarting k3s"
    timeout "$WAIT_SECONDS" systemctl restart k3s || fail "k3s did not start: journalctl -u k3s, then up again"
    until_true "the API server is not ready" api_ready
    until_true "K3s tells no state of its secrets" settled
    until_true "containerd does not answer" "$k3s" ctr version
    if writes_plain; then fail "K3s started with another server's key order: is $NODE a member of this cluster's etcd?"; fi
}

if [ -e "$encrypting" ] || writes_plain; then
    if [ "$TURNS_ON" = yes ]; then turn_on; fi
    restart
    if [ "$ENCRYPTS" = yes ]; then until_true "secrets are not all written again" rewrite; fi
    rm -f "$encrypting"
    say "secrets: this server encrypts them"
fi
printf '%s\n' "$INSTALLED"
