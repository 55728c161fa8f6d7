//! HTTP/1.1 from the client's side: addresses, requests, one incremental reader of responses, and a plain client.

mod client;
mod crowd;
mod reader;
mod request;
mod url;

pub use client::{Client, Response, Unanswered, is_reset};
pub use crowd::at_once;
pub use reader::{Head, Reader, Step};
pub use request::{Request, get};
pub use url::{PLAIN_ONLY, Url};
