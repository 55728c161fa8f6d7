//! A server as a round keeps it: all that is needed to read its numbers elsewhere.

use super::{Blocking, PinnedTo, Server};
use common::Receipt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A server of a round.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Row {
    /// Name.
    pub name: String,
    /// The library that schedules work.
    pub runtime: String,
    /// The concurrency model.
    pub model: String,
    /// The HTTP codec that answers.
    pub http: String,
    /// Others wrote it.
    pub is_peer: bool,
    /// The place where blocking work runs; `None` in rounds of schema 1 and for a user's own server.
    #[serde(default)]
    pub blocking: Option<Blocking>,
    /// The thread that a blocking call runs on, in a few words.
    #[serde(default)]
    pub runs_on: String,
    /// The loops that its connections stay on; `None` if there are none, and in older rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned_to: Option<PinnedTo>,
    /// Named selections that it belongs to.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Experiments and checks that it cannot take part in, each with the reason.
    pub unsupported: BTreeMap<String, String>,
    /// The server's own record of itself; `None` if it is unavailable or keeps none.
    pub receipt: Option<Receipt>,
    /// The reason why it is unavailable.
    pub unavailable: Option<String>,
    /// For a user's own server: its command or address.
    #[serde(default)]
    pub own: Option<String>,
}

impl Row {
    /// The row of a server; without a receipt it is unavailable, since a number must be kept with what it was measured on.
    pub fn new(server: &Server, unsupported: BTreeMap<String, String>, receipt: Result<Receipt, String>) -> Self {
        Row {
            name: server.name.clone(),
            runtime: server.runtime.clone(),
            model: server.model.clone(),
            http: server.http.clone(),
            is_peer: server.is_peer,
            blocking: server.own.is_none().then_some(server.blocking),
            runs_on: server.runs_on.clone(),
            pinned_to: server.pinned_to,
            tags: server.tags.clone(),
            unsupported,
            unavailable: receipt.as_ref().err().cloned(),
            receipt: receipt.ok(),
            own: None,
        }
    }
}
