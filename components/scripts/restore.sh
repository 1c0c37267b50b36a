# A server whose disk is new gets its cluster back. Part of k3s.sh, which sets changed.
# `python -m backup restore` laid the file there, and only where K3s had no data: what is there now is a restore cut short.
restore=$home/restore

restore_backup() {
    if [ "$ROLE" != server ] || [ ! -e "$restore/backup.tar.gz" ]; then return 1; fi
    server=/var/lib/rancher/k3s/server work=$restore/work
    say "restoring the cluster's data from a backup"
    rm -rf "$work" "$server/db" "$server/tls" "$server/cred" "$server/token"
    (umask 077 && mkdir -p "$work" "$server/db" /etc/rancher/node && tar -C "$work" --no-same-owner -xzf "$restore/backup.tar.gz") ||
        fail "the backup cannot be unpacked: pull it again, or take another"
    case $(cat "$work/token") in
    *"::server:$TOKEN") ;;
    *) fail "the backup has another token than this stack's cluster: restore one of this stack's, or rm -r $restore" ;;
    esac
    put /etc/rancher/node/password 600 <"$work/password" || true
    if [ -d "$work/sqlite" ]; then cp "$work"/sqlite/* "$server/db/"; else restore_etcd; fi
    rm -rf "$restore"
}

# It decrypts what the snapshot holds with the token that it finds where K3s keeps its own.
restore_etcd() {
    put "$server/token" 600 <"$work/token" || true
    timeout "$WAIT_SECONDS" /usr/local/bin/k3s server --cluster-reset \
        --cluster-reset-restore-path="$(find "$work/etcd" -type f)" >"$work/said" 2>&1 || {
        tail -n 25 "$work/said" | cut -c1-300 >&2
        fail "etcd could not be restored: K3s' last lines are above"
    }
}
