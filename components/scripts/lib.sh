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

# put TARGET MODE: writes standard input to TARGET; returns 1 when TARGET already held it.
put() {
    (umask 077 && cat >"$1.new")
    chmod "$2" "$1.new"
    if cmp -s "$1.new" "$1"; then
        rm -f "$1.new"
        return 1
    fi
    mv -f "$1.new" "$1"
}

# copy SOURCE TARGET MODE: returns 1 when TARGET already has the bytes.
copy() {
    if cmp -s "$1" "$2"; then return 1; fi
    cp "$1" "$2.new"
    chmod "$3" "$2.new"
    mv -f "$2.new" "$2"
}

k3s_unit() {
    for unit in k3s k3s-agent; do
        if systemctl is-active --quiet "$unit"; then
            echo "$unit"
            return
        fi
    done
}
