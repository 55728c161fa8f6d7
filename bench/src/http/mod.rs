//! HTTP from the client side.

pub mod client;
