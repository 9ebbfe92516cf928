//! Arrow's memory crosses between Python and Rust as plain buffers: read in place, handed over without a copy.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Types of which every bit pattern is a value.
pub trait Plain: Copy + Send + Sync + 'static {}
impl Plain for u8 {}
impl Plain for i32 {}
impl Plain for u32 {}
impl Plain for i64 {}
impl Plain for u64 {}
impl Plain for f32 {}
impl Plain for f64 {}
impl Plain for i8 {}
impl Plain for i16 {}
impl Plain for i128 {}

/// Memory made here that Python reads through the buffer protocol; it lives as long as anybody looks at it.
#[pyclass(frozen, module = "lodestream_native")]
pub struct Buffer {
    address: usize,
    size: usize,
    _owner: Box<dyn Any + Send + Sync>,
}

impl Buffer {
    /// Hand a vector over.
    pub fn of<T: Plain>(values: Vec<T>) -> Self {
        Buffer {
            address: values.as_ptr() as usize,
            size: std::mem::size_of_val(values.as_slice()),
            _owner: Box::new(values),
        }
    }
}

#[pymethods]
impl Buffer {
    fn __len__(&self) -> usize {
        self.size
    }

    /// # Safety
    /// Called by Python with a view to fill in.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let (address, size) = (slf.get().address, slf.get().size);
        // SAFETY: the view is Python's; the memory belongs to `_owner`, which is never touched again and which the
        // view's reference to this object keeps alive.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                address as *mut c_void,
                size as ffi::Py_ssize_t,
                1,
                flags,
            )
        };
        if filled == 0 {
            Ok(())
        } else {
            Err(PyErr::fetch(slf.py()))
        }
    }
}

/// A contiguous Python buffer (NumPy array, Arrow buffer, bytes) seen as items of `T`, whatever its declared format.
pub struct Input<T> {
    buffer: PyUntypedBuffer,
    count: usize,
    kind: PhantomData<T>,
}

impl<T: Plain> Input<T> {
    /// Look at an object's memory.
    pub fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(object)?;
        let size = buffer.len_bytes();
        if !buffer.is_c_contiguous() {
            return Err(PyValueError::new_err("the buffer is not contiguous"));
        }
        if size % size_of::<T>() != 0 || !(buffer.buf_ptr() as usize).is_multiple_of(align_of::<T>()) && size > 0 {
            return Err(PyValueError::new_err("the buffer does not hold whole, aligned items"));
        }
        Ok(Input {
            buffer,
            count: size / size_of::<T>(),
            kind: PhantomData,
        })
    }

    /// The items.
    pub fn items(&self) -> &[T] {
        if self.count == 0 {
            return &[];
        }
        // SAFETY: contiguity, size and alignment were checked, any bits are a `T`, and Python keeps the memory while
        // the buffer is held. Callers of this package do not write to it meanwhile: a flow has one thread.
        unsafe { std::slice::from_raw_parts(self.buffer.buf_ptr().cast::<T>(), self.count) }
    }

    /// The items, to be changed in place; an error when the memory is read-only.
    pub fn items_mut(&mut self) -> PyResult<&mut [T]> {
        if self.buffer.readonly() {
            return Err(PyValueError::new_err("the buffer is read-only"));
        }
        if self.count == 0 {
            return Ok(&mut []);
        }
        // SAFETY: as in `items`; the memory is writable and nobody else looks at it during the call.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.buffer.buf_ptr().cast::<T>(), self.count) })
    }
}

impl<'a, 'py, T: Plain> FromPyObject<'a, 'py> for Input<T> {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Input::of(&object)
    }
}
