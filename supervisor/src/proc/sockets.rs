//! TCP sockets, as the kernel knows them. A socket is known by the inode of its descriptors.
//!
//! The kernel is asked over netlink: the files in /proc show all sockets, and take it a tenth of a second.

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as Kernel};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;

/// Bytes that are read at once; the kernel's messages are shorter.
const CHUNK: usize = 32 * 1024;

/// The sockets that listen, in the network of this process.
pub fn listening() -> BTreeSet<u64> {
    let all = |family, socket_id| ask(family, StateFlags::LISTEN, socket_id, NLM_F_DUMP).unwrap_or_default();
    all(AF_INET, SocketId::new_v4()).into_iter().chain(all(AF_INET6, SocketId::new_v6())).collect()
}

/// The server's end of a connection on this machine, if a process has accepted it.
pub fn other_end(server: SocketAddr, client: SocketAddr) -> Option<u64> {
    let (family, any) = if server.is_ipv4() { (AF_INET, SocketId::new_v4()) } else { (AF_INET6, SocketId::new_v6()) };
    let socket_id = SocketId {
        source_port: server.port(),
        destination_port: client.port(),
        source_address: server.ip(),
        destination_address: client.ip(),
        // Whichever socket it is.
        cookie: [0xff; 8],
        ..any
    };
    // One that nobody has accepted has no inode.
    ask(family, StateFlags::all(), socket_id, 0).ok()?.into_iter().find(|inode| *inode != 0)
}

/// Asks the kernel for the sockets that match; returns their inodes.
fn ask(family: u8, states: StateFlags, socket_id: SocketId, flags: u16) -> io::Result<Vec<u64>> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&Kernel::new(0, 0))?;
    let request = InetRequest { family, protocol: IPPROTO_TCP, extensions: ExtensionFlags::empty(), states, socket_id };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut inodes = Vec::new();
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        socket.recv(&mut chunk, 0)?;
        let mut rest = chunk.as_slice();
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(|error| io::Error::other(error.to_string()))?;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => inodes.push(found.header.inode.into()),
                // The end of a list, or an error: there is no such socket.
                _ => return Ok(inodes),
            }
            rest = rest.get(message.header.length as usize..).filter(|_| message.header.length > 0).unwrap_or_default();
        }
        if flags & NLM_F_DUMP == 0 {
            return Ok(inodes);
        }
    }
}

/// The sockets that a process has open.
pub fn of(pid: i32) -> Vec<u64> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::fstat;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_other_end_of_a_connection_is_known_once_it_is_accepted() {
        // The second one serves IPv4, too.
        for (listens, is_reached_at) in [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::1]:0", "::1")] {
            let listener = TcpListener::bind(listens).unwrap();
            let client = TcpStream::connect((is_reached_at, listener.local_addr().unwrap().port())).unwrap();
            let (server, own) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
            assert_eq!(other_end(server, own), None, "{listens}");
            let (accepted, _) = listener.accept().unwrap();
            let inode = fstat(&accepted).unwrap().st_ino;
            assert_eq!(other_end(server, own), Some(inode), "{listens}");
            assert!(of(std::process::id() as i32).contains(&inode));
            assert!(!listening().contains(&inode));
            assert!(listening().contains(&fstat(&listener).unwrap().st_ino), "{listens}");
        }
    }
}
