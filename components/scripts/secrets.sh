# Turns on encryption in a cluster that ran without it, once k3s.sh has given every server the key: enable, restart one
# server after the other, encrypt what is there (docs.k3s.io/cli/secrets-encrypt, "re-enable").
# Values: HOST NODE TURNS_ON (yes: the first server) ENCRYPTS (yes: the last server) WAIT_SECONDS.
# Prints one word: encrypted.
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

# K3s rewrites each secret once it was asked to, and says `start` when it is through.
settled() { "$k3s" secrets-encrypt status | grep -q '^Current Rotation Stage: start$'; }
secrets_encrypt() {
    said=$("$k3s" secrets-encrypt "$@" 2>&1) || fail "k3s secrets-encrypt $*: $(echo "$said" | grep -v 'Unknown flag' | tail -n 3)"
    until_true "secrets are not rewritten" settled
}

restart() {
    say "secrets: restarting k3s"
    timeout "$WAIT_SECONDS" systemctl restart k3s || fail "k3s did not start: journalctl -u k3s, then up again"
    until_true "the API server is not ready" api_ready
    until_true "K3s tells no state of its secrets" settled
    if writes_plain; then fail "K3s started with another server's key order: is $NODE a member of this cluster's etcd?"; fi
}

if [ -e "$encrypting" ] || writes_plain; then
    if [ "$TURNS_ON" = yes ]; then secrets_encrypt enable; fi
    restart
    if [ "$ENCRYPTS" = yes ]; then secrets_encrypt reencrypt --force --skip; fi
    rm -f "$encrypting"
    say "secrets: this server encrypts them"
fi
echo encrypted
