#!/bin/sh
# Runs a command in the Debian build root, in a mount namespace of its own: nothing stays mounted.
# usage: in-build-root.sh ROOT CACHE REPO FOLDER COMMAND...
# FOLDER is relative to REPO, which is /src inside; CACHE is /cache. OUT and PART_VERSION are passed on.
set -eu
if [ "${EDGE_IN_NAMESPACE:-}" != 1 ]; then
	EDGE_IN_NAMESPACE=1 exec unshare --mount --propagation private "$0" "$@"
fi
root=$1 cache=$2 repo=$3 folder=$4
shift 4
mkdir -p "$root/src" "$root/cache"
mount --bind "$repo" "$root/src"
mount --bind "$cache" "$root/cache"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
# The machine's own resolver and trusted certificates: a site behind a proxy needs them.
cp /etc/resolv.conf "$root/etc/resolv.conf"
if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
	cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
fi
# GOGC: the compiler collects its garbage less often, a fifth less CPU time for some more memory.
name=$(basename "$folder")
# shellcheck disable=SC2016 # $1 and $@ are the inner shell's
exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
	DEBIAN_FRONTEND=noninteractive OUT="${OUT:-}" PART_VERSION="${PART_VERSION:-}" \
	GOPROXY="$(printenv GOPROXY || true)" HTTPS_PROXY="${HTTPS_PROXY:-}" HTTP_PROXY="${HTTP_PROXY:-}" \
	GOMODCACHE=/cache/go-mod GOCACHE=/cache/go-build GOTOOLCHAIN=auto CGO_ENABLED=0 GOGC=400 \
	GOFLAGS="-buildvcs=false -trimpath" CARGO_HOME=/cache/cargo CARGO_TARGET_DIR="/cache/cargo-target/$name" \
	sh -c 'cd "/src/$1" && shift && exec "$@"' sh "$folder" "$@"
