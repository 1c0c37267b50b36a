#!/bin/sh
# Builds the inference server as a universal wasm (portable code with WasmEdge's AOT code in it), in the build root.
# WasmEdge falls back to the interpreter in silence when its AOT code has an undefined symbol that starts with f
# (fmaxf, floorf …): such a build fails here. OUT gets server.wasm, and portable.wasm without the AOT code.
set -eu
cargo build --release --locked --target wasm32-wasip1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wasm-opt -O3 --enable-simd --enable-bulk-memory --enable-nontrapping-float-to-int --enable-sign-ext \
	--enable-mutable-globals --enable-multivalue --enable-reference-types \
	"$CARGO_TARGET_DIR/wasm32-wasip1/release/server.wasm" -o "$work/server.wasm"
# A generic binary runs on every CPU of the architecture, not only on one like the builder's.
wasmedge compile --generic-binary --optimize=3 "$work/server.wasm" "$work/server.so"
if nm -D "$work/server.so" | grep ' U f'; then
	echo "error: the AOT code needs the symbols above, so WasmEdge would interpret it: avoid f32::max, min, floor" >&2
	exit 1
fi
wasmedge compile --generic-binary --optimize=3 "$work/server.wasm" "$work/aot.wasm"
# Without a model the server says so, and WasmEdge has said by then whether it interprets.
said=$(wasmedge "$work/aot.wasm" 2>&1 || true)
case $said in
*"interpreter mode"* | "")
	echo "error: WasmEdge does not take the AOT code: $said" >&2
	exit 1
	;;
*"MODEL_PATH=/model.onnx cannot be read"*) ;;
*)
	echo "error: the compiled server does not run: $said" >&2
	exit 1
	;;
esac
cp "$work/server.wasm" "$OUT/portable.wasm"
mv "$work/aot.wasm" "$OUT/server.wasm"
