//! Blockers: requests whose handler blocks its thread for a known time T.

use crate::http::{Client, Request};
use crate::process::Running;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// A kind of blocker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Threads that wait
    Sleep,
    /// Threads that work, for a time on their own clock
    Cpu,
    /// Threads that derive a key, with as many rounds as take this server as long
    Pbkdf2,
}

impl Kind {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Sleep => "sleep",
            Kind::Cpu => "cpu",
            Kind::Pbkdf2 => "pbkdf2",
        }
    }

    /// The path of a request that takes this server this long when it is asked alone.
    ///
    /// # Errors
    /// A server that does not answer.
    pub fn path(self, length: Duration, running: &Running) -> Result<String> {
        let ms = length.as_secs_f64() * 1e3;
        Ok(match self {
            Kind::Sleep => format!("/sleep?ms={ms}"),
            Kind::Cpu => format!("/timer?ms={ms}&clock=cpu"),
            Kind::Pbkdf2 => format!("/pbkdf2?iterations={}", rounds(length, running)?),
        })
    }

    /// Blockers of this kind that can make progress at once: each that works needs a processor.
    pub fn at_once(self, k: usize, cores: usize) -> Option<usize> {
        match self {
            Kind::Sleep => Some(k),
            Kind::Cpu => Some(k.min(cores)),
            // How long a function takes varies.
            Kind::Pbkdf2 => None,
        }
    }
}

/// Rounds of key derivation that take a server about this long.
fn rounds(length: Duration, running: &Running) -> Result<u64> {
    const ASKED: u32 = 50_000;
    let mut client = Client::connect(running.address)?;
    let request = Request::get(running.address.to_string(), format!("/pbkdf2?iterations={ASKED}")).to_bytes();
    let mut alone = Vec::new();
    for _ in 0..3 {
        let started = Instant::now();
        client.ask(&request)?;
        alone.push(started.elapsed());
    }
    alone.sort();
    Ok((f64::from(ASKED) * length.as_secs_f64() / alone[1].as_secs_f64()) as u64)
}
