//! The parent's side of `round-robin`: it accepts connections and hands them in turn to workers that are not blocked.
//!
//! Node's cluster does the same with two flaws. A new connection may go to a blocked worker and wait there, and the new
//! clients of a killed worker hang. Here the parent holds a connection until its first byte arrives. It then offers the
//! connection to the next worker that shared memory shows as idle, and keeps a copy until the worker has taken it. The parent
//! takes the offer back from a worker that blocks, stops or dies.

use crate::dispatch::{Table, offer};
use crate::turning_away;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{SockFlag, accept4};
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// The longest time an offer may stay with a worker that looks idle but does not take it, such as a stopped one. That worker gets no other until it
/// speaks.
const PATIENCE: Duration = Duration::from_millis(100);
/// Beyond that many ignored offers the time does not grow.
const MOST_IGNORED: u32 = 4;

pub(crate) struct Dealer {
    listener: Option<TcpListener>,
    table: Table,
    /// Connections whose first byte has not arrived, each with its number.
    silent: Slab<(u64, TcpStream)>,
    /// Keys and numbers of the silent connections, oldest first, each with the time of its end.
    ends: VecDeque<(Instant, usize, u64)>,
    /// How long a connection may stay silent.
    idle_timeout: Duration,
    /// Connections whose first byte has arrived, oldest first.
    queue: VecDeque<TcpStream>,
    offers: Vec<Option<Offer>>,
    /// The workers that have not taken an offer for too long, and have not spoken since.
    unresponsive: Vec<bool>,
    /// Offers in a row that each worker has ignored. Its turns may just be long, so it gets twice the time for each.
    ignored: Vec<u32>,
    /// The worker whose turn it is.
    next: usize,
    /// The number of the last offer.
    number: u64,
    /// The number of the last connection.
    accepted: u64,
}

fn accept(listener: RawFd) -> nix::Result<OwnedFd> {
    let fd = accept4(listener, SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: accept4 has just opened the descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

struct Offer {
    number: u64,
    since: Instant,
    stream: TcpStream,
}

/// The lowest event token of a silent connection; the parent's other tokens are smaller.
pub(crate) const SILENT: u64 = 1 << 32;

impl Dealer {
    pub fn new(listener: TcpListener, table: Table, idle_timeout: Duration) -> Self {
        Dealer {
            listener: Some(listener),
            table,
            silent: Slab::new(),
            ends: VecDeque::new(),
            idle_timeout,
            queue: VecDeque::new(),
            offers: table.cells.iter().map(|_| None).collect(),
            unresponsive: vec![false; table.cells.len()],
            ignored: vec![0; table.cells.len()],
            next: 0,
            number: 0,
            accepted: 0,
        }
    }

    pub fn listener(&self) -> Option<&TcpListener> {
        self.listener.as_ref()
    }

    /// Accepts all waiting connections and starts to wait for the first byte of each.
    pub fn accept(&mut self, epoll: &Epoll) {
        let Some(listener) = &self.listener else { return };
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    let slot = self.silent.vacant_entry();
                    let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, SILENT + slot.key() as u64);
                    if stream.set_nonblocking(true).is_ok() && epoll.add(&stream, event).is_ok() {
                        self.accepted += 1;
                        self.ends.push_back((Instant::now() + self.idle_timeout, slot.key(), self.accepted));
                        slot.insert((self.accepted, stream));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
                    turning_away::after(errno, || accept(listener.as_raw_fd()));
                    return;
                }
            }
        }
    }

    /// Handles the first byte, or the end, of a silent connection.
    pub fn first_byte(&mut self, epoll: &Epoll, token: u64) {
        let Ok(key) = usize::try_from(token - SILENT) else { return };
        let Some((_, stream)) = self.silent.try_remove(key) else { return };
        let _ = epoll.delete(&stream);
        if matches!(stream.peek(&mut [0]), Ok(count) if count > 0) {
            self.queue.push_back(stream);
        }
    }

    /// Closes the connections that have been silent for too long.
    pub fn close_silent(&mut self) {
        let now = Instant::now();
        while let Some((end, key, number)) = self.ends.front().copied() {
            // Its key may belong to another one by now.
            let is_silent = self.silent.get(key).is_some_and(|(other, _)| *other == number);
            if is_silent && end > now {
                break;
            }
            if is_silent {
                self.silent.remove(key);
            }
            self.ends.pop_front();
        }
    }

    /// Closes the connections that are still silent.
    pub fn end_silence(&mut self, epoll: &Epoll) {
        let silent: Vec<usize> = self.silent.iter().map(|(key, _)| key).collect();
        silent.into_iter().for_each(|key| self.first_byte(epoll, SILENT + key as u64));
    }

    /// Offers as many connections as possible. `channels` has the channels of the workers that are ready.
    pub fn deal(&mut self, channels: &[Option<&OwnedFd>]) {
        (0..self.offers.len()).for_each(|worker| self.settle(worker));
        // Set before the last look at the cells: a worker that becomes idle from now on notifies the parent.
        self.table.waiting.store(u32::from(!self.queue.is_empty()), SeqCst);
        while let Some(stream) = self.queue.pop_front() {
            let Some((worker, channel)) = self.next_idle(channels) else {
                self.queue.push_front(stream);
                break;
            };
            self.number += 1;
            self.table.cells[worker].put(self.number);
            let is_sent = offer(channel, self.number, &stream).is_ok();
            self.offers[worker] = Some(Offer { number: self.number, since: Instant::now(), stream });
            if !self.table.cells[worker].is_idle() {
                self.take_back(worker);
            }
            if !is_sent {
                // The worker is about to end, or its channel is full: try again soon, not at once.
                self.take_back(worker);
                break;
            }
        }
        self.table.waiting.store(u32::from(!self.queue.is_empty()), SeqCst);
    }

    fn next_idle<'c>(&mut self, channels: &[Option<&'c OwnedFd>]) -> Option<(usize, &'c OwnedFd)> {
        let count = self.offers.len();
        let in_turn = (0..count).map(|step| (self.next + step) % count);
        let found = in_turn.into_iter().find_map(|worker| {
            let is_free = self.offers[worker].is_none() && !self.unresponsive[worker] && self.table.cells[worker].is_free();
            channels[worker].filter(|_| is_free).map(|channel| (worker, channel))
        })?;
        self.next = (found.0 + 1) % count;
        Some(found)
    }

    /// Drops the copy of an offer that was taken, and takes back an offer from a worker that is blocked or unresponsive.
    fn settle(&mut self, worker: usize) {
        let Some(offer) = &self.offers[worker] else { return };
        let cell = &self.table.cells[worker];
        if !cell.has_offer() {
            (self.offers[worker], self.ignored[worker]) = (None, 0);
        } else if !cell.is_idle() {
            self.take_back(worker);
        } else if offer.since.elapsed() >= PATIENCE * (1 << self.ignored[worker]) && self.take_back(worker) {
            self.unresponsive[worker] = true;
            self.ignored[worker] = MOST_IGNORED.min(self.ignored[worker] + 1);
        }
    }

    /// Returns an offer to the head of the queue; false if there is none, or the worker has already taken it.
    pub fn take_back(&mut self, worker: usize) -> bool {
        let Some(offer) = self.offers[worker].take() else { return false };
        let is_back = self.table.cells[worker].take_back(offer.number);
        if is_back {
            self.queue.push_front(offer.stream);
        }
        is_back
    }

    /// A worker has spoken: it is not stopped, or no longer.
    pub fn heard(&mut self, worker: usize) {
        self.unresponsive[worker] = false;
    }

    /// The time after which [`Dealer::deal`] and [`Dealer::close_silent`] must run again even without an event.
    pub fn timeout(&self) -> Option<Duration> {
        let is_dealing = !self.queue.is_empty() || self.offers.iter().any(Option::is_some);
        let end = self.ends.front().map(|(end, ..)| end.saturating_duration_since(Instant::now()));
        end.into_iter().chain(is_dealing.then_some(PATIENCE)).min()
    }

    /// Stops accepting connections, behind those that wait already.
    pub fn close(&mut self, epoll: &Epoll) {
        self.accept(epoll);
        self.listener = None;
    }

    /// True if the parent holds no connection.
    pub fn is_empty(&self) -> bool {
        self.silent.is_empty() && self.queue.is_empty() && self.offers.iter().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::{OfferedWorker, Word};
    use nix::sys::socket::{MsgFlags, recv};

    #[test]
    fn a_worker_that_has_taken_a_connection_is_offered_the_next_one_only_when_it_has_begun() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let worker = OfferedWorker::new();
        let mut dealer = Dealer::new(listener, worker.table, Duration::from_secs(60));
        dealer.queue.extend((0..2).map(|_| TcpStream::connect(address).unwrap()));
        dealer.deal(&[Some(&worker.channel)]);
        let arrival = worker.take_offer().unwrap();
        dealer.deal(&[Some(&worker.channel)]);
        // On its way to the handler, which may block.
        assert_eq!(worker.take_offer().err(), Some(Errno::EAGAIN));
        drop(arrival);
        dealer.deal(&[Some(&worker.channel)]);
        assert!(worker.take_offer().is_ok());
    }

    #[test]
    fn a_worker_that_does_not_take_its_offer_gets_no_other_until_it_speaks() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let worker = OfferedWorker::new();
        let mut dealer = Dealer::new(listener, worker.table, Duration::from_secs(60));
        let said = || {
            let mut words = [0; 8];
            let count = recv(worker.channel.as_raw_fd(), &mut words, MsgFlags::MSG_DONTWAIT).unwrap_or(0);
            words[..count].to_vec()
        };
        assert_eq!(said(), [Word::Ready as u8]);
        dealer.queue.push_back(TcpStream::connect(address).unwrap());
        dealer.deal(&[Some(&worker.channel)]);
        dealer.offers[0].as_mut().unwrap().since -= PATIENCE;
        (0..3).for_each(|_| dealer.deal(&[Some(&worker.channel)]));
        assert_eq!((dealer.number, dealer.queue.len(), said()), (1, 1, Vec::new()));
        // It goes on, and finds what it is no longer offered.
        assert_eq!(worker.take_offer().err(), Some(Errno::EAGAIN));
        assert_eq!(said(), [Word::Look as u8]);
        dealer.heard(0);
        dealer.deal(&[Some(&worker.channel)]);
        assert!(worker.take_offer().is_ok());
    }
}
