//! The listeners of the apps, which the keeper holds as long as the apps are in the list.

use super::Keeper;
use super::sweep::started_by;
use crate::channel::Report;
use crate::files::remove_leftover;
use crate::proc;
use crate::spec::{ONLY_IPV6, UNIX};
use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr, socket_acceptconn};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, bind, listen, shutdown, socket_with};
use rustix::process::{Pid, Signal, kill_process};
use sd_notify::NotifyState;
use std::fs;
use std::io;
use std::net::{SocketAddrV6, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Connections that the kernel queues until a worker accepts them.
const BACKLOG: i32 = 4096;

/// A listener of an app.
pub struct Listener {
    pub socket: OwnedFd,
    /// Its address, in case the system chose the port.
    pub actual: String,
}

impl Listener {
    pub fn new(address: &str, socket: OwnedFd) -> Self {
        let actual = address_of(&socket).unwrap_or_else(|| address.to_owned());
        Listener { socket, actual }
    }

    fn open(address: &str) -> io::Result<Self> {
        let socket = match address.strip_prefix(UNIX) {
            Some(path) => open_unix(path)?,
            None => match address.strip_prefix(ONLY_IPV6) {
                Some(address) => open_only_ipv6(address.parse().map_err(|_| Errno::INVAL)?)?,
                None => TcpListener::bind(address)?.into(),
            },
        };
        // The flag belongs to the open file, so it holds for all processes that share it.
        rustix::io::ioctl_fionbio(&socket, true)?;
        // A second listen with a longer queue, for clients that connect while a restart leaves no process to accept.
        listen(&socket, BACKLOG)?;
        Ok(Listener::new(address, socket))
    }

    /// Returns whether somebody has shut it down, so that clients are refused.
    fn is_shut(&self) -> bool {
        if self.is_unix() {
            // The kernel still says that it accepts, but also that nothing more will come.
            let mut polled = [PollFd::new(&self.socket, PollFlags::RDHUP)];
            let count = poll(&mut polled, Some(&Timespec::default()));
            return count.is_ok_and(|count| count > 0) && polled[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP);
        }
        !socket_acceptconn(&self.socket).unwrap_or(true)
    }

    fn is_unix(&self) -> bool {
        self.actual.starts_with(UNIX)
    }

    /// Listens again after somebody has shut it down. If the system has chosen the port, that is lost with it, and takes another socket. So does a
    /// path, whose socket stays shut. Returns whether it is another socket now.
    fn again(&mut self) -> io::Result<bool> {
        if self.is_unix() {
            self.socket = Listener::open(&self.actual)?.socket;
            return Ok(true);
        }
        listen(&self.socket, BACKLOG)?;
        if address_of(&self.socket).is_some_and(|address| address != self.actual) {
            // Nobody would look for it at the port that it has now.
            shutdown(&self.socket, Shutdown::Both)?;
            self.socket = Listener::open(&self.actual)?.socket;
            return Ok(true);
        }
        Ok(false)
    }
}

impl Keeper {
    /// Listens on an address, and reports that with the listener.
    pub(super) fn bind(&mut self, address: String) -> Result<()> {
        if !self.listeners.contains_key(&address) {
            match Listener::open(&address) {
                Ok(listener) => {
                    store(&address, &listener);
                    self.listeners.insert(address.clone(), listener);
                }
                Err(error) => {
                    let number = error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error());
                    return self.report(&Report::CannotBind(address, number, error.to_string()));
                }
            }
        }
        self.tell_bound(&address)
    }

    fn tell_bound(&mut self, address: &str) -> Result<()> {
        let (Some(daemon), Some(listener)) = (&mut self.daemon, self.listeners.get(address)) else { return Ok(()) };
        Ok(daemon.channel.send(&Report::Bound(address.to_owned(), listener.actual.clone()), &[listener.socket.as_fd()])?)
    }

    /// Stops listening on an address. Whoever still holds the listener would keep it open, and is ended.
    pub(super) fn unbind(&mut self, address: &str) -> Result<()> {
        let Some(listener) = self.listeners.remove(address) else { return Ok(()) };
        let _ = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(&stored_name(address))]);
        let socket = format!("socket:[{}]", fstat(&listener.socket)?.st_ino);
        if let Some(path) = address.strip_prefix(UNIX) {
            // Whoever holds it does not answer any more. If another server does, the path has been taken by that.
            let _ = shutdown(&listener.socket, Shutdown::Both);
            let _ = remove_leftover(Path::new(path));
        }
        drop(listener);
        // Systemd, if it has started this, keeps the listener until it has read the message above.
        let mut own = proc::line_of(std::process::id() as i32);
        own.extend(self.daemon.as_ref().map(|daemon| daemon.pid));
        // Neither what a worker has started with an environment of its own: it may still answer clients, and ends with the worker.
        let workers = self.workers.values().filter(|worker| worker.runs());
        own.extend(workers.flat_map(|worker| started_by(&self.home, worker.pid())).map(|process| process.pid));
        let is_known = |pid: &i32| own.contains(pid) || self.is_marked(*pid);
        for pid in proc::all().into_iter().filter(|pid| !is_known(pid) && proc::holds(*pid, &socket)).collect::<Vec<_>>() {
            let name = proc::name(pid).unwrap_or_default();
            let killed = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
            if matches!(killed, Some(Ok(()))) {
                self.report(&Report::Remark(format!("{name} ({pid}) still held {address} and was killed")))?;
            }
        }
        Ok(())
    }

    /// Listens again where a worker of an app has shut a shared listener down.
    pub(super) fn listen_again(&mut self, app: &str, addresses: &[String]) -> Result<()> {
        for address in addresses {
            let Some(listener) = self.listeners.get_mut(address).filter(|one| one.is_shut()) else { continue };
            let remark = match listener.again() {
                Ok(is_another) => {
                    store(address, listener);
                    self.tell_bound(address)?;
                    let for_whom =
                        if is_another { format!(", for new processes: run `supervisor reload {app}`") } else { String::new() };
                    format!("a process of {app} had shut {address} down: it listens again{for_whom}")
                }
                Err(error) => format!(
                    "a process of {app} has shut {address} down, and it cannot listen again on {}: {error}; free the address, then run \
                     `supervisor restart {app}`",
                    listener.actual
                ),
            };
            self.report(&Report::Remark(remark))?;
        }
        Ok(())
    }
}

/// Opens a Unix socket that every user may connect to who may enter its folder, in place of one that a process has left.
fn open_unix(path: &str) -> io::Result<OwnedFd> {
    remove_leftover(Path::new(path))?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener.into())
}

/// Opens a socket that leaves IPv4 alone, so that another may listen there. The option has to come before the address.
fn open_only_ipv6(address: SocketAddrV6) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::INET6, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_ipv6_v6only(&socket, true)?;
    // The standard library does so too: connections of before may not have ended for good.
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    Ok(socket)
}

/// The name under which systemd keeps a listener. Names have no colons.
fn stored_name(address: &str) -> String {
    address.replace('%', "%25").replace(':', "%3A")
}

/// The address of a listener that systemd has kept.
pub fn address_of_stored(name: &str) -> String {
    name.replace("%3A", ":").replace("%25", "%")
}

/// Lets systemd keep a listener, in case the keeper and the daemon both die.
fn store(address: &str, listener: &Listener) {
    // Without systemd, nobody keeps it.
    let name = stored_name(address);
    let _ = sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(&name)], &[listener.socket.as_fd()]);
}

/// Returns the address of a listener.
fn address_of(socket: &OwnedFd) -> Option<String> {
    TcpListener::from(socket.try_clone().ok()?).local_addr().ok().map(|address| address.to_string())
}
