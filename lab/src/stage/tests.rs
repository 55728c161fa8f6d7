use super::*;
use crate::arguments::Arguments;
use clap::Parser;

fn status(error: Option<&str>, pids: &[i32]) -> Status {
    let error = error.map(str::to_owned);
    Status { state: "serving", error, pids: pids.to_vec(), ..Status::default() }
}

/// A stage with one pane, whose server runs elsewhere.
fn stage() -> Stage {
    let mut stage = Stage::new(Vec::new(), Vec::new(), broadcast::channel(1).0);
    let arguments = Arguments::try_parse_from(["lab", "--url", "http://127.0.0.1:1", "--blocker", "/slow"]).unwrap();
    let server = bench::stage::own(None, arguments.url.as_deref(), &arguments.own).unwrap().unwrap();
    stage.parts.push(Part { server, processes: 1, start: 1, status: status(None, &[]), failed: Instant::now(), targets: None });
    stage
}

#[test]
fn a_server_without_a_known_process_is_not_asked_to_lose_one() {
    let mut stage = stage();
    let (ended, _) = channel();
    let mut kill = |pane| stage.obey(&Ask::Kill { pane }, &[], &ended);
    assert_eq!(kill(Some(0)).unwrap_err(), "yours cannot lose a process that the lab has not started");
    assert_eq!(kill(None).unwrap_err(), "none of the servers can lose a process that the lab has not started");
    assert_eq!(kill(Some(1)).unwrap_err(), "there is no pane 1");
}

#[test]
fn a_page_that_is_opened_again_resumes_no_slow_requests() {
    let mut stage = stage();
    stage.blockers = (64, 900, true);
    stage.close(&[]);
    assert_eq!(stage.blockers, (0, 900, true), "their length stays");
}

#[test]
fn the_error_of_an_order_goes_away_once_it_could_be_read() {
    let (failed, good) = (status(Some("no process serves"), &[]), status(None, &[]));
    assert_eq!(error_after(&failed, &good, Duration::ZERO).as_deref(), Some("no process serves"));
    assert_eq!(error_after(&good, &failed, Duration::ZERO).as_deref(), Some("no process serves"));
    assert_eq!(error_after(&good, &failed, READ), None);
    assert_eq!(error_after(&Status { state: "failed", ..good }, &failed, Duration::ZERO), None, "another state");
}

#[test]
fn a_new_order_takes_the_error_of_the_one_before_off_at_once() {
    let mut stage = stage();
    stage.parts[0].status = Status { can_reload: true, ..status(Some("no process serves"), &[]) };
    // Its reports are not taken here, so what is seen is what the order has done.
    let pane = Pane::open(0, stage.placement, channel().0).unwrap();
    stage.obey(&Ask::Reload { pane: Some(0) }, &[pane], &channel().0).unwrap();
    assert_eq!(stage.parts[0].status.error, None);
}
