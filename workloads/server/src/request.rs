//! Bodies of the Open Inference Protocol v2.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::onnx::Port;
use crate::tensor::{Data, Tensor, count};

#[derive(Deserialize)]
pub struct InferRequest {
    pub id: Option<String>,
    pub inputs: Vec<InputTensor>,
    pub outputs: Option<Vec<WantedOutput>>,
}

#[derive(Deserialize)]
pub struct InputTensor {
    pub name: String,
    pub shape: Vec<i64>,
    pub datatype: String,
    pub data: Floats,
}

#[derive(Deserialize)]
pub struct WantedOutput {
    pub name: String,
}

/// Numbers in row-major order, flat or in nested lists, as the protocol allows both.
pub struct Floats(pub Vec<f32>);

impl<'de> Deserialize<'de> for Floats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut values = Vec::new();
        deserializer.deserialize_seq(Collect(&mut values))?;
        Ok(Floats(values))
    }
}

struct Collect<'a>(&'a mut Vec<f32>);

impl<'de> DeserializeSeed<'de> for Collect<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Collect<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number or a list of numbers")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        let single = value as f32;
        if single.is_infinite() {
            return Err(E::custom(format_args!("{value:e} does not fit FP32")));
        }
        self.0.push(single);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.0.push(value as f32);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.0.push(value as f32);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Collect(self.0))?.is_some() {}
        Ok(())
    }
}

impl InferRequest {
    /// The tensors in the order of the model's inputs; the error names the input and what was found.
    pub fn tensors(&mut self, ports: &[Port]) -> Result<Vec<Tensor>, String> {
        if let Some(other) = self.inputs.iter().find(|input| ports.iter().all(|port| port.name != input.name))
        {
            let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
            return Err(format!("the model has no input {:?}; it has {names:?}", other.name));
        }
        ports.iter().map(|port| self.tensor(port)).collect()
    }

    fn tensor(&mut self, port: &Port) -> Result<Tensor, String> {
        let name = &port.name;
        let mut found = self.inputs.iter_mut().filter(|input| input.name == *name);
        let (Some(input), None) = (found.next(), found.next()) else {
            return Err(format!("input {name:?} must be there once"));
        };
        if input.datatype != port.datatype {
            return Err(format!(
                "input {name:?} has datatype {:?}; the model wants {}",
                input.datatype, port.datatype
            ));
        }
        let fits = input.shape.len() == port.shape.len()
            && input
                .shape
                .iter()
                .zip(&port.shape)
                .all(|(&size, &want)| size > 0 && (want == -1 || size == want));
        if !fits {
            return Err(format!(
                "input {name:?} has shape {:?}; the model wants {:?}",
                input.shape, port.shape
            ));
        }
        // Addresses have 32 bits here: a size beyond them is one that no body has numbers for.
        let size = |&size| usize::try_from(size).unwrap_or(usize::MAX);
        let shape: Vec<usize> = input.shape.iter().map(size).collect();
        if count(&shape) != Some(input.data.0.len()) {
            let length = input.data.0.len();
            return Err(format!(
                "input {name:?} has {length} numbers; its shape {:?} needs others",
                input.shape
            ));
        }
        Ok(Tensor::f32(shape, std::mem::take(&mut input.data.0)))
    }
}

#[derive(Serialize)]
pub struct InferResponse<'a> {
    pub model_name: &'a str,
    pub model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub outputs: Vec<OutputTensor<'a>>,
}

#[derive(Serialize)]
pub struct OutputTensor<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    data: Numbers<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Numbers<'a> {
    Floats(&'a [f32]),
    Ints(&'a [i64]),
}

impl<'a> OutputTensor<'a> {
    pub fn new(name: &'a str, tensor: &'a Tensor) -> Self {
        let data = match &tensor.data {
            Data::F32(values) => Numbers::Floats(values),
            Data::I64(values) => Numbers::Ints(values),
        };
        OutputTensor { name, datatype: tensor.datatype(), shape: &tensor.shape, data }
    }
}
