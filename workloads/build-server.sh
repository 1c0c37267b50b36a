#!/bin/sh
# Builds the inference server in the build root, in the folder server. OUT gets server.wasm, compiled ahead of time,
# and portable.wasm, the same without native code.
set -eu
cargo build --release --locked --target wasm32-wasip1
wasm-opt -O3 --enable-simd --enable-bulk-memory --enable-nontrapping-float-to-int --enable-sign-ext \
	--enable-mutable-globals --enable-multivalue --enable-reference-types \
	"$CARGO_TARGET_DIR/wasm32-wasip1/release/server.wasm" -o "$OUT/portable.wasm"
../aot.sh "$OUT/portable.wasm" "$OUT/server.wasm"
# Without a model the server says so; by then WasmEdge has said whether it interprets.
said=$(wasmedge "$OUT/server.wasm" 2>&1 || true)
case $said in
*"interpreter mode"*)
	echo "error: WasmEdge does not take the native code: $said" >&2
	exit 1
	;;
*"MODEL_PATH=/model.onnx cannot be read"*) ;;
*)
	echo "error: the compiled server does not run: $said" >&2
	exit 1
	;;
esac
