#!/bin/bash
# Builds the made-up device plugin, and the program that prints what a container sees, for Linux and for WASI.
set -euo pipefail
go build -ldflags "-s -w" -o "$OUT/" ./plugin
rustc --edition=2021 -O -Cstrip=symbols -Ctarget-feature=+crt-static -o "$OUT/see" see/see.rs
rustc --edition=2021 -O -Cstrip=symbols --target=wasm32-wasip1 -Clinker=wasm-ld -o "$OUT/see.wasm" see/see.rs
