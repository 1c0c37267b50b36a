//! Routes: health, metadata, inference and metrics.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::graph::Graph;
use crate::http::{Request, Response};
use crate::metrics::Metrics;
use crate::onnx::Port;
use crate::request::{InferRequest, InferResponse, OutputTensor};

const VERSION: &str = "1";

/// One model and what was counted about it.
pub struct Service {
    pub metrics: Metrics,
    name: String,
    graph: Graph,
}

impl Service {
    /// `load` is how long the model took to load.
    pub fn new(name: String, graph: Graph, load: Duration) -> Self {
        Service { metrics: Metrics::new(load), name, graph }
    }

    /// Answers one request.
    pub fn answer(&mut self, request: &Request) -> Response {
        let response = self.route(request);
        self.metrics.request(response.status);
        response
    }

    fn route(&mut self, request: &Request) -> Response {
        let path = request.path.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(&request.path);
        let (name, rest) = match path.strip_prefix("/v2/models/") {
            Some(tail) => tail.split_once('/').map_or((Some(tail), ""), |(name, rest)| (Some(name), rest)),
            None => (None, path),
        };
        if let Some(name) = name.filter(|name| *name != self.name) {
            return Response::error(
                404,
                &format!("there is no model {name:?}; this server has {:?}", self.name),
            );
        }
        let allowed = match (name.is_some(), rest) {
            (true, "infer") | (false, "/infer") => "POST",
            (true, "" | "ready") => "GET",
            (false, "/healthz" | "/v2" | "/v2/health/live" | "/v2/health/ready" | "/metrics") => "GET",
            _ => return Response::error(404, &format!("there is nothing at {path}")),
        };
        if request.method != allowed {
            let message = format!("{path} takes {allowed}, not {}", request.method);
            return Response { allow: Some(allowed), ..Response::error(405, &message) };
        }
        match (name.is_some(), rest) {
            (_, "infer" | "/infer") => {
                self.infer(&request.body).unwrap_or_else(|why| Response::error(400, &why))
            }
            (true, "") => Response::json(&self.metadata()),
            (true, _) => Response::json(&json!({ "name": self.name, "ready": true })),
            (_, "/healthz") => Response::json(&json!({ "status": "ok" })),
            (_, "/v2/health/live") => Response::json(&json!({ "live": true })),
            (_, "/v2/health/ready") => Response::json(&json!({ "ready": true })),
            (_, "/v2") => Response::json(&json!({
                "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION"), "extensions": []
            })),
            _ => Response::text(self.metrics.render(&self.name)),
        }
    }

    fn metadata(&self) -> Value {
        let port = |port: &Port| json!({ "name": port.name, "datatype": port.datatype, "shape": port.shape });
        json!({
            "name": self.name,
            "versions": [VERSION],
            "platform": "onnx",
            "inputs": self.graph.inputs.iter().map(port).collect::<Vec<_>>(),
            "outputs": self.graph.outputs.iter().map(port).collect::<Vec<_>>(),
        })
    }

    fn infer(&mut self, body: &[u8]) -> Result<Response, String> {
        let mut request: InferRequest =
            serde_json::from_slice(body).map_err(|why| format!("the body is no inference request: {why}"))?;
        let wanted = request.outputs.take().unwrap_or_default();
        let ports = &self.graph.outputs;
        if let Some(other) = wanted.iter().find(|output| ports.iter().all(|port| port.name != output.name)) {
            return Err(format!("the model has no output {:?}", other.name));
        }
        let inputs = request.tensors(&self.graph.inputs)?;
        let start = Instant::now();
        let results = self.graph.run(inputs)?;
        self.metrics.inference(start.elapsed());
        let chosen = ports
            .iter()
            .zip(&results)
            .filter(|(port, _)| wanted.is_empty() || wanted.iter().any(|output| output.name == port.name));
        Ok(Response::json(&InferResponse {
            model_name: &self.name,
            model_version: VERSION,
            id: request.id,
            outputs: chosen.map(|(port, tensor)| OutputTensor::new(&port.name, tensor)).collect(),
        }))
    }
}
