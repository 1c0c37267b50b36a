//! A reader of protobuf's wire format: the little that an ONNX file needs.

/// One field of a message.
pub enum Value<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The bytes of a string, a message or a packed list.
    pub fn bytes(&self) -> Result<&'a [u8], String> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err("a field has the wrong wire type".into()),
        }
    }

    pub fn text(&self) -> Result<String, String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| "a name is not UTF-8".into())
    }

    pub fn int(&self) -> Result<i64, String> {
        match self {
            Value::Varint(value) => Ok(*value as i64),
            _ => Err("a field has the wrong wire type".into()),
        }
    }

    pub fn float(&self) -> Result<f32, String> {
        match self {
            Value::Fixed32(bytes) => Ok(f32::from_le_bytes(*bytes)),
            _ => Err("a field has the wrong wire type".into()),
        }
    }

    /// A repeated int64, packed or one at a time.
    pub fn extend_ints(&self, list: &mut Vec<i64>) -> Result<(), String> {
        let Value::Bytes(mut rest) = *self else {
            list.push(self.int()?);
            return Ok(());
        };
        while !rest.is_empty() {
            list.push(varint(&mut rest)? as i64);
        }
        Ok(())
    }

    /// A repeated float, packed or one at a time.
    pub fn extend_floats(&self, list: &mut Vec<f32>) -> Result<(), String> {
        match self {
            Value::Bytes(bytes) => list.extend(floats(bytes)?),
            _ => list.push(self.float()?),
        }
        Ok(())
    }
}

/// Little-endian floats in a row.
pub fn floats(bytes: &[u8]) -> Result<impl Iterator<Item = f32> + '_, String> {
    let chunks = bytes.chunks_exact(4);
    if !chunks.remainder().is_empty() {
        return Err("a list of floats is cut off".into());
    }
    Ok(chunks.map(|chunk| f32::from_le_bytes(array(chunk))))
}

/// Calls `each` with number and value of every field of a message, in order.
pub fn fields<'a>(
    mut message: &'a [u8],
    mut each: impl FnMut(u64, Value<'a>) -> Result<(), String>,
) -> Result<(), String> {
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut message)?),
            1 => Value::Fixed64(array(take(&mut message, 8)?)),
            2 => {
                let length = varint(&mut message)?;
                Value::Bytes(take(&mut message, usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => Value::Fixed32(array(take(&mut message, 4)?)),
            other => return Err(format!("wire type {other} is not protobuf 3")),
        };
        each(key >> 3, value)?;
    }
    Ok(())
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    if length > message.len() {
        return Err("the file is cut off".into());
    }
    let (head, rest) = message.split_at(length);
    *message = rest;
    Ok(head)
}

fn varint(message: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(message, 1)?[0];
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Ok(value);
        }
    }
    Err("a number is longer than 64 bits".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_order() {
        let message = [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1d, 0, 0, 0x80, 0x3f];
        let mut seen = Vec::new();
        fields(&message, |number, value| {
            seen.push((number, value.int().ok(), value.text().ok(), value.float().ok()));
            Ok(())
        })
        .unwrap();
        let wanted =
            [(1, Some(150), None, None), (2, None, Some("hi".into()), None), (3, None, None, Some(1.0))];
        assert_eq!(seen, wanted);
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        for message in [&[0x08][..], &[0x08, 0x80], &[0x12, 0x05, b'h'], &[0x1d, 0, 0], &[0x0b], &[0xff; 12]]
        {
            assert!(fields(message, |_, _| Ok(())).is_err(), "{message:?}");
        }
        assert!(floats(&[0; 5]).is_err());
    }
}
