//! `startup` prints a systemd unit, and `unstartup` how to remove it.

use super::{print, remark};
use anyhow::Result;
use rustix::process::geteuid;
use std::path::Path;
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
    // Percent signs have a special meaning in units.
    let quoted = |path: &Path| path.display().to_string().replace('%', "%%");
    let (program, home) = (quoted(&program), quoted(home.path()));
    // The keeper and the daemon restart each other, so systemd must not kill one when the other dies. If both die, it keeps their listeners. The saved
    // apps take as long to start as they take: nobody waits for them here.
    print(&format!(
        "[Unit]
Description=Supervisor of {home}
After=network.target

[Service]
Type=notify
NotifyAccess=all
Environment=\"SUPERVISOR_HOME={home}\"
ExecStart=\"{program}-keeper\" keeper
ExecStartPost=-\"{program}\" resurrect --boot
ExecStop=\"{program}\" kill
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
