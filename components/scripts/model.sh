# Keeps an image on the node: in K3s's images folder (read again at each start) and in containerd now.
# Values: HOST NAME ARCHIVE REFERENCE (name@sha256:digest).
target=/var/lib/rancher/k3s/agent/images/$NAME.tar
ctr() { /usr/local/bin/k3s ctr -n k8s.io "$@"; }

# A node is Ready before flannel has its subnet: on a new cluster, ten seconds, for which the controller of the nodes'
# addresses waits. A pod that comes in between is tried again only after ten more.
await_network() {
    [ -e /var/lib/rancher/k3s/agent/etc/flannel/net-conf.json ] || return 0
    until [ -s /run/flannel/subnet.env ]; do
        [ "$(($(date +%s) - started))" -lt 60 ] || fail "flannel has no subnet after 60s: journalctl -u $(k3s_unit)"
        sleep 0.5
    done
}

case $action in
apply)
    changed=no
    if copy "$ARCHIVE" "$target" 644; then changed=yes; fi
    if [ "$changed" = yes ] || ! ctr images ls -q | grep -qxF "$REFERENCE"; then
        ctr images import --all-platforms "$ARCHIVE" >&2
    fi
    ctr images ls -q | grep -qxF "$REFERENCE" ||
        fail "the archive of $NAME holds no image $REFERENCE: build the image again or mend services[].image"
    # Pinned: the kubelet's clean-up of unused images must not take what no registry can give back.
    ctr images label "$REFERENCE" io.cri-containerd.pinned=pinned >/dev/null
    await_network
    record "$target"
    printf '%s\n' "$REFERENCE"
    ;;
remove)
    forget
    rm -f "$target"
    if [ -n "$(k3s_unit)" ]; then
        for image in $(ctr images ls -q | grep -F "${REFERENCE#*@}"; ctr images ls -q | grep -F "${REFERENCE%@*}:"); do
            ctr images rm "$image" >&2 || true
        done
    fi
    ;;
esac
