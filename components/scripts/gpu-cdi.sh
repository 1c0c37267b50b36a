# Has the CDI specification of the GPUs written: now, at each boot, and when the driver or the toolkit changes.
# NVIDIA's own units do that (nvidia-cdi-refresh, container toolkit 1.18 and newer) where they are enabled; else ours do.
# Values: HOST FACTS (what gpu.sh printed). Prints the names of the devices, one a line.
spec=/var/run/cdi/nvidia.yaml
kept=/run/edge-inference-nvidia.yaml
unit=edge-inference-cdi
service=/etc/systemd/system/$unit.service
path=/etc/systemd/system/$unit.path
gpus=$(echo "${FACTS-}" | grep -Eo '"address":"[^"]*","id":"[^"]*"' | sed 's/.*:"\([0-9a-f:.]*\)","id":"\(.*\)"/\1 (\2)/')
named="GPU $(echo "$gpus" | paste -s -d , - | sed 's/,/, /g')"
driver=$(echo "${FACTS-}" | sed 's/.*"driver":"\([^"]*\)".*/\1/')

# nvidia-ctk loads NVIDIA's library, which loads the module and makes device nodes where they are missing: hence
# these capabilities, which NVIDIA's own unit has too, and no ProtectKernelModules or PrivateDevices.
# It looks for sockets of the driver's daemons, one of them under /tmp: hence no PrivateTmp.
# K3s is only ordered after it: without the specification, pods without a GPU still run.
service_text() {
    cat <<UNIT
[Unit]
Description=CDI specification of the NVIDIA GPUs
After=systemd-modules-load.service nvidia-persistenced.service
Before=k3s.service k3s-agent.service
StartLimitIntervalSec=0
[Service]
Type=oneshot
ExecStart=$ctk cdi generate --output=$spec
UMask=0022
RuntimeDirectory=cdi
RuntimeDirectoryPreserve=yes
CapabilityBoundingSet=CAP_SYS_MODULE CAP_SYS_ADMIN CAP_MKNOD
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateNetwork=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
[Install]
WantedBy=multi-user.target
UNIT
}

# depmod writes modules.dep at the end of each installation of a driver.
path_text() {
    cat <<UNIT
[Unit]
Description=CDI specification anew after a change of driver or container toolkit
[Path]
PathChanged=/lib/modules/%v/modules.dep
PathChanged=$ctk
[Install]
WantedBy=multi-user.target
UNIT
}

remove_ours() {
    [ -e "$service" ] || return 0
    systemctl disable --now "$unit.path" "$unit.service" >/dev/null 2>&1 || true
    rm -f "$path" "$service" "$spec"
    systemctl daemon-reload
    systemctl reset-failed "$unit.path" "$unit.service" 2>/dev/null || true
    if [ -e "$kept" ]; then mv "$kept" "$spec"; else rmdir /var/run/cdi 2>/dev/null || true; fi
}

# The owner's own file at our place is kept beside it, where it is as gone after a restart as it would have been.
install_ours() {
    fresh=no changed=no
    if [ ! -e "$service" ]; then
        fresh=yes
        if [ -e "$spec" ]; then cp -p "$spec" "$kept"; fi
    fi
    if service_text | put "$service" 644; then changed=yes; fi
    if path_text | put "$path" 644; then changed=yes; fi
    if [ "$changed" = yes ] || [ -n "$(differences)" ]; then
        say "installing units $unit.service and $unit.path"
        systemctl daemon-reload
        systemctl enable --quiet "$unit.service" "$unit.path"
        systemctl restart "$unit.path"
    fi
}

refuse() {
    if [ "$fresh" = yes ]; then remove_ours; fi
    fail "$named: $*"
}

names() { "$ctk" cdi list 2>/dev/null | grep '^nvidia\.com/gpu=' || true; }

# A GPU has the name N by its index, or gpuN; its partitions (MIG) have N:M.
described() { names | sed -nE 's/^[^=]*=(gpu|mig)?([0-9]+)(:[0-9]+)?$/\2/p' | sort -u | wc -l; }

# The libraries in a specification end in the driver's version; NVIDIA's units may write it to another place.
whole() {
    [ "$(described)" -eq "$(echo "$gpus" | wc -l)" ] || return 1
    [ "$unit" = nvidia-cdi-refresh ] || grep -qsF ".so.$driver" "$spec"
}

# The last line of what nvidia-ctk printed, without the time before it.
said() {
    journalctl -q -o cat "_SYSTEMD_INVOCATION_ID=$(systemctl show -p InvocationID --value "$unit.service")" |
        tail -n 1 | sed 's/^time=.* msg="\(.*\)"$/\1/'
}

check() {
    count=$(described)
    wanted=$(echo "$gpus" | wc -l)
    [ "$count" -eq "$wanted" ] ||
        refuse "CDI describes $count of $wanted GPUs after $unit.service ran: run 'nvidia-ctk cdi list' and 'nvidia-smi -L' on the host, mend what is missing there, then run up again"
    whole ||
        refuse "the CDI specification $spec is not of driver $driver: run 'nvidia-ctk cdi generate' on the host and see which driver's libraries it finds, then run up again"
}

apply() {
    ctk=$(command -v nvidia-ctk) || fail "$named: nvidia-ctk not found, want it for the CDI specification: install nvidia-container-toolkit"
    if systemctl is-enabled --quiet nvidia-cdi-refresh.service 2>/dev/null; then
        remove_ours
        forget
        unit=nvidia-cdi-refresh fresh=no changed=no
    else
        install_ours
    fi
    if [ "$changed" = yes ] || ! whole; then
        systemctl start "$unit.service" 2>/dev/null ||
            refuse "no CDI specification, nvidia-ctk says '$(said)': run 'nvidia-ctk cdi generate' on the host, mend what it names (driver, its libraries and the toolkit must fit), then run up again"
    fi
    check
    if [ "$unit" != nvidia-cdi-refresh ]; then record "$service" "$path" "$unit.path"; fi
    names
}

case $action in
apply) apply ;;
remove)
    forget
    remove_ours
    ;;
esac
