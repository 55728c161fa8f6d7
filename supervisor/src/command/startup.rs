//! `startup`: a systemd unit.

use super::print;
use anyhow::Result;
use rustix::process::geteuid;
use std::path::Path;
use supervisor::home::Home;

/// Prints the unit, and on standard error what to do with it.
///
/// # Errors
/// The program's own path is not known.
pub fn run() -> Result<()> {
    let home = Home::open()?;
    let program = std::env::current_exe()?;
    let is_root = geteuid().is_root();
    let target = if is_root { "multi-user.target" } else { "default.target" };
    // Percent signs are systemd's own.
    let quoted = |path: &Path| path.display().to_string().replace('%', "%%");
    let (program, home) = (quoted(&program), quoted(home.path()));
    // The keeper starts its daemon again, and each of the two outlives the other: only what is left of both is systemd's to end.
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
    ));
    let (folder, systemctl) =
        if is_root { ("/etc/systemd/system", "systemctl") } else { ("~/.config/systemd/user", "systemctl --user") };
    eprintln!(
        "keep what runs, and let systemd start it from now on, at once and at every boot (`{systemctl} stop supervisor` ends it):"
    );
    eprintln!("  supervisor save && supervisor kill && mkdir -p {folder} && supervisor startup > {folder}/supervisor.service");
    eprintln!("  {systemctl} daemon-reload && {systemctl} enable --now supervisor");
    if !is_root {
        eprintln!("  loginctl enable-linger    # so that it runs without you being logged in");
    }
    Ok(())
}
