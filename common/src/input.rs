//! The bytes that a connection has received and not yet understood.

use std::cell::RefCell;

/// Size of a fresh buffer, in bytes.
const SIZE: usize = 8 * 1024;
/// Spare buffers that a thread keeps.
const SPARE: usize = 16;

thread_local! {
    /// Idle connections give their buffers back, and a busy one takes the next from here without clearing it again.
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
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
            POOL.with_borrow_mut(|pool| {
                if pool.len() < SPARE {
                    pool.push(buffer);
                }
            });
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
