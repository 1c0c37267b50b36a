# Brings artifacts to a host. It runs beside the engine, in an SSH agent of its own; artifacts.sh is its other half.
# Values: HOST FILES (as artifacts.sh has them) ON_HOST (artifacts.sh with its values) ROOT_SHELL (what runs it there)
# SSH_CONFIG KNOWN_HOSTS PRIVATE_KEY PROXY_KEY (see components/ssh.py). Prints nothing.
tab=$(printf '\t')
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

on_host() { printf '%s\n' "$ON_HOST" | to_host host "$ROOT_SHELL -c 'eval \"\$(cat)\"' artifacts.sh $1"; }

# The host's end of a transfer: $0 is what is sent, $1 the file, $2 the bytes it has in the end.
# shellcheck disable=SC2016
receive='free=$(($(stat -f -c "%a * %S" "${1%/*}"))); more=$(($2 - $(stat -c %s "$1" 2>/dev/null || echo 0)))
if [ "$free" -lt "$more" ]; then echo "$0: $((free >> 20)) MiB free in ${1%/*}, $((more >> 20)) MiB to come: free some" >&2; exit 1; fi
while sleep 5 >/dev/null 2>&1; do echo "$0: $(($(stat -c %s "$1") >> 20)) of $(($2 >> 20)) MiB" >&2; done & tee -a "$1" >/dev/null; code=$?; kill $!; exit $code'

send() { # PATH BYTES_THERE
    entry=$(printf '%s\n' "$FILES" | grep -F "$tab$1$tab")
    name=${entry%%"$tab"*} source=${entry##*"$tab"}
    [ -r "$source" ] || fail "artifact $name: no file $source on this machine: build or fetch it again"
    size=$(($(wc -c <"$source"))) from=$2 first=
    if [ "$from" -ge "$size" ]; then from=0; fi
    if [ "$from" -eq 0 ]; then first=": >$1.part; "; fi
    say "sending $name, $((size - from)) of $size bytes"
    tail -c "+$((from + 1))" "$source" |
        to_host host "$ROOT_SHELL -c '$first$receive' $name $1.part $size" ||
        fail "artifact $name: the transfer ended early, see the line above; up again goes on where it ended"
}

# What was there in part and then has another sum is sent once more, as a whole.
stage() {
    for round in first again last; do
        lacking=$(on_host apply) || fail "its artifacts are not complete: see above"
        if [ -z "$lacking" ]; then return; fi
        if [ "$round" = last ]; then break; fi
        while IFS=$tab read -r path there; do send "$path" "$there"; done <<LIST
$lacking
LIST
    done
    for path in $(printf '%s\n' "$lacking" | cut -f 1); do
        printf '%s\n' "$FILES" | grep -F "$tab$path$tab" | while IFS=$tab read -r name sum _ source; do
            say "artifact $name refused: what arrives has not the sha256 $sum: mend the file at $source"
        done
    done
    on_host drop_parts
    fail "artifacts refused: see above"
}

connect
stage
