# Installs NVIDIA's packages from staged .deb files and takes them off again.
# Values: HOST FILES (one path a line). Prints the packages and their versions.
record=$home/gpu-packages
export DEBIAN_FRONTEND=noninteractive

version_of() { dpkg-query -W -f '${db:Status-Status} ${Version}\n' "$1" 2>/dev/null | sed -n 's/^installed //p'; }

purge() {
    for module in nvidia_uvm nvidia_drm nvidia_modeset nvidia; do modprobe -r -q "$module" 2>/dev/null || true; done
    dpkg --purge "$@" >&2 </dev/null
    # The toolkit's package enables its units itself and leaves the links and their file behind.
    find /etc/systemd/system -xtype l -name 'nvidia-cdi-refresh.*' -delete
    systemctl daemon-reload
    if ! command -v nvidia-ctk >/dev/null; then rm -f /var/run/cdi/nvidia.yaml; fi
}

# Names in $wanted; files to install in $missing, their packages in $new; what is there already stays as it is.
plan() {
    wanted='' missing='' new=''
    for file in $FILES; do
        name=$(dpkg-deb -f "$file" Package) ||
            fail "$file is not a Debian package: nvidia.packages takes artifacts that are .deb files"
        version=$(dpkg-deb -f "$file" Version)
        found=$(version_of "$name")
        wanted="$wanted $name"
        if [ "$found" = "$version" ]; then continue; fi
        if [ -n "$found" ] && ! grep -qx "$name" "$record"; then
            fail "package $name $found is installed, nvidia.packages has $version: remove it from the host or from nvidia.packages (one that was there before could not be given back)"
        fi
        missing="$missing $file"
        new="$new $name"
    done
}

remember() { for name in "$@"; do echo "$name"; done | sort -u | put "$record" 0644 || true; }

drop_unwanted() {
    while read -r name; do
        case " $wanted " in *" $name "*) continue ;; esac
        say "removing $name"
        purge "$name"
    done <"$record"
}

case $action in
apply)
    command -v dpkg-deb >/dev/null ||
        fail "dpkg not found, nvidia.packages needs it: install driver and toolkit by this host's own means, and remove the setting"
    [ -e "$record" ] || : >"$record"
    plan
    drop_unwanted
    kept=$(for name in $wanted; do if grep -qx "$name" "$record"; then echo "$name"; fi; done)
    # shellcheck disable=SC2086
    remember $kept $new
    if [ -n "$missing" ]; then
        say "installing$new"
        # shellcheck disable=SC2086
        if ! dpkg --install --force-confold $missing >&2 </dev/null; then
            purge $new || true
            # shellcheck disable=SC2086
            remember $kept
            fail "dpkg refused$new, see above, and they were taken off again: add what they depend on to nvidia.packages"
        fi
    fi
    modprobe -q nvidia 2>/dev/null || true
    if command -v nvidia-modprobe >/dev/null; then nvidia-modprobe -c 0 -u || true; fi
    for name in $wanted; do printf '%s %s\n' "$name" "$(version_of "$name")"; done
    ;;
remove)
    if [ -s "$record" ]; then
        # shellcheck disable=SC2046
        purge $(cat "$record")
    fi
    rm -f "$record"
    ;;
esac
