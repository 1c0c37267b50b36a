//! Dense row-major tensors of the two element types that the operators know.

use std::borrow::Cow;

#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    F32(Vec<f32>),
    I64(Vec<i64>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Data,
}

impl Tensor {
    pub fn f32(shape: Vec<usize>, data: Vec<f32>) -> Self {
        Tensor { shape, data: Data::F32(data) }
    }

    pub fn i64(shape: Vec<usize>, data: Vec<i64>) -> Self {
        Tensor { shape, data: Data::I64(data) }
    }

    /// The elements, which must be floats.
    pub fn floats(&self) -> Result<&[f32], String> {
        match &self.data {
            Data::F32(values) => Ok(values),
            Data::I64(_) => Err("INT64 where FP32 is needed".into()),
        }
    }

    /// The elements, which must be integers.
    pub fn ints(&self) -> Result<&[i64], String> {
        match &self.data {
            Data::I64(values) => Ok(values),
            Data::F32(_) => Err("FP32 where INT64 is needed".into()),
        }
    }

    /// The elements as floats, whatever they are.
    pub fn as_floats(&self) -> Cow<'_, [f32]> {
        match &self.data {
            Data::F32(values) => Cow::Borrowed(values),
            Data::I64(values) => values.iter().map(|&value| value as f32).collect(),
        }
    }

    /// The element type's name in the inference protocol.
    pub fn datatype(&self) -> &'static str {
        match self.data {
            Data::F32(_) => "FP32",
            Data::I64(_) => "INT64",
        }
    }
}

/// Number of elements of a shape; None when it does not fit this machine.
pub fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
}
