# Puts a new SSH host key, which lies ready beside the old one, in its place.
# Values: HOST PREVIOUS WANTED (public key lines).
public() { ssh-keygen -y -f "$1" 2>/dev/null | cut -d' ' -f1,2; }
same() { [ "$(public "$1")" = "$(echo "$2" | cut -d' ' -f1,2)" ]; }

apply_host_key() {
    for file in $(sshd -T | awk '$1 == "hostkey" { print $2 }'); do
        if same "$file" "$WANTED"; then
            say "has the new host key already"
            return
        fi
        if same "$file" "$PREVIOUS"; then old=$file; fi
    done
    [ -n "${old:-}" ] || fail "sshd has no host key of hosts[].previousHostKey: name the key that it shows now"
    new=$old.next
    if ! same "$new" "$WANTED"; then
        fail "$new is not the key of hosts[].hostKey: make it there by ssh-keygen -q -t ed25519 -N '' -f $new," \
            "and give $new.pub's line as hostKey; the host shows the old one still"
    fi
    chmod 600 "$new"
    cp -p "$old" "$old.previous"
    mv "$new" "$old"
    if ! sshd -t; then
        mv "$old.previous" "$old"
        fail "sshd does not take the new host key, see above; the old one is in place"
    fi
    mv "$new.pub" "$old.pub" 2>/dev/null || public "$old" >"$old.pub"
    rm -f "$old.previous"
    # Debian calls it ssh, others sshd; where a socket starts it for each connection there is nothing to reload.
    systemctl reload ssh 2>/dev/null || systemctl reload sshd 2>/dev/null || true
    say "shows the new host key from now on"
}

case $action in
apply) apply_host_key ;;
esac
