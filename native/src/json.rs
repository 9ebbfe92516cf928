//! JSON records to columns, each record exactly or not at all: whatever is odd is left to the exact decoder in Python.

use memchr::memchr;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffer::{Buffer, Input};
use crate::columns::Bytes;
use crate::text;
use crate::tree::{Column, Node, Struct};

const BLANK: [u8; 3] = [b' ', b'\t', b'\r'];
/// Maps with more keys are left alone: their keys are compared each with each.
const MAP_KEYS_MAX: usize = 64;

/// Where each line that is not blank begins and ends, as two columns of 64-bit numbers: `_lines.split_lines`.
#[pyfunction]
pub fn split_lines(py: Python<'_>, block: Input<u8>) -> (Buffer, Buffer) {
    let block = block.items();
    let (starts, ends) = py.detach(|| {
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < block.len() {
            let next = memchr(b'\n', &block[at..]).map_or(block.len(), |size| at + size);
            let end = next - usize::from(next > at && block[next - 1] == b'\r');
            let is_blank = end == at
                || BLANK.contains(&block[at])
                    && BLANK.contains(&block[end - 1])
                    && block[at..end].iter().all(|byte| BLANK.contains(byte));
            if !is_blank {
                starts.push(at as i64);
                ends.push(end as i64);
            }
            at = next + 1;
        }
        (starts, ends)
    });
    (Buffer::of(starts), Buffer::of(ends))
}

/// Decodes records of one schema.
#[pyclass(module = "lodestream_native")]
pub struct JsonDecoder {
    root: Struct,
    depth_max: usize,
    size_max: usize,
}

#[pymethods]
impl JsonDecoder {
    /// `schema` describes a struct, as `tree.rs` reads it; a record that nests deeper or is longer is odd.
    #[new]
    fn new(schema: &Bound<'_, PyAny>, depth_max: usize, size_max: usize) -> PyResult<Self> {
        match Node::of(schema)?.column {
            Column::Struct(root) => Ok(JsonDecoder {
                root,
                depth_max,
                size_max,
            }),
            _ => Err(PyValueError::new_err("a record is a struct")),
        }
    }

    /// Decode n records of a block, given where each begins and ends.
    ///
    /// Gives (columns as (length, nulls, buffers, children), the numbers of the records that were left as 64-bit
    /// numbers).
    fn decode(
        &mut self,
        py: Python<'_>,
        block: Input<u8>,
        starts: Input<i64>,
        ends: Input<i64>,
    ) -> PyResult<(Vec<Py<PyAny>>, Buffer)> {
        let (block, starts, ends) = (block.items(), starts.items(), ends.items());
        if starts.len() != ends.len() {
            return Err(PyValueError::new_err("beginnings and ends differ in number"));
        }
        let left = py.detach(|| self.decode_all(block, starts, ends));
        let columns = self
            .root
            .fields
            .iter_mut()
            .map(|field| field.finish().into_python(py))
            .collect::<PyResult<Vec<_>>>()?;
        Ok((columns, Buffer::of(left)))
    }
}

impl JsonDecoder {
    fn decode_all(&mut self, block: &[u8], starts: &[i64], ends: &[i64]) -> Vec<i64> {
        // A record begins and ends with a bracket, so if the block is valid UTF-8, so is each of them.
        let all_valid = std::str::from_utf8(block).is_ok();
        self.root
            .fields
            .iter_mut()
            .for_each(|field| field.reserve(starts.len()));
        let mut left = Vec::new();
        let mut count = 0;
        for (i, (start, end)) in starts.iter().zip(ends).enumerate() {
            if self.record(block, *start as usize, *end as usize, all_valid).is_some() {
                count += 1;
            } else {
                self.root.fields.iter_mut().for_each(|field| field.truncate(count));
                left.push(i as i64);
            }
        }
        left
    }

    fn record(&mut self, block: &[u8], start: usize, end: usize, valid: bool) -> Option<()> {
        let text = block.get(start..end).filter(|text| text.len() <= self.size_max)?;
        if !valid {
            std::str::from_utf8(text).ok()?;
        }
        let mut cursor = Cursor {
            block,
            at: start,
            end,
            depth_left: self.depth_max,
        };
        cursor.space();
        cursor.take(b'{')?;
        cursor.object(&mut self.root)?;
        cursor.space();
        (cursor.at == end).then_some(())
    }
}

/// What ends plain text, or is not allowed in it.
fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

/// A place in a record; `end` is the record's end, and the block may go on after it.
struct Cursor<'a> {
    block: &'a [u8],
    at: usize,
    end: usize,
    depth_left: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        if self.at < self.end {
            self.block.get(self.at).copied()
        } else {
            None
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        let found = self.block.get(self.at..self.end)?.starts_with(word);
        found.then(|| self.at += word.len())
    }

    /// After an item of a list or object: true when another follows, false when it has ended.
    fn goes_on(&mut self, close: u8) -> Option<bool> {
        self.space();
        match self.peek()? {
            b',' => {
                self.at += 1;
                self.space();
                Some(true)
            }
            byte if byte == close => {
                self.at += 1;
                Some(false)
            }
            _ => None,
        }
    }

    fn descend(&mut self) -> Option<()> {
        self.depth_left = self.depth_left.checked_sub(1)?;
        Some(())
    }

    /// An object whose brace has been read.
    fn object(&mut self, node: &mut Struct) -> Option<()> {
        self.descend()?;
        node.begin();
        self.space();
        if self.peek()? == b'}' {
            self.at += 1;
        } else {
            let mut next = self.name(node, 0)?;
            while node.meet(next) {
                self.value(&mut node.fields[next])?;
                next += 1;
                let rest = self.block.get(self.at..self.end)?;
                if let Some(size) = node.known.get(next).and_then(|known| known.matches(rest)) {
                    self.at += size;
                } else if self.goes_on(b'}')? {
                    next = self.name(node, next)?;
                } else {
                    self.depth_left += 1;
                    return node.end();
                }
            }
            return None; // a field came twice
        }
        self.depth_left += 1;
        node.end()
    }

    /// A key and its colon: the number of the field. Most often it is the one after the last.
    fn name(&mut self, node: &Struct, expected: usize) -> Option<usize> {
        self.take(b'"')?;
        let name = self.plain()?;
        let found = match node.names.get(expected) {
            Some(next) if next == name => expected,
            _ => node.names.iter().position(|other| other == name)?,
        };
        self.space();
        self.take(b':')?;
        self.space();
        Some(found)
    }

    /// Text whose quote has been read, up to and with the next one; None when it has escapes or control bytes.
    fn plain(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        self.seek();
        let text = self.block.get(start..self.at)?;
        self.take(b'"')?;
        Some(text)
    }

    /// Go to the next quote, backslash or control byte.
    fn seek(&mut self) {
        while let Some(some) = self.block.get(self.at..).and_then(<[u8]>::first_chunk::<16>) {
            let hits = u128::from_le_bytes(some.map(|byte| if is_special(byte) { 0xff } else { 0 }));
            if hits != 0 {
                self.at += hits.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 16;
        }
        while self.block.get(self.at).is_some_and(|byte| !is_special(*byte)) {
            self.at += 1;
        }
    }

    fn value(&mut self, node: &mut Node) -> Option<()> {
        let first = self.peek()?;
        if first == b'n' {
            self.word(b"null")?;
            return node.null_if_allowed();
        }
        match &mut node.column {
            Column::Text(_, bytes) => {
                self.take(b'"')?;
                self.text(bytes)
            }
            Column::Big(plain) => {
                plain.push(self.whole()?);
                Some(())
            }
            Column::Decimal(precision, scale, plain) => {
                plain.push(self.decimal(*precision, *scale)?);
                Some(())
            }
            Column::Struct(inner) => {
                self.take(b'{')?;
                self.object(inner)
            }
            Column::Timestamp(plain) => {
                self.take(b'"')?;
                plain.push(text::timestamp(self.plain()?)?);
                Some(())
            }
            Column::Double(plain) => {
                plain.push(self.double()?);
                Some(())
            }
            _ => self.rare(node),
        }
    }

    /// Values of the types that are less common.
    fn rare(&mut self, node: &mut Node) -> Option<()> {
        match &mut node.column {
            Column::Boolean(plain) => {
                let yes = self.peek()? == b't';
                self.word(if yes { b"true".as_slice() } else { b"false" })?;
                plain.push(u8::from(yes));
            }
            Column::Tiny(plain) => plain.push(self.whole()?.try_into().ok()?),
            Column::Small(plain) => plain.push(self.whole()?.try_into().ok()?),
            Column::Int(plain) => plain.push(self.whole()?.try_into().ok()?),
            Column::Float(plain) => plain.push(Some(self.double()? as f32).filter(|value| value.is_finite())?),
            Column::Date(plain) => {
                self.take(b'"')?;
                plain.push(text::date(self.plain()?)? as i32);
            }
            Column::Epoch(unit_us, plain) => {
                let micros = self.whole()?.checked_mul(*unit_us)?;
                let bounds = -62_135_596_800_000_000..=253_402_300_799_999_999;
                plain.push(bounds.contains(&micros).then_some(micros)?);
            }
            Column::Binary(_, bytes) => {
                self.take(b'"')?;
                let coded = self.plain()?;
                if !bytes.has_room(coded.len()) {
                    return None;
                }
                text::base64(coded, bytes.open())?;
                bytes.end();
            }
            Column::List(lists) => {
                self.take(b'[')?;
                self.descend()?;
                self.space();
                if self.peek()? == b']' {
                    self.at += 1;
                } else {
                    loop {
                        self.value(&mut lists.items)?;
                        if !self.goes_on(b']')? {
                            break;
                        }
                    }
                }
                self.depth_left += 1;
                lists.end()?;
            }
            Column::Map(keys, lists) => {
                self.take(b'{')?;
                self.entries(keys, lists.done(), &mut lists.items)?;
                lists.end()?;
            }
            _ => return None,
        }
        Some(())
    }

    fn entries(&mut self, keys: &mut Bytes, start: usize, items: &mut Node) -> Option<()> {
        self.descend()?;
        self.space();
        if self.peek()? == b'}' {
            self.at += 1;
        } else {
            loop {
                self.take(b'"')?;
                self.text(keys)?;
                let last = keys.validity.len() - 1;
                if last - start >= MAP_KEYS_MAX || (start..last).any(|i| keys.get(i) == keys.get(last)) {
                    return None;
                }
                self.space();
                self.take(b':')?;
                self.space();
                self.value(items)?;
                if !self.goes_on(b'}')? {
                    break;
                }
            }
        }
        self.depth_left += 1;
        Some(())
    }

    fn number(&mut self) -> Option<(text::Number, &'a [u8])> {
        let text = self.block.get(self.at..self.end)?;
        let number = text::Number::read(text)?;
        self.at += number.size;
        Some((number, text))
    }

    fn whole(&mut self) -> Option<i64> {
        self.number()?.0.whole()
    }

    fn double(&mut self) -> Option<f64> {
        let (number, text) = self.number()?;
        number.double(text)
    }

    /// A decimal as a number without exponent, or as text so that producers can keep it exact.
    fn decimal(&mut self, precision: u32, scale: u32) -> Option<i128> {
        if self.peek()? == b'"' {
            self.at += 1;
            return text::decimal(self.plain()?, precision, scale);
        }
        let (number, text) = self.number()?;
        number.decimal(text, precision, scale)
    }

    /// Text whose quote has been read, to the end of a column.
    fn text(&mut self, bytes: &mut Bytes) -> Option<()> {
        let start = self.at;
        self.seek();
        let piece = self.block.get(start..self.at.min(self.end))?;
        if !bytes.has_room(self.end - start) {
            return None;
        }
        if self.peek()? == b'"' {
            self.at += 1;
            bytes.push_from(self.block, start, piece.len());
            return Some(());
        }
        bytes.open().extend_from_slice(piece);
        while self.peek()? != b'"' {
            self.take(b'\\')?;
            let made = self.escape()?;
            bytes.open().extend_from_slice(made.encode_utf8(&mut [0; 4]).as_bytes());
            let start = self.at;
            self.seek();
            bytes
                .open()
                .extend_from_slice(self.block.get(start..self.at.min(self.end))?);
        }
        self.at += 1;
        bytes.end();
        Some(())
    }

    /// What a backslash that has been read escapes; half a surrogate pair is none.
    fn escape(&mut self) -> Option<char> {
        let code = self.peek()?;
        self.at += 1;
        Some(match code {
            b'"' | b'\\' | b'/' => code as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.unit()?;
                if !(0xd800..0xdc00).contains(&unit) {
                    return char::from_u32(unit);
                }
                self.word(b"\\u")?;
                let low = self.unit()?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                char::from_u32(0x10000 + ((unit - 0xd800) << 10) + low)?
            }
            _ => return None,
        })
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Option<u32> {
        let text = self.block.get(self.at..self.end)?.get(..4)?;
        self.at += 4;
        text.iter()
            .try_fold(0, |unit, byte| Some(unit << 4 | (*byte as char).to_digit(16)?))
    }
}
