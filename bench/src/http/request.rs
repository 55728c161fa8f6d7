//! Requests as bytes.

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The authority that is asked, for the `Host` header.
    pub host: String,
    /// Headers besides `Host` and `Content-Length`.
    pub headers: Vec<(String, String)>,
    /// Body; `None` for a request that has none.
    pub body: Option<Vec<u8>>,
}

impl Request {
    /// A GET.
    pub fn get(host: impl Into<String>, path: impl Into<String>) -> Self {
        Request { method: "GET".into(), path: path.into(), host: host.into(), headers: Vec::new(), body: None }
    }

    /// A POST of JSON.
    pub fn post_json(host: impl Into<String>, path: impl Into<String>, body: Vec<u8>) -> Self {
        let headers = vec![("Content-Type".into(), "application/json".into())];
        Request { method: "POST".into(), headers, body: Some(body), ..Request::get(host, path) }
    }

    /// As it goes over the wire. A `Host` among the headers replaces the authority.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {}\r\n", self.host));
        }
        self.headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        // A method that usually has a body says so where it has none (RFC 9110, 8.6).
        let tells_length = self.body.is_some() || ["POST", "PUT", "PATCH"].contains(&self.method.as_str());
        if tells_length {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.as_ref().map_or(0, Vec::len)));
        }
        head.push_str("\r\n");
        [head.as_bytes(), self.body.as_deref().unwrap_or_default()].concat()
    }
}

/// The bytes of a plain GET to a server on this machine.
pub fn get(path: &str) -> Vec<u8> {
    Request::get("localhost", path).to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_the_authority_unless_a_header_names_another() {
        let plain = Request::get("[::1]:8080", "/a?b=1");
        assert_eq!(plain.to_bytes(), b"GET /a?b=1 HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n");
        let named = Request { headers: vec![("host".into(), "example.org".into())], ..plain };
        assert_eq!(named.to_bytes(), b"GET /a?b=1 HTTP/1.1\r\nhost: example.org\r\n\r\n");
        let posted = Request::post_json("h", "/x", b"[1]".to_vec()).to_bytes();
        assert!(posted.ends_with(b"Content-Length: 3\r\n\r\n[1]"));
        let empty = Request { method: "POST".into(), ..Request::get("h", "/x") }.to_bytes();
        assert!(empty.ends_with(b"Content-Length: 0\r\n\r\n"));
    }
}
