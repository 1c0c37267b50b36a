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
    rm -rf "$home"
    ;;
esac
