//! `startup`: a systemd unit.

use crate::home::Home;
use anyhow::Result;
use rustix::process::geteuid;

/// Prints the unit, and on standard error what to do with it.
///
/// # Errors
/// The program's own path is not known.
pub fn run() -> Result<()> {
    let home = Home::open()?;
    let program = std::env::current_exe()?;
    let (program, home) = (program.display(), home.path().display());
    let is_root = geteuid().is_root();
    let target = if is_root { "multi-user.target" } else { "default.target" };
    // The keeper starts its daemon again, and each of the two outlives the other: only what is left of both is systemd's to end.
    print!(
        "[Unit]
Description=Supervisor of {home}
After=network.target

[Service]
Type=notify
NotifyAccess=all
Environment=SUPERVISOR_HOME={home}
ExecStart={program} keeper
ExecStartPost=-{program} resurrect
ExecStop={program} kill
KillMode=process
OOMPolicy=continue
Restart=always
LimitNOFILE=infinity

[Install]
WantedBy={target}
"
    );
    if is_root {
        eprintln!("supervisor startup > /etc/systemd/system/supervisor.service && systemctl enable --now supervisor");
    } else {
        eprintln!("supervisor startup > ~/.config/systemd/user/supervisor.service && systemctl --user enable --now supervisor");
        eprintln!("so that it runs without you being logged in: loginctl enable-linger");
    }
    Ok(())
}
