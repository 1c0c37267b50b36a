//! Counters in Prometheus's text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Upper bounds in seconds.
const BUCKETS: [f64; 11] = [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 1.0];

#[derive(Default)]
pub struct Metrics {
    requests: BTreeMap<u16, u64>,
    buckets: [u64; BUCKETS.len()],
    seconds: f64,
    inferences: u64,
    pub connections: usize,
    load: Duration,
}

impl Metrics {
    /// `load` is how long the model took to load.
    pub fn new(load: Duration) -> Self {
        Metrics { load, ..Metrics::default() }
    }

    pub fn request(&mut self, status: u16) {
        *self.requests.entry(status).or_default() += 1;
    }

    pub fn inference(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.inferences += 1;
        self.seconds += seconds;
        for (count, bound) in self.buckets.iter_mut().zip(BUCKETS) {
            *count += u64::from(seconds <= bound);
        }
    }

    /// The text of /metrics.
    pub fn render(&self, model: &str) -> String {
        let mut out = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &str| {
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}");
        };
        let requests = self
            .requests
            .iter()
            .map(|(code, count)| format!("http_requests_total{{code=\"{code}\"}} {count}\n"));
        family(
            "http_requests_total",
            "counter",
            "Requests answered, by status code.",
            &requests.collect::<String>(),
        );
        let name = "inference_duration_seconds";
        let mut samples = String::new();
        for (bound, count) in BUCKETS.iter().zip(self.buckets) {
            let _ = writeln!(samples, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(samples, "{name}_bucket{{le=\"+Inf\"}} {}", self.inferences);
        let _ = writeln!(samples, "{name}_sum {}\n{name}_count {}", self.seconds, self.inferences);
        family(name, "histogram", "Time in the model, without HTTP.", &samples);
        let label = model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let load =
            format!("model_load_milliseconds{{model=\"{label}\"}} {}\n", self.load.as_secs_f64() * 1e3);
        family("model_load_milliseconds", "gauge", "Time to read, check and try the model at start.", &load);
        let open = format!("http_connections {}\n", self.connections);
        family("http_connections", "gauge", "Open connections.", &open);
        if let Some(bytes) = memory_bytes() {
            let line = format!("wasm_memory_bytes {bytes}\n");
            family("wasm_memory_bytes", "gauge", "Linear memory of the module.", &line);
        }
        out
    }
}

/// Size of the module's linear memory; None where there is none.
fn memory_bytes() -> Option<usize> {
    #[cfg(target_arch = "wasm32")]
    return Some(core::arch::wasm32::memory_size(0) * 65536);
    #[cfg(not(target_arch = "wasm32"))]
    None
}
