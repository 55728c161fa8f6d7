//! What does it weigh? Binary, time until ready, memory and threads: idle, and with idle connections.

use super::{Session, learn, ms};
use crate::http::client::{Client, get};
use crate::process::Running;
use crate::process::builder;
use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::fs;

/// What was weighed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Footprint {
    /// Size of the binary, in bytes.
    pub binary_bytes: u64,
    /// From the start of the process until it said that it is ready, in ms.
    pub until_ready_ms: f64,
    /// With no connection but the one that asked once.
    pub idle: Weight,
    /// With idle connections, by ascending number.
    pub levels: Vec<Weight>,
    /// Why the levels end early, if they do.
    pub cap: Option<String>,
    /// Idle connections that there were in the end; none in older rounds.
    #[serde(default)]
    pub reached: Option<usize>,
}

/// Memory of all processes of the server, and their threads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Weight {
    /// Idle connections.
    pub connections: usize,
    /// Resident, each process by itself, in bytes.
    pub rss_bytes: u64,
    /// Resident, what is shared counted once, in bytes.
    pub pss_bytes: u64,
    /// Threads.
    pub threads: u64,
}

impl Footprint {
    /// Memory per idle connection at the highest level, in bytes.
    pub fn per_connection(&self) -> Option<f64> {
        let last = self.levels.last()?;
        let more = last.pss_bytes.saturating_sub(self.idle.pss_bytes);
        Some(more as f64 / last.connections as f64)
    }
}

/// Weighs one fresh process.
///
/// # Errors
/// A server that does not start or answers wrongly.
pub fn run(session: &Session<'_>) -> Result<Footprint> {
    raise_descriptor_limit();
    let mut running = session.start("footprint")?;
    learn(&mut running, "/")?;
    let idle = weigh(&running, 0);
    let mut clients = Vec::new();
    let (mut levels, mut cap) = (Vec::new(), None);
    for connections in &session.settings.idle {
        crate::console::interrupt::check()?;
        if let Err(error) = fill(&mut clients, *connections, &running) {
            cap = Some(format!("{error:#}{}", running.last_words()));
            break;
        }
        levels.push(weigh(&running, *connections));
    }
    let binary = builder::binary(&session.server.program);
    let binary_bytes = fs::metadata(&binary).with_context(|| format!("cannot read {}", binary.display()))?.len();
    let reached = Some(clients.len());
    Ok(Footprint { reached, binary_bytes, until_ready_ms: ms(running.until_ready), idle, levels, cap })
}

/// Opens connections up to that number; each asks once and stays.
fn fill(clients: &mut Vec<Client>, connections: usize, running: &Running) -> Result<()> {
    let request = get("/");
    while clients.len() < connections {
        let mut client = Client::connect(running.address)?;
        client.ask(&request)?;
        clients.push(client);
    }
    Ok(())
}

fn weigh(running: &Running, connections: usize) -> Weight {
    let memory = running.memory();
    Weight { connections, rss_bytes: memory.rss, pss_bytes: memory.pss, threads: memory.threads }
}

fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Where it is refused, the level that needs it says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
