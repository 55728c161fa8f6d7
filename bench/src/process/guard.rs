//! A process between stallbench and a user's server, so that whatever the server's command starts is known and ended.
//!
//! A server may leave its shell, its group and its session, as daemons do. The guard is a subreaper: a process that loses its parent becomes the guard's
//! child. The guard ends when nothing is left below it, with the status of the command's own process. When the other end of its pipe closes, because the
//! server is no longer needed or because stallbench was killed, it ends all that is left: by SIGTERM first, and by SIGKILL two seconds later.
//!
//! It is a fork that executes no program, so it makes system calls only: another thread may have held a lock at the fork, such as the allocator's.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::{set_child_subreaper, set_dumpable, set_name, set_pdeathsig};
use nix::sys::signal::{SigHandler, SigSet, Signal, kill, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, setpgid};
use std::fs::File;
use std::io::{PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long processes may go on after SIGTERM, to tidy up.
const TIDY_UP: Duration = Duration::from_secs(2);
/// The shortest and the longest time between two looks at the outputs: nothing tells that a file has grown.
const LOOKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(320));
/// An output that takes more is cut at its front, except for its last part.
const MOST_OUTPUT: i64 = 1 << 20;
const LAST_PART: i64 = 64 << 10;
/// Processes that SIGTERM is sent to, each once; those beyond this number get SIGKILL only.
const MOST_TOLD: usize = 256;

/// The end of the pipe that keeps a guard waiting. Dropped, all below the guard is ended.
pub struct Hold(#[expect(dead_code, reason = "it is held")] PipeWriter);

/// Puts a guard in front of a command: the child that this command spawns is the guard. Its stdout and stderr are kept short if they are files.
///
/// # Errors
/// There is no descriptor left for a pipe.
pub fn put_before(command: &mut Command) -> Result<Hold> {
    let (reader, writer) = std::io::pipe().context("cannot make a pipe for the guard of a server")?;
    let stay_behind = move || {
        set_child_subreaper(true)?;
        let guard = getpid();
        // SAFETY: this process is a fork itself, of one thread; both sides make system calls only.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => watch(child, reader.as_raw_fd()),
            ForkResult::Child => {
                // A server that signals its whole group must not reach its guard.
                setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
                set_pdeathsig(Signal::SIGKILL)?;
                if getppid() == guard { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
            }
        }
    };
    // Ctrl-C on a terminal is not for it.
    command.process_group(0);
    // SAFETY: between fork and exec it makes system calls only; nothing is allocated or locked.
    unsafe { command.pre_exec(stay_behind) };
    Ok(Hold(writer))
}

/// The life of a guard.
fn watch(first: Pid, hold: RawFd) -> ! {
    let [hold, outputs @ ..] = become_guard(hold);
    // Blocked before the first look, so that no end is missed.
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGCHLD);
    let _ = ends.thread_block();
    let signals = SignalFd::with_flags(&ends, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).ok();
    let (mut ended, mut deadline, mut pause) = (None, None, LOOKS.0);
    let (mut told, mut count) = ([0; MOST_TOLD], 0);
    loop {
        let is_left = reap(first, &mut ended);
        let was_cut = outputs.map(shorten).contains(&true);
        if !is_left {
            leave(ended);
        }
        let has_failed = ended.is_some_and(|status| !matches!(status, WaitStatus::Exited(_, 0)));
        if has_failed || is_closed(hold) {
            deadline.get_or_insert_with(|| Instant::now() + TIDY_UP);
        }
        let now = Instant::now();
        let is_late = deadline.is_some_and(|deadline| now >= deadline);
        if is_late && ended.is_none() {
            // Also where the kernel does not list children.
            let _ = kill(first, Signal::SIGKILL);
        }
        if deadline.is_some_and(|deadline| now >= deadline + TIDY_UP) {
            // What is left may not be ended by us: whoever waits for this process shall not wait for that.
            leave(ended);
        }
        // What ends its own children in its own order is not disturbed: these are told only if it leaves them behind.
        let end = |child: Pid| {
            if is_late {
                let _ = kill(child, Signal::SIGKILL);
            } else if count < MOST_TOLD && !told[..count].contains(&child.as_raw()) {
                (told[count], count) = (child.as_raw(), count + 1);
                let _ = kill(child, Signal::SIGTERM);
            }
        };
        if deadline.is_some() {
            each_child(end);
        }
        pause = if was_cut { LOOKS.0 } else { (pause * 2).min(LOOKS.1) };
        let until = deadline.filter(|_| !is_late).map_or(pause, |deadline| pause.min(deadline - now));
        wait(signals.as_ref(), hold, deadline.is_some(), until);
    }
}

/// Lets go of all that was the parent's, and of signals that are meant for it; returns the pipe, and both outputs.
fn become_guard(hold: RawFd) -> [BorrowedFd<'static>; 3] {
    // A process of another name is not found by whoever ends all of stallbench's.
    let _ = set_name(c"server-guard");
    for ignored in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGPIPE] {
        // SAFETY: no handler is installed.
        let _ = unsafe { signal(ignored, SigHandler::SigIgn) };
    }
    // SAFETY: plain system calls. Nothing of this process uses any descriptor but these three, which stay open until its end.
    unsafe {
        libc::dup2(hold, 0);
        // A kernel before 5.9 has no such call.
        if libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) != 0 {
            for descriptor in 3..4096 {
                libc::close(descriptor);
            }
        }
        [0, 1, 2].map(|descriptor| BorrowedFd::borrow_raw(descriptor))
    }
}

/// Takes note of all that have ended; says whether any process is left.
fn reap(first: Pid, ended: &mut Option<WaitStatus>) -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return true,
            Ok(status) if status.pid() == Some(first) => *ended = Some(status),
            Err(Errno::ECHILD) => return false,
            Ok(_) | Err(_) => {}
        }
    }
}

/// Ends as the first process has.
fn leave(ended: Option<WaitStatus>) -> ! {
    let code = match ended {
        Some(WaitStatus::Exited(_, code)) => code,
        Some(WaitStatus::Signaled(_, reason, _)) => {
            // One core is enough.
            let _ = set_dumpable(false);
            // SAFETY: no handler is installed.
            let _ = unsafe { signal(reason, SigHandler::SigDfl) };
            let _ = kill(Pid::this(), reason);
            128 + reason as i32
        }
        _ => 0,
    };
    // SAFETY: it runs nothing that other threads would have had to prepare.
    unsafe { libc::_exit(code) }
}

/// Whether the other end of the pipe is closed.
fn is_closed(hold: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::new(hold, PollFlags::empty())], PollTimeout::ZERO) == Ok(1)
}

/// Waits until a process ends, or until the pipe closes unless it has already.
fn wait(signals: Option<&SignalFd>, hold: BorrowedFd<'_>, has_closed: bool, most: Duration) {
    let ends = signals.map_or(hold, AsFd::as_fd);
    let mut fds = [PollFd::new(ends, PollFlags::POLLIN), PollFd::new(hold, PollFlags::empty())];
    let count = if has_closed { 1 } else { 2 };
    // Rounded up: a wait of no time would be repeated until the time has come.
    let most = PollTimeout::try_from(most + Duration::from_millis(1)).unwrap_or(PollTimeout::ZERO);
    let _ = poll(&mut fds[..count], most);
    let _ = signals.map(SignalFd::read_signal);
}

/// The children of this process, which the kernel lists by their parent's thread; of very many, the first ones.
fn each_child(mut act: impl FnMut(Pid)) {
    let mut list = [0; 4096];
    // SAFETY: a plain system call; the descriptor it returns is new and owned by nobody else.
    let mut file = match unsafe { libc::open(c"/proc/thread-self/children".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) } {
        -1 => return,
        // SAFETY: the descriptor has just been opened, and nobody else owns it.
        descriptor => unsafe { File::from_raw_fd(descriptor) },
    };
    let count = file.read(&mut list).unwrap_or(0);
    let mut pid = 0;
    for byte in &list[..count] {
        if byte.is_ascii_digit() {
            pid = pid * 10 + i32::from(byte - b'0');
        } else if pid > 0 {
            act(Pid::from_raw(std::mem::take(&mut pid)));
        }
    }
}

/// Gives the space of an output back except for its last part; says whether there was much.
fn shorten(output: BorrowedFd<'_>) -> bool {
    // SAFETY: plain system calls on a descriptor that is open; zeros are a valid value of the structure.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        if libc::fstat(output.as_raw_fd(), &raw mut stat) != 0 || stat.st_blocks * 512 <= MOST_OUTPUT {
            return false;
        }
        let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        libc::fallocate(output.as_raw_fd(), how, 0, stat.st_size - LAST_PART) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::words::Words;
    use std::io::{BufRead, BufReader};
    use std::process::{Child, ChildStdout, Stdio};

    /// A shell below a guard.
    fn guarded(script: &str) -> (Child, Hold, BufReader<ChildStdout>) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let hold = put_before(&mut command).unwrap();
        let mut guard = command.spawn().unwrap();
        let output = BufReader::new(guard.stdout.take().unwrap());
        (guard, hold, output)
    }

    #[test]
    fn a_process_that_has_left_its_shell_and_its_session_ends_with_the_hold_and_not_before() {
        // It says so once its shell has ended, and the guard knows.
        let daemon = "while kill -0 $1 2>&-; do :; done; echo left; exec sleep 1000";
        let (mut guard, hold, mut output) = guarded(&format!("setsid sh -c '{daemon}' x $$ &"));
        output.read_line(&mut String::new()).unwrap();
        assert!(guard.try_wait().unwrap().is_none());
        drop(hold);
        assert!(guard.wait().unwrap().success(), "the command itself had ended with success");
        // Its end is that of all that have it.
        output.read_to_string(&mut String::new()).unwrap();
    }

    #[test]
    fn processes_may_tidy_up_and_those_that_do_not_end_are_killed() {
        let stubborn = "sh -c 'trap \"\" TERM; echo there; while :; do sleep 1000; done' & ";
        let (mut guard, hold, mut output) = guarded(&format!("{stubborn} read line; exec sleep 1000"));
        output.read_line(&mut String::new()).unwrap();
        drop(hold);
        guard.wait().unwrap();
        output.read_to_string(&mut String::new()).unwrap();
        let (mut guard, hold, mut output) = guarded("trap 'echo tidy; exit 7' TERM; echo there; while :; do sleep 0.01; done");
        output.read_line(&mut String::new()).unwrap();
        drop(hold);
        let mut said = String::new();
        output.read_to_string(&mut said).unwrap();
        assert_eq!((said.as_str(), guard.wait().unwrap().code()), ("tidy\n", Some(7)));
    }

    #[test]
    fn a_guard_ends_as_the_command_and_takes_with_it_what_a_failed_one_leaves() {
        use std::os::unix::process::ExitStatusExt;
        for (script, code, signal) in
            [("exit 3", Some(3), None), ("sleep 1000 & exit 4", Some(4), None), ("kill -9 $$", None, Some(9))]
        {
            let (mut guard, _hold, _output) = guarded(script);
            let status = guard.wait().unwrap();
            assert_eq!((status.code(), status.signal()), (code, signal), "{script}");
        }
    }

    #[test]
    fn a_command_that_cannot_be_run_is_an_error_and_leaves_no_guard() {
        let mut command = Command::new("/no-such-program");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let _hold = put_before(&mut command).unwrap();
        assert_eq!(command.spawn().unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }

    #[test]
    fn a_long_output_takes_little_space_and_its_end_is_kept() {
        let words = Words::short().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "yes something | head -c 50000000; echo the end"]).stdin(Stdio::null());
        command.stdout(words.stdout().unwrap()).stderr(words.stderr().unwrap());
        let _hold = put_before(&mut command).unwrap();
        assert!(command.spawn().unwrap().wait().unwrap().success());
        assert!(words.bytes() <= 1 << 20, "{}", words.bytes());
        assert!(words.last().ends_with("something | the end"), "{}", words.last());
    }
}
