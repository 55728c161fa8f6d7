//! Request targets: what a client asks for, in any of the forms of RFC 9112, section 3.2.

use super::Refusal;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::net::Ipv6Addr;

/// The longest target, in bytes; RFC 9112 asks for 8,000 at least. Servers answer a longer one with 414.
pub const MAX_TARGET: usize = 8 * 1024;

/// The path and the query that a target names.
#[derive(Debug, PartialEq, Eq)]
pub struct Target<'t> {
    /// The path, decoded; `*` and an authority stay as they are.
    pub path: Cow<'t, str>,
    /// The query, not decoded; empty without one.
    pub query: &'t str,
}

impl<'t> Target<'t> {
    /// Reads a target in any form; one that is in none of them becomes a path that no route has.
    #[must_use]
    pub fn read(target: &'t str) -> Self {
        let rest = if target.starts_with('/') { target } else { absolute(target).map_or(target, |(_, rest)| rest) };
        // One pass over the path finds out all there is to know about it.
        let (mut end, mut is_encoded) = (rest.len(), false);
        for (at, byte) in rest.bytes().enumerate() {
            if byte == b'?' {
                end = at;
                break;
            }
            is_encoded |= byte == b'%';
        }
        let path = match &rest[..end] {
            "" => Cow::Borrowed("/"),
            path if is_encoded => decode(path),
            path => Cow::Borrowed(path),
        };
        Target { path, query: rest.get(end + 1..).unwrap_or_default() }
    }
}

/// Decodes each segment by itself: a slash that is encoded does not divide segments.
fn decode(path: &str) -> Cow<'_, str> {
    let segments: Vec<Cow<'_, str>> = path.split('/').map(|segment| percent_decode_str(segment).decode_utf8_lossy()).collect();
    if segments.iter().any(|segment| segment.contains('/')) { Cow::Borrowed(path) } else { Cow::Owned(segments.join("/")) }
}

/// The authority of an absolute target, and what comes behind it; `None` for other forms and for schemes that no web server has.
fn absolute(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    let is_known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    is_known.then(|| rest.split_at(end))
}

/// Checks that a target has a form that its method may have.
pub(super) fn check(method: &str, target: &str) -> Result<(), Refusal> {
    let has_form = match target.as_bytes() {
        // With its port, and nothing else (RFC 9110, section 9.3.6).
        authority if method == "CONNECT" => is_authority(authority) && has_port(authority),
        [b'/', ..] => true,
        b"*" => method == "OPTIONS",
        _ => absolute(target).is_some_and(|(authority, _)| !authority.is_empty() && is_authority(authority.as_bytes())),
    };
    // Without an early exit the compiler vectorizes this.
    let has_fragment = target.bytes().fold(false, |found, byte| found | (byte == b'#'));
    if has_form && !has_fragment { Ok(()) } else { Err(Refusal::bad("the target is neither a path nor an address")) }
}

/// The bytes of a host's name (RFC 3986, section 3.2.2), but for `%`: no name needs it, and programs differ in whether they decode it.
const IS_NAME: [bool; 256] = {
    let mut is_name = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        is_name[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~!$&'()*+,;=";
    let mut at = 0;
    while at < others.len() {
        is_name[others[at] as usize] = true;
        at += 1;
    }
    is_name
};

/// True for a host and an optional port. The host may be empty, as in the header of a request that names none; user names are not valid.
pub(super) fn is_authority(authority: &[u8]) -> bool {
    let end = authority.iter().position(|&byte| !IS_NAME[byte as usize]).unwrap_or(authority.len());
    match &authority[end..] {
        [] => true,
        [b':', digits @ ..] => end > 0 && is_port(digits),
        [b'[', rest @ ..] if end == 0 => is_bracketed(rest),
        _ => false,
    }
}

/// True for what follows the bracket that opens an IPv6 address.
fn is_bracketed(rest: &[u8]) -> bool {
    let Some(end) = rest.iter().position(|&byte| byte == b']') else { return false };
    let is_address = std::str::from_utf8(&rest[..end]).is_ok_and(|host| host.parse::<Ipv6Addr>().is_ok());
    is_address
        && match &rest[end + 1..] {
            [] => true,
            [b':', digits @ ..] => is_port(digits),
            _ => false,
        }
}

/// True for an authority that ends with a port.
fn has_port(authority: &[u8]) -> bool {
    let digits = authority.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && authority.get(authority.len().wrapping_sub(digits + 1)) == Some(&b':')
}

fn is_port(digits: &[u8]) -> bool {
    digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(target: &str) -> (String, &str) {
        let Target { path, query } = Target::read(target);
        (path.into_owned(), query)
    }

    #[test]
    fn the_path_and_the_query_are_the_same_in_each_form() {
        for (target, path, query) in [
            ("/timer?ms=1", "/timer", "ms=1"),
            ("http://h/timer?ms=1", "/timer", "ms=1"),
            ("HTTPS://h:80/timer?ms=1", "/timer", "ms=1"),
            ("http://h?next=/timer", "/", "next=/timer"),
            ("HTTP://h", "/", ""),
            ("/%74imer?ms=1", "/timer", "ms=1"),
            ("/json%2Fparse", "/json%2Fparse", ""),
            ("/?a=http://b/c", "/", "a=http://b/c"),
            ("*", "*", ""),
        ] {
            assert_eq!(read(target), (path.to_owned(), query), "{target}");
        }
    }

    #[test]
    fn a_target_has_a_form_that_its_method_may_have() {
        for target in ["/", "//", "/?", "http://h", "HTTP://h/", "https://[::1]:8080/x", "http://h?x"] {
            assert!(check("GET", target).is_ok(), "{target}");
        }
        for target in ["foo", "*", "h:80", "http:///x", "http://", "http://?x", "http://u@h/", "ftp://h/", "/a#b", "http:/h", ""]
        {
            assert!(check("GET", target).is_err(), "{target}");
        }
        assert!(check("OPTIONS", "*").is_ok() && check("CONNECT", "h:80").is_ok() && check("CONNECT", "[::1]:80").is_ok());
        for target in ["h:x", "h", "h:", "[::1]", "/timer", "http://h:80/", "80", ""] {
            assert!(check("CONNECT", target).is_err(), "{target}");
        }
    }

    #[test]
    fn a_host_has_no_spaces_slashes_user_names_or_words_for_ports() {
        for host in ["", "a", "a.b-c_d:80", "127.0.0.1:8080", "[::1]", "[::1]:80", "a:"] {
            assert!(is_authority(host.as_bytes()), "{host}");
        }
        for host in ["a b", "a/b", "u@a", "a:x", "a%2fb", ":80", "[::1", "[x]", "[::1]x", "a:80:81", "\u{e4}"] {
            assert!(!is_authority(host.as_bytes()), "{host}");
        }
    }
}
