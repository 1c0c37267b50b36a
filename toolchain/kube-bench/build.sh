#!/bin/sh
# Builds kube-bench, which holds hosts against the CIS benchmark, and lays its lists of checks beside it.
set -eu
mkdir -p "$OUT/bin"
go build -ldflags "-s -w -X github.com/aquasecurity/kube-bench/cmd.KubeBenchVersion=$PART_VERSION" -o "$OUT/bin/" \
	github.com/aquasecurity/kube-bench
cp -r "$(go list -m -f '{{.Dir}}' github.com/aquasecurity/kube-bench)/cfg" "$OUT/cfg"
chmod -R u+w "$OUT/cfg"
