# Has the cluster's data backed up on a server, by a systemd timer: one file a backup, with all that a restore needs.
# Values: HOST NODE SCHEDULE (systemd's OnCalendar) KEEP (how many stay on the host) INSTALLED (what K3s' install printed).
# Prints the newest backup's file name.
folder=$home/backup
unit=edge-inference-backup
service=/etc/systemd/system/$unit.service
timer=/etc/systemd/system/$unit.timer

# etcd makes its own snapshot. sqlite has no such call in K3s, and hosts have no client of it: K3s is paused while its
# files are copied, which then are as after a crash of K3s, and SQLite recovers from that (sqlite.org/wal.html).
# What else is in it: the token decrypts the cluster's certificates in the datastore (docs.k3s.io/datastore/backup-restore),
# and a node of the same name is refused without its password (docs.k3s.io/architecture).
run_text() {
    cat <<RUN
set -eu
umask 077
folder=$folder node=$NODE keep=$KEEP
RUN
    cat <<'RUN'
k3s=/usr/local/bin/k3s
server=/var/lib/rancher/k3s/server
fail() { echo "error: $*" >&2; exit 1; }
k3s_pid() { systemctl show -p MainPID --value k3s; }

paused=
finish() {
    if [ -n "$paused" ]; then kill -CONT "$paused"; fi
    rm -rf "$work"
}
running_threads() { grep -L '^State:[[:space:]]*T' "/proc/$paused"/task/*/status; }

copy_sqlite() {
    mkdir "$work/sqlite"
    paused=$(k3s_pid)
    kill -STOP "$paused"
    tries=0
    while [ -n "$(running_threads)" ]; do
        tries=$((tries + 1))
        [ "$tries" -le 50 ] || fail "K3s could not be paused"
        sleep 0.1
    done
    for file in state.db state.db-wal; do
        if [ -e "$server/db/$file" ]; then timeout 10 cp "$server/db/$file" "$work/sqlite/$file"; fi
    done
    kill -CONT "$paused"
    paused=
}

copy_etcd() {
    mkdir "$work/etcd"
    "$k3s" etcd-snapshot save --name backup >"$work/said" 2>&1 || {
        grep -v 'Unknown flag' "$work/said" >&2
        fail "etcd made no snapshot, see above"
    }
    rm "$work/said"
    found=$(find "$server/db/snapshots" -name 'backup-*' -newer "$work/etcd")
    [ -f "$found" ] || fail "etcd's new snapshot is not in $server/db/snapshots: found '$found'"
    cp "$found" "$work/etcd/"
    "$k3s" etcd-snapshot delete "${found##*/}" >/dev/null 2>&1 || rm -f "$found"
}

systemctl is-active --quiet k3s || fail "K3s does not run: nothing can be backed up"
work=$(mktemp -d "$folder/.work-XXXXXX")
trap finish EXIT
trap 'exit 1' HUP INT TERM
if [ -d "$server/db/etcd/member/wal" ]; then kind=etcd; else kind=sqlite; fi
"copy_$kind"
cp "$server/token" /etc/rancher/node/password "$work/"
name=backup-$node-$(date -u +%Y%m%dT%H%M%SZ)-$kind.tar.gz
tar -C "$work" -czf "$work.part" .
sum=$(sha256sum "$work.part" | cut -d' ' -f1)
printf '%s  %s\n' "$sum" "$name" >"$folder/$name.sha256"
sync "$work.part"
mv "$work.part" "$folder/$name"
find "$folder" -name 'backup-*.tar.gz' | sort -r | tail -n "+$((keep + 1))" | while read -r old; do rm -f "$old" "$old.sha256"; done
echo "$name: $(($(stat -c %s "$folder/$name") / 1024)) KiB"
RUN
}

# A pause that outlives its script, which nothing but a kill can cause, ends with the unit.
service_text() {
    cat <<UNIT
[Unit]
Description=Backup of K3s' datastore
After=k3s.service
[Service]
Type=oneshot
ExecStart=/bin/sh $folder/run
ExecStopPost=-/bin/sh -c 'kill -CONT \$(systemctl show -p MainPID --value k3s); rm -rf $folder/.work-*'
TimeoutStartSec=600
UMask=0077
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=$folder /var/lib/rancher/k3s
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
UNIT
}

# A backup that was due while the host was off is made when it is on again.
timer_text() {
    cat <<UNIT
[Unit]
Description=Backups of K3s' datastore by schedule
[Timer]
OnCalendar=$SCHEDULE
Persistent=yes
[Install]
WantedBy=timers.target
UNIT
}

newest() { find "$folder" -name 'backup-*.tar.gz' | sort | tail -n 1; }

apply_backup() {
    systemd-analyze calendar "$SCHEDULE" >/dev/null 2>&1 ||
        fail "backup.schedule: found '$SCHEDULE', systemd knows no such time: write one as systemd.time(7) has it, such as daily"
    mkdir -p "$folder"
    chmod 700 "$folder"
    changed=no
    run_text | put "$folder/run" 700 || true
    if service_text | put "$service" 644; then changed=yes; fi
    if timer_text | put "$timer" 644; then changed=yes; fi
    if [ "$changed" = yes ] || [ -n "$(differences)" ]; then
        say "installing units $unit.service and $unit.timer"
        systemctl daemon-reload
        systemctl enable --quiet "$unit.timer"
        systemctl restart "$unit.timer"
    fi
    # The first one shows that it can be done.
    if [ -z "$(newest)" ]; then
        systemctl start "$unit.service" || {
            journalctl -q -o cat -u "$unit.service" -n 10 >&2
            fail "the first backup failed: mend what the lines above name, then pulumi up again"
        }
    fi
    record "$folder/run" "$service" "$timer" "$unit.timer"
    basename "$(newest)"
}

remove_backup() {
    forget
    systemctl disable --now "$unit.timer" >/dev/null 2>&1 || true
    systemctl stop "$unit.service" 2>/dev/null || true
    rm -rf "$timer" "$service" "$folder" "/var/lib/systemd/timers/stamp-$unit.timer"
    systemctl daemon-reload
    systemctl reset-failed "$unit.service" "$unit.timer" 2>/dev/null || true
    say "backups on the host removed"
}

case $action in
apply) apply_backup ;;
remove) remove_backup ;;
esac
