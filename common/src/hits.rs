//! `GET /hits`: one number, counted in three ways.
//!
//! Forked workers share a mapping that is made before the fork, as worker threads of Node share a `SharedArrayBuffer`. Their numbers outlive
//! any of them. What has no atomic operation loses updates there: two workers read the same number, and both store the next one.

use crate::dispatch::{SharedZeroed, shared_zeroed};
use crate::http::Answer;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The numbers in shared memory, each on its own cache line.
#[repr(C)]
struct Shared {
    atomic: Line,
    /// Read, then stored, without anything in between that keeps others out.
    unsynchronized: Line,
}

#[repr(C, align(64))]
struct Line(AtomicU64);

// SAFETY: all fields are atomics, for which zero is valid.
unsafe impl SharedZeroed for Shared {}

static SHARED: OnceLock<&Shared> = OnceLock::new();
static PROCESSES: AtomicU32 = AtomicU32::new(1);
/// The number in this process alone.
static HERE: AtomicU64 = AtomicU64::new(0);

/// Makes the shared numbers, before this process forks its workers.
pub(crate) fn prepare(processes: usize) -> nix::Result<()> {
    let shared = &shared_zeroed(1)?[0];
    SHARED.get_or_init(|| shared);
    PROCESSES.store(u32::try_from(processes).unwrap_or(u32::MAX), Relaxed);
    Ok(())
}

/// Counts one request `times` times, and tells all three numbers.
pub(crate) fn count(times: u64) -> Answer {
    static ALONE: Shared = Shared { atomic: Line(AtomicU64::new(0)), unsynchronized: Line(AtomicU64::new(0)) };
    let shared = SHARED.get().copied().unwrap_or(&ALONE);
    for _ in 0..times {
        HERE.fetch_add(1, Relaxed);
        shared.atomic.0.fetch_add(1, Relaxed);
        let read = shared.unsynchronized.0.load(Relaxed);
        shared.unsynchronized.0.store(read + 1, Relaxed);
    }
    let scope = match PROCESSES.load(Relaxed) {
        1 => "the threads of this process".to_owned(),
        processes => format!("the {processes} workers of this server"),
    };
    let numbers = serde_json::json!({
        "process": HERE.load(Relaxed),
        "shared": shared.atomic.0.load(Relaxed),
        "unsynchronized": shared.unsynchronized.0.load(Relaxed),
        "shared_by": scope,
    });
    Answer::json(numbers.to_string())
}
