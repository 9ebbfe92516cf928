//! Columns under construction as a tree in the shape of the schema, whatever the format that fills it.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffer::Buffer;
use crate::columns::{Bytes, Piece, Validity};

/// A column of the tree.
pub struct Node {
    /// Whether NULL is a value.
    pub nullable: bool,
    /// What it holds.
    pub column: Column,
}

/// What a column holds.
pub enum Column {
    /// Nothing but NULL, so many times.
    Null(usize),
    /// True or false, a byte each.
    Boolean(Plain<u8>),
    /// 8-bit whole numbers.
    Tiny(Plain<i8>),
    /// 16-bit whole numbers.
    Small(Plain<i16>),
    /// 32-bit whole numbers.
    Int(Plain<i32>),
    /// 64-bit whole numbers.
    Big(Plain<i64>),
    /// 32-bit fractions.
    Float(Plain<f32>),
    /// 64-bit fractions.
    Double(Plain<f64>),
    /// Precision, scale and unscaled values.
    Decimal(u32, u32, Plain<i128>),
    /// Days since 1970.
    Date(Plain<i32>),
    /// Microseconds since 1970, written as ISO 8601 text.
    Timestamp(Plain<i64>),
    /// Microseconds since 1970, written as a number of units of so many microseconds.
    Epoch(i64, Plain<i64>),
    /// Text; `usize` is how many bytes a row took lately.
    Text(usize, Bytes),
    /// Bytes, likewise.
    Binary(usize, Bytes),
    /// Named columns.
    Struct(Struct),
    /// Which of several columns each value is in, and those; a NULL is in none.
    Union(Plain<i32>, Vec<Node>),
    /// Lists of items.
    List(Lists),
    /// Lists of keys and items.
    Map(Bytes, Lists),
}

/// Values of fixed width.
#[derive(Default)]
pub struct Plain<T> {
    /// Which are there.
    pub validity: Validity,
    values: Vec<T>,
}

impl<T: Default + crate::buffer::Plain> Plain<T> {
    /// One more value.
    pub fn push(&mut self, value: T) {
        self.values.push(value);
        self.validity.valid();
    }

    fn null(&mut self) {
        self.values.push(T::default());
        self.validity.null();
    }

    fn truncate(&mut self, count: usize) {
        self.values.truncate(count);
        self.validity.truncate(count);
    }

    fn finish(&mut self) -> Piece {
        let made = std::mem::take(self);
        let (length, nulls, bits) = made.validity.finish();
        Piece {
            length,
            nulls,
            buffers: vec![bits, Some(Buffer::of(made.values))],
            children: Vec::new(),
        }
    }
}

/// Named columns, and which of them the object at hand has had.
pub struct Struct {
    /// Which are there.
    pub validity: Validity,
    /// Each field's name.
    pub names: Vec<Vec<u8>>,
    /// How each field most often begins when it is not the first: comma, key, colon.
    pub known: Vec<Known>,
    /// Each field's column.
    pub fields: Vec<Node>,
    stamps: Vec<u64>,
    stamp: u64,
    met: usize,
}

impl Struct {
    /// Begin an object.
    pub fn begin(&mut self) {
        self.stamp += 1;
        self.met = 0;
    }

    /// Note that the object has field `i`; false when it had it already.
    pub fn meet(&mut self, i: usize) -> bool {
        self.met += 1;
        std::mem::replace(&mut self.stamps[i], self.stamp) != self.stamp
    }

    /// End the object: fields that it does not have are NULL; None when one of them must not be.
    pub fn end(&mut self) -> Option<()> {
        if self.met < self.fields.len() {
            for (field, stamp) in self.fields.iter_mut().zip(&self.stamps) {
                if *stamp != self.stamp {
                    field.null_if_allowed()?;
                }
            }
        }
        self.validity.valid();
        Some(())
    }
}

/// Lists of items.
pub struct Lists {
    /// Which are there.
    pub validity: Validity,
    offsets: Vec<i32>,
    /// The items of all lists.
    pub items: Box<Node>,
}

impl Lists {
    /// The items since the last list are the next list; None when there are more than can be addressed.
    pub fn end(&mut self) -> Option<()> {
        self.offsets.push(i32::try_from(self.items.len()).ok()?);
        self.validity.valid();
        Some(())
    }

    /// Items that belong to finished lists.
    pub fn done(&self) -> usize {
        self.offsets.last().map_or(0, |last| *last as usize)
    }
}

type Spec<'py> = (String, i64, i64, bool, Vec<String>, Vec<Bound<'py, PyAny>>);

impl Node {
    /// A column of the type that Python describes: (name, two numbers, nullable, names of fields, inner columns).
    pub fn of(described: &Bound<'_, PyAny>) -> PyResult<Node> {
        let (name, a, b, nullable, names, inner): Spec<'_> = described.extract()?;
        let mut inner = inner.iter().map(Node::of).collect::<PyResult<Vec<_>>>()?;
        let unknown = || PyValueError::new_err(format!("no native form of this type: {name}"));
        let column = match name.as_str() {
            "boolean" => Column::Boolean(Plain::default()),
            "tinyint" => Column::Tiny(Plain::default()),
            "smallint" => Column::Small(Plain::default()),
            "int" => Column::Int(Plain::default()),
            "bigint" => Column::Big(Plain::default()),
            "float" => Column::Float(Plain::default()),
            "double" => Column::Double(Plain::default()),
            "decimal" if (1..=38).contains(&a) && (0..=a).contains(&b) => {
                Column::Decimal(a as u32, b as u32, Plain::default())
            }
            "date" => Column::Date(Plain::default()),
            "timestamp" if a == 0 => Column::Timestamp(Plain::default()),
            "timestamp" if a > 0 => Column::Epoch(a, Plain::default()),
            "string" => Column::Text(0, Bytes::new(0, 0)),
            "binary" => Column::Binary(0, Bytes::new(0, 0)),
            "null" => Column::Null(0),
            "union" => Column::Union(Plain::default(), inner),
            "struct" if names.len() == inner.len() => Column::Struct(Struct {
                validity: Validity::default(),
                known: names.iter().map(|name| Known::of(name)).collect(),
                names: names.into_iter().map(String::into_bytes).collect(),
                stamps: vec![0; inner.len()],
                stamp: 0,
                met: 0,
                fields: inner,
            }),
            "array" | "map" => {
                let lists = Lists {
                    validity: Validity::default(),
                    offsets: vec![0],
                    items: Box::new(inner.pop().ok_or_else(unknown)?),
                };
                if name == "array" {
                    Column::List(lists)
                } else {
                    Column::Map(Bytes::new(0, 0), lists)
                }
            }
            _ => return Err(unknown()),
        };
        Ok(Node { nullable, column })
    }

    /// Values so far.
    pub fn len(&self) -> usize {
        match &self.column {
            Column::Null(count) => *count,
            Column::Union(branch, _) => branch.validity.len(),
            Column::Boolean(plain) => plain.validity.len(),
            Column::Tiny(plain) => plain.validity.len(),
            Column::Small(plain) => plain.validity.len(),
            Column::Int(plain) | Column::Date(plain) => plain.validity.len(),
            Column::Big(plain) | Column::Timestamp(plain) | Column::Epoch(_, plain) => plain.validity.len(),
            Column::Float(plain) => plain.validity.len(),
            Column::Double(plain) => plain.validity.len(),
            Column::Decimal(_, _, plain) => plain.validity.len(),
            Column::Text(_, bytes) | Column::Binary(_, bytes) => bytes.validity.len(),
            Column::Struct(inner) => inner.validity.len(),
            Column::List(lists) | Column::Map(_, lists) => lists.validity.len(),
        }
    }

    /// One more NULL; None when the column has none.
    pub fn null_if_allowed(&mut self) -> Option<()> {
        if !self.nullable {
            return None;
        }
        self.null();
        Some(())
    }

    /// One more NULL, whether the column is said to have them or not: inside of a NULL struct all is NULL.
    pub fn null(&mut self) {
        match &mut self.column {
            Column::Null(count) => *count += 1,
            Column::Union(branch, inner) => {
                branch.null();
                inner.iter_mut().for_each(Node::null);
            }
            Column::Boolean(plain) => plain.null(),
            Column::Tiny(plain) => plain.null(),
            Column::Small(plain) => plain.null(),
            Column::Int(plain) | Column::Date(plain) => plain.null(),
            Column::Big(plain) | Column::Timestamp(plain) | Column::Epoch(_, plain) => plain.null(),
            Column::Float(plain) => plain.null(),
            Column::Double(plain) => plain.null(),
            Column::Decimal(_, _, plain) => plain.null(),
            Column::Text(_, bytes) | Column::Binary(_, bytes) => bytes.null(),
            Column::Struct(inner) => {
                inner.validity.null();
                inner.fields.iter_mut().for_each(Node::null);
            }
            Column::List(lists) | Column::Map(_, lists) => {
                lists.validity.null();
                lists.offsets.push(lists.done() as i32);
            }
        }
    }

    /// Keep the first `count` values only; what was begun after them is forgotten too.
    pub fn truncate(&mut self, count: usize) {
        match &mut self.column {
            Column::Null(found) => *found = count.min(*found),
            Column::Union(branch, inner) => {
                branch.truncate(count);
                inner.iter_mut().for_each(|node| node.truncate(count));
            }
            Column::Boolean(plain) => plain.truncate(count),
            Column::Tiny(plain) => plain.truncate(count),
            Column::Small(plain) => plain.truncate(count),
            Column::Int(plain) | Column::Date(plain) => plain.truncate(count),
            Column::Big(plain) | Column::Timestamp(plain) | Column::Epoch(_, plain) => plain.truncate(count),
            Column::Float(plain) => plain.truncate(count),
            Column::Double(plain) => plain.truncate(count),
            Column::Decimal(_, _, plain) => plain.truncate(count),
            Column::Text(_, bytes) | Column::Binary(_, bytes) => bytes.truncate(count),
            Column::Struct(inner) => {
                inner.validity.truncate(count);
                inner.fields.iter_mut().for_each(|field| field.truncate(count));
            }
            Column::List(lists) => lists.truncate(count),
            Column::Map(keys, lists) => {
                lists.truncate(count);
                keys.truncate(lists.done());
            }
        }
    }

    /// Make room for so many rows.
    pub fn reserve(&mut self, rows: usize) {
        match &mut self.column {
            Column::Null(_) => {}
            Column::Union(branch, inner) => {
                branch.values.reserve(rows);
                inner.iter_mut().for_each(|node| node.reserve(rows));
            }
            Column::Boolean(plain) => plain.values.reserve(rows),
            Column::Tiny(plain) => plain.values.reserve(rows),
            Column::Small(plain) => plain.values.reserve(rows),
            Column::Int(plain) | Column::Date(plain) => plain.values.reserve(rows),
            Column::Big(plain) | Column::Timestamp(plain) | Column::Epoch(_, plain) => plain.values.reserve(rows),
            Column::Float(plain) => plain.values.reserve(rows),
            Column::Double(plain) => plain.values.reserve(rows),
            Column::Decimal(_, _, plain) => plain.values.reserve(rows),
            Column::Text(size, bytes) | Column::Binary(size, bytes) => bytes.reserve(rows, rows * *size),
            Column::Struct(inner) => inner.fields.iter_mut().for_each(|field| field.reserve(rows)),
            Column::List(lists) | Column::Map(_, lists) => lists.offsets.reserve(rows),
        }
    }

    /// Hand the column over and begin a new one.
    pub fn finish(&mut self) -> Piece {
        match &mut self.column {
            Column::Null(count) => {
                let length = std::mem::take(count);
                Piece {
                    length,
                    nulls: length,
                    buffers: vec![None],
                    children: Vec::new(),
                }
            }
            Column::Union(branch, inner) => {
                let branch = branch.finish();
                Piece {
                    length: branch.length,
                    nulls: 0,
                    buffers: vec![None],
                    children: std::iter::once(branch)
                        .chain(inner.iter_mut().map(Node::finish))
                        .collect(),
                }
            }
            Column::Boolean(plain) => finish_boolean(plain),
            Column::Tiny(plain) => plain.finish(),
            Column::Small(plain) => plain.finish(),
            Column::Int(plain) | Column::Date(plain) => plain.finish(),
            Column::Big(plain) | Column::Timestamp(plain) | Column::Epoch(_, plain) => plain.finish(),
            Column::Float(plain) => plain.finish(),
            Column::Double(plain) => plain.finish(),
            Column::Decimal(_, _, plain) => plain.finish(),
            Column::Text(size, bytes) | Column::Binary(size, bytes) => {
                *size = (bytes.size() / bytes.validity.len().max(1) + 1).min(1 << 16);
                std::mem::replace(bytes, Bytes::new(0, 0)).finish()
            }
            Column::Struct(inner) => {
                let children = inner.fields.iter_mut().map(Node::finish).collect();
                let (length, nulls, bits) = std::mem::take(&mut inner.validity).finish();
                Piece {
                    length,
                    nulls,
                    buffers: vec![bits],
                    children,
                }
            }
            Column::List(lists) => {
                let items = lists.items.finish();
                lists.finish(items)
            }
            Column::Map(keys, lists) => {
                let keys = std::mem::replace(keys, Bytes::new(0, 0)).finish();
                let entries = Piece {
                    length: keys.length,
                    nulls: 0,
                    buffers: vec![None],
                    children: vec![keys, lists.items.finish()],
                };
                lists.finish(entries)
            }
        }
    }
}

/// Bytes that often come next, the first sixteen as a number so that most need no call to compare.
pub struct Known {
    bytes: Vec<u8>,
    value: u128,
    mask: u128,
}

impl Known {
    /// Comma, name and colon; for a name that JSON cannot have as it stands, bytes that no record has.
    fn of(name: &str) -> Known {
        let plain = !name.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
        let bytes = if plain {
            format!(",\"{name}\":").into_bytes()
        } else {
            vec![0]
        };
        let mut first = [0; 16];
        let size = bytes.len().min(16);
        first[..size].copy_from_slice(&bytes[..size]);
        Known {
            value: u128::from_le_bytes(first),
            mask: u128::MAX >> (128 - 8 * size),
            bytes,
        }
    }

    /// Their number when `text` begins with them.
    pub fn matches(&self, text: &[u8]) -> Option<usize> {
        let found = match text.first_chunk::<16>() {
            Some(first) => {
                u128::from_le_bytes(*first) & self.mask == self.value
                    && (self.bytes.len() <= 16 || text.starts_with(&self.bytes))
            }
            None => text.starts_with(&self.bytes),
        };
        found.then_some(self.bytes.len())
    }
}

impl Lists {
    fn truncate(&mut self, count: usize) {
        self.validity.truncate(count);
        self.offsets.truncate(count + 1);
        self.items.truncate(self.done());
    }

    fn finish(&mut self, items: Piece) -> Piece {
        let (length, nulls, bits) = std::mem::take(&mut self.validity).finish();
        Piece {
            length,
            nulls,
            buffers: vec![bits, Some(Buffer::of(std::mem::replace(&mut self.offsets, vec![0])))],
            children: vec![items],
        }
    }
}

fn finish_boolean(plain: &mut Plain<u8>) -> Piece {
    let made = std::mem::take(plain);
    let pack = |eight: &[u8]| eight.iter().enumerate().fold(0, |bits, (i, one)| bits | one << i);
    let packed: Vec<u8> = made.values.chunks(8).map(pack).collect();
    let (length, nulls, bits) = made.validity.finish();
    Piece {
        length,
        nulls,
        buffers: vec![bits, Some(Buffer::of(packed))],
        children: Vec::new(),
    }
}
