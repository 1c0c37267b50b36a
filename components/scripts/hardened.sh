# What the profile hardened is on a host, and how it goes again. Part of k3s.sh, which sets modes.
# Values: PROFILE (standard, hardened); with hardened: SYSCTLS (one key=value a line), on servers ADMISSION and AUDIT_POLICY.
sysctl_file=/etc/sysctl.d/90-edge-inference.conf
# The values from before, which come back.
sysctls_before=$home/sysctls
admission_file=/etc/rancher/k3s/admission.json
audit_file=/etc/rancher/k3s/audit-policy.json
audit_logs=/var/lib/rancher/k3s/server/logs

set_sysctls() {
    if [ ! -e "$sysctls_before" ]; then
        for pair in $SYSCTLS; do sysctl "${pair%%=*}" | tr -d ' '; done | put "$sysctls_before" 600
    fi
    printf '%s\n' "$SYSCTLS" | put "$sysctl_file" 644 || true
    sysctl -q -p "$sysctl_file" >&2 ||
        fail "cluster.profile is hardened, and not all of $sysctl_file can be set: a container that shares its kernel can not be hardened"
}

restore_sysctls() {
    if [ ! -e "$sysctls_before" ]; then return 0; fi
    rm -f "$sysctl_file"
    while read -r pair; do sysctl -q -w "$pair"; done <"$sysctls_before"
    rm -f "$sysctls_before"
}

# Returns 1 when K3s has nothing to start again for. It writes certificates with mode 644 when it
# starts; agents have no folder server.
apply_profile() {
    if [ "$PROFILE" = standard ]; then
        restore_sysctls
        [ -e "$modes" ] || return 1
        rm -f "$modes" "$admission_file" "$audit_file"
        return 0
    fi
    set_sysctls
    other=1
    mkdir -p "${modes%/*}"
    put "$modes" 644 <<'END' && other=0
[Service]
ExecStartPost=/bin/sh -c 'exec 2>/dev/null; cd /var/lib/rancher/k3s; find server/tls agent -maxdepth 2 -name "*.crt" -exec chmod 600 {} +; chmod 600 server/tls/dynamic-cert.json; true'
END
    if [ "$ROLE" = server ]; then
        (umask 077 && mkdir -p "$audit_logs" && chmod 700 "$audit_logs")
        printf '%s\n' "$ADMISSION" | put "$admission_file" 600 && other=0
        printf '%s\n' "$AUDIT_POLICY" | put "$audit_file" 600 && other=0
    fi
    return $other
}
