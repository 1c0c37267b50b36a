#!/bin/sh
# Installs what this machine itself needs on a bare Debian 12: nothing is compiled outside the build root.
set -eu
packages="python3 python3-venv git ca-certificates debootstrap systemd-container iproute2 iptables nftables
	openssh-client shellcheck zstd jq"
missing=""
for package in $packages; do
	dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "error: these Debian packages are missing; install them as root: apt-get install -y$missing" >&2
	exit 1
fi
echo "installing Debian packages:$missing"
apt-get update -qq
# shellcheck disable=SC2086 # a list of names
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
