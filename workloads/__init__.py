"""The inference server as wasm, the models it serves, and their images."""
