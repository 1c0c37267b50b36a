//! The operators: ONNX's semantics (opset 13 and later), for FP32 unless said otherwise.

use crate::onnx::Node;
use crate::tensor::{Tensor, count};

/// One operator with its attributes, ready to run.
#[derive(Debug)]
pub enum Op {
    Gemm { alpha: f32, beta: f32, trans_a: bool, trans_b: bool },
    MatMul,
    Binary(fn(f32, f32) -> f32),
    Unary(fn(f32) -> f32),
    Softmax { axis: i64 },
    Reshape { allow_zero: bool },
    Flatten { axis: i64 },
    Identity,
    CastToFloat,
    ArgMax { axis: i64, keep_dims: bool },
}

pub const SUPPORTED: &str = "Add, ArgMax, Cast, Constant, Div, Flatten, Gemm, Identity, MatMul, Mul, Relu, \
Reshape, Sigmoid, Softmax, Sub, Tanh";

impl Op {
    /// The operator of a node; the error says what of it is not supported.
    pub fn new(node: &Node, opset: i64) -> Result<Op, String> {
        let int = |name, default| node.attribute(name).map_or(default, |found| found.int);
        let float = |name, default| node.attribute(name).map_or(default, |found| found.float);
        if !node.domain.is_empty() && node.domain != "ai.onnx" {
            return Err(format!("of domain {:?} is not supported", node.domain));
        }
        Ok(match node.operator.as_str() {
            "Gemm" => Op::Gemm {
                alpha: float("alpha", 1.0),
                beta: float("beta", 1.0),
                trans_a: int("transA", 0) != 0,
                trans_b: int("transB", 0) != 0,
            },
            "MatMul" => Op::MatMul,
            "Add" => Op::Binary(|a, b| a + b),
            "Sub" => Op::Binary(|a, b| a - b),
            "Mul" => Op::Binary(|a, b| a * b),
            "Div" => Op::Binary(|a, b| a / b),
            // Comparisons, here and below: f32::max would make WasmEdge's AOT code fall back to the interpreter.
            "Relu" => Op::Unary(|x| if x < 0.0 { 0.0 } else { x }),
            "Sigmoid" => Op::Unary(|x| 1.0 / (1.0 + (-x).exp())),
            "Tanh" => Op::Unary(f32::tanh),
            "Softmax" if opset < 13 => {
                return Err(format!("of opset {opset} is not supported; convert to 13"));
            }
            "Softmax" => Op::Softmax { axis: int("axis", -1) },
            "Reshape" => Op::Reshape { allow_zero: int("allowzero", 0) != 0 },
            "Flatten" => Op::Flatten { axis: int("axis", 1) },
            "Identity" => Op::Identity,
            "Cast" if int("to", 0) == 1 => Op::CastToFloat,
            "Cast" => return Err(format!("to element type {} is not supported; FLOAT (1) is", int("to", 0))),
            "ArgMax" if int("select_last_index", 0) != 0 => {
                return Err("with select_last_index is not supported".into());
            }
            "ArgMax" => Op::ArgMax { axis: int("axis", 0), keep_dims: int("keepdims", 1) != 0 },
            _ => return Err(format!("is not supported; this server has {SUPPORTED}")),
        })
    }

    /// Runs the operator; a missing optional input is None.
    pub fn run(&self, inputs: &[Option<&Tensor>]) -> Result<Tensor, String> {
        let at = |index: usize| {
            inputs.get(index).copied().flatten().ok_or_else(|| format!("input {index} is missing"))
        };
        let first = at(0)?;
        match self {
            Op::Gemm { alpha, beta, trans_a, trans_b } => {
                let (a, b) = (turned(first, *trans_a)?, turned(at(1)?, *trans_b)?);
                let bias = inputs.get(2).copied().flatten();
                gemm(a.as_ref().unwrap_or(first), b.as_ref().unwrap_or(at(1)?), bias, *alpha, *beta)
            }
            Op::MatMul => matmul(first, at(1)?),
            Op::Binary(function) => binary(first, at(1)?, *function),
            Op::Unary(function) => {
                let values = first.floats()?.iter().map(|&x| function(x)).collect();
                Ok(Tensor::f32(first.shape.clone(), values))
            }
            Op::Softmax { axis } => softmax(first, *axis),
            Op::Reshape { allow_zero } => reshape(first, at(1)?.ints()?, *allow_zero),
            Op::Flatten { axis } => {
                let (head, tail) = first.shape.split_at(axis_of(*axis, first.shape.len() + 1)?);
                Ok(Tensor {
                    shape: vec![head.iter().product(), tail.iter().product()],
                    data: first.data.clone(),
                })
            }
            Op::Identity => Ok(first.clone()),
            Op::CastToFloat => Ok(Tensor::f32(first.shape.clone(), first.as_floats().into_owned())),
            Op::ArgMax { axis, keep_dims } => argmax(first, *axis, *keep_dims),
        }
    }
}

fn axis_of(axis: i64, rank: usize) -> Result<usize, String> {
    let found = if axis < 0 { axis + rank as i64 } else { axis };
    match usize::try_from(found) {
        Ok(found) if found < rank => Ok(found),
        _ => Err(format!("axis {axis} does not exist in {rank} dimensions")),
    }
}

/// The transpose of a matrix; None when it stays as it is.
pub fn turned(matrix: &Tensor, turn: bool) -> Result<Option<Tensor>, String> {
    if !turn {
        return Ok(None);
    }
    let [rows, columns] = matrix.shape[..] else {
        return Err(format!("a matrix is needed, found shape {:?}", matrix.shape));
    };
    let values = matrix.floats()?;
    let out = (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column]));
    Ok(Some(Tensor::f32(vec![columns, rows], out.collect())))
}

/// `[..., K] x [K, N]`: rows of the result are sums of rows of `b`, which vectorises without a horizontal sum.
fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    let (Some((&inner, head)), &[depth, columns]) = (a.shape.split_last(), &b.shape[..]) else {
        return Err(format!("shapes {:?} and {:?} are not supported", a.shape, b.shape));
    };
    if inner != depth {
        return Err(format!("shapes {:?} and {:?} do not fit", a.shape, b.shape));
    }
    let (left, right) = (a.floats()?, b.floats()?);
    let mut out = vec![0.0; head.iter().product::<usize>() * columns];
    if columns > 0 && inner > 0 {
        for (row, target) in left.chunks_exact(inner).zip(out.chunks_exact_mut(columns)) {
            for (&factor, weights) in row.iter().zip(right.chunks_exact(columns)) {
                for (sum, &weight) in target.iter_mut().zip(weights) {
                    *sum += factor * weight;
                }
            }
        }
    }
    Ok(Tensor::f32([head, &[columns]].concat(), out))
}

fn gemm(a: &Tensor, b: &Tensor, bias: Option<&Tensor>, alpha: f32, beta: f32) -> Result<Tensor, String> {
    if a.shape.len() != 2 {
        return Err(format!("a matrix is needed, found shape {:?}", a.shape));
    }
    let mut product = matmul(a, b)?;
    if alpha != 1.0 {
        product = binary(&product, &Tensor::f32(vec![], vec![alpha]), |x, y| x * y)?;
    }
    let Some(bias) = bias else { return Ok(product) };
    let shape = product.shape.clone();
    let sum = if beta == 1.0 {
        binary(&product, bias, |x, y| x + y)?
    } else {
        let scaled = binary(bias, &Tensor::f32(vec![], vec![beta]), |x, y| x * y)?;
        binary(&product, &scaled, |x, y| x + y)?
    };
    if sum.shape != shape {
        return Err(format!("a bias of shape {:?} does not fit the product {shape:?}", bias.shape));
    }
    Ok(sum)
}

/// Element by element, with numpy's broadcasting.
fn binary(a: &Tensor, b: &Tensor, function: fn(f32, f32) -> f32) -> Result<Tensor, String> {
    let (left, right) = (a.floats()?, b.floats()?);
    let shape = broadcast(&a.shape, &b.shape)
        .ok_or_else(|| format!("shapes {:?} and {:?} do not fit", a.shape, b.shape))?;
    let total = count(&shape).ok_or("the result is too large")?;
    let out = if a.shape == b.shape {
        left.iter().zip(right).map(|(&x, &y)| function(x, y)).collect()
    } else if left.len() == total && is_tail(&b.shape, &shape) {
        left.chunks(right.len().max(1))
            .flat_map(|row| row.iter().zip(right).map(|(&x, &y)| function(x, y)))
            .collect()
    } else {
        let (steps_a, steps_b) = (steps(&a.shape, &shape), steps(&b.shape, &shape));
        (0..total)
            .map(|flat| function(left[offset(flat, &shape, &steps_a)], right[offset(flat, &shape, &steps_b)]))
            .collect()
    };
    Ok(Tensor::f32(shape, out))
}

fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = if a.len() > b.len() { a.len() } else { b.len() };
    let size =
        |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |at| shape[at]);
    (0..rank)
        .map(|axis| match (size(a, axis), size(b, axis)) {
            (x, y) if x == y || y == 1 => Some(x),
            (1, y) => Some(y),
            _ => None,
        })
        .collect()
}

/// Whether a shape is the end of another, but for ones in front: a bias.
fn is_tail(shape: &[usize], of: &[usize]) -> bool {
    let ones = shape.iter().take_while(|&&size| size == 1).count();
    of.ends_with(&shape[ones..])
}

/// Distance in memory between neighbours of each axis; 0 where the axis is stretched.
fn steps(shape: &[usize], target: &[usize]) -> Vec<usize> {
    let mut steps = vec![0; target.len()];
    let mut step = 1;
    for (axis, &size) in shape.iter().enumerate().rev() {
        if size != 1 {
            steps[axis + target.len() - shape.len()] = step;
        }
        step *= size;
    }
    steps
}

fn offset(mut flat: usize, shape: &[usize], steps: &[usize]) -> usize {
    let mut offset = 0;
    for (&size, &step) in shape.iter().zip(steps).rev() {
        offset += flat % size * step;
        flat /= size;
    }
    offset
}

/// Sizes before, at and after an axis.
fn around(shape: &[usize], axis: i64) -> Result<(usize, usize, usize, usize), String> {
    let axis = axis_of(axis, shape.len())?;
    Ok((axis, shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product()))
}

fn softmax(input: &Tensor, axis: i64) -> Result<Tensor, String> {
    let (_, before, size, after) = around(&input.shape, axis)?;
    let mut out = input.floats()?.to_vec();
    for lane in (0..before).flat_map(|outer| (0..after).map(move |inner| outer * size * after + inner)) {
        let indices = || (0..size).map(|at| lane + at * after);
        let top = indices().fold(f32::NEG_INFINITY, |top, at| if out[at] > top { out[at] } else { top });
        let mut sum = 0.0;
        for at in indices() {
            out[at] = (out[at] - top).exp();
            sum += out[at];
        }
        for at in indices() {
            out[at] /= sum;
        }
    }
    Ok(Tensor::f32(input.shape.clone(), out))
}

fn argmax(input: &Tensor, axis: i64, keep_dims: bool) -> Result<Tensor, String> {
    let (axis, before, size, after) = around(&input.shape, axis)?;
    let values = input.floats()?;
    if size == 0 {
        return Err("there is no largest of no elements".into());
    }
    let mut out = Vec::with_capacity(before * after);
    for lane in (0..before).flat_map(|outer| (0..after).map(move |inner| outer * size * after + inner)) {
        let best = (1..size).fold(0, |best, at| {
            if values[lane + at * after] > values[lane + best * after] { at } else { best }
        });
        out.push(best as i64);
    }
    let mut shape = input.shape.clone();
    if keep_dims {
        shape[axis] = 1;
    } else {
        shape.remove(axis);
    }
    Ok(Tensor::i64(shape, out))
}

fn reshape(input: &Tensor, wanted: &[i64], allow_zero: bool) -> Result<Tensor, String> {
    let misfit = || format!("shape {:?} does not become {wanted:?}", input.shape);
    let mut shape = Vec::with_capacity(wanted.len());
    for (axis, &size) in wanted.iter().enumerate() {
        shape.push(match size {
            0 if !allow_zero => *input.shape.get(axis).ok_or_else(misfit)?,
            -1 => 1,
            size => usize::try_from(size).map_err(|_| misfit())?,
        });
    }
    let total = count(&input.shape).ok_or_else(misfit)?;
    let mut open = wanted.iter().enumerate().filter(|&(_, &size)| size == -1);
    if let Some((axis, _)) = open.next() {
        let rest = count(&shape).filter(|&rest| rest > 0 && total % rest == 0).ok_or_else(misfit)?;
        shape[axis] = total / rest;
    }
    if open.next().is_some() || count(&shape) != Some(total) {
        return Err(misfit());
    }
    Ok(Tensor { shape, data: input.data.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(shape: &[usize]) -> Tensor {
        let total = count(shape).unwrap();
        Tensor::f32(shape.to_vec(), (0..total).map(|value| value as f32).collect())
    }

    #[test]
    fn shapes_broadcast_as_in_numpy() {
        assert_eq!(broadcast(&[3, 1], &[4]), Some(vec![3, 4]));
        assert_eq!(broadcast(&[], &[2, 2]), Some(vec![2, 2]));
        assert_eq!(broadcast(&[3], &[4]), None);
        let sum = binary(&counted(&[2, 1]), &counted(&[1, 3]), |x, y| 10.0 * x + y).unwrap();
        assert_eq!(sum, Tensor::f32(vec![2, 3], vec![0., 1., 2., 10., 11., 12.]));
        let sum = binary(&counted(&[2, 2]), &counted(&[1, 2]), |x, y| x + y).unwrap();
        assert_eq!(sum, Tensor::f32(vec![2, 2], vec![0., 2., 2., 4.]));
    }

    #[test]
    fn products_check_their_shapes() {
        let product = matmul(&counted(&[2, 3]), &counted(&[3, 2])).unwrap();
        assert_eq!(product, Tensor::f32(vec![2, 2], vec![10., 13., 28., 40.]));
        assert!(matmul(&counted(&[2, 3]), &counted(&[2, 3])).unwrap_err().contains("do not fit"));
        assert!(gemm(&counted(&[1, 2]), &counted(&[2, 2]), Some(&counted(&[3, 2])), 1.0, 1.0).is_err());
        assert_eq!(
            turned(&counted(&[2, 2]), true).unwrap().unwrap().data,
            Tensor::f32(vec![], vec![0., 2., 1., 3.]).data
        );
    }

    #[test]
    fn reshaping_keeps_the_elements() {
        let shape = |wanted: &[i64]| reshape(&counted(&[2, 3]), wanted, false).map(|tensor| tensor.shape);
        assert_eq!(shape(&[-1]), Ok(vec![6]));
        assert_eq!(shape(&[0, -1, 1]), Ok(vec![2, 3, 1]));
        for wrong in [&[4, -1][..], &[-1, -1], &[7], &[-2, 3], &[1, 1, 0]] {
            assert!(shape(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn axes_may_be_counted_from_the_end() {
        assert_eq!(argmax(&counted(&[2, 3]), -1, false).unwrap(), Tensor::i64(vec![2], vec![2, 2]));
        assert_eq!(argmax(&counted(&[2, 3]), 0, true).unwrap(), Tensor::i64(vec![1, 3], vec![1, 1, 1]));
        assert!(softmax(&counted(&[2]), 1).is_err());
        let even = softmax(&Tensor::f32(vec![2, 2], vec![1000.0; 4]), 0).unwrap();
        assert_eq!(even, Tensor::f32(vec![2, 2], vec![0.5; 4]));
    }
}
