//! Serves one ONNX model over HTTP on WasmEdge's sockets.
//!
//! Environment: MODEL_PATH (default /model.onnx), MODEL_NAME (default: the file's stem), PORT (default 8080).

mod serve;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use inference::api::Service;
use inference::graph::Graph;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let setting = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_string());
    let (path, port) = (setting("MODEL_PATH", "/model.onnx"), setting("PORT", "8080"));
    let port = port.parse().map_err(|_| format!("PORT={port} is no port: set a number from 1 to 65535"))?;
    let start = Instant::now();
    let file = std::fs::read(&path).map_err(|why| {
        format!("MODEL_PATH={path} cannot be read: {why}; set it to an ONNX file in the image")
    })?;
    let graph = Graph::load(&file).map_err(|why| format!("model {path}: {why}"))?;
    let stem = Path::new(&path).file_stem().unwrap_or_default().to_string_lossy();
    let name = setting("MODEL_NAME", &stem);
    let load = start.elapsed();
    println!("model {name} loaded from {path} in {:.1} ms", load.as_secs_f64() * 1e3);
    serve::serve(port, Service::new(name, graph, load)).map_err(|why| format!("port {port}: {why}"))
}
