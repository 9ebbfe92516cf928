//! Runs Avro programs (`lodestream.formats._avro_program`) record by record, into columns.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffer::{Buffer, Input};
use crate::tree::{Column, Node};

// Places in `_avro_program.FAULTS`.
const TRUNCATED: u8 = 1;
const TRAILING: u8 = 2;
const VARINT: u8 = 3;
const LENGTH: u8 = 4;
const BRANCH: u8 = 5;
const ENUM: u8 = 6;
const BOOLEAN: u8 = 7;
const ITEMS: u8 = 8;
const DEPTH: u8 = 9;
const BLOCK: u8 = 10;

#[derive(Clone, Copy, PartialEq)]
enum Code {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Fixed,
    Enum,
    Record,
    List,
    Union,
}

struct Op {
    code: Code,
    wanted: bool,
    children: Vec<usize>,
    /// Bytes of a fixed, symbols of an enum, the other branch of a union with null or -1.
    size: i64,
    least: u64,
    /// Bytes of every value, or None when they vary.
    exact: Option<u64>,
}

impl Op {
    fn of((code, wanted, children, size, least, exact): RawOp, count: usize) -> PyResult<Op> {
        let code = match code.as_str() {
            "null" => Code::Null,
            "boolean" => Code::Boolean,
            "int" => Code::Int,
            "long" => Code::Long,
            "float" => Code::Float,
            "double" => Code::Double,
            "bytes" => Code::Bytes,
            "fixed" => Code::Fixed,
            "enum" => Code::Enum,
            "record" => Code::Record,
            "array" | "map" => Code::List,
            "union" => Code::Union,
            _ => return Err(PyValueError::new_err(format!("no such op: {code}"))),
        };
        let fits = match code {
            Code::List => children.len() == 1,
            Code::Union => size < children.len() as i64,
            _ => true,
        };
        if !fits || children.iter().any(|child| *child >= count) {
            return Err(PyValueError::new_err("an op's children are not as its code says"));
        }
        Ok(Op {
            code,
            wanted,
            children,
            size,
            least: u64::try_from(least).unwrap_or(0),
            exact: u64::try_from(exact).ok(),
        })
    }
}

type RawOp = (String, bool, Vec<usize>, i64, i64, i64);

/// Reads records by one program.
#[pyclass(module = "lodestream_native")]
pub struct AvroReader {
    ops: Vec<Op>,
    root: Node,
    limits: Limits,
}

/// What one record may cost: how deep it nests, its items, and how many more of those than bytes.
type Limits = (usize, u64, u64);

#[pymethods]
impl AvroReader {
    /// `program` is a list of (code, wanted, children, size, least, exact); `tree` describes the column of its first
    /// op, as `tree.rs` reads it; `limits` are (depth_max, items_max, how many more items than bytes are allowed).
    #[new]
    fn new(program: Vec<RawOp>, tree: &Bound<'_, PyAny>, limits: Limits) -> PyResult<Self> {
        let count = program.len();
        let ops = program
            .into_iter()
            .map(|op| Op::of(op, count))
            .collect::<PyResult<Vec<_>>>()?;
        if ops.first().is_none_or(|op| op.code != Code::Record || !op.wanted) {
            return Err(PyValueError::new_err("a program begins with a record that is wanted"));
        }
        Ok(AvroReader {
            ops,
            root: Node::of(tree)?,
            limits,
        })
    }

    /// Read n records of a block, given where each begins and ends.
    ///
    /// Gives (n codes, the column of op 0 as (length, nulls, buffers, children)); a record with a code is NULL.
    fn read(
        &mut self,
        py: Python<'_>,
        block: Input<u8>,
        starts: Input<i64>,
        ends: Input<i64>,
    ) -> PyResult<(Buffer, Py<PyAny>)> {
        let (block, starts, ends) = (block.items(), starts.items(), ends.items());
        if starts.len() != ends.len() {
            return Err(PyValueError::new_err("beginnings and ends differ in number"));
        }
        let AvroReader { ops, root, limits } = self;
        let (depth_max, items_max, free_items) = *limits;
        let codes = py.detach(|| {
            root.reserve(starts.len());
            let read = |(i, (start, end)): (usize, (&i64, &i64))| {
                let found = block.get(*start as usize..*end as usize).ok_or(TRUNCATED);
                let outcome = found.and_then(|bytes| {
                    let budget = (bytes.len() as u64 + free_items).min(items_max);
                    let mut cursor = Cursor {
                        ops,
                        bytes,
                        at: 0,
                        budget,
                        depth_max,
                    };
                    cursor.value(0, Some(root), 1)?;
                    if cursor.at < bytes.len() { Err(TRAILING) } else { Ok(()) }
                });
                outcome.err().map_or(0, |code| {
                    root.truncate(i);
                    root.null();
                    code
                })
            };
            starts.iter().zip(ends).enumerate().map(read).collect::<Vec<u8>>()
        });
        let column = self.root.finish().into_python(py)?;
        Ok((Buffer::of(codes), column))
    }
}

/// A place in a record.
struct Cursor<'a> {
    ops: &'a [Op],
    bytes: &'a [u8],
    at: usize,
    budget: u64,
    depth_max: usize,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    fn step(&mut self, size: u64) -> Result<&'a [u8], u8> {
        if size > self.left() {
            return Err(TRUNCATED);
        }
        let start = self.at;
        self.at += size as usize;
        Ok(&self.bytes[start..self.at])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], u8> {
        let found = self
            .bytes
            .get(self.at..)
            .and_then(<[u8]>::first_chunk::<N>)
            .ok_or(TRUNCATED)?;
        self.at += N;
        Ok(*found)
    }

    /// A zigzag varint of at most 64 bits.
    fn long(&mut self) -> Result<i64, u8> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = *self.bytes.get(self.at).ok_or(TRUNCATED)?;
            self.at += 1;
            if shift == 63 && byte > 1 && byte < 0x80 {
                return Err(VARINT);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
            shift += 7;
            if shift > 63 {
                return Err(VARINT);
            }
        }
    }

    fn length(&mut self) -> Result<u64, u8> {
        u64::try_from(self.long()?).map_err(|_| LENGTH)
    }

    fn int(&mut self) -> Result<i32, u8> {
        i32::try_from(self.long()?).map_err(|_| VARINT)
    }

    /// Read one value of an op, into its column if it has one.
    fn value(&mut self, index: usize, node: Option<&mut Node>, depth: usize) -> Result<(), u8> {
        let op = &self.ops[index];
        let Some(node) = node else {
            return self.step_over(op, depth);
        };
        if !op.wanted {
            node.null(); // the items of a list of which only the number is wanted
            return self.step_over(op, depth);
        }
        match (op.code, &mut node.column) {
            (Code::Long, Column::Big(plain)) => plain.push(self.long()?),
            (Code::Bytes, Column::Binary(_, bytes)) => {
                let size = self.length()?;
                let value = self.step(size)?;
                if !bytes.has_room(value.len()) {
                    return Err(LENGTH);
                }
                bytes.push(value);
            }
            (Code::Double, Column::Double(plain)) => plain.push(f64::from_le_bytes(self.array()?)),
            (Code::Int, Column::Int(plain)) => plain.push(self.int()?),
            (Code::Union, column) if op.size < 0 => {
                let branch = self.branch(op)?;
                let Column::Union(branches, inner) = column else {
                    return Err(BRANCH);
                };
                branches.push(branch as i32);
                let mut fields = inner.iter_mut();
                for (i, child) in op.children.iter().enumerate() {
                    let field = if self.ops[*child].wanted { fields.next() } else { None };
                    if i == branch {
                        self.value(*child, field, depth)?;
                    } else if let Some(field) = field {
                        field.null();
                    }
                }
            }
            (Code::Union, _) => {
                let branch = self.branch(op)?;
                let child = op.children[branch];
                if branch as i64 == op.size && self.ops[child].wanted {
                    return self.value(child, Some(node), depth);
                }
                self.value(child, None, depth)?;
                node.null();
            }
            (Code::Record, Column::Struct(inner)) => {
                self.enter(op, depth)?;
                let mut fields = inner.fields.iter_mut();
                for child in &op.children {
                    let field = if self.ops[*child].wanted { fields.next() } else { None };
                    self.value(*child, field, depth + 1)?;
                }
                inner.validity.valid();
            }
            (Code::List, Column::List(lists)) => {
                self.enter(op, depth)?;
                self.blocks(op, Some(&mut lists.items), depth)?;
                lists.end().ok_or(ITEMS)?;
            }
            (Code::Enum, Column::Int(plain)) => plain.push(self.symbol(op)?),
            (Code::Float, Column::Float(plain)) => plain.push(f32::from_le_bytes(self.array()?)),
            (Code::Boolean, Column::Boolean(plain)) => plain.push(self.boolean()?),
            (Code::Fixed, Column::Binary(_, bytes)) => {
                let value = self.step(op.size as u64)?;
                if !bytes.has_room(value.len()) {
                    return Err(LENGTH);
                }
                bytes.push(value);
            }
            (Code::Null, _) => node.null(),
            _ => return Err(BRANCH), // the tree is not the program's: its maker is wrong
        }
        Ok(())
    }

    /// Read one value that nobody wants.
    fn step_over(&mut self, op: &Op, depth: usize) -> Result<(), u8> {
        if let (Some(size), false) = (op.exact, op.wanted) {
            return self.step(size).map(|_| ());
        }
        match op.code {
            Code::Null => {}
            Code::Boolean => {
                self.boolean()?;
            }
            Code::Int => {
                self.int()?;
            }
            Code::Long => {
                self.long()?;
            }
            Code::Float => {
                self.step(4)?;
            }
            Code::Double => {
                self.step(8)?;
            }
            Code::Bytes => {
                let size = self.length()?;
                self.step(size)?;
            }
            Code::Fixed => {
                self.step(op.size as u64)?;
            }
            Code::Enum => {
                self.symbol(op)?;
            }
            Code::Record => {
                self.enter(op, depth)?;
                for child in &op.children {
                    self.value(*child, None, depth + 1)?;
                }
            }
            Code::List => {
                self.enter(op, depth)?;
                self.blocks(op, None, depth)?;
            }
            Code::Union => {
                let branch = self.branch(op)?;
                self.value(op.children[branch], None, depth)?;
            }
        }
        Ok(())
    }

    /// Whether a record, array or map may begin here.
    fn enter(&self, op: &Op, depth: usize) -> Result<(), u8> {
        if depth > self.depth_max {
            return Err(DEPTH);
        }
        if op.code == Code::Record && op.least > self.left() {
            Err(TRUNCATED)
        } else {
            Ok(())
        }
    }

    fn branch(&mut self, op: &Op) -> Result<usize, u8> {
        let branch = usize::try_from(self.long()?).map_err(|_| BRANCH)?;
        if branch < op.children.len() {
            Ok(branch)
        } else {
            Err(BRANCH)
        }
    }

    fn symbol(&mut self, op: &Op) -> Result<i32, u8> {
        let symbol = self.long()?;
        if (0..op.size).contains(&symbol) {
            i32::try_from(symbol).map_err(|_| ENUM)
        } else {
            Err(ENUM)
        }
    }

    fn boolean(&mut self) -> Result<u8, u8> {
        let [byte] = self.array()?;
        if byte > 1 { Err(BOOLEAN) } else { Ok(byte) }
    }

    /// Read the blocks of an array or map, up to and with the empty one.
    fn blocks(&mut self, op: &Op, mut items: Option<&mut Node>, depth: usize) -> Result<(), u8> {
        let child = op.children[0];
        let item = &self.ops[child];
        loop {
            let head = self.long()?;
            if head == 0 {
                return Ok(());
            }
            let mut end = None;
            if head < 0 {
                let size = self.length()?;
                if size > self.left() {
                    return Err(TRUNCATED);
                }
                end = Some(self.at + size as usize);
                if head == i64::MIN {
                    return Err(LENGTH);
                }
            }
            let count = head.unsigned_abs();
            if u128::from(count) * u128::from(item.least) > u128::from(self.left()) {
                return Err(TRUNCATED);
            }
            self.budget = self.budget.checked_sub(count).ok_or(ITEMS)?;
            if let (Some(end), false) = (end, op.wanted) {
                self.at = end;
                continue;
            }
            match (&mut items, item.exact) {
                (Some(items), _) => {
                    for _ in 0..count {
                        self.value(child, Some(items), depth + 1)?;
                    }
                }
                (None, Some(size)) => {
                    self.step(count.checked_mul(size).ok_or(TRUNCATED)?)?;
                }
                (None, None) => {
                    for _ in 0..count {
                        self.value(child, None, depth + 1)?;
                    }
                }
            }
            if end.is_some_and(|end| end != self.at) {
                return Err(BLOCK);
            }
        }
    }
}
