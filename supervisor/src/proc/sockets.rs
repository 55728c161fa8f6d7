//! TCP sockets, as the kernel lists them. A socket is known by the inode of its descriptors.

use std::collections::BTreeSet;
use std::fs;

/// The number of the state LISTEN in the kernel's list.
const LISTEN: &str = "0A";

/// A line of the kernel's list.
struct Line {
    local_port: u16,
    remote_port: u16,
    is_listening: bool,
    /// 0 for a connection that nobody has accepted.
    inode: u64,
}

/// The sockets that listen, in the network of this process.
pub fn listening() -> BTreeSet<u64> {
    lines().into_iter().filter(|line| line.is_listening).map(|line| line.inode).collect()
}

/// The server's end of a connection on this machine, if a process has accepted it.
pub fn other_end(server_port: u16, client_port: u16) -> Option<u64> {
    let is_meant = |line: &Line| line.local_port == server_port && line.remote_port == client_port && line.inode != 0;
    lines().into_iter().find(is_meant).map(|line| line.inode)
}

/// The sockets that a process has open.
pub fn of(pid: i32) -> Vec<u64> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

fn lines() -> Vec<Line> {
    let files = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    files.iter().flat_map(|file| file.lines()).filter_map(line).collect()
}

/// Reads a line such as `0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4242 ...`.
fn line(text: &str) -> Option<Line> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let port = |word: &str| u16::from_str_radix(word.rsplit_once(':')?.1, 16).ok();
    Some(Line {
        local_port: port(words.get(1)?)?,
        remote_port: port(words.get(2)?)?,
        is_listening: *words.get(3)? == LISTEN,
        inode: words.get(9)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::fstat;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_other_end_of_a_connection_is_known_once_it_is_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let own = client.local_addr().unwrap().port();
        assert_eq!(other_end(port, own), None);
        let (accepted, _) = listener.accept().unwrap();
        let inode = fstat(&accepted).unwrap().st_ino;
        assert_eq!(other_end(port, own), Some(inode));
        assert!(of(std::process::id() as i32).contains(&inode));
        assert!(!listening().contains(&inode));
        assert!(listening().contains(&fstat(&listener).unwrap().st_ino));
    }
}
