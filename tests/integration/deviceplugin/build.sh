#!/bin/bash
# Builds the made-up device plugin, and the program that prints what a container sees, for Linux and for WASI.
set -euo pipefail
go build -ldflags "-s -w" -o "$OUT/" ./plugin ./see
GOOS=wasip1 GOARCH=wasm go build -ldflags "-s -w" -o "$OUT/see.wasm" ./see
