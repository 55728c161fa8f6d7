//! Builds each server's package on its own, since features of packages that are built together are unified.

use crate::catalog::{Build, Server, root};
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use common::Receipt;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Where a package's binary is, or will be. Each set of build options has its own target directory.
pub fn binary(build: &Build) -> PathBuf {
    target_dir(build).join("release").join(&build.package)
}

fn target_dir(build: &Build) -> PathBuf {
    let base = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    if build.features.is_empty() && build.rustflags.is_empty() {
        return base;
    }
    let options: Vec<String> = build.features.iter().cloned().chain(build.rustflags.split_whitespace().map(Into::into)).collect();
    let name: String = options.join("+").chars().map(|c| if c.is_alphanumeric() || c == '+' { c } else { '-' }).collect();
    base.join("options").join(name)
}

/// Builds what the servers need, each package once. The error of a package stops the others from being built.
///
/// # Errors
/// The package that does not build, with the compiler's words.
pub fn build(servers: &[Server], progress: &Progress) -> Result<()> {
    let builds: BTreeSet<&Build> = servers.iter().map(|server| &server.build).collect();
    let count = builds.len();
    for (number, build) in builds.into_iter().enumerate() {
        crate::interrupt::check()?;
        progress.say(&format!("building {} ({} of {count})", build.package, number + 1));
        build_one(build)?;
        progress.step(1);
    }
    Ok(())
}

fn build_one(build: &Build) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(["build", "--release", "--quiet", "--package", &build.package]);
    command.arg("--target-dir").arg(target_dir(build));
    if !build.features.is_empty() {
        command.arg("--features").arg(build.features.join(","));
    }
    if !build.rustflags.is_empty() {
        command.env("RUSTFLAGS", &build.rustflags);
    }
    let output =
        command.stdin(Stdio::null()).output().context("cannot run cargo: install Rust, or say where it is with CARGO")?;
    if !output.status.success() {
        crate::interrupt::check()?;
        bail!("{} does not build:\n{}", build.package, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

/// The command line of a server: its own arguments with W in place, but for those that are given anew in what is added.
pub fn arguments(server: &Server, threads: usize, more: &[String]) -> Vec<String> {
    let mut own = server.args.iter();
    let mut all = Vec::new();
    while let Some(name) = own.next() {
        let value = own.next();
        if !more.contains(name) {
            all.push(name.clone());
            all.extend(value.map(|value| value.replace("{W}", &threads.to_string())));
        }
    }
    all.extend_from_slice(more);
    all
}

/// Asks a server what it is.
///
/// # Errors
/// A server that is not built or does not say.
pub fn receipt(server: &Server, threads: usize, more: &[String]) -> Result<Receipt> {
    let binary = binary(&server.build);
    if !binary.exists() {
        bail!("not built; run `stallbench build {}`", server.name);
    }
    let mut more = more.to_vec();
    more.push("--version".into());
    let output = Command::new(&binary)
        .args(arguments(server, threads, &more))
        .env_clear()
        .output()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("{} gives no receipt with --version", server.name))
}
