#!/bin/sh
# Compiles a module ahead of time: OUTPUT is a universal wasm, portable code with native code in a section beside it.
# WasmEdge 0.14.1 takes every symbol that starts with f for a function's number. Native code with an undefined one
# (fmaxf and fminf, from f32::max and min) is then left aside in silence and the module is interpreted: it is refused.
# usage: aot.sh INPUT OUTPUT
set -eu
library=$(mktemp --suffix=.so)
trap 'rm -f "$library"' EXIT
# A generic binary runs on every CPU of this architecture, not only on one like the builder's.
wasmedge compile --generic-binary --optimize=3 "$1" "$library"
symbols=$(nm -D --undefined-only "$library")
if printf '%s\n' "$symbols" | grep ' U f'; then
	echo "error: WasmEdge would interpret this module, for its native code needs the symbols above:" \
		"write comparisons instead of f32::max and f32::min" >&2
	exit 1
fi
wasmedge compile --generic-binary --optimize=3 "$1" "$2"
