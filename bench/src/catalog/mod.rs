//! The catalog: every server there is, as its `servers.toml` says. No other list names them.

mod filter;
mod manifest;
mod named;
mod needs;
mod row;
mod select;
mod server;

pub use filter::{Filter, narrow, takes_metric, takes_server};
pub use manifest::{load, read, refuse_same_names};
pub use named::{MOST_BODY_MIB, read_named};
pub use needs::find_program;
pub use row::Row;
pub use select::{Allocator, find, select, tagged, with_allocators, with_second_names};
pub use server::{Ask, Blocking, Build, Foreign, Own, PinnedTo, Program, Server};

/// The tag of the servers that a first look draws side by side.
pub const FIRST_SIGHT: &str = "first-sight";
/// The suffix of the second name of a server in a null round.
pub const AGAIN: &str = "@again";
/// The tag of the server that the harness tests itself on: one loop, so that arithmetic says what a stop does.
pub const SELF_TEST: &str = "self-test";
/// The tag of the server that keeps its launches in a database server in `check database`.
pub const DATABASE: &str = "database";
/// The tag of the servers that a user's own server is measured beside, and that the null test measures twice.
pub const REFERENCE: &str = "reference";
/// The suffix of a server that is built with the operating system's allocator.
pub const SYSTEM: &str = "@system";
