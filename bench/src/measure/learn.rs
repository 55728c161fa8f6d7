//! Learning what the right answer is, before a load asks for it many times.

use crate::catalog::{Ask, Own};
use crate::http::{Client, Request};
use crate::load::Target;
use crate::process::Running;
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

/// A user's own request that takes longer is of no use in a trial of seconds.
const LONGEST_OWN: Duration = Duration::from_secs(10);

/// Asks once to learn the right answer.
///
/// # Errors
/// Any status but 200 and 201.
pub fn learn(running: &mut Running, path: &str) -> Result<Target> {
    let request = Request::get(running.address.to_string(), path);
    learn_request(running, path, &request)
}

/// The same, of any request; `name` is what an error calls it.
///
/// # Errors
/// As above.
pub fn learn_request(running: &mut Running, name: &str, request: &Request) -> Result<Target> {
    let bytes = request.to_bytes();
    let response = Client::connect(running.address).and_then(|mut client| client.ask(&bytes));
    let response = running.explain(response.with_context(|| name.to_owned()))?;
    if !matches!(response.status, 200 | 201) {
        bail!("{name} is answered {}: {}", response.status, String::from_utf8_lossy(&response.body).trim());
    }
    let is_head = request.method == "HEAD";
    Ok(Target {
        address: running.address,
        request: bytes.into(),
        is_head,
        status: response.status,
        body: Some(response.body.into()),
    })
}

/// Asks a user's own server once, and says how long that took. Later answers must have the same status; their bytes may differ, as those of a
/// live service do.
///
/// # Errors
/// A status that is not a success, no answer, or one that takes more than ten seconds.
pub fn learn_own(running: &mut Running, own: &Own, ask: &Ask) -> Result<(Target, Duration)> {
    let host = own.host.clone().unwrap_or_else(|| running.address.to_string());
    let is_empty = ask.method != "GET" && ask.method != "HEAD";
    let request = Request {
        method: ask.method.clone(),
        headers: own.headers.clone(),
        body: is_empty.then(Vec::new),
        ..Request::get(host, ask.path.clone())
    };
    let bytes = request.to_bytes();
    let started = Instant::now();
    let response = Client::connect_with(running.address, LONGEST_OWN).and_then(|mut client| client.ask(&bytes));
    let response = running.explain(response.with_context(|| format!("{ask}")))?;
    let took = started.elapsed();
    let status = response.status;
    match status {
        200..300 => {}
        300..400 => {
            let place = response.header("Location").unwrap_or("elsewhere");
            bail!("{ask} is answered {status}, a redirect to {place}: name the path that answers itself");
        }
        _ => bail!("{ask} is answered {status}: name a path that answers with a 2xx status, or pass --header"),
    }
    let is_head = ask.method == "HEAD";
    Ok((Target { address: running.address, request: bytes.into(), is_head, status, body: None }, took))
}

/// A target of which only the status counts.
pub fn lenient(target: Target) -> Target {
    Target { body: None, ..target }
}
