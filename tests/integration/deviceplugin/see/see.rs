// Prints as one line of JSON what a container got of its GPU, then stays. The same source is a Linux program and a
// WebAssembly module (WASI), so that both kinds of pods are asked the same. In Rust, because a module of Go's compiler
// cannot open a file of a read-only mount in WasmEdge (docs/gpu.md).
use std::fs::{File, read_to_string};
use std::io::Write;
use std::{env, thread, time::Duration};

fn main() {
    let seen = [
        ("variable", env::var("MADE_UP_GPU").unwrap_or_default()),
        ("enabled", env::var("GPU_ENABLED").unwrap_or_default()),
        ("device", written("/dev/nvidia0")),
        ("library", text("/usr/lib/made-up/libmadeup.so.1")),
        ("link", text("/usr/lib/made-up/libmadeup.so")),
        ("folder", text("/usr/share/made-up/firmware")),
    ];
    // A string's debug form is that of JSON for all that is printed here.
    println!("{{{}}}", seen.map(|(name, value)| format!("{name:?}: {value:?}")).join(", "));
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn text(path: &str) -> String {
    read_to_string(path).map_or_else(|error| error.to_string(), |text| text.trim().to_string())
}

/// Whether a device takes a byte, which the kernel allows only where the cgroup does.
fn written(path: &str) -> String {
    let done = File::options().write(true).open(path).and_then(|mut file| file.write_all(b"x"));
    done.map_or_else(|error| error.to_string(), |()| "yes".to_string())
}
