//! The buffers of a connection: input that is not yet parsed, and output that is not yet sent.
//!
//! An idle connection holds no buffers. Each thread keeps some spare ones, so that requests do not pay for allocating and
//! clearing them.

use std::cell::RefCell;
use std::thread::LocalKey;

/// The size of a fresh buffer, in bytes.
const SIZE: usize = 8 * 1024;
/// The number of spare buffers of each kind that a thread keeps.
const SPARE: usize = 16;

thread_local! {
    /// Spare buffers for input, initialized over their whole length.
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    /// Spare buffers for output, empty.
    static OUTPUTS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer for output: a spare one with capacity if there is one.
pub(crate) fn take_output() -> Vec<u8> {
    OUTPUTS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Returns a buffer for output to the pool.
pub(crate) fn give_output(mut buffer: Vec<u8>) {
    buffer.clear();
    if (1..=SIZE).contains(&buffer.capacity()) {
        keep(&OUTPUTS, buffer);
    }
}

fn keep(pool: &'static LocalKey<RefCell<Vec<Vec<u8>>>>, buffer: Vec<u8>) {
    // A thread that is ending has already dropped its pool; then the buffer is freed.
    let _ = pool.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < SPARE {
            pool.push(buffer);
        }
    });
}

/// A buffer that exists only while it holds bytes or the connection is about to read some.
#[derive(Default)]
pub(crate) struct Input {
    /// Initialized over its whole length; has length 0 while the connection is idle.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    /// The bytes that were received and not yet taken.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Space for more bytes; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        if self.buffer.is_empty() {
            self.buffer = POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; SIZE]);
        }
        if self.end == self.buffer.len() {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            } else {
                self.buffer.resize(2 * self.buffer.len(), 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// Records that `count` bytes were written into [`Input::space`].
    pub fn add(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.buffer.len(), "more received than there was space for");
    }

    /// Discards the first `count` bytes.
    pub fn take(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            self.clear();
        }
    }

    /// Discards all bytes.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Returns the buffer to the pool if it holds no bytes.
    pub fn give_back(&mut self) {
        if self.end > 0 || self.buffer.is_empty() {
            return;
        }
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.len() == SIZE {
            keep(&POOL, buffer);
        }
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.clear();
        self.give_back();
    }
}
