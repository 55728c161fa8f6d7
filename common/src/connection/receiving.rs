//! A request whose body is still arriving, and what its answer depends on.

use crate::http::{Decoder, Head};

/// A request whose body is still arriving.
pub struct Receiving {
    pub method: String,
    pub target: String,
    pub is_json: bool,
    pub reply: Reply,
    pub decoder: Decoder,
    pub body: Vec<u8>,
}

/// The properties of a request that affect the form of its answer.
#[derive(Clone, Copy, Default)]
pub struct Reply {
    pub without_body: bool,
    pub keep_alive: bool,
    pub is_http10: bool,
}

impl Reply {
    pub fn to(head: &Head<'_>) -> Self {
        Reply { without_body: head.method == "HEAD", keep_alive: head.keep_alive, is_http10: head.is_http10 }
    }
}

impl Receiving {
    pub fn new(head: &Head<'_>, reply: Reply) -> Self {
        Receiving {
            method: head.method.into(),
            target: head.target.into(),
            is_json: head.is_json,
            reply,
            decoder: Decoder::new(head.body),
            body: Vec::new(),
        }
    }
}
