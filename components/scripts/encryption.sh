# Secrets at rest, as far as a server's start is concerned; secrets.sh does the rest. Part of k3s.sh.
# Value: ENCRYPT (on, off).
encryption=/var/lib/rancher/k3s/server/cred/encryption-config.json
# On a server that ran without encryption: it is there until its secrets are encrypted.
encrypting=$home/encrypting

check_encryption() {
    if [ "$ENCRYPT" = on ] || [ ! -e "$encryption" ]; then return 0; fi
    fail "this cluster's secrets are encrypted, and K3s does not start without what reads them; nothing was changed:" \
        "set cluster.serverFlags: {secrets-encryption: true}, which keeps just that, or cluster.profile: hardened"
}

# K3s makes a key of its own on each server that starts with encryption for the first time, and none could read what
# another wrote. The join token, which all servers have, and which guards the keys that K3s keeps in the datastore, gives
# all of them the same key here.
encryption_key() {
    digits=$(printf 'secrets-encryption %s' "$TOKEN" | sha256sum | cut -c1-64 | sed 's/../& /g')
    for pair in $digits; do
        # shellcheck disable=SC2059
        printf "\\$(printf '%03o' "0x$pair")"
    done | base64 | tr -d '\n'
}

# As K3s itself writes it: the sum of this file, with encryption on, is what it compares.
encryption_config() {
    printf '{"kind":"EncryptionConfiguration","apiVersion":"apiserver.config.k8s.io/v1",'
    printf '"resources":[{"resources":["secrets"],"providers":[%s]}]}' "$1"
}

# The first provider writes, all of them read: at first nothing is encrypted, and every server can read what will be.
prepare_encryption() {
    if [ "$ENCRYPT" = off ] || [ -e "$encryption" ]; then return 0; fi
    if ! on_etcd && [ ! -s "$db/state.db" ]; then return 0; fi
    say "secrets: this server gets the key, secrets are encrypted when all servers have it"
    aes="{\"aescbc\":{\"keys\":[{\"name\":\"aescbckey\",\"secret\":\"$(encryption_key)\"}]}}"
    none='{"identity":{}}'
    (umask 077 && mkdir -p "${encryption%/*}")
    : >"$encrypting"
    printf 'start-%s' "$(encryption_config "$aes,$none" | sha256sum | cut -c1-64)" |
        put "${encryption%/*}/encryption-state.json" 600 || true
    encryption_config "$none,$aes" | put "$encryption" 600 || true
}
