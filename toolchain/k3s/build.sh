#!/bin/bash
# Builds K3s as its release does (upstream's scripts/build and scripts/package-cli are the source of the steps): the
# server binary with runc, the shim and the CNI plugins go into an archive that the one self-extracting file carries.
set -euo pipefail
export GOTOOLCHAIN=go1.22.2 # upstream's compiler for this release
version=$PART_VERSION
source=$PWD
commit=14549535f13c63fc239ba055d36d590e68b01503
go mod download github.com/k3s-io/k3s # a cold cache has no folder to name
k3s=$(go list -m -f '{{.Dir}}' github.com/k3s-io/k3s)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/data/bin" "$work/data/etc"

golang=$(go env GOVERSION)
flags="-s -w -X github.com/k3s-io/k3s/pkg/version.Version=$version -X github.com/k3s-io/k3s/pkg/version.GitCommit=${commit:0:8}
	-X github.com/k3s-io/k3s/pkg/version.UpstreamGolang=$golang"
for package in k8s.io/client-go/pkg k8s.io/component-base; do
	flags="$flags -X $package/version.gitVersion=$version -X $package/version.gitCommit=$commit
		-X $package/version.gitTreeState=clean -X $package/version.buildDate=2024-05-06T18:18:25Z"
done
for module in github.com/containerd/containerd=version.Version github.com/kubernetes-sigs/cri-tools=pkg/version.Version; do
	flags="$flags -X ${module/=//}=$(go list -m -f '{{with .Replace}}{{.Version}}{{else}}{{.Version}}{{end}}' "${module%=*}")"
done
static="-extldflags '-static'"
# netgo instead of upstream's netcgo: upstream links musl statically, glibc's resolver cannot be.
tags="ctrd apparmor seccomp netgo osusergo providerless urfave_cli_no_docs static_build sqlite_omit_load_extension"

CGO_ENABLED=1 go build -tags "$tags" -ldflags "$flags $static" -o "$work/data/bin/k3s" github.com/k3s-io/k3s/cmd/server
CGO_ENABLED=1 go build -tags "apparmor seccomp netgo osusergo static_build" -ldflags "-s -w $static" \
	-o "$work/data/bin/runc" github.com/opencontainers/runc
go build -ldflags "-s -w" -o "$work/data/bin/" github.com/containerd/containerd/cmd/containerd-shim-runc-v2
(cd cni && GOTOOLCHAIN=auto go build -ldflags "-s -w" -o "$work/data/bin/" ./flannel \
	github.com/containernetworking/plugins/plugins/main/bridge github.com/containernetworking/plugins/plugins/main/loopback \
	github.com/containernetworking/plugins/plugins/ipam/host-local github.com/containernetworking/plugins/plugins/meta/portmap \
	github.com/containernetworking/plugins/plugins/meta/bandwidth github.com/containernetworking/plugins/plugins/meta/firewall)

# The operator's own kubectl, of the cluster's version.
go build -ldflags "$flags" -o "$OUT/bin/" k8s.io/kubernetes/cmd/kubectl

cd "$work/data/bin"
for name in containerd crictl ctr kubectl k3s-agent k3s-server k3s-token k3s-etcd-snapshot k3s-secrets-encrypt \
	k3s-certificate k3s-completion; do
	ln -s k3s "$name"
done
find . -type f ! -name '.*' -exec sha256sum {} + | sed 's| \./| |' | sort -k2 >.sha256sums
find . -type l -printf '%P %l\n' | sort >.links
cd "$work"
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf data.tar -C data ./bin ./etc
zstd -q -T0 -12 --long=25 --rm data.tar -o data.tar.zst
hash=$(sha256sum data.tar.zst | cut -d' ' -f1)

# Upstream fills pkg/data by go-bindata before it builds the wrapper; an overlay does it without a copy of the module.
cat >"$work/data.go" <<EOF
package data

import "os"

// AssetNames returns the archive's name.
func AssetNames() []string { return []string{"$hash.tar.zst"} }

// Asset reads the archive from the end of this very file.
func Asset(string) ([]byte, error) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	return self[len(self)-$(stat -c %s data.tar.zst):], nil
}
EOF
printf '{"Replace":{"%s":"%s"}}' "$k3s/pkg/data/data.go" "$work/data.go" >overlay.json
cd "$source"
# The index of module packages knows nothing of overlays.
GODEBUG=goindex=0 go build -overlay "$work/overlay.json" -tags urfave_cli_no_docs -ldflags "$flags" -o "$work/wrapper" \
	github.com/k3s-io/k3s/cmd/k3s
cat "$work/wrapper" "$work/data.tar.zst" >"$OUT/k3s"
chmod 755 "$OUT/k3s"
cp "$k3s/install.sh" "$OUT/k3s-install.sh"
chmod 755 "$OUT/k3s-install.sh"
