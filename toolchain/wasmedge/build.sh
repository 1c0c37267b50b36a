#!/bin/bash
# Builds the containerd shim on Debian's WasmEdge library and bundles both with every library they need: the bundle
# brings its own loader and libc, because WasmEdge here needs glibc 2.38 and an edge host may have an older one.
set -euo pipefail
lib=/usr/lib/x86_64-linux-gnu
version=$(sed -n 's/^#define WASMEDGE_VERSION "\(.*\)"/\1/p' /usr/include/wasmedge/version.h)
if [ "$version" != "$PART_VERSION" ]; then
	echo "error: the build root has WasmEdge $version, the manifest wants $PART_VERSION" >&2
	exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# containerd-shim-wasm 1.0.1 needs rustc 1.88. Debian has a newer one as rustc-web, which cannot be installed beside the
# rustc that the root needs for wasm32: it is unpacked for this build.
needs() { apt-cache depends "$1" | sed -n 's/^ *Depends: //p'; }
mkdir "$work/rust"
(
	cd "$work/rust"
	apt-get -qq update
	std=$(needs libstd-rust-web-dev)
	apt-get -qq -o APT::Sandbox::User=root download rustc-web cargo-web libstd-rust-web-dev "$std" \
		"$(needs "$std" | grep llvm)"
	for package in *.deb; do dpkg-deb -x "$package" .; done
	patchelf --force-rpath --set-rpath "$PWD$lib" usr/bin/rustc
)
export PATH=$work/rust/usr/bin:$PATH
export WASMEDGE_INCLUDE_DIR=/usr/include WASMEDGE_LIB_DIR=$lib WASMEDGE_VERSION=$version
cargo build --release --locked

prefix=$work/opt/wasmedge
mkdir -p "$prefix/bin" "$prefix/lib"
cp "$CARGO_TARGET_DIR/release/containerd-shim-wasmedge-v1" /usr/bin/wasmedge "$prefix/bin/"
ldd "$prefix"/bin/* | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | sort -u | xargs -I{} cp -L {} "$prefix/lib/"
cp -L /lib64/ld-linux-x86-64.so.2 "$prefix/lib/"
for program in "$prefix"/bin/*; do
	patchelf --set-interpreter /opt/wasmedge/lib/ld-linux-x86-64.so.2 --force-rpath --set-rpath /opt/wasmedge/lib "$program"
done
# A library finds its own needs by the same path, whatever the host has.
for library in "$prefix"/lib/*.so*; do
	case $library in
	*/ld-linux-x86-64.so.2 | */libc.so.6) ;;
	*) patchelf --force-rpath --set-rpath /opt/wasmedge/lib "$library" ;;
	esac
done
printf 'WasmEdge %s, containerd-shim-wasmedge %s\n' "$version" \
	"$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)" >"$prefix/VERSION"
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$work" -cf - opt |
	zstd -q -T0 -10 -o "$OUT/wasmedge-runtime.tar.zst"
