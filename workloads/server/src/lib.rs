//! An inference server for small ONNX models: everything but the sockets, so that it is tested natively.
//!
//! `onnx` reads a model file, `graph` checks and runs it with the operators of `ops` on `tensor`s; `http` turns
//! bytes into requests and answers into bytes, `api` routes them (Open Inference Protocol v2), `metrics` counts.

pub mod api;
pub mod graph;
pub mod http;
pub mod metrics;
pub mod onnx;
pub mod ops;
pub mod protobuf;
pub mod request;
pub mod tensor;
