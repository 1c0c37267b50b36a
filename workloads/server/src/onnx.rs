//! The parts of an ONNX file (onnx.proto, IR version 3 and later) that inference needs.

use crate::protobuf::{Value, fields, floats};
use crate::tensor::{Data, Tensor, count};

const FLOAT: i64 = 1;
const INT64: i64 = 7;

/// An input or output as the model declares it; -1 is a dimension of any size.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    pub name: String,
    pub datatype: &'static str,
    pub shape: Vec<i64>,
}

#[derive(Debug, Default)]
pub struct Attribute {
    pub name: String,
    pub float: f32,
    pub int: i64,
    pub tensor: Option<Tensor>,
}

#[derive(Debug, Default)]
pub struct Node {
    pub name: String,
    pub operator: String,
    pub domain: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub attributes: Vec<Attribute>,
}

impl Node {
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }
}

#[derive(Debug, Default)]
pub struct Model {
    pub opset: i64,
    pub nodes: Vec<Node>,
    pub constants: Vec<(String, Tensor)>,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

impl Model {
    /// Reads a model file.
    pub fn parse(file: &[u8]) -> Result<Model, String> {
        let mut model = Model::default();
        let mut has_graph = false;
        fields(file, |number, value| match number {
            7 => {
                has_graph = true;
                model.read_graph(value.bytes()?)
            }
            8 => model.read_opset(value.bytes()?),
            _ => Ok(()),
        })?;
        if !has_graph {
            return Err("no graph in it".into());
        }
        let constants = &model.constants;
        model.inputs.retain(|input| constants.iter().all(|(name, _)| *name != input.name));
        Ok(model)
    }

    fn read_opset(&mut self, message: &[u8]) -> Result<(), String> {
        let (mut domain, mut version) = (String::new(), 0);
        fields(message, |number, value| {
            match number {
                1 => domain = value.text()?,
                2 => version = value.int()?,
                _ => {}
            }
            Ok(())
        })?;
        if domain.is_empty() || domain == "ai.onnx" {
            self.opset = version;
        }
        Ok(())
    }

    fn read_graph(&mut self, message: &[u8]) -> Result<(), String> {
        fields(message, |number, value| {
            match number {
                1 => self.nodes.push(node(value.bytes()?)?),
                5 => self.constants.push(tensor(value.bytes()?)?),
                11 => self.inputs.push(port(value.bytes()?)?),
                12 => self.outputs.push(port(value.bytes()?)?),
                15 => return Err("sparse weights are not supported".into()),
                _ => {}
            }
            Ok(())
        })
    }
}

fn node(message: &[u8]) -> Result<Node, String> {
    let mut node = Node::default();
    fields(message, |number, value| {
        match number {
            1 => node.inputs.push(value.text()?),
            2 => node.outputs.push(value.text()?),
            3 => node.name = value.text()?,
            4 => node.operator = value.text()?,
            5 => node.attributes.push(attribute(value.bytes()?)?),
            7 => node.domain = value.text()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(node)
}

fn attribute(message: &[u8]) -> Result<Attribute, String> {
    let mut attribute = Attribute::default();
    fields(message, |number, value| {
        match number {
            1 => attribute.name = value.text()?,
            2 => attribute.float = value.float()?,
            3 => attribute.int = value.int()?,
            5 => attribute.tensor = Some(tensor(value.bytes()?)?.1),
            _ => {}
        }
        Ok(())
    })?;
    Ok(attribute)
}

fn tensor(message: &[u8]) -> Result<(String, Tensor), String> {
    let (mut name, mut kind, mut dims) = (String::new(), 0, Vec::new());
    let (mut raw, mut singles, mut ints) = (None, Vec::new(), Vec::new());
    let mut external = false;
    fields(message, |number, value| {
        match number {
            1 => value.extend_ints(&mut dims)?,
            2 => kind = value.int()?,
            4 => value.extend_floats(&mut singles)?,
            7 => value.extend_ints(&mut ints)?,
            8 => name = value.text()?,
            9 => raw = Some(value.bytes()?),
            13 | 14 => external |= !matches!(value, Value::Varint(0)),
            _ => {}
        }
        Ok(())
    })?;
    if external {
        return Err(format!("weights of {name:?} lie in another file; save the model as one file"));
    }
    let data = match (kind, raw) {
        (FLOAT, Some(raw)) => Data::F32(floats(raw)?.collect()),
        (FLOAT, None) => Data::F32(singles),
        (INT64, Some(raw)) => Data::I64(
            raw.chunks_exact(8).map(|c| i64::from_le_bytes(c.try_into().unwrap_or_default())).collect(),
        ),
        (INT64, None) => Data::I64(ints),
        _ => return Err(format!("{name:?} has element type {kind}; FLOAT (1) and INT64 (7) are supported")),
    };
    let shape: Vec<usize> = dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(usize::MAX)).collect();
    let length = match &data {
        Data::F32(values) => values.len(),
        Data::I64(values) => values.len(),
    };
    if count(&shape) != Some(length) {
        return Err(format!("{name:?} has {length} elements, its shape {dims:?} needs others"));
    }
    Ok((name, Tensor { shape, data }))
}

/// ValueInfoProto, down through TypeProto.tensor_type to the dimensions.
fn port(message: &[u8]) -> Result<Port, String> {
    let (mut name, mut kind, mut shape) = (String::new(), 0, Vec::new());
    fields(message, |number, value| match number {
        1 => {
            name = value.text()?;
            Ok(())
        }
        2 => fields(value.bytes()?, |number, value| match number {
            1 => fields(value.bytes()?, |number, value| {
                match number {
                    1 => kind = value.int()?,
                    2 => shape = dimensions(value.bytes()?)?,
                    _ => {}
                }
                Ok(())
            }),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })?;
    let datatype = match kind {
        FLOAT => "FP32",
        INT64 => "INT64",
        _ => return Err(format!("{name:?} has element type {kind}; FLOAT (1) and INT64 (7) are supported")),
    };
    Ok(Port { name, datatype, shape })
}

fn dimensions(message: &[u8]) -> Result<Vec<i64>, String> {
    let mut shape = Vec::new();
    fields(message, |number, value| {
        if number == 1 {
            let mut size = -1;
            fields(value.bytes()?, |number, value| {
                if number == 1 {
                    size = value.int()?;
                }
                Ok(())
            })?;
            shape.push(size);
        }
        Ok(())
    })?;
    Ok(shape)
}
