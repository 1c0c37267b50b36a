# Which K3s may follow which, by Kubernetes' version skew policy (kubernetes.io/releases/version-skew-policy) and K3s'
# manual (docs.k3s.io/upgrades): servers go up one minor version at a time; a kubelet is never newer than a server and at
# most three minor versions older; nothing goes back, since a newer server may have changed what the datastore holds.

# version_of PROGRAM: v1.30.0+k3s1; nothing when it does not run here. The line begins with the file's name.
version_of() { "$1" --version 2>/dev/null | awk '$2 == "version" { print $3; exit }'; }

# The version that runs here, or that ran before an upgrade that is not over (see upgrade.sh).
k3s_found() { if [ -s "$home/upgrade" ]; then cat "$home/upgrade"; else version_of /usr/local/bin/k3s; fi; }

minor_of() { echo "$1" | cut -d. -f2; }

# older A B: A is older than B. A release candidate is older than its release.
older() {
    [ "$1" != "$2" ] &&
        [ "$(printf '%s\n' "$1" "$2" | sed 's/-rc/~rc/' | sort -V | head -n 1 | sed 's/~rc/-rc/')" = "$1" ]
}

# refusal FOUND WANTED ROLE: why WANTED can't follow FOUND, with the remedy; nothing when it can.
refusal() {
    steps=$(($(minor_of "$2") - $(minor_of "$1")))
    manifest="another version of artifact k3s in the manifest that artifacts.manifest names"
    if older "$2" "$1"; then
        echo "K3s does not go back to an older version: name $1 or newer ($manifest), or restore the datastore's" \
            "snapshot from before the upgrade (docs/upgrade.md)"
    elif [ "$3" = server ] && [ "$steps" -gt 1 ]; then
        echo "a server goes up one minor version at a time: name a v1.$(($(minor_of "$1") + 1)) first ($manifest)"
    elif [ "$steps" -gt 3 ]; then
        echo "an agent may be three minor versions older than its servers at most: name a" \
            "v1.$(($(minor_of "$1") + 3)) or older first ($manifest)"
    fi
}
