//! Shared listeners that a process of their app shuts down.

mod common;

use common::{Supervisor, free, until};
use rustix::io::ioctl_fionbio;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use rustix::net::{Shutdown, accept, shutdown};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

/// Not a test: the app of the next one, which shuts its listener down when it runs for the first time.
#[test]
#[ignore = "an app, not a test"]
fn app_that_shuts_its_listener_down() {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    // SAFETY: the supervisor passes the listener as descriptor 3, and nothing else in this process uses it.
    let listener = unsafe { OwnedFd::from_raw_fd(3) };
    let ready = || UnixDatagram::unbound().unwrap().send_to(b"READY=1", &socket).unwrap();
    if fs::File::create_new(std::env::var("FIRST").unwrap()).is_ok() {
        shutdown(&listener, Shutdown::Both).unwrap();
        ready();
        let taken = std::env::var_os("TAKEN");
        until("its address is taken", || taken.as_ref().is_none_or(|taken| Path::new(taken).exists()));
        std::process::exit(1);
    }
    ioctl_fionbio(&listener, false).unwrap();
    ready();
    loop {
        fs::File::from(accept(&listener).unwrap()).write_all(b"here").unwrap();
    }
}

/// What the app of these tests writes to each client at an address.
fn answer_of(address: &str) -> std::io::Result<String> {
    let mut text = String::new();
    match address.strip_prefix("unix:") {
        Some(path) => UnixStream::connect(path)?.read_to_string(&mut text)?,
        None => TcpStream::connect(address)?.read_to_string(&mut text)?,
    };
    Ok(text)
}

#[test]
fn a_listener_that_a_worker_has_shut_down_listens_again() {
    for listen in ["127.0.0.1:0", "unix:/app.sock"] {
        let supervisor = Supervisor::new();
        let listen = listen.replace("/app", &format!("{}/app", supervisor.home.path().display()));
        let own = std::env::current_exe().unwrap();
        let words = ["--name", "app", "--listen", &listen, "--", "--exact", "app_that_shuts_its_listener_down", "--ignored"];
        let mut begin = supervisor.command(&[&["start", own.to_str().unwrap()], &words[..]].concat());
        begin.env("FIRST", supervisor.home.path().join("first")).status().unwrap();
        let address = supervisor.list()[0]["listeners"][0].as_str().unwrap().to_owned();
        until("it answers", || answer_of(&address).is_ok_and(|text| text == "here"));
        let remarks = supervisor.listed()["remarks"].to_string();
        assert!(remarks.contains(&format!("had shut {listen} down: it listens again")), "{remarks}");
    }
}

#[test]
fn a_listener_whose_address_is_taken_after_a_worker_has_shut_it_down_listens_again_once_that_is_free() {
    // The system keeps a port that was asked for, and gives one that it has chosen to whoever comes.
    for listen in ["127.0.0.1:0".to_owned(), free()] {
        let supervisor = Supervisor::new();
        let [first, taken] = ["first", "taken"].map(|name| supervisor.home.path().join(name));
        let own = std::env::current_exe().unwrap();
        let words = ["--name", "app", "--listen", &listen, "--", "--exact", "app_that_shuts_its_listener_down", "--ignored"];
        let mut begin = supervisor.command(&[&["start", own.to_str().unwrap()], &words[..]].concat());
        assert!(begin.env("FIRST", &first).env("TAKEN", &taken).status().unwrap().success());
        let address = supervisor.list()[0]["listeners"][0].as_str().unwrap().to_owned();
        let other = TcpListener::bind(&address).unwrap();
        fs::write(&taken, "").unwrap();
        let remarks = || supervisor.listed()["remarks"].to_string();
        let said = format!("cannot listen again on {address}: Address already in use (os error 98); free the address");
        until("it is said", || remarks().contains(&said));
        drop(other);
        until("it answers where it did", || answer_of(&address).is_ok_and(|text| text == "here"));
        assert!(remarks().contains("it listens again"));
    }
}

#[test]
fn a_path_on_which_a_server_hangs_is_in_use_and_nobody_waits_for_that() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "other", "--min-uptime", "10ms"]);
    let keeper = supervisor.role("keeper");
    let path = supervisor.home.path().join("app.sock");
    let address = SocketAddrUnix::new(&path).unwrap();
    let socket = || socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    let hanging = socket();
    bind(&hanging, &address).unwrap();
    listen(&hanging, 0).unwrap();
    // Until its queue is full.
    let waiting: Vec<OwnedFd> = std::iter::repeat_with(socket).take_while(|own| connect(own, &address).is_ok()).collect();
    assert!(!waiting.is_empty());
    let said = supervisor.fails(&["start", "sleep 1000", "--name", "app", "--listen", &format!("unix:{}", path.display())]);
    assert!(said.contains("in use"), "{said}");
    assert_eq!(supervisor.role("keeper"), keeper);
}

#[test]
fn a_path_that_another_server_has_taken_stays_when_the_app_is_deleted() {
    let supervisor = Supervisor::new();
    let path = supervisor.home.path().join("app.sock");
    let app = supervisor.script("app", "echo up; exec sleep 1000");
    let listen = format!("unix:{}", path.display());
    supervisor.ok(&["start", &app, "--listen", &listen, "--ready-when", "log:up"]);
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    supervisor.ok(&["delete", "app"]);
    assert!(UnixStream::connect(&path).is_ok());
}
