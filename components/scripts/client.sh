# OpenSSH's client beside the engine, in an SSH agent of its own.
# Values: HOST ON_HOST (a step with its values) ROOT_SHELL (what runs it there) SSH_CONFIG KNOWN_HOSTS PRIVATE_KEY
# PROXY_KEY (see components/ssh.py).
command -v ssh >/dev/null || fail "command ssh not found on this machine: install OpenSSH's client"
work=$(mktemp -d)
to_host() { ssh -F "$work/config" -S "$work/connection" "$@"; }
finish() {
    to_host -O exit host 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

connect() {
    for key in "$PRIVATE_KEY" "$PROXY_KEY"; do
        if [ -n "$key" ]; then printf '%s\n' "$key" | ssh-add -q - || fail "its private key cannot be read"; fi
    done
    printf '%s\n' "$KNOWN_HOSTS" >"$work/known_hosts"
    printf 'UserKnownHostsFile "%s/known_hosts"\n%s\n' "$work" "$SSH_CONFIG" >"$work/config"
    to_host host true || fail "no SSH connection: see the line above"
}

on_host() { printf '%s\n' "$ON_HOST" | to_host host "$ROOT_SHELL -c 'eval \"\$(cat)\"' $1"; } # "SCRIPT ACTION"
