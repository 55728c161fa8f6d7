//! `startup` prints a systemd unit.

use super::{print, remark};
use anyhow::Result;
use rustix::process::geteuid;
use std::path::Path;
use supervisor::home::Home;

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
    // The keeper and the daemon restart each other, so systemd must not kill one when the other dies.
    print(&format!(
        "[Unit]
Description=Supervisor of {home}
After=network.target

[Service]
Type=notify
NotifyAccess=all
Environment=\"SUPERVISOR_HOME={home}\"
ExecStart=\"{program}d\" keeper
ExecStartPost=-\"{program}\" resurrect
ExecStop=\"{program}\" kill
KillMode=process
OOMPolicy=continue
Restart=always
LimitNOFILE=infinity

[Install]
WantedBy={target}
"
    ))?;
    let (folder, systemctl) =
        if is_root { ("/etc/systemd/system", "systemctl") } else { ("~/.config/systemd/user", "systemctl --user") };
    remark(&format!(
        "to save the running apps and let systemd start them, now and at every boot (`{systemctl} stop supervisor` stops them):"
    ));
    remark(&format!(
        "  supervisor save && supervisor kill && mkdir -p {folder} && supervisor startup > {folder}/supervisor.service"
    ));
    remark(&format!("  {systemctl} daemon-reload && {systemctl} enable --now supervisor"));
    if !is_root {
        remark("  loginctl enable-linger    # keeps it running while you are not logged in");
    }
    Ok(())
}
