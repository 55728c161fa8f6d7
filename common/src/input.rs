//! The buffers of a connection: what it has received and not yet understood, and what it has to send.
//!
//! An idle connection holds none. Each thread keeps some spare ones, so that neither allocating nor clearing them is paid for
//! by every request.

use std::cell::RefCell;
use std::thread::LocalKey;

/// Size of a fresh buffer, in bytes.
const SIZE: usize = 8 * 1024;
/// Spare buffers that a thread keeps.
const SPARE: usize = 16;

thread_local! {
    /// Spare buffers for input, initialized over their whole length.
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    /// Spare buffers for output, empty.
    static OUTPUTS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer for output, with room if there is a spare one.
pub(crate) fn take_output() -> Vec<u8> {
    OUTPUTS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a buffer for output back.
pub(crate) fn give_output(mut buffer: Vec<u8>) {
    buffer.clear();
    if (1..=SIZE).contains(&buffer.capacity()) {
        keep(&OUTPUTS, buffer);
    }
}

fn keep(pool: &'static LocalKey<RefCell<Vec<Vec<u8>>>>, buffer: Vec<u8>) {
    // A thread that is ending has no pool any more; then the buffer is freed.
    let _ = pool.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < SPARE {
            pool.push(buffer);
        }
    });
}

/// A buffer that exists only while there is something in it or about to come.
#[derive(Default)]
pub(crate) struct Input {
    /// Initialized over its whole length; empty while nothing is expected.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    /// What was received and not taken.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Room for more; never empty.
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

    /// So many bytes were put into [`Input::space`].
    pub fn add(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.buffer.len(), "more received than there was space for");
    }

    /// The first `count` bytes are done with.
    pub fn take(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            self.clear();
        }
    }

    /// All bytes are done with.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Gives the buffer back if there is nothing in it.
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
