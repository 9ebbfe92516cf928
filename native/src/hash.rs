//! Key columns to 128-bit hashes: the chains of `lodestream.engines.embedded.keys`, row by row.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffer::{Buffer, Input};

const P1: u64 = 0x9FB2_1C65_1E98_DF25;
const P2: u64 = 0xD6E8_FEB8_6659_FD93;
const SEED1: u64 = 0x243F_6A88_85A3_08D3;
const SEED2: u64 = 0x1319_8A2E_0370_7344;
const NULL: u64 = 0xA409_3822_299F_31D0;

fn mix(h: &mut (u64, u64), word: u64) {
    let a = (h.0 ^ word).wrapping_mul(P1);
    let b = (h.1 ^ word.rotate_left(23)).wrapping_mul(P2);
    *h = (a ^ (a >> 32), b ^ (b >> 29));
}

/// The SplitMix64 finaliser (Steele, Lea, Flood 2014).
fn splitmix64(value: u64) -> u64 {
    let mut x = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn mix_bytes(h: &mut (u64, u64), value: &[u8]) {
    let words = value.chunks_exact(8);
    let rest = words.remainder();
    for word in words {
        mix(h, u64::from_le_bytes(word.try_into().unwrap_or_default()));
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        mix(h, u64::from_le_bytes(last));
    }
}

/// Hashes of n rows that take in one key column after another.
#[pyclass(module = "lodestream_native")]
pub struct KeyHasher {
    chains: Vec<(u64, u64)>,
}

impl KeyHasher {
    fn check(&self, valid: Option<&[u8]>, count: usize) -> PyResult<()> {
        if count != self.chains.len() || valid.is_some_and(|v| v.len() != count) {
            return Err(PyValueError::new_err("columns differ in length"));
        }
        Ok(())
    }
}

#[pymethods]
impl KeyHasher {
    #[new]
    fn new(rows: usize) -> Self {
        KeyHasher {
            chains: vec![(SEED1, SEED2); rows],
        }
    }

    /// Take in a column of 8-byte values; `valid` has a byte for each row, 0 for NULL.
    #[pyo3(signature = (words, valid))]
    fn words(&mut self, py: Python<'_>, words: Input<u64>, valid: Option<Input<u8>>) -> PyResult<()> {
        let (words, valid) = (words.items(), valid.as_ref().map(Input::items));
        self.check(valid, words.len())?;
        let chains = &mut self.chains;
        py.detach(|| {
            for (i, (h, word)) in chains.iter_mut().zip(words).enumerate() {
                let there = valid.is_none_or(|v| v[i] != 0);
                mix(h, if there { *word } else { NULL });
            }
        });
        Ok(())
    }

    /// Take in a column of values of `width` bytes, each padded with zeros to whole words.
    #[pyo3(signature = (data, width, valid))]
    fn fixed(&mut self, py: Python<'_>, data: Input<u8>, width: usize, valid: Option<Input<u8>>) -> PyResult<()> {
        let (data, valid) = (data.items(), valid.as_ref().map(Input::items));
        if width == 0 || data.len() % width != 0 {
            return Err(PyValueError::new_err("the column does not hold whole values"));
        }
        self.check(valid, data.len() / width)?;
        let chains = &mut self.chains;
        py.detach(|| {
            for (i, (h, value)) in chains.iter_mut().zip(data.chunks_exact(width)).enumerate() {
                if valid.is_none_or(|v| v[i] != 0) {
                    mix_bytes(h, value);
                } else {
                    mix(h, NULL);
                }
            }
        });
        Ok(())
    }

    /// Take in a column of strings: n + 1 offsets into `data`. A NULL's bytes do not count.
    #[pyo3(signature = (offsets, data, valid))]
    fn bytes(
        &mut self,
        py: Python<'_>,
        offsets: Input<i32>,
        data: Input<u8>,
        valid: Option<Input<u8>>,
    ) -> PyResult<()> {
        let (offsets, data, valid) = (offsets.items(), data.items(), valid.as_ref().map(Input::items));
        self.check(valid, offsets.len().saturating_sub(1))?;
        let chains = &mut self.chains;
        py.detach(|| {
            for (i, h) in chains.iter_mut().enumerate() {
                if valid.is_none_or(|v| v[i] != 0) {
                    let value = data.get(offsets[i] as usize..offsets[i + 1] as usize)?;
                    mix(h, value.len() as u64);
                    mix_bytes(h, value);
                } else {
                    mix(h, NULL);
                }
            }
            Some(())
        })
        .ok_or_else(|| PyValueError::new_err("an offset lies outside of the data"))
    }

    /// The hashes as (high, low); never both zero.
    fn finish(&self, py: Python<'_>) -> (Buffer, Buffer) {
        let chains = &self.chains;
        let (high, low): (Vec<u64>, Vec<u64>) = py.detach(|| {
            chains
                .iter()
                .map(|h| match (splitmix64(h.0), splitmix64(h.1)) {
                    (0, 0) => (0, 1),
                    both => both,
                })
                .unzip()
        });
        (Buffer::of(high), Buffer::of(low))
    }
}
