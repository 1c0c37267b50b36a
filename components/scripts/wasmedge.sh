# Puts WasmEdge and its containerd shim on the host; K3s finds the shim on PATH when it starts.
# Values: HOST ARCHIVE VERSION. Prints the installed version.
prefix=/opt/wasmedge
shim=containerd-shim-wasmedge-v1
link=/usr/local/bin/$shim
containerd_config=/var/lib/rancher/k3s/agent/etc/containerd/config.toml

install_runtime() {
    rm -rf "$prefix.new"
    mkdir -p "$prefix.new"
    tar -xf "$ARCHIVE" -C "$prefix.new" --no-same-owner ||
        fail "the WasmEdge archive could not be unpacked: a .tar.zst needs the package zstd"
    rm -rf "$prefix"
    mv "$prefix.new/opt/wasmedge" "$prefix"
    rm -rf "$prefix.new"
    sum_of "$ARCHIVE" >"$prefix/.archive"
    say "unpacked to $prefix"
}

case $action in
apply)
    # One that was made here and leads elsewhere by now is repaired.
    if [ -e "$link" ] && [ ! -e "$records/$STEP" ] && [ "$(readlink "$link")" != "$prefix/bin/$shim" ]; then
        fail "$link is not ours: remove it, or take the host out of the wasm runtime"
    fi
    if [ "$(cat "$prefix/.archive" 2>/dev/null)" != "$(sum_of "$ARCHIVE")" ] || differences | grep -q "^$prefix/"; then
        install_runtime
    fi
    ln -sfn "$prefix/bin/$shim" "$link"
    "$link" -v >/dev/null || fail "$shim does not run: is the archive for $(uname -m)?"
    found=$(cat "$prefix/VERSION")
    case $found in
    *"$VERSION"*) ;;
    *) fail "WasmEdge $found found in the archive, want $VERSION: mend wasmedge.version or the manifest" ;;
    esac
    unit=$(k3s_unit)
    if [ -n "$unit" ] && ! grep -q wasmedge "$containerd_config"; then
        say "restarting $unit: its containerd does not know the runtime yet"
        systemctl restart "$unit"
    fi
    # shellcheck disable=SC2046
    record "$link" $(find "$prefix" ! -type d)
    printf '%s\n' "$found"
    ;;
remove)
    forget
    rm -f "$link"
    rm -rf "$prefix" "$prefix.new"
    ;;
esac
