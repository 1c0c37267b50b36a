//! A model that is checked and ready to run.

use std::collections::HashMap;

use crate::onnx::{Model, Node, Port};
use crate::ops::{Op, turned};
use crate::tensor::{Tensor, count};

/// A node whose inputs and output are numbered values.
#[derive(Debug)]
struct Step {
    op: Op,
    inputs: Vec<Option<usize>>,
    output: usize,
    what: String,
}

#[derive(Debug)]
pub struct Graph {
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    constants: Vec<Option<Tensor>>,
    steps: Vec<Step>,
    input_values: Vec<usize>,
    output_values: Vec<usize>,
}

impl Graph {
    /// Reads a model file, finds every operator and runs it once on zeros, so that what it lacks shows at start.
    pub fn load(file: &[u8]) -> Result<Graph, String> {
        let model = Model::parse(file).map_err(|why| format!("not a usable ONNX file: {why}"))?;
        let graph = Graph::plan(model)?;
        let zeros = graph.inputs.iter().map(|port| {
            let shape: Vec<usize> =
                port.shape.iter().map(|&size| usize::try_from(size).unwrap_or(1)).collect();
            let total = count(&shape).ok_or_else(|| format!("input {:?} is too large", port.name))?;
            Ok(Tensor::f32(shape, vec![0.0; total]))
        });
        graph.run(zeros.collect::<Result<_, String>>()?)?;
        Ok(graph)
    }

    fn plan(model: Model) -> Result<Graph, String> {
        if let Some(other) = model.inputs.iter().find(|port| port.datatype != "FP32") {
            return Err(format!("input {:?} is {}; this server takes FP32", other.name, other.datatype));
        }
        if model.inputs.is_empty() || model.outputs.is_empty() {
            return Err("the model has no input or no output".into());
        }
        let mut names: HashMap<String, usize> = HashMap::new();
        let mut constants: Vec<Option<Tensor>> = Vec::new();
        let mut define = |name: &str, value: Option<Tensor>, names: &mut HashMap<String, usize>| {
            names.insert(name.to_string(), constants.len());
            constants.push(value);
            constants.len() - 1
        };
        for (name, value) in model.constants {
            define(&name, Some(value), &mut names);
        }
        let input_values = model.inputs.iter().map(|port| define(&port.name, None, &mut names)).collect();
        let mut steps = Vec::new();
        for node in &model.nodes {
            let what = describe(node);
            let [output] = &node.outputs[..] else { return Err(format!("{what}: one output is supported")) };
            if node.operator == "Constant" {
                let value = node.attribute("value").and_then(|found| found.tensor.clone());
                let value = value.ok_or_else(|| format!("{what}: only attribute `value` is supported"))?;
                define(output, Some(value), &mut names);
                continue;
            }
            let op = Op::new(node, model.opset).map_err(|why| format!("operator {what} {why}"))?;
            let find = |name: &String| match names.get(name) {
                _ if name.is_empty() => Ok(None),
                Some(&value) => Ok(Some(value)),
                None => Err(format!("{what}: nothing before it makes {name:?}")),
            };
            let inputs = node.inputs.iter().map(find).collect::<Result<_, _>>()?;
            let output = define(output, None, &mut names);
            steps.push(Step { op, inputs, output, what });
        }
        let output_values = model.outputs.iter().map(|port| {
            names.get(&port.name).copied().ok_or_else(|| format!("nothing makes the output {:?}", port.name))
        });
        let output_values = output_values.collect::<Result<_, _>>()?;
        let (inputs, outputs) = (model.inputs, model.outputs);
        let mut graph = Graph { inputs, outputs, constants, steps, input_values, output_values };
        graph.turn_weights()?;
        Ok(graph)
    }

    /// Turns the constant weights of Gemm once, not at every call.
    fn turn_weights(&mut self) -> Result<(), String> {
        for step in &mut self.steps {
            let Op::Gemm { trans_b, .. } = &mut step.op else { continue };
            let weights = step.inputs.get(1).copied().flatten().and_then(|at| self.constants[at].as_ref());
            if let Some(weights) = weights {
                let better = turned(weights, *trans_b).map_err(|why| format!("{}: {why}", step.what))?;
                if let Some(better) = better {
                    *trans_b = false;
                    step.inputs[1] = Some(self.constants.len());
                    self.constants.push(Some(better));
                }
            }
        }
        Ok(())
    }

    /// Runs the model.
    ///
    /// Takes one tensor for each of `inputs`, in that order; gives one for each of `outputs`.
    pub fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, String> {
        let mut values: Vec<Option<Tensor>> = vec![None; self.constants.len()];
        for (&at, tensor) in self.input_values.iter().zip(inputs) {
            values[at] = Some(tensor);
        }
        for step in &self.steps {
            let find = |at: &Option<usize>| at.and_then(|at| self.value(&values, at));
            let inputs: Vec<Option<&Tensor>> = step.inputs.iter().map(find).collect();
            let output = step.op.run(&inputs).map_err(|why| format!("{}: {why}", step.what))?;
            values[step.output] = Some(output);
        }
        let outputs = self.output_values.iter().map(|&at| self.value(&values, at).cloned());
        outputs.collect::<Option<_>>().ok_or_else(|| "an output was not computed".into())
    }

    fn value<'a>(&'a self, values: &'a [Option<Tensor>], at: usize) -> Option<&'a Tensor> {
        values[at].as_ref().or(self.constants[at].as_ref())
    }
}

fn describe(node: &Node) -> String {
    match node.name.as_str() {
        "" => node.operator.clone(),
        name => format!("{} (node {name:?})", node.operator),
    }
}
