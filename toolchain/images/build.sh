#!/bin/bash
# Builds the images that K3s itself asks for and packs them under the names its manifests have, as its release's archive
# does: no registry is needed. Each is one static program (docs/decisions says where a version or a program differs).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

go build -ldflags "-s -w" -o "$work/" ./pause ./klipper-lb
(cd coredns && go build -ldflags "-s -w -X github.com/coredns/coredns/coremain.GitCommit=$(go list -m -f '{{.Version}}' \
	github.com/coredns/coredns)" -o "$work/" .)
(cd metrics-server && go build -ldflags "-s -w -X k8s.io/client-go/pkg/version.gitVersion=$(go list -m -f '{{.Version}}' \
	sigs.k8s.io/metrics-server)" -o "$work/" sigs.k8s.io/metrics-server/cmd/metrics-server)
go run ./archive "$work/images.tar" \
	"docker.io/rancher/mirrored-pause:3.6=$work/pause" \
	"docker.io/rancher/klipper-lb:v0.4.7=$work/klipper-lb" \
	"docker.io/rancher/mirrored-coredns-coredns:1.10.1=$work/coredns" \
	"docker.io/rancher/mirrored-metrics-server:v0.7.0=$work/metrics-server"
zstd -q -T0 -12 "$work/images.tar" -o "$OUT/k3s-images.tar.zst"
