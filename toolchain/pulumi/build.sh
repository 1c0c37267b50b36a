#!/bin/sh
# Builds the pulumi CLI, the Python language host and the command provider into $OUT/bin.
# Runs in the build root with this folder as cwd; reads OUT and PART_VERSION (the CLI's, as 3.258.0).
set -eu

: "${OUT:?folder for the results}"
version=${PART_VERSION:-3.258.0}
version=${version#v}
mkdir -p "$OUT/bin"

# The Automation API and plugins read the version that the linker sets; a plain build reports a development version.
ldflags="-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v$version"
go build -ldflags "$ldflags" -o "$OUT/bin/pulumi" github.com/pulumi/pulumi/pkg/v3/cmd/pulumi
go build -ldflags "$ldflags" -o "$OUT/bin/" ./cmd/pulumi-language-python ./cmd/pulumi-resource-command

# The language host runs programs through the SDK's own executor, which lies beside it; the engine starts dynamic
# providers by a script of the SDK's.
sdk=$(go list -m -f '{{.Dir}}' github.com/pulumi/pulumi/sdk/v3)
install -m 0755 "$sdk/python/cmd/pulumi-language-python-exec" "$sdk/python/dist/pulumi-resource-pulumi-python" "$OUT/bin/"
