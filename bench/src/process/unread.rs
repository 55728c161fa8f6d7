//! When a server reads what it was sent: the kernel says for each connection how many bytes still wait at the server's end.

use crate::load::Opened;
use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// How often the kernel is asked.
const PACE: Duration = Duration::from_millis(1);
/// `SOCK_DIAG_BY_FAMILY` and `NLM_F_REQUEST` of the kernel's headers.
const BY_FAMILY: u16 = 20;
const IS_REQUEST: u16 = 1;
/// Bytes in front of a netlink message's own, and where the length of the receive queue stands in an answer.
const HEAD: usize = 16;
const RECEIVE_QUEUE: usize = HEAD + 56;
/// The state of a listener, which the kernel answers with where it knows no such connection.
const LISTENS: u8 = 10;

/// The kernel's socket statistics.
pub struct Unread {
    netlink: OwnedFd,
}

impl Unread {
    /// Asks for nothing yet.
    ///
    /// # Errors
    /// A kernel without them.
    pub fn new() -> Result<Self> {
        let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkSockDiag);
        let netlink = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol);
        Ok(Unread { netlink: netlink.context("the kernel's socket statistics")? })
    }

    /// Bytes that wait at the server's end of a connection, whether or not it has accepted it; `None` if there is no such connection.
    fn bytes(&self, server: SocketAddr, client: SocketAddr) -> Option<u32> {
        send(self.netlink.as_raw_fd(), &request(server, client), MsgFlags::empty()).ok()?;
        let mut answer = [0; 512];
        let length = recv(self.netlink.as_raw_fd(), &mut answer, MsgFlags::empty()).ok()?;
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        let queue = answer[..length].get(RECEIVE_QUEUE..RECEIVE_QUEUE + 4)?;
        (kind == BY_FAMILY && answer[HEAD + 1] != LISTENS).then(|| u32::from_ne_bytes([queue[0], queue[1], queue[2], queue[3]]))
    }

    /// Looks at these connections each millisecond until it is over. Returns when each was first seen without unread bytes after the last time it had
    /// some, in seconds since 1970; one that never was seen with any is absent. `None` if the kernel said nothing of any.
    pub fn watch(&self, server: SocketAddr, opened: &Opened, is_over: &AtomicBool) -> Option<BTreeMap<usize, f64>> {
        let (mut unread, mut read, mut is_told) = (BTreeSet::new(), BTreeMap::new(), false);
        while !is_over.load(Ordering::Acquire) {
            let clients: Vec<(usize, SocketAddr)> = opened.lock().map(|opened| opened.clone()).unwrap_or_default();
            for (slot, client) in clients {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                let Some(bytes) = self.bytes(server, client) else { continue };
                is_told = true;
                if bytes > 0 {
                    unread.insert(slot);
                } else if unread.remove(&slot) {
                    read.insert(slot, now);
                }
            }
            // The kernel has no event for it.
            std::thread::sleep(PACE);
        }
        is_told.then_some(read)
    }
}

/// A `struct nlmsghdr` and a `struct inet_diag_req_v2` that ask for the server's end.
fn request(server: SocketAddr, client: SocketAddr) -> Vec<u8> {
    const TCP: u8 = 6;
    let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let mut body = vec![u8::try_from(family as i32).unwrap_or_default(), TCP, 0, 0];
    // In any state.
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(server.port().to_be_bytes());
    body.extend(client.port().to_be_bytes());
    body.extend(octets(server.ip()));
    body.extend(octets(client.ip()));
    // Any interface, and no cookie.
    body.extend(0_u32.to_ne_bytes());
    body.extend(u64::MAX.to_ne_bytes());
    let mut all = Vec::from(u32::try_from(HEAD + body.len()).unwrap_or_default().to_ne_bytes());
    all.extend(BY_FAMILY.to_ne_bytes());
    all.extend(IS_REQUEST.to_ne_bytes());
    // Neither a number nor a sender.
    all.extend(0_u64.to_ne_bytes());
    all.extend(body);
    all
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut all = [0; 16];
            all[..4].copy_from_slice(&ip.octets());
            all
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_a_server_has_not_read_is_known_before_it_accepts_and_after() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 has no such address.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let server = listener.local_addr().unwrap();
            let mut stream = TcpStream::connect(server).unwrap();
            let client = stream.local_addr().unwrap();
            let unread = Unread::new().unwrap();
            assert_eq!(unread.bytes(server, client), Some(0));
            stream.write_all(b"hello").unwrap();
            assert_eq!(unread.bytes(server, client), Some(5));
            let mut accepted = listener.accept().unwrap().0;
            assert_eq!(unread.bytes(server, client), Some(5));
            accepted.read_exact(&mut [0; 5]).unwrap();
            assert_eq!(unread.bytes(server, client), Some(0));
            assert_eq!(unread.bytes(server, server), None, "no such connection");
        }
    }
}
