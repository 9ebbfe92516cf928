//! Native kernels of Lodestream. Each has a portable form in Python, and one contract suite holds both to the same
//! output; Arrow's memory crosses as buffers, and the interpreter's lock is released around the work.

mod avro;
mod buffer;
mod columns;
mod dedup;
mod hash;
mod json;
#[cfg(unix)]
mod kafka;
#[cfg(unix)]
mod librdkafka;
mod text;
mod tree;

use pyo3::prelude::*;

/// Raised whenever a kernel's arguments or results change; `lodestream.native` takes a wheel of its own form only.
const FORM: u32 = 2;

#[pymodule]
fn lodestream_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("FORM", FORM)?;
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<buffer::Buffer>()?;
    module.add_class::<avro::AvroReader>()?;
    module.add_class::<hash::KeyHasher>()?;
    module.add_class::<json::JsonDecoder>()?;
    module.add_function(wrap_pyfunction!(json::split_lines, module)?)?;
    #[cfg(unix)]
    module.add_class::<kafka::KafkaDrain>()?;
    module.add_function(wrap_pyfunction!(dedup::claim, module)?)?;
    module.add_function(wrap_pyfunction!(dedup::sweep, module)?)?;
    module.add_function(wrap_pyfunction!(dedup::live, module)?)?;
    module.add_function(wrap_pyfunction!(dedup::find, module)?)?;
    Ok(())
}
