//! Drains a Kafka consumer that Python made, its messages straight into columns.
//!
//! The partitions' queues are forwarded to one queue of our own. Everything else that a consumer says (rebalances,
//! errors, tokens, statistics) goes the way it always went, through the Python object's `poll`.

use std::collections::HashMap;
use std::ffi::CString;
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::columns::{Bytes, Piece, Validity};
use crate::librdkafka::{Consumer, Message};

/// Messages taken at a time, so that the bound on bytes is not missed by much.
const TAKEN_MAX: usize = 2048;
/// How long to wait before partitions that said nothing yet are forwarded again.
const AGAIN: Duration = Duration::from_millis(20);
/// `RD_KAFKA_RESP_ERR__PARTITION_EOF`.
const END: i32 = -191;

/// Partitions that are forwarded, and whether that is known to hold. The fetcher of an earlier assignment undoes a
/// forward when it ends, in its own time: only a message of the new one proves that it has.
type Adopted = HashMap<(String, i32), bool>;

/// Takes the messages of assigned partitions out of a consumer. One thread calls it; it is closed before the consumer.
#[pyclass(module = "lodestream_native")]
pub struct KafkaDrain {
    consumer: Option<Consumer>,
    /// The Python object; None once the garbage collector has taken us apart.
    python: Option<Py<PyAny>>,
    adopted: Adopted,
}

/// Where confluent-kafka's consumer object keeps its `rd_kafka_t`: the first field after Python's own.
fn handle_of(object: &Bound<'_, PyAny>) -> usize {
    let base = object.as_ptr() as usize + size_of::<ffi::PyObject>();
    // SAFETY: the caller has checked that the object is a consumer of the version whose layout this is.
    unsafe { *(base as *const usize) }
}

impl KafkaDrain {
    /// The consumer, if neither of the two is closed.
    fn live(&mut self, py: Python<'_>) -> PyResult<(&mut Consumer, &mut Adopted)> {
        let handle = self.python.as_ref().map_or(0, |python| handle_of(python.bind(py)));
        if let Some(consumer) = self.consumer.take_if(|consumer| consumer.address() != handle) {
            consumer.forget();
            return Err(PyRuntimeError::new_err("the consumer was closed before its drain"));
        }
        self.consumer
            .as_mut()
            .map(|consumer| (consumer, &mut self.adopted))
            .ok_or_else(|| PyRuntimeError::new_err("the drain is closed"))
    }
}

#[pymethods]
impl KafkaDrain {
    /// Take hold of a consumer.
    ///
    /// Args: the consumer, which must be a `confluent_kafka.cimpl.Consumer` of a version whose layout is known (the
    /// caller has looked); the path of the librdkafka that it has loaded; its member id as it tells it.
    #[new]
    fn new(consumer: Bound<'_, PyAny>, library: &str, member: &str) -> PyResult<Self> {
        let handle = handle_of(&consumer);
        // SAFETY: the object is a consumer of that layout, and it keeps the handle alive while we hold it.
        let found = unsafe { Consumer::open(library, handle, member) }.map_err(PyRuntimeError::new_err)?;
        Ok(KafkaDrain {
            consumer: Some(found),
            python: Some(consumer.unbind()),
            adopted: HashMap::new(),
        })
    }

    /// The messages of these partitions, (topic, number), come here from now on. To be called for every assignment.
    fn adopt(&mut self, py: Python<'_>, partitions: Vec<(String, i32)>) -> PyResult<()> {
        let (consumer, adopted) = self.live(py)?;
        for (topic, partition) in partitions {
            if !consumer.forward(&CString::new(topic.as_str())?, partition, true) {
                return Err(PyValueError::new_err(format!("no such partition: {topic} {partition}")));
            }
            adopted.insert((topic, partition), false);
        }
        Ok(())
    }

    /// The messages of these partitions come here no more. Harmless after `close`, for a consumer that closes revokes.
    fn leave(&mut self, py: Python<'_>, partitions: Vec<(String, i32)>) -> PyResult<()> {
        if self.consumer.is_none() {
            return Ok(());
        }
        let (consumer, adopted) = self.live(py)?;
        for (topic, partition) in partitions {
            consumer.forward(&CString::new(topic.as_str())?, partition, false);
            adopted.remove(&(topic, partition));
        }
        Ok(())
    }

    /// Take messages: at most `rows_max` and not much more than `bytes_max` of payload; waits for the first only.
    ///
    /// Gives ([(topic, partition, offsets, timestamps, values, keys, headers)], [(topic, partition, offset, code,
    /// text)]): pieces whose columns are each (length, nulls, buffers, children), and what came in place of messages.
    #[allow(clippy::type_complexity)]
    fn drain<'py>(
        &mut self,
        py: Python<'py>,
        rows_max: usize,
        bytes_max: usize,
        timeout_ms: i32,
        keys: bool,
        headers: bool,
    ) -> PyResult<(Vec<Bound<'py, PyAny>>, Vec<(String, i32, i64, i32, String)>)> {
        let (consumer, adopted) = self.live(py)?;
        let mut found = py.detach(|| take_all(consumer, adopted, rows_max, bytes_max, timeout_ms, keys, headers));
        let events = std::mem::take(&mut found.events);
        let pieces = found
            .pieces
            .into_iter()
            .map(|piece| piece.into_python(py))
            .collect::<PyResult<_>>()?;
        Ok((pieces, events))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.python)
    }

    fn __clear__(&mut self, py: Python<'_>) {
        self.close(py);
        self.python = None;
    }

    /// Let go of the consumer; what was not drained is dropped. Twice is harmless.
    fn close(&mut self, py: Python<'_>) {
        if let Ok((consumer, adopted)) = self.live(py) {
            for ((topic, partition), _) in adopted.drain() {
                if let Ok(topic) = CString::new(topic) {
                    consumer.forward(&topic, partition, false);
                }
            }
            let consumer = self.consumer.take();
            py.detach(|| drop(consumer));
        }
    }
}

impl Drop for KafkaDrain {
    fn drop(&mut self) {
        Python::attach(|py| self.close(py));
    }
}

/// Messages of one partition under construction.
struct Columns {
    topic_id: usize,
    topic: String,
    partition: i32,
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    values: Bytes,
    keys: Option<Bytes>,
    headers: Option<Headers>,
}

struct Headers {
    offsets: Vec<i32>,
    names: Bytes,
    values: Bytes,
}

#[derive(Default)]
struct Found {
    pieces: Vec<Columns>,
    places: HashMap<(usize, i32), usize>,
    last: Option<usize>,
    events: Vec<(String, i32, i64, i32, String)>,
    rows: usize,
    bytes: usize,
}

fn take_all(
    consumer: &mut Consumer,
    adopted: &mut Adopted,
    rows_max: usize,
    bytes_max: usize,
    timeout_ms: i32,
    keys: bool,
    headers: bool,
) -> Found {
    let mut found = Found::default();
    let deadline = Instant::now() + Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
    while found.rows < rows_max && found.bytes < bytes_max {
        let first = found.rows == 0 && found.events.is_empty();
        let mut wait = if first {
            deadline.saturating_duration_since(Instant::now())
        } else {
            Duration::ZERO
        };
        if first && forward_again(consumer, adopted) {
            wait = wait.min(AGAIN);
        }
        let mut room = TAKEN_MAX.min(rows_max - found.rows);
        if !wait.is_zero() {
            room = 1; // the library waits until the room is full
        } else if let Some(size) = found.bytes.checked_div(found.rows).filter(|size| *size > 0) {
            room = room.min((bytes_max - found.bytes) / size + 1);
        }
        let messages = consumer.take(room, wait.as_millis() as i32);
        if messages.is_empty() && (!first || Instant::now() >= deadline) {
            break;
        }
        for message in &messages {
            found.add(message, keys, headers);
        }
    }
    found.settle(adopted);
    found
}

/// Forward the partitions that have not come yet once more; whether there are any.
fn forward_again(consumer: &mut Consumer, adopted: &Adopted) -> bool {
    let mut any = false;
    for ((topic, partition), _) in adopted.iter().filter(|(_, settled)| !**settled) {
        any |= CString::new(topic.as_str()).is_ok_and(|topic| consumer.forward(&topic, *partition, true));
    }
    any
}

impl Found {
    fn add(&mut self, message: &Message<'_>, keys: bool, headers: bool) {
        if message.error() != 0 {
            self.events.push((
                message.topic(),
                message.partition(),
                message.offset(),
                message.error(),
                message.error_text(),
            ));
            return;
        }
        let (value, key) = (message.value(), if keys { message.key() } else { None });
        let size = value.map_or(0, <[u8]>::len) + key.map_or(0, <[u8]>::len);
        let columns = self.columns(message, size, keys, headers);
        columns.offsets.push(message.offset());
        columns.timestamps.push(message.timestamp_ms());
        put(&mut columns.values, value);
        if let Some(column) = &mut columns.keys {
            put(column, key);
        }
        if let Some(column) = &mut columns.headers {
            message.headers(|name, value| {
                column.names.push(String::from_utf8_lossy(name).as_bytes());
                put(&mut column.values, value);
            });
            column.offsets.push(column.names.validity.len() as i32);
        }
        self.rows += 1;
        self.bytes += size;
    }

    /// Partitions that messages or ends came from are forwarded for good.
    fn settle(&self, adopted: &mut Adopted) {
        let ends = self
            .events
            .iter()
            .filter(|event| event.3 == END)
            .map(|event| (&event.0, event.1));
        for (topic, partition) in self
            .pieces
            .iter()
            .map(|piece| (&piece.topic, piece.partition))
            .chain(ends)
        {
            if let Some(settled) = adopted.get_mut(&(topic.clone(), partition)) {
                *settled = true;
            }
        }
    }

    /// The columns of the message's partition; new ones when those there are cannot hold so many more bytes.
    fn columns(&mut self, message: &Message<'_>, size: usize, keys: bool, headers: bool) -> &mut Columns {
        let (topic_id, partition) = (message.topic_id(), message.partition());
        let is_same = |columns: &Columns| columns.topic_id == topic_id && columns.partition == partition;
        let place = match self.last {
            Some(i) if is_same(&self.pieces[i]) => Some(i),
            _ => self.places.get(&(topic_id, partition)).copied(),
        };
        let place = match place {
            Some(i) if self.pieces[i].has_room(size) => i,
            _ => {
                let rows = TAKEN_MAX;
                self.pieces.push(Columns {
                    topic_id,
                    topic: message.topic(),
                    partition,
                    offsets: Vec::with_capacity(rows),
                    timestamps: Vec::with_capacity(rows),
                    values: Bytes::new(rows, size * rows.min(1 + (1 << 20) / (size + 1))),
                    keys: keys.then(|| Bytes::new(rows, 0)),
                    headers: headers.then(|| Headers {
                        offsets: vec![0],
                        names: Bytes::new(0, 0),
                        values: Bytes::new(0, 0),
                    }),
                });
                self.places.insert((topic_id, partition), self.pieces.len() - 1);
                self.pieces.len() - 1
            }
        };
        self.last = Some(place);
        &mut self.pieces[place]
    }
}

fn put(column: &mut Bytes, value: Option<&[u8]>) {
    match value {
        Some(value) => column.push(value),
        None => column.null(),
    }
}

impl Columns {
    /// Headers are counted too, for they may be as big as they like: half of what can be addressed is left for those
    /// of one message, which the broker bounds well below.
    fn has_room(&self, size: usize) -> bool {
        let half = 1 << 30;
        let fits = |column: &Bytes| column.size() < half && column.has_room(size);
        let headers = self
            .headers
            .as_ref()
            .is_none_or(|h| h.names.size() < half && h.values.size() < half);
        fits(&self.values) && self.keys.as_ref().is_none_or(fits) && headers
    }

    fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let keys = self.keys.map(|keys| keys.finish().into_python(py)).transpose()?;
        let headers = self
            .headers
            .map(|headers| headers.finish().into_python(py))
            .transpose()?;
        let values = self.values.finish().into_python(py)?;
        let (offsets, timestamps) = (
            crate::buffer::Buffer::of(self.offsets),
            crate::buffer::Buffer::of(self.timestamps),
        );
        let piece = (self.topic, self.partition, offsets, timestamps, values, keys, headers);
        Ok(piece.into_pyobject(py)?.into_any())
    }
}

impl Headers {
    fn finish(self) -> Piece {
        let count = self.names.validity.len();
        let entries = Piece {
            length: count,
            nulls: 0,
            buffers: vec![None],
            children: vec![self.names.finish(), self.values.finish()],
        };
        let (length, nulls, bits) = {
            let mut validity = Validity::default();
            (1..self.offsets.len()).for_each(|_| validity.valid());
            validity.finish()
        };
        Piece {
            length,
            nulls,
            buffers: vec![bits, Some(crate::buffer::Buffer::of(self.offsets))],
            children: vec![entries],
        }
    }
}
