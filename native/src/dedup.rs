//! The inner loop of the dedup map: 128-bit keys claim slots of an open-addressing table that Python owns.

use std::collections::HashSet;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffer::{Buffer, Input};

/// Words of a slot: low half, high half, expiry. A slot whose halves are both zero is free.
const WIDTH: usize = 3;
/// Keys whose slots are looked at together, so that their cache misses overlap.
const STRIDE: usize = 32;

/// Let n keys claim their slots in arrival order.
///
/// `slots` is a table of a power of two slots, more than the keys in it and the new ones; it is changed in place. With
/// `replace` a key that is there gets the new expiry. Gives (n flags as bytes: this row took the key; slots taken).
#[pyfunction]
pub fn claim(
    py: Python<'_>,
    mut slots: Input<u64>,
    high: Input<u64>,
    low: Input<u64>,
    expiry_us: Input<i64>,
    late_us: i64,
    replace: bool,
) -> PyResult<(Buffer, usize)> {
    let table = slots.items_mut()?;
    let (high, low, expiry_us) = (high.items(), low.items(), expiry_us.items());
    let capacity = table.len() / WIDTH;
    if !capacity.is_power_of_two() || table.len() != capacity * WIDTH {
        return Err(PyValueError::new_err("the table has no power of two slots"));
    }
    if high.len() != low.len() || low.len() != expiry_us.len() {
        return Err(PyValueError::new_err("keys and expiries differ in number"));
    }
    py.detach(|| claim_all(table, high, low, expiry_us, late_us, replace))
        .map(|(first, taken)| (Buffer::of(first), taken))
        .ok_or_else(|| PyValueError::new_err("the table is full"))
}

fn claim_all(
    table: &mut [u64],
    high: &[u64],
    low: &[u64],
    expiry_us: &[i64],
    late_us: i64,
    replace: bool,
) -> Option<(Vec<u8>, usize)> {
    let mask = table.len() / WIDTH - 1;
    let mut first = vec![0u8; low.len()];
    let mut taken = 0;
    // Slots taken in this call by keys that have expired already: to the rows after them they are there all the same.
    let mut weak = HashSet::new();
    let mut warm = 0u64;
    for start in (0..low.len()).step_by(STRIDE) {
        let end = (start + STRIDE).min(low.len());
        for l in &low[(end).min(low.len())..(end + STRIDE).min(low.len())] {
            warm |= table[(*l as usize & mask) * WIDTH];
        }
        for i in start..end {
            let mut slot = low[i] as usize & mask;
            let mut steps = 0;
            loop {
                let entry: &mut [u64; WIDTH] = (&mut table[slot * WIDTH..slot * WIDTH + WIDTH]).try_into().ok()?;
                let free = entry[0] == 0 && entry[1] == 0;
                if free || entry[0] == low[i] && entry[1] == high[i] {
                    let expired = !free && entry[2] as i64 <= late_us && (weak.is_empty() || !weak.contains(&slot));
                    if free || expired {
                        first[i] = 1;
                        taken += usize::from(free);
                        if expiry_us[i] <= late_us && !replace {
                            weak.insert(slot);
                        }
                    }
                    if free || expired || replace {
                        *entry = [low[i], high[i], expiry_us[i] as u64];
                    }
                    break;
                }
                steps += 1;
                if steps > mask {
                    return None;
                }
                slot = (slot + 1) & mask;
            }
        }
    }
    std::hint::black_box(warm);
    Some((first, taken))
}

/// Forget, in place, the keys that have expired by `late_us`; gives how many are left.
#[pyfunction]
pub fn sweep(py: Python<'_>, mut slots: Input<u64>, late_us: i64) -> PyResult<usize> {
    let table = slots.items_mut()?;
    let capacity = table.len() / WIDTH;
    if !capacity.is_power_of_two() || table.len() != capacity * WIDTH {
        return Err(PyValueError::new_err("the table has no power of two slots"));
    }
    py.detach(|| sweep_all(table.as_chunks_mut::<WIDTH>().0, late_us))
        .ok_or_else(|| PyValueError::new_err("the table is full"))
}

/// From a free slot on, each key is put again where a walk from its home first finds room. What lies between its home
/// and its old slot has been put again already, so it never moves onward, and every walk stays whole.
fn sweep_all(table: &mut [[u64; WIDTH]], late_us: i64) -> Option<usize> {
    let mask = table.len() - 1;
    let is_free = |slot: &[u64; WIDTH]| slot[0] == 0 && slot[1] == 0;
    let start = table.iter().position(is_free)?;
    let mut left = 0;
    for i in 1..=mask {
        let at = (start + i) & mask;
        let entry = table[at];
        if is_free(&entry) {
            continue;
        }
        if entry[2] as i64 <= late_us {
            table[at] = [0; WIDTH];
            continue;
        }
        left += 1;
        let mut slot = entry[0] as usize & mask;
        while slot != at && !is_free(&table[slot]) {
            slot = (slot + 1) & mask;
        }
        if slot != at {
            table[slot] = entry;
            table[at] = [0; WIDTH];
        }
    }
    Some(left)
}

/// The keys that expire after `late_us`, in slot order, as (high, low, expiry).
#[pyfunction]
pub fn live(py: Python<'_>, slots: Input<u64>, late_us: i64) -> (Buffer, Buffer, Buffer) {
    let table = slots.items();
    let (high, low, expiry_us) = py.detach(|| {
        let is_live = |slot: &&[u64]| (slot[0] != 0 || slot[1] != 0) && slot[2] as i64 > late_us;
        let count = table.chunks_exact(WIDTH).filter(is_live).count();
        let mut found = (
            Vec::with_capacity(count),
            Vec::with_capacity(count),
            Vec::with_capacity(count),
        );
        for slot in table.chunks_exact(WIDTH).filter(is_live) {
            found.0.push(slot[1]);
            found.1.push(slot[0]);
            found.2.push(slot[2]);
        }
        found
    });
    (Buffer::of(high), Buffer::of(low), Buffer::of(expiry_us))
}

/// Flag those of n keys that a segment of sorted keys holds and that expire after `late_us`; flagged ones are passed over.
///
/// `entries` are slots in ascending order of their low halves, `words` the filters of their buckets, `places` the
/// bucket's first entries and their end. Gives nothing; `there` has a byte per key.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn find(
    py: Python<'_>,
    entries: Input<u64>,
    words: Input<u64>,
    places: Input<u32>,
    high: Input<u64>,
    low: Input<u64>,
    late_us: i64,
    mut there: Input<u8>,
) -> PyResult<()> {
    let flags = there.items_mut()?;
    let (entries, words, places) = (entries.items().as_chunks::<WIDTH>().0, words.items(), places.items());
    let (high, low) = (high.items(), low.items());
    if high.len() != low.len() || low.len() != flags.len() {
        return Err(PyValueError::new_err("keys and flags differ in number"));
    }
    if words.is_empty() || places.len() != words.len() + 1 || places[words.len()] as usize > entries.len() {
        return Err(PyValueError::new_err("the filter is not that of these entries"));
    }
    py.detach(|| find_all(entries, words, places, high, low, late_us, flags));
    Ok(())
}

fn find_all(
    entries: &[[u64; WIDTH]],
    words: &[u64],
    places: &[u32],
    high: &[u64],
    low: &[u64],
    late_us: i64,
    there: &mut [u8],
) {
    let mut buckets = [0usize; STRIDE];
    let mut held = [0u64; STRIDE];
    for start in (0..low.len()).step_by(STRIDE) {
        let end = (start + STRIDE).min(low.len());
        for (j, i) in (start..end).enumerate() {
            buckets[j] = ((low[i] >> 32) * words.len() as u64 >> 32) as usize;
        }
        for j in 0..end - start {
            held[j] = words[buckets[j]]; // these misses overlap
        }
        for (j, i) in (start..end).enumerate() {
            let h = high[i];
            let bits = 1u64 << (h & 63) | 1 << (h >> 6 & 63) | 1 << (h >> 12 & 63) | 1 << (h >> 18 & 63);
            if held[j] & bits != bits || there[i] != 0 {
                continue;
            }
            let range = places[buckets[j]] as usize..places[buckets[j] + 1] as usize;
            let found = entries.get(range).unwrap_or_default();
            let is_live = |e: &[u64; WIDTH]| e[0] == low[i] && e[1] == h && e[2] as i64 > late_us;
            if found.iter().any(is_live) {
                there[i] = 1;
            }
        }
    }
}
