//! Addresses that a user types.

use crate::console::usage::{Usage, refuse};
use anyhow::{Context, Result};
use http::Uri;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long a connection to one address of a name may take.
const CONNECT: Duration = Duration::from_secs(2);

/// What to do about another protocol.
pub const PLAIN_ONLY: &str =
    "stallbench speaks plain HTTP/1.1 only: give the server's http:// address behind the TLS or HTTP/2 proxy";
/// Characters that a path and a query have only as `%` and two digits, and a host has not at all (RFC 3986, 2).
const NEVER_PLAIN: &str = "\"<>\\^`{|}";

/// An address of the form `http://HOST[:PORT][/PATH][?QUERY]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Host and port as typed, for the `Host` header.
    pub authority: String,
    /// Path and query.
    pub path: String,
    host: String,
    port: u16,
}

impl Url {
    /// Reads an address.
    ///
    /// # Errors
    /// Anything else, in a line that says what to do; it never repeats a password.
    pub fn parse(text: &str) -> Result<Self> {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        match scheme.as_deref() {
            Some("http") => {}
            Some("https" | "h2" | "h2c") => refuse!("{PLAIN_ONLY}"),
            Some(_) | None => refuse!("'{}' is not an address of the form http://HOST:PORT/PATH", without_password(text)),
        }
        let authority = text[7..].split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            refuse!("the address contains a user or password: leave it out, and pass --header 'Authorization: ...' instead");
        }
        if authority.is_empty() {
            refuse!("'{text}' names no host");
        }
        if !authority.is_ascii() {
            refuse!("the host '{authority}' has letters beyond ASCII: write it as DNS does, such as xn--bcher-kva.example");
        }
        let without_fragment = text.split('#').next().unwrap_or_default();
        let parsed = encoded(without_fragment).parse::<Uri>();
        if let Some(bad) = authority.chars().find(|c| NEVER_PLAIN.contains(*c)) {
            refuse!("the host '{authority}' contains {bad:?}, which is in the name of no host");
        }
        let path = without_fragment.get(7 + authority.len()..).unwrap_or_default();
        // Some of them pass in places where browsers send them.
        let refused = path.chars().find(|c| parsed.is_err() && NEVER_PLAIN.contains(*c));
        if let Some(bad) = text.chars().find(|c| c.is_whitespace() || c.is_control()).or(refused) {
            refuse!("the address contains {bad:?}: write it percent-encoded, as {}", percent(bad.to_string().as_bytes()));
        }
        let uri = parsed.with_context(|| format!("'{text}' is not a valid address"))?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| Usage(format!("'{text}' names no host")))?;
        let port = match (uri.port_u16(), authority.rsplit_once(':')) {
            (Some(port), _) => port,
            (None, Some((_, digits))) if !digits.ends_with(']') => refuse!("'{digits}' is not a port from 1 to 65535"),
            _ => 80,
        };
        let path = uri.path_and_query().map_or("/".into(), |path| path.as_str().to_owned());
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Url { authority: authority.to_owned(), path, host, port })
    }

    /// The first address of the host that accepts a connection: a name may have several, such as `::1` and `127.0.0.1`.
    ///
    /// # Errors
    /// An unknown name, or one that accepts nowhere.
    pub fn resolve(&self) -> Result<SocketAddr> {
        let addresses = (self.host.as_str(), self.port).to_socket_addrs();
        let mut addresses: Vec<SocketAddr> =
            addresses.with_context(|| format!("cannot find the host of {}", self.authority))?.collect();
        // Systems differ in which of both they list for this name, which always means this machine (RFC 6761).
        if self.host.eq_ignore_ascii_case("localhost") {
            let both = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
            addresses.extend(both.map(|address| SocketAddr::new(address, self.port)));
        }
        let mut failure = None;
        for address in &addresses {
            match TcpStream::connect_timeout(address, CONNECT) {
                Ok(_) => return Ok(*address),
                Err(error) => failure = Some(anyhow::Error::new(error).context(format!("cannot connect to {address}"))),
            }
        }
        Err(failure.unwrap_or_else(|| anyhow::anyhow!("{} has no address", self.authority)))
    }
}

/// Bytes beyond ASCII as a browser sends them.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| if byte.is_ascii() { char::from(byte).to_string() } else { percent(&[byte]) }).collect()
}

fn percent(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}

fn without_password(text: &str) -> String {
    text.rsplit_once('@').map_or(text.to_owned(), |(_, rest)| format!("...@{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_people_type_are_understood() {
        let parts = |text: &str| {
            let url = Url::parse(text).unwrap();
            (url.authority, url.path, url.host, url.port)
        };
        let all = |authority: &str, path: &str, host: &str, port| (authority.into(), path.into(), host.into(), port);
        assert_eq!(parts("http://h"), all("h", "/", "h", 80));
        assert_eq!(parts("http://[::1]/"), all("[::1]", "/", "::1", 80));
        assert_eq!(parts("http://[::1]:8080"), all("[::1]:8080", "/", "::1", 8080));
        assert_eq!(parts("http://h?x=1"), all("h", "/?x=1", "h", 80));
        assert_eq!(parts("http://h/#top"), all("h", "/", "h", 80));
        assert_eq!(parts("HTTP://h:81/a/b?c=d/e"), all("h:81", "/a/b?c=d/e", "h", 81));
        // As a browser sends it, and what is encoded already stays.
        assert_eq!(parts("http://h/ä%20?q=€#ä"), all("h", "/%C3%A4%20?q=%E2%82%AC", "h", 80));
    }

    #[test]
    fn each_address_that_cannot_be_used_says_what_to_do() {
        for (text, wanted) in [
            ("https://h/", "http:// address"),
            ("h2://h/", "http:// address"),
            ("ftp://x", "http://HOST:PORT/PATH"),
            ("localhost:8080", "http://HOST:PORT/PATH"),
            ("http://h/a b", "percent-encoded"),
            ("http://h/a\r\nX: y", "percent-encoded"),
            ("http://h/<x>", "the address contains '<': write it percent-encoded, as %3C"),
            ("http://h/?a=\"b\"", "as %22"),
            ("http://h/\u{a0}x|", "as %C2%A0"),
            ("http://a|b/", "the host 'a|b' contains '|'"),
            ("http://a^b", "the host 'a^b' contains '^'"),
            ("http://me:secret@h/", "--header"),
            ("http:///x", "names no host"),
            ("http://bücher.example/", "xn--"),
            ("http://h:99999/", "not a port"),
            ("http://h:/", "not a port"),
        ] {
            let error = format!("{:#}", Url::parse(text).unwrap_err());
            assert!(error.contains(wanted), "{text}: {error}");
            assert!(!error.contains("secret") && error.lines().count() == 1, "{error}");
        }
        assert!(!format!("{:#}", Url::parse("ftp://me:secret@h/").unwrap_err()).contains("secret"));
    }

    #[test]
    fn every_address_of_a_name_is_tried() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let is_found = || {
                let listener = std::net::TcpListener::bind(address).unwrap();
                let address = listener.local_addr().unwrap();
                Url::parse(&format!("http://localhost:{}/", address.port())).unwrap().resolve().unwrap() == address
            };
            // By chance, another test listens at this port of the other address, which comes first.
            assert!((0..9).any(|_| is_found()), "{address}");
        }
    }
}
