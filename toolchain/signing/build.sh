#!/bin/sh
# Builds cosign (signs and verifies images) and crane (reads, writes and serves registries).
set -eu
mkdir -p "$OUT/bin"
go build -ldflags "-s -w -X sigs.k8s.io/release-utils/version.gitVersion=v$PART_VERSION" -o "$OUT/bin/" \
	github.com/sigstore/cosign/v2/cmd/cosign github.com/google/go-containerregistry/cmd/crane
