//! containerd shim that runs WASI preview 1 modules by WasmEdge: `io.containerd.wasmedge.v1`.
//!
//! The libraries do the work: containerd-shim-wasm speaks containerd's task protocol, makes the container
//! (namespaces, cgroups, seccomp, user) and runs Linux programs such as the pod's pause container natively.
//! This file decides only how a module gets its arguments, environment and files, and has the container's OCI
//! configuration completed before the libraries read it.

use std::collections::HashMap;
use std::env;

use anyhow::{Context, Result};
use containerd_shim_wasm::sandbox::Sandbox;
use containerd_shim_wasm::sandbox::context::{RuntimeContext, Source};
use containerd_shim_wasm::shim::{Cli, Shim, Version};
use wasmedge_sdk::vm::SyncInst;
use wasmedge_sdk::wasi::WasiModule;
use wasmedge_sdk::{Module, Store, Vm};

/// What a module sees of the container's file system: all of it, which is the image's own root.
const PREOPENS: [&str; 1] = ["/:/"];

struct WasmEdge;

impl Shim for WasmEdge {
    type Sandbox = WasmEdgeSandbox;

    fn name() -> &'static str {
        "wasmedge"
    }

    fn version() -> Version {
        Version {
            version: env!("CARGO_PKG_VERSION"),
            revision: concat!("WasmEdge ", env!("WASMEDGE_VERSION")),
        }
    }
}

#[derive(Default)]
struct WasmEdgeSandbox;

impl Sandbox for WasmEdgeSandbox {
    async fn run_wasi(&self, ctx: &impl RuntimeContext) -> Result<i32> {
        // The library logs an error at level info only, and containerd drops that.
        run(ctx).inspect_err(|error| {
            log::error!("{error:#}");
            eprintln!("containerd-shim-wasmedge: {error:#}");
        })
    }
}

/// Runs the container's module to its end and returns its exit code.
fn run(ctx: &impl RuntimeContext) -> Result<i32> {
    let entrypoint = ctx.entrypoint();
    let module = match &entrypoint.source {
        Source::File(path) => Module::from_file(None, path)
            .with_context(|| format!("{} is not a WebAssembly module", path.display()))?,
        layers => Module::from_bytes(None, layers.as_bytes()?)
            .context("the image's wasm layer is not a WebAssembly module")?,
    };
    let args = ctx.args().iter().map(String::as_str).collect();
    let envs = ctx.envs().iter().map(String::as_str).collect();
    let mut wasi = WasiModule::create(Some(args), Some(envs), Some(PREOPENS.to_vec()))
        .context("WASI could not be set up")?;
    let mut imports: HashMap<String, &mut dyn SyncInst> = HashMap::new();
    imports.insert(wasi.name().to_string(), wasi.as_mut());
    let store = Store::new(None, imports).context("WasmEdge's store could not be made")?;
    let mut vm = Vm::new(store);
    vm.register_module(None, module)
        .context("the module asks for imports that WASI preview 1 does not have")?;
    log::info!("WasmEdge {} calls {}", env!("WASMEDGE_VERSION"), entrypoint.func);
    let result = vm.run_func(None, &entrypoint.func, []);
    drop(vm);
    match (result, wasi.exit_code()) {
        (Ok(_), code) => Ok(code as i32),
        // proc_exit ends the module by a trap, after it set the code.
        (Err(_), code) if code != 0 => Ok(code as i32),
        (Err(error), _) => Err(error).context("the module trapped"),
    }
}

/// Completes the configuration of the container that containerd asks for: it calls the shim with the word `start` in
/// the container's bundle, before it has the pod's shim make the container.
fn complete() -> Result<()> {
    if env::args_os().next_back().is_none_or(|word| word != "start") {
        return Ok(());
    }
    bundle::complete(&env::current_dir().context("the bundle is gone")?)
}

fn main() {
    if let Err(error) = complete() {
        // containerd puts this into the pod's event.
        eprintln!("{error:#}");
        std::process::exit(1);
    }
    WasmEdge::run(None);
}
