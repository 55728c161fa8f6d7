//! Learning what the right answer is, before a load asks for it many times.

use crate::catalog::{Ask, Own};
use crate::console::{interrupt, output::say};
use crate::http::{Client, PLAIN_ONLY, Request, Response, Unanswered, is_reset};
use crate::load::{Target, asks_to_close, is_idempotent};
use crate::process::Running;
use anyhow::{Context, Error, Result, anyhow, bail};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A user's own request that takes longer is of no use in a trial of seconds.
const LONGEST_OWN: Duration = Duration::from_secs(10);
/// The status of a service that is not ready, those of what stands before one that is not, and the time after which it is asked again.
const UNAVAILABLE: u16 = 503;
const NOBODY_BEHIND: [u16; 2] = [502, 504];
const AGAIN: Duration = Duration::from_millis(50);
/// A service that was started and closes its connections for longer than this may speak TLS.
const UNTIL_HINT: Duration = Duration::from_secs(3);

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
/// Any status but 200 and 201.
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
/// live service do. One that stallbench has started may answer 503 until it has warmed up, and is asked again; before its first answer it may also break
/// connections, as what accepts for it does, and take as long as it has to warm up.
///
/// # Errors
/// A status that is not a success, no answer, or one that takes more than ten seconds.
pub fn learn_own(running: &mut Running, own: &Own, ask: &Ask) -> Result<(Target, Duration)> {
    learn_on(&mut Kept::default(), running, own, ask)
}

/// The same over a connection that is kept, if the server keeps it: the time is that of a client that is connected already.
///
/// # Errors
/// Those of [`learn_own`].
pub fn learn_on(kept: &mut Kept, running: &mut Running, own: &Own, ask: &Ask) -> Result<(Target, Duration)> {
    let is_first = kept.0.is_none();
    learn_within(kept, running, own, ask, LONGEST_OWN).map_err(|error| if is_first { of_first(error) } else { error })
}

/// A connection that is kept from one answer to the next, as clients keep theirs; a new one where the server has closed it.
#[derive(Default)]
pub struct Kept(Option<Client>);

impl Kept {
    fn is_open(&self) -> bool {
        self.0.as_ref().is_some_and(|client| !client.has_ended())
    }

    fn ask(&mut self, address: SocketAddr, longest: Duration, request: &[u8]) -> Result<Response> {
        let mut client = match self.0.take().filter(|client| !client.has_ended()) {
            Some(client) => client,
            None => Client::connect_with(address, longest)?,
        };
        client.be_patient(longest);
        let response = client.ask(request)?;
        self.0 = (!response.closes && !asks_to_close(request)).then_some(client);
        Ok(response)
    }
}

fn learn_within(kept: &mut Kept, running: &mut Running, own: &Own, ask: &Ask, longest: Duration) -> Result<(Target, Duration)> {
    let host = own.host.clone().unwrap_or_else(|| running.address.to_string());
    let is_empty = ask.body.is_none() && ask.method != "GET" && ask.method != "HEAD";
    let request = Request {
        method: ask.method.clone(),
        headers: own.headers.clone(),
        body: if is_empty { Some(Vec::new()) } else { ask.body.clone() },
        ..Request::get(host, ask.path.clone())
    };
    let bytes = request.to_bytes();
    let (begun, mut has_hinted) = (Instant::now(), false);
    let (response, took) = loop {
        let was_open = kept.is_open();
        let left = running.until_first_answer();
        let longest = longest.max(left);
        let started = Instant::now();
        let response = kept.ask(running.address, longest, &bytes);
        let took = started.elapsed();
        let is_unanswered = response.as_ref().is_err_and(Error::is::<Unanswered>);
        if response.is_err() && was_open && took < longest && (is_idempotent(&ask.method) || is_unanswered) {
            // The server may have closed it in the very moment, or closes after some answers without saying so.
            continue;
        }
        let is_early = match &response {
            Ok(response) => {
                response.status == UNAVAILABLE && running.may_warm_up()
                    || NOBODY_BEHIND.contains(&response.status) && !left.is_zero()
            }
            // What broke off may have been done all the same.
            Err(error) => {
                (is_refused(error) || is_down(error) && is_idempotent(&ask.method))
                    && !left.is_zero()
                    && running.ended().is_none()
            }
        };
        if is_early {
            if is_unanswered && !has_hinted && begun.elapsed() > UNTIL_HINT {
                has_hinted = true;
                say(&format!("stallbench: {ask} gets no answer yet, and is asked on; is this a TLS port? {PLAIN_ONLY}"));
            }
            interrupt::check()?;
            // Nothing tells when a foreign server has warmed up.
            std::thread::sleep(AGAIN);
            continue;
        }
        let response = response.with_context(|| {
            let limit = longest.as_secs_f64();
            match (took < longest, left.is_zero()) {
                (true, _) => ask.to_string(),
                (false, true) => format!("{ask} takes too long ({limit} s is the limit, so name a shorter request)"),
                (false, false) => format!("{ask} has no answer {limit:.0} s after the service was started"),
            }
        });
        break (running.explain(response)?, took);
    };
    running.answered();
    let status = response.status;
    if !(200..300).contains(&status) {
        let option = if *ask == own.blocker { "--blocker" } else { "--probe" };
        let advice = ask.advice_on(status, response.header("Allow"), option);
        let advice = advice.as_deref().unwrap_or("name a path that answers with a 2xx status");
        bail!("{ask} is answered {}", refusal(&response, advice));
    }
    let is_head = ask.method == "HEAD";
    Ok((Target { address: running.address, request: bytes.into(), is_head, status, body: None }, took))
}

/// Whether a request found nobody who serves: its connection was refused, or ended without an answer.
fn is_down(error: &Error) -> bool {
    error.is::<Unanswered>() || is_reset(error) || is_refused(error)
}

/// Whether nobody listened, so that the request was not even sent.
fn is_refused(error: &Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// The status of an answer that is not the wanted one, where it leads, and what to do; `otherwise` if nothing better is known.
pub fn refusal(response: &Response, otherwise: &str) -> String {
    let status = response.status;
    match (status, response.header("Location")) {
        (304, _) => format!("{status}: leave out If-None-Match and If-Modified-Since"),
        (300..400, Some(place)) => {
            let is_tls = place.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
            let advice = if is_tls {
                "give the server's http:// address behind the TLS proxy, or if this is it, pass --header 'X-Forwarded-Proto: https'"
            } else {
                "name the path that answers itself"
            };
            format!("{status}, a redirect to {place}: {advice}")
        }
        _ => format!("{status}: {}", Ask::advice(status).unwrap_or(otherwise)),
    }
}

/// An error of a first question. Many TLS ports end the connection without a word.
pub fn of_first(error: Error) -> Error {
    if error.is::<Unanswered>() { anyhow!("{error:#}; is this a TLS port? {PLAIN_ONLY}") } else { error }
}

/// A target of which only the status counts.
pub fn lenient(target: Target) -> Target {
    Target { body: None, ..target }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::sched_getaffinity;
    use nix::unistd::Pid;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The status that stands for a connection that is closed without a word.
    const CLOSED: u16 = 0;

    /// Something that answers with these statuses in turn, and not at all after them.
    fn answers(statuses: &'static [u16]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut left, mut silent) = (statuses.iter(), Vec::new());
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                // A connection that only asks whether something listens has no line.
                if !lines.any(|line| line.is_empty()) {
                    continue;
                }
                let Some(status) = left.next() else {
                    silent.push(stream);
                    continue;
                };
                if *status == CLOSED {
                    continue;
                }
                let head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(head.as_bytes()).unwrap();
            }
        });
        address
    }

    fn own() -> Own {
        let ask = |path: &str| path.parse::<Ask>().unwrap();
        Own { probe: ask("/"), blocker: ask("/slow"), headers: Vec::new(), host: None }
    }

    /// A process that stallbench has started, and for which something else answers.
    fn started(address: SocketAddr) -> Running {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 1000"]);
        Running::own(command, "mine", address.port(), sched_getaffinity(Pid::from_raw(0)).unwrap()).unwrap()
    }

    #[test]
    fn a_port_that_accepts_before_its_service_serves_is_asked_until_it_has_answered_once() {
        for not_yet in [&[CLOSED, CLOSED, 200, 502][..], &[502, 504, 200, 504]] {
            let mut started = started(answers(not_yet));
            assert_eq!(learn_own(&mut started, &own(), &own().probe).unwrap().0.status, 200);
            let refused = learn_own(&mut started, &own(), &own().probe).unwrap_err().to_string();
            assert!(refused.starts_with("/ is answered 50"), "{refused}");
        }
        let mut broken = started(answers(&[200, CLOSED]));
        learn_own(&mut broken, &own(), &own().probe).unwrap();
        let error = format!("{:#}", learn_own(&mut broken, &own(), &own().probe).unwrap_err());
        assert!(error.contains("the connection closed without an answer"), "{error}");
        // What is not idempotent is not asked twice: it may have been done.
        let order = Ask { method: "POST".into(), ..own().probe };
        let mut careless = started(answers(&[CLOSED, 200]));
        assert!(learn_own(&mut careless, &own(), &order).is_err());
    }

    #[test]
    fn only_the_first_answer_of_a_service_that_was_started_may_take_as_long_as_it_warms_up() {
        const TAKES: Duration = Duration::from_millis(200);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut started = started(listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                while lines.by_ref().any(|line| line.is_empty()) {
                    std::thread::sleep(TAKES);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                }
            }
        });
        let mut kept = Kept::default();
        let mut ask = || learn_within(&mut kept, &mut started, &own(), &own().probe, TAKES / 10);
        assert!(ask().unwrap().1 >= TAKES);
        assert!(format!("{:#}", ask().unwrap_err()).contains("takes too long (0.02 s is the limit"));
    }

    #[test]
    fn a_service_that_stallbench_has_started_may_warm_up_and_any_other_is_ready() {
        let mut started = started(answers(&[503, 503, 200]));
        assert_eq!(learn_own(&mut started, &own(), &own().probe).unwrap().0.status, 200);
        let mut elsewhere = Running::elsewhere(answers(&[503, 200])).unwrap();
        let refused = learn_own(&mut elsewhere, &own(), &own().probe).unwrap_err().to_string();
        assert!(refused.starts_with("/ is answered 503: the server limits or refuses requests"), "{refused}");
    }

    /// Something that answers this often on each connection, and then closes it without a word; and the number of connections it has had.
    fn answers_each(most: usize) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                for answered in 0..most {
                    if !lines.any(|line| line.is_empty()) {
                        break;
                    }
                    count.fetch_add(usize::from(answered == 0), Ordering::SeqCst);
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
                }
            }
        });
        (address, connections)
    }

    #[test]
    fn a_connection_is_kept_from_one_answer_to_the_next_and_replaced_where_the_server_closes_it() {
        for (most, wanted) in [(usize::MAX, 1), (2, 3)] {
            let (address, connections) = answers_each(most);
            let mut running = Running::elsewhere(address).unwrap();
            let mut kept = Kept::default();
            for _ in 0..6 {
                learn_on(&mut kept, &mut running, &own(), &own().probe).unwrap();
            }
            assert_eq!(connections.load(Ordering::SeqCst), wanted);
        }
    }

    #[test]
    fn a_request_has_its_body_and_one_that_has_none_says_so() {
        let mut running = Running::elsewhere(answers(&[200, 200])).unwrap();
        let plain: Ask = "POST /slow".parse().unwrap();
        for (ask, end) in [(plain.clone(), "\r\nContent-Length: 0\r\n\r\n"), (plain.with_body(b"{}".into()), "\r\n\r\n{}")] {
            let target = learn_own(&mut running, &own(), &ask).unwrap().0;
            let request = String::from_utf8_lossy(&target.request);
            assert!(request.starts_with("POST /slow HTTP/1.1\r\n") && request.ends_with(end), "{request}");
        }
    }

    #[test]
    fn a_request_that_takes_too_long_is_told_the_limit() {
        let mut running = Running::elsewhere(answers(&[])).unwrap();
        let late =
            learn_within(&mut Kept::default(), &mut running, &own(), &own().blocker, Duration::from_millis(50)).unwrap_err();
        let wanted = "/slow takes too long (0.05 s is the limit, so name a shorter request): no answer within 0.05 s";
        assert_eq!(format!("{late:#}"), wanted);
    }

    #[test]
    fn a_port_that_closes_without_a_byte_may_be_one_of_tls() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let mut running = Running::elsewhere(address).unwrap();
        let error = format!("{:#}", learn_own(&mut running, &own(), &own().probe).unwrap_err());
        assert!(error.starts_with("/: the connection ") && error.contains("is this a TLS port?"), "{error}");
    }
}
