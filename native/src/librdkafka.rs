//! The door to librdkafka: the functions of the library that confluent-kafka has loaded, and its messages.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{self, NonNull};

use libloading::os::unix::{Library, RTLD_NOW};

/// `RTLD_NOLOAD`: only what the process has loaded already.
#[cfg(target_os = "linux")]
const LOADED_ONLY: c_int = 0x4;
#[cfg(not(target_os = "linux"))]
const LOADED_ONLY: c_int = 0x10;

/// `rd_kafka_message_t`, as the library's public header has it since version 0.9.
#[repr(C)]
struct RawMessage {
    error: c_int,
    topic: *mut c_void,
    partition: i32,
    payload: *const u8,
    size: usize,
    key: *const u8,
    key_size: usize,
    offset: i64,
    private: *mut c_void,
}

type Handle = *mut c_void;
type Queue = *mut c_void;

/// Declares the functions we call, with their types, and how they are found by name.
macro_rules! functions {
    ($($name:ident: $kind:ty),* $(,)?) => {
        struct Functions { $($name: $kind),* }

        impl Functions {
            fn find(library: &Library) -> Result<Self, libloading::Error> {
                // SAFETY: the types are those of the library's public header, which never changed for these names.
                unsafe { Ok(Functions { $($name: *library.get::<$kind>(concat!(stringify!($name), "\0").as_bytes())?),* }) }
            }
        }
    };
}

functions! {
    rd_kafka_version: unsafe extern "C" fn() -> c_int,
    rd_kafka_type: unsafe extern "C" fn(Handle) -> c_int,
    rd_kafka_name: unsafe extern "C" fn(Handle) -> *const c_char,
    rd_kafka_memberid: unsafe extern "C" fn(Handle) -> *mut c_char,
    rd_kafka_mem_free: unsafe extern "C" fn(Handle, *mut c_void),
    rd_kafka_queue_new: unsafe extern "C" fn(Handle) -> Queue,
    rd_kafka_queue_destroy: unsafe extern "C" fn(Queue),
    rd_kafka_queue_get_partition: unsafe extern "C" fn(Handle, *const c_char, i32) -> Queue,
    rd_kafka_queue_forward: unsafe extern "C" fn(Queue, Queue),
    rd_kafka_consume_batch_queue: unsafe extern "C" fn(Queue, c_int, *mut *mut RawMessage, usize) -> isize,
    rd_kafka_message_destroy: unsafe extern "C" fn(*mut RawMessage),
    rd_kafka_message_timestamp: unsafe extern "C" fn(*const RawMessage, *mut c_int) -> i64,
    rd_kafka_message_errstr: unsafe extern "C" fn(*const RawMessage) -> *const c_char,
    rd_kafka_message_headers: unsafe extern "C" fn(*const RawMessage, *mut *mut c_void) -> c_int,
    rd_kafka_header_get_all: unsafe extern "C" fn(*const c_void, usize, *mut *const c_char, *mut *const c_void, *mut usize) -> c_int,
    rd_kafka_topic_name: unsafe extern "C" fn(*mut c_void) -> *const c_char,
}

/// A consumer of the loaded library, and a queue of our own on it.
///
/// The consumer belongs to Python. Whoever holds this makes sure that it is not closed before this is dropped or
/// `forget`-ten: every method but `forget` and the drop of a forgotten one talks to it.
pub struct Consumer {
    functions: Functions,
    handle: Handle,
    queue: Queue,
    _library: Library,
}

// SAFETY: librdkafka's handles and queues may be used from any thread.
unsafe impl Send for Consumer {}
// SAFETY: likewise; methods that change our own state take `&mut self`.
unsafe impl Sync for Consumer {}

impl Consumer {
    /// Take hold of the consumer at `handle`, a queue of our own with it.
    ///
    /// `member` is the member id that Python knows; anything that is not as expected is an error that says what.
    ///
    /// # Safety
    /// `handle` is the `rd_kafka_t` of a live consumer of the library at `path`.
    pub unsafe fn open(path: &str, handle: usize, member: &str) -> Result<Self, String> {
        let handle = handle as Handle;
        // SAFETY: only what is loaded already, so no initialiser runs.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | LOADED_ONLY) }.map_err(|e| e.to_string())?;
        let functions = Functions::find(&library).map_err(|e| e.to_string())?;
        // SAFETY: takes nothing.
        let version = unsafe { (functions.rd_kafka_version)() };
        if version >> 24 != 2 {
            return Err(format!("librdkafka of version {version:#010x}"));
        }
        if handle.is_null() {
            return Err("the consumer is closed".into());
        }
        // SAFETY: the caller vouches for the handle; what is asked first only reads fields of it.
        let (kind, name) = unsafe {
            (
                (functions.rd_kafka_type)(handle),
                text((functions.rd_kafka_name)(handle)),
            )
        };
        if kind != 1 || !name.contains("#consumer-") {
            return Err(format!("not a consumer: {name:?}"));
        }
        // SAFETY: the handle is a consumer; the answer is ours to free.
        let known = unsafe {
            let raw = (functions.rd_kafka_memberid)(handle);
            let known = text(raw);
            if !raw.is_null() {
                (functions.rd_kafka_mem_free)(handle, raw.cast());
            }
            known
        };
        if known != member {
            return Err(format!("another consumer: {name:?}"));
        }
        // SAFETY: the handle is live.
        let queue = unsafe { (functions.rd_kafka_queue_new)(handle) };
        if queue.is_null() {
            return Err("no queue".into());
        }
        Ok(Consumer {
            functions,
            handle,
            queue,
            _library: library,
        })
    }

    /// Where the consumer is.
    pub fn address(&self) -> usize {
        self.handle as usize
    }

    /// Let a partition's messages come to our queue, or (with `ours` false) stay in its own.
    ///
    /// The library remembers that the application has forwarded the partition, so a later start of its fetcher does
    /// not send the messages elsewhere; the end of its fetcher does, so it is done anew for every assignment.
    pub fn forward(&mut self, topic: &CString, partition: i32, ours: bool) -> bool {
        let target = if ours { self.queue } else { ptr::null_mut() };
        // SAFETY: the handle is live; the partition's queue handle is a reference that is given back.
        unsafe {
            let source = (self.functions.rd_kafka_queue_get_partition)(self.handle, topic.as_ptr(), partition);
            if source.is_null() {
                return false;
            }
            (self.functions.rd_kafka_queue_forward)(source, target);
            (self.functions.rd_kafka_queue_destroy)(source);
        }
        true
    }

    /// Take up to `room` messages out of our queue, waiting at most `timeout_ms` for them to be so many.
    pub fn take(&mut self, room: usize, timeout_ms: i32) -> Vec<Message<'_>> {
        let mut raw: Vec<*mut RawMessage> = vec![ptr::null_mut(); room];
        // SAFETY: there is room for as many pointers as are asked for.
        let count =
            unsafe { (self.functions.rd_kafka_consume_batch_queue)(self.queue, timeout_ms, raw.as_mut_ptr(), room) };
        raw.truncate(usize::try_from(count).unwrap_or(0));
        raw.into_iter()
            .filter_map(NonNull::new)
            .map(|raw| Message {
                raw,
                functions: &self.functions,
            })
            .collect()
    }

    /// Never talk to the consumer again: it is gone, and the queue's memory with it or lost.
    pub fn forget(mut self) {
        self.queue = ptr::null_mut();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if !self.queue.is_null() {
            // SAFETY: the queue is ours and the consumer still lives; what is in the queue goes with it.
            unsafe { (self.functions.rd_kafka_queue_destroy)(self.queue) };
        }
    }
}

/// A message or event that is ours until it is dropped.
pub struct Message<'a> {
    raw: NonNull<RawMessage>,
    functions: &'a Functions,
}

impl Message<'_> {
    fn raw(&self) -> &RawMessage {
        // SAFETY: the library gave the message to us, and nobody changes it.
        unsafe { self.raw.as_ref() }
    }

    /// 0, or the error that came in the place of a message.
    pub fn error(&self) -> i32 {
        self.raw().error
    }

    /// What the error says.
    pub fn error_text(&self) -> String {
        // SAFETY: the message is live; the text belongs to it.
        unsafe { text((self.functions.rd_kafka_message_errstr)(self.raw.as_ptr())) }
    }

    /// The topic, as something that is equal for messages of one topic.
    pub fn topic_id(&self) -> usize {
        self.raw().topic as usize
    }

    /// The topic's name; empty when the event has none.
    pub fn topic(&self) -> String {
        if self.raw().topic.is_null() {
            return String::new();
        }
        // SAFETY: the message keeps its topic alive.
        unsafe { text((self.functions.rd_kafka_topic_name)(self.raw().topic)) }
    }

    /// The partition.
    pub fn partition(&self) -> i32 {
        self.raw().partition
    }

    /// The offset.
    pub fn offset(&self) -> i64 {
        self.raw().offset
    }

    /// Milliseconds since 1970, -1 when there is no time.
    pub fn timestamp_ms(&self) -> i64 {
        let mut kind = 0;
        // SAFETY: the message is live, and the kind has a place.
        let time = unsafe { (self.functions.rd_kafka_message_timestamp)(self.raw.as_ptr(), &mut kind) };
        if kind == 0 { -1 } else { time }
    }

    /// The payload, None for a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        // SAFETY: the payload belongs to the message and has that size.
        unsafe { slice(self.raw().payload, self.raw().size) }
    }

    /// The key, None when there is none.
    pub fn key(&self) -> Option<&[u8]> {
        // SAFETY: the key belongs to the message and has that size.
        unsafe { slice(self.raw().key, self.raw().key_size) }
    }

    /// Each header's name and value.
    pub fn headers(&self, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is live and the answer has a place; the headers stay the message's.
        if unsafe { (self.functions.rd_kafka_message_headers)(self.raw.as_ptr(), &mut headers) } != 0 {
            return;
        }
        for i in 0.. {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            // SAFETY: the headers belong to the live message, and the answers have places.
            let found =
                unsafe { (self.functions.rd_kafka_header_get_all)(headers, i, &mut name, &mut value, &mut size) };
            if found != 0 || name.is_null() {
                return;
            }
            // SAFETY: name and value belong to the headers; the name ends with a zero byte.
            unsafe { each(CStr::from_ptr(name).to_bytes(), slice(value.cast(), size)) };
        }
    }
}

impl Drop for Message<'_> {
    fn drop(&mut self) {
        // SAFETY: the message is ours and is not used again.
        unsafe { (self.functions.rd_kafka_message_destroy)(self.raw.as_ptr()) };
    }
}

/// # Safety
/// `raw` is null or a string that ends with a zero byte.
unsafe fn text(raw: *const c_char) -> String {
    if raw.is_null() {
        return String::new();
    }
    // SAFETY: promised by the caller.
    unsafe { CStr::from_ptr(raw) }.to_string_lossy().into_owned()
}

/// # Safety
/// `raw` is null or `size` bytes that live as long as `'a`.
unsafe fn slice<'a>(raw: *const u8, size: usize) -> Option<&'a [u8]> {
    if raw.is_null() {
        return None;
    }
    // SAFETY: promised by the caller.
    Some(unsafe { std::slice::from_raw_parts(raw, size) })
}
