# Shared by every step: it is put before the step's own text (see components/step.py).
# Values arrive as shell variables set in the lines above; $1 is the action, apply or remove.
set -eu
umask 022
action=$1
started=$(date +%s)
home=/var/lib/edge-inference
# kubectl would keep its cache in the home folder of root, where nothing of ours shall stay.
export KUBECACHEDIR="$home/kube-cache"

say() { printf '%s: %s (%ss)\n' "$HOST" "$*" "$(($(date +%s) - started))" >&2; }

fail() {
    printf 'error: host %s: %s\n' "$HOST" "$*" >&2
    exit 1
}

sum_of() { sha256sum "$1" | cut -d' ' -f1; }

# Ends the step also from within a pipeline, and where `if` turns `set -e` off: a file cut short must not take its place.
trap 'exit 1' TERM
not_written() { # FILE
    rm -f "$1.new"
    free=$(df -Pm "${1%/*}" 2>/dev/null | awk 'NR == 2 { print $4 }')
    echo "error: host $HOST: $1 could not be written, ${free:-?} MiB free there: free some, then up again" >&2
    kill $$
    exit 1
}

own() { chown 0:0 "$1" && chmod "$2" "$1"; } # FILE MODE

# put TARGET MODE: writes standard input to TARGET; returns 1 when TARGET already held it.
put() {
    if ! (umask 077 && cat >"$1.new" && chmod "$2" "$1.new"); then not_written "$1"; fi
    if cmp -s "$1.new" "$1"; then
        rm -f "$1.new"
        own "$1" "$2"
        return 1
    fi
    mv -f "$1.new" "$1" || not_written "$1"
}

# copy SOURCE TARGET MODE: returns 1 when TARGET already has the bytes.
copy() {
    if cmp -s "$1" "$2"; then
        own "$2" "$3"
        return 1
    fi
    if ! { cp "$1" "$2.new" && chmod "$3" "$2.new" && mv -f "$2.new" "$2"; }; then not_written "$2"; fi
}

k3s_unit() {
    for unit in k3s k3s-agent; do
        if systemctl is-active --quiet "$unit"; then
            echo "$unit"
            return
        fi
    done
}
