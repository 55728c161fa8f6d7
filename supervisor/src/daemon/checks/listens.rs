//! Whether a process listens, as the kernel shows it.

use crate::proc::{self, sockets};
use std::fs;

/// The functions of the kernel in which a thread waits that accepts connections, by TCP and on a Unix socket.
const ACCEPTS: [&str; 2] = ["inet_csk_accept", "__skb_wait_for_more_packets"];
/// And those of poll(2) and select(2), of which nothing tells for what they wait: that is the listener, most likely, where one process alone has it. The
/// parent of workers that have it too may wait for them.
const POLLS: [&str; 4] = ["poll_schedule_timeout", "do_sys_poll", "do_poll", "do_select"];

/// Looks at a process and its group: whether one of them has a listener of its own, or waits for connections on one of these sockets if there are any.
///
/// # Errors
/// Returns what it does not do.
pub fn look(leader: i32, given: &[u64]) -> Result<(), String> {
    let members = proc::group(leader);
    let is_there = if given.is_empty() {
        let listening = sockets::listening();
        members.iter().any(|pid| sockets::of(*pid).iter().any(|socket| listening.contains(socket)))
    } else {
        let has = |pid: &i32| sockets::of(*pid).iter().any(|socket| given.contains(socket));
        // A shell that waits for what it has started is none of them.
        let is_idle = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|name| name.starts_with("do_wait"));
        let is_alone = members.iter().filter(|pid| has(pid) && !is_idle(pid)).count() == 1;
        members.iter().any(|pid| waits(*pid, given, is_alone))
    };
    let what = if given.is_empty() { "it has no listening socket" } else { "it does not wait for connections" };
    if is_there { Ok(()) } else { Err(what.into()) }
}

/// Returns whether a process has one of these sockets in an epoll set, or has one and a thread that waits in accept(2) or, if it is the only one that has
/// it, in poll(2) or select(2).
fn waits(pid: i32, given: &[u64], is_alone: bool) -> bool {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let mut infos = infos.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let has = |info: String| info.lines().filter_map(watched).any(|socket| given.contains(&socket));
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let is_waiting =
        || threads().any(|thread| fs::read_to_string(thread.path().join("wchan")).is_ok_and(|name| awaits(&name, is_alone)));
    infos.any(has) || is_waiting() && sockets::of(pid).iter().any(|socket| given.contains(socket))
}

/// Returns whether a thread that waits in this function of the kernel may wait for a connection. The compiler adds an ending to a copy of its own.
fn awaits(function: &str, is_alone: bool) -> bool {
    let name = function.split('.').next().unwrap_or_default();
    ACCEPTS.contains(&name) || is_alone && POLLS.contains(&name)
}

/// Reads a line of an epoll set's fdinfo, such as `tfd:        5 events:       19 data: 5  pos:0 ino:1a2b sdev:9`.
fn watched(line: &str) -> Option<u64> {
    let inode = line.strip_prefix("tfd:")?.split_whitespace().find_map(|word| word.strip_prefix("ino:"))?;
    u64::from_str_radix(inode, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::Poller;
    use rustix::fs::fstat;
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    #[test]
    fn a_listener_counts_once_somebody_waits_for_its_connections() {
        let own = std::process::id() as i32;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = fstat(&listener).unwrap().st_ino;
        assert!(sockets::listening().contains(&inode));
        assert!(!waits(own, &[inode], true));
        let mut poller = Poller::new().unwrap();
        poller.add(&listener, ()).unwrap();
        assert!(waits(own, &[inode], true));
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = fstat(&other).unwrap().st_ino;
        assert!(!waits(own, &[inode], true));
        let client = other.local_addr().unwrap();
        let thread = std::thread::spawn(move || other.accept().map(drop));
        let begin = Instant::now();
        while !waits(own, &[inode], true) {
            assert!(begin.elapsed() < Duration::from_secs(20), "no thread waits for a connection");
            std::thread::yield_now();
        }
        drop(std::net::TcpStream::connect(client).unwrap());
        thread.join().unwrap().unwrap();
    }
}
