//! The contract of a server, line by line.
use crate::catalog::Server;
use anyhow::Result;
pub enum Verdict { Kept, Unsupported(String), Broken(String) }
pub fn all(_server: &Server) -> Result<Vec<(&'static str, Verdict)>> { Ok(Vec::new()) }
