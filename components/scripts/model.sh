# Keeps an image on the node: in K3s's images folder (read again at each start) and in containerd now.
# Values: HOST NAME ARCHIVE REFERENCE (name@sha256:digest).
target=/var/lib/rancher/k3s/agent/images/$NAME.tar
ctr() { /usr/local/bin/k3s ctr -n k8s.io "$@"; }

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
    printf '%s\n' "$REFERENCE"
    ;;
remove)
    rm -f "$target"
    if [ -n "$(k3s_unit)" ]; then
        for image in $(ctr images ls -q | grep -F "${REFERENCE#*@}"; ctr images ls -q | grep -F "${REFERENCE%@*}:"); do
            ctr images rm "$image" >&2 || true
        done
    fi
    ;;
esac
