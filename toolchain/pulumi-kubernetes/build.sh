#!/bin/sh
# Builds the Kubernetes resource provider; the two files its main embeds come from the pinned module,
# with the version stamped into the schema as upstream's release build does.
set -eu
go mod download github.com/pulumi/pulumi-kubernetes/provider/v4 # a cold cache has no folder to name
module=$(go list -m -f '{{.Dir}}' github.com/pulumi/pulumi-kubernetes/provider/v4)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp go.mod go.sum main.go "$work/"
sed "1s/{/{\"version\": \"$PART_VERSION\",/" "$module/cmd/pulumi-resource-kubernetes/schema.json" >"$work/schema.json"
cp "$module/cmd/pulumi-resource-kubernetes/terraform-mapping.json" "$work/"
cd "$work"
go build -ldflags "-s -w -X main.version=$PART_VERSION" -o "$OUT/bin/pulumi-resource-kubernetes" .
