//! `startup` prints a systemd unit, and `unstartup` how to remove it.

use super::{print, remark};
use anyhow::Result;
use rustix::process::geteuid;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::Utf8Chunk;
use supervisor::home::Home;

/// Name of the unit. Debian's package `supervisor`, another program, has one called `supervisor.service`.
const UNIT: &str = "stallbench-supervisor.service";

/// Prints the unit to standard output, and instructions to standard error.
///
/// # Errors
/// Fails if the program's own path is unknown.
pub fn run() -> Result<()> {
    let home = Home::open()?;
    let program = std::env::current_exe()?;
    let is_root = geteuid().is_root();
    let target = if is_root { "multi-user.target" } else { "default.target" };
    let keeper = program.with_file_name("supervisor-keeper");
    let variable = [OsStr::new("SUPERVISOR_HOME="), home.path().as_os_str()].map(OsStr::as_bytes).concat();
    let description = described(home.path());
    // Only then, since systemd before 244 knows no colon.
    let colon = if program.as_os_str().as_bytes().contains(&b'$') { ":" } else { "" };
    let [program, keeper] = [program, keeper].map(|path| run_by_systemd(&path));
    let variable = quoted(&variable);
    // The keeper and the daemon restart each other, so systemd must not kill one when the other dies. If both die, it keeps their listeners. The saved
    // apps take as long to start as they take: nobody waits for them here. A colon before a program means that a dollar is one.
    print(&format!(
        "[Unit]
Description=Supervisor ({description})
After=network.target

[Service]
Type=notify
NotifyAccess=all
Environment={variable}
ExecStart={colon}{keeper} keeper
ExecStartPost=-{colon}{program} resurrect --boot
ExecStop={colon}{program} kill
TimeoutStopSec=infinity
KillMode=process
OOMPolicy=continue
Restart=always
WatchdogSec=30
FileDescriptorStoreMax=1024
Delegate=cpu memory
DelegateSubgroup=stallbench-supervisor
LimitNOFILE=infinity

[Install]
WantedBy={target}
"
    ))?;
    let Place { folder, systemctl } = Place::here();
    remark(&format!(
        "to save the running apps and let systemd start them, now and at every boot (`{systemctl} stop {UNIT}` stops them):"
    ));
    remark(&format!("  supervisor save && supervisor kill && mkdir -p {folder} && supervisor startup > {folder}/{UNIT}"));
    remark(&format!("  {systemctl} daemon-reload && {systemctl} enable --now {UNIT}"));
    if !is_root {
        remark("  loginctl enable-linger    # keeps it running while you are not logged in");
    }
    Ok(())
}

/// Returns a word of a unit that means these bytes, which systemd unquotes, unescapes and expands, in this order.
fn quoted(bytes: &[u8]) -> String {
    let escaped = |chunk: Utf8Chunk<'_>| {
        let valid = chunk.valid().chars().map(|character| match character {
            '"' | '\\' => format!("\\{character}"),
            '%' => "%%".into(),
            '\n' => "\\n".into(),
            _ if character.is_ascii_control() => format!("\\x{:02x}", u32::from(character)),
            _ => character.into(),
        });
        let invalid = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
        valid.chain(invalid).collect::<String>()
    };
    format!("\"{}\"", bytes.utf8_chunks().map(escaped).collect::<String>())
}

/// Returns the beginning of a command that runs a program. One with such characters in its path, systemd does not run itself.
fn run_by_systemd(program: &Path) -> String {
    let path = program.as_os_str().as_bytes();
    let is_refused = |byte: &u8| b"\"'\\".contains(byte) || byte.is_ascii_control();
    let shell = if path.iter().any(is_refused) { r#"/bin/sh -c "exec \"$0\" \"$@\"" "# } else { "" };
    format!("{shell}{}", quoted(path))
}

/// Returns a path as people read it; in it, only percent signs mean something to systemd.
fn described(path: &Path) -> String {
    path.to_string_lossy().replace(char::is_control, "?").replace('%', "%%")
}

/// Prints the commands that remove the unit to standard output, so that a shell can run them, and what they do to standard error.
///
/// # Errors
/// Fails if standard output is closed.
pub fn undo() -> Result<()> {
    let Place { folder, systemctl } = Place::here();
    remark(
        "these commands stop all apps, and nothing starts them at boot any more; `supervisor resurrect` starts what was saved:",
    );
    print(&format!("{systemctl} disable --now {UNIT}\nrm {folder}/{UNIT}\n{systemctl} daemon-reload\n"))
}

/// Where systemd finds the unit, and how it is told.
struct Place {
    folder: &'static str,
    systemctl: &'static str,
}

impl Place {
    fn here() -> Self {
        if geteuid().is_root() {
            Place { folder: "/etc/systemd/system", systemctl: "systemctl" }
        } else {
            Place { folder: "~/.config/systemd/user", systemctl: "systemctl --user" }
        }
    }
}
