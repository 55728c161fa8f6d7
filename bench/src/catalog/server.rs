//! One server: a row in every table.

use super::needs::{Need, find_program};
use crate::http::Url;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// One runtime in one concurrency model, a server that others wrote, or a user's own.
#[derive(Debug, Clone)]
pub struct Server {
    /// `<runtime>-<model>`, followed by `@system` if it has the system's allocator.
    pub name: String,
    /// The library that schedules work, or the peer.
    pub runtime: String,
    /// The concurrency model.
    pub model: String,
    /// The HTTP codec that answers.
    pub http: String,
    /// The place where blocking work runs.
    pub blocking: Blocking,
    /// The thread that a blocking call runs on, in a few words: `a thread pool`.
    pub runs_on: String,
    /// The loops that its connections stay on, where blocking calls run too; `None` if connections or blocking calls move.
    pub pinned_to: Option<PinnedTo>,
    /// One sentence.
    pub about: String,
    /// Others wrote it.
    pub is_peer: bool,
    /// Experiments and checks that it cannot take part in, each with the reason.
    pub unsupported: BTreeMap<String, String>,
    /// Command line, with `{W}` for the number of threads or processes.
    pub args: Vec<String>,
    /// The program that serves.
    pub program: Program,
    /// Its threads are the cluster: it does not fork.
    pub is_one_process: bool,
    /// The server that it is a variant of; a quick round leaves variants out.
    pub variant_of: Option<String>,
    /// Named selections that it belongs to.
    pub tags: Vec<String>,
    /// The questions to a server that does not keep the contract.
    pub own: Option<Own>,
    /// Programs that building or running it takes.
    pub requires: Vec<String>,
    /// Requirements on the kernel and its limits.
    pub needs: Vec<Need>,
    /// The reason why it is built, checked and measured only where it is asked for.
    pub only_if_asked: Option<String>,
    /// What is known of a library that nobody seems to maintain, with a date.
    pub unmaintained: Option<String>,
}

impl Server {
    /// The reason why it cannot run here; `None` if it can.
    pub fn missing(&self) -> Option<String> {
        let program = self.requires.iter().find(|name| find_program(name).is_none()).map(|name| format!("{name} not found"));
        program.or_else(|| self.needs.iter().find_map(|need| need.missing()))
    }

    /// The same server, built with what this value of `--state` takes.
    pub fn with_state(&self, state: &str) -> Server {
        let mut server = self.clone();
        if let Program::Package(build) = &mut server.program
            && (state.starts_with("postgres://") || state.starts_with("postgresql://"))
        {
            build.features.push("common/postgres".into());
        }
        server
    }

    /// Whether everyone who can build this project can build it.
    pub fn needs_only_rust(&self) -> bool {
        matches!(self.program, Program::Package(_)) && self.requires.is_empty()
    }

    /// Whether it belongs to a named selection.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|one| one == tag)
    }
}

/// The place where blocking work runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blocking {
    /// On the thread that serves the connection.
    Inline,
    /// On a thread of a pool of its own.
    Offloaded,
    /// On the thread that serves the connection, after the runtime was told.
    InPlace,
}

impl fmt::Display for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Blocking::Inline => "inline",
            Blocking::Offloaded => "offloaded",
            Blocking::InPlace => "in-place",
        })
    }
}

/// The event loops that connections are divided among; each stays on one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PinnedTo {
    /// There is one.
    TheOnlyLoop,
    /// One of W.
    OneOfW,
}

impl PinnedTo {
    /// The number of loops.
    pub fn loops(self, threads: usize) -> usize {
        if self == PinnedTo::TheOnlyLoop { 1 } else { threads }
    }
}

/// The program that serves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// A package of the workspace.
    Package(Build),
    /// A command that runs inside its folder.
    Foreign(Foreign),
    /// A line for the shell, with `{port}` for a free port.
    Shell(String),
    /// A server that is running already.
    Address(String),
}

/// A program that cargo does not build. In both commands `{target}` stands for the folder of built things.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Foreign {
    /// The folder of its `servers.toml`.
    pub folder: PathBuf,
    /// The command that starts it; arguments follow.
    pub command: Vec<String>,
    /// The command that builds it; empty if nothing has to be built.
    pub build: Vec<String>,
}

/// The options that make one binary differ from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Build {
    /// Cargo's package.
    pub package: String,
    /// Cargo's features.
    pub features: Vec<String>,
    /// Flags to the compiler.
    pub rustflags: String,
    /// Another checkout to build it in; `None` for the one that stallbench works on.
    pub tree: Option<PathBuf>,
}

/// The questions to a user's own server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// A request that must stay quick.
    pub probe: Ask,
    /// A request that is slow.
    pub blocker: Ask,
    /// Headers of both.
    pub headers: Vec<(String, String)>,
    /// The `Host` of both; `None` for the address.
    pub host: Option<String>,
}

/// A method and a path, and what is sent with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Body; `None` for a method that has none, or an empty one.
    pub body: Option<Vec<u8>>,
}

impl Ask {
    /// The same with a body, by POST unless another method was named.
    #[must_use]
    pub fn with_body(self, body: Vec<u8>) -> Self {
        let method = if self.method == "GET" { "POST".into() } else { self.method };
        Ask { method, body: Some(body), ..self }
    }

    /// What to do about a first answer of this status, where the status says it.
    pub fn advice(status: u16) -> Option<&'static str> {
        match status {
            401 | 403 => Some("pass --header 'Authorization: ...', or whatever else lets the request in"),
            429 | 503 => {
                Some("the server limits or refuses requests: lift its limit for the measurement, or wait until it is ready")
            }
            _ => None,
        }
    }

    /// The same of a request to a user's own server that this option names, where more is to be said; `allow` are the methods that the answer allows.
    pub fn advice_on(&self, status: u16, allow: Option<&str>, option: &str) -> Option<String> {
        let name = "pass --header 'Host: NAME' with the name that the server goes by";
        let body = format!("name a body with {option}-body FILE");
        let kind = "its type with --header 'Content-Type: application/json'";
        let is_other = |method: &&str| *method != self.method && !["", "HEAD", "OPTIONS"].contains(method);
        match (status, self.method.as_str()) {
            (400, "GET" | "HEAD") => Some(format!("the server expects something else: check the query, or {name}")),
            (400, _) => Some(format!("the server expects something else: {body} and {kind}, or {name}")),
            (405, _) => {
                let allowed = allow.and_then(|allow| allow.split(',').map(str::trim).find(is_other));
                let method = allowed.or((self.method == "GET").then_some("POST")).unwrap_or("METHOD");
                Some(format!("name the method that it takes, as in {option} '{method} {}'", self.path))
            }
            (411, _) => Some(body),
            (413, _) => Some(format!("the body is more than it takes: {body} that is smaller")),
            (415, _) => Some(format!("{body}, and {kind}")),
            (421, _) => Some(name.into()),
            _ => None,
        }
    }
}

impl FromStr for Ask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (method, path) = text.split_once(' ').unwrap_or(("GET", text));
        let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        if !is_method || !path.starts_with('/') {
            return Err(format!("'{text}' is not a path, such as /slow or 'POST /slow'"));
        }
        let url = Url::parse(&format!("http://h{path}")).map_err(|error| format!("{error:#}"))?;
        Ok(Ask { method: method.into(), path: url.path, body: None })
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.method == "GET" { f.write_str(&self.path) } else { write!(f, "{} {}", self.method, self.path) }
    }
}
