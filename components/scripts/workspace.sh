# The folder where artifacts are staged: only the SSH user and root may look into it.
# Values: HOST.
case $action in
apply)
    mkdir -p "$home/artifacts"
    chmod 0755 "$home"
    chown "${SUDO_USER:-root}" "$home/artifacts"
    chmod 0700 "$home/artifacts"
    ;;
remove)
    # A step that failed while it was made is in no state: what it left behind goes here.
    if [ -e "$home/k3s" ]; then
        for script in /usr/local/bin/k3s-uninstall.sh /usr/local/bin/k3s-agent-uninstall.sh; do
            if [ -x "$script" ]; then "$script" >/dev/null 2>&1 || true; fi
        done
        rm -rf /usr/local/bin/k3s /etc/rancher /var/lib/rancher
    fi
    rm -rf "$home"
    ;;
esac
