//! Builders of Arrow columns that take one value after another and can forget the last ones again.

use pyo3::prelude::*;

use crate::buffer::Buffer;

/// Which values are there; costs nothing until the first NULL.
#[derive(Default)]
pub struct Validity {
    count: usize,
    nulls: usize,
    bits: Vec<u8>,
}

impl Validity {
    /// Values so far.
    pub fn len(&self) -> usize {
        self.count
    }

    /// One more value that is there.
    pub fn valid(&mut self) {
        if self.nulls > 0 {
            self.set(true);
        }
        self.count += 1;
    }

    /// One more NULL.
    pub fn null(&mut self) {
        if self.nulls == 0 {
            self.bits.clear();
            self.bits.resize(self.count / 8, 0xff);
            if !self.count.is_multiple_of(8) {
                self.bits.push((1 << (self.count % 8)) - 1);
            }
        }
        self.set(false);
        self.nulls += 1;
        self.count += 1;
    }

    fn set(&mut self, valid: bool) {
        if self.count.is_multiple_of(8) {
            self.bits.push(0);
        }
        if let Some(last) = self.bits.last_mut() {
            *last |= u8::from(valid) << (self.count % 8);
        }
    }

    /// Keep the first `count` values only.
    pub fn truncate(&mut self, count: usize) {
        if self.nulls > 0 {
            let gone = (count..self.count).filter(|i| self.bits[i / 8] >> (i % 8) & 1 == 0);
            self.nulls -= gone.count();
            self.bits.truncate(count.div_ceil(8));
            if !count.is_multiple_of(8)
                && let Some(last) = self.bits.last_mut()
            {
                *last &= (1 << (count % 8)) - 1;
            }
        }
        self.count = count;
    }

    /// (values, NULLs, bitmap or None) for Arrow.
    pub fn finish(self) -> (usize, usize, Option<Buffer>) {
        let bits = (self.nulls > 0).then(|| Buffer::of(self.bits));
        (self.count, self.nulls, bits)
    }
}

/// A string or binary column under construction.
pub struct Bytes {
    /// Which values are there.
    pub validity: Validity,
    offsets: Vec<i32>,
    data: Vec<u8>,
}

impl Bytes {
    /// Empty, with room for `rows` values of `size` bytes together.
    pub fn new(rows: usize, size: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Bytes {
            validity: Validity::default(),
            offsets,
            data: Vec::with_capacity(size),
        }
    }

    /// Make room for so many more values of `size` bytes together.
    pub fn reserve(&mut self, rows: usize, size: usize) {
        self.offsets.reserve(rows);
        self.data.reserve(size);
    }

    /// Bytes so far.
    pub fn size(&self) -> usize {
        self.data.len()
    }

    /// Whether so many more bytes can be addressed.
    pub fn has_room(&self, more: usize) -> bool {
        self.data.len() + more <= i32::MAX as usize
    }

    /// One more value; the caller has asked whether there is room.
    pub fn push(&mut self, value: &[u8]) {
        self.data.extend_from_slice(value);
        self.end();
    }

    /// One more value, `size` bytes of `block` from `start` on. A short one is copied together with what stands behind
    /// it, which is then cut off again: that is a single move, where a copy of any length is a call.
    pub fn push_from(&mut self, block: &[u8], start: usize, size: usize) {
        match block.get(start..).and_then(<[u8]>::first_chunk::<16>) {
            Some(some) if size <= 16 => {
                let end = self.data.len() + size;
                self.data.extend_from_slice(some);
                self.data.truncate(end);
                self.end();
            }
            _ => self.push(&block[start..start + size]),
        }
    }

    /// Where to write the next value in pieces; `end` makes it one.
    pub fn open(&mut self) -> &mut Vec<u8> {
        &mut self.data
    }

    /// Value `i`.
    pub fn get(&self, i: usize) -> &[u8] {
        &self.data[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    /// What was written since the last value is the next value.
    pub fn end(&mut self) {
        self.offsets.push(self.data.len() as i32);
        self.validity.valid();
    }

    /// One more NULL.
    pub fn null(&mut self) {
        self.offsets.push(self.data.len() as i32);
        self.validity.null();
    }

    /// Keep the first `count` values only.
    pub fn truncate(&mut self, count: usize) {
        self.validity.truncate(count);
        self.offsets.truncate(count + 1);
        self.data.truncate(self.offsets[count] as usize);
    }

    /// The column for Arrow.
    pub fn finish(self) -> Piece {
        let (length, nulls, bits) = self.validity.finish();
        Piece {
            length,
            nulls,
            buffers: vec![bits, Some(Buffer::of(self.offsets)), Some(Buffer::of(self.data))],
            children: Vec::new(),
        }
    }
}

/// A finished column: what `pyarrow.Array.from_buffers` takes.
pub struct Piece {
    /// Rows.
    pub length: usize,
    /// How many of them are NULL.
    pub nulls: usize,
    /// Validity, then what the type has.
    pub buffers: Vec<Option<Buffer>>,
    /// Columns of a nested type.
    pub children: Vec<Piece>,
}

impl Piece {
    /// As a tuple (length, nulls, buffers, children), children likewise.
    pub fn into_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let children = self
            .children
            .into_iter()
            .map(|child| child.into_python(py))
            .collect::<PyResult<Vec<_>>>()?;
        let tuple = (self.length, self.nulls, self.buffers, children).into_pyobject(py)?;
        Ok(tuple.into_any().unbind())
    }
}
