//! The process lifecycle: a table of states and events, without side effects.

use super::readiness::Readiness;
use crate::proc::Identity;
use crate::spec::{LONGEST_DELAY, Options, Restart};
use std::time::Duration;

/// Time for a process to end after SIGKILL.
const AFTER_KILL: Duration = Duration::from_secs(5);

/// The state of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The keeper was asked to start it, or it runs and is not ready yet.
    Starting {
        /// `None` until the keeper has started the process.
        process: Option<Identity>,
    },
    /// Running, and ready.
    Online {
        /// The running process.
        process: Identity,
    },
    /// Asked to end, and not ended yet.
    Stopping {
        /// `None` until the keeper has started the process.
        process: Option<Identity>,
        /// The next step after the process has ended.
        then: Then,
        /// It has been killed, and not ended since.
        is_killed: bool,
    },
    /// Ended too soon, and waiting for its restart.
    Waiting,
    /// Ended on request, or never started.
    Stopped,
    /// Failed too often; the supervisor has given up.
    Errored,
}

/// The next step after a requested end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Stay stopped.
    Stop,
    /// Start a new process.
    Restart,
    /// Handle it as a crash, since the process was not ready in time.
    Fail,
}

/// An event in the life of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A request to start it.
    Start,
    /// A request to stop it.
    Stop,
    /// A request to replace its process.
    Restart,
    /// The keeper has started the process.
    Spawned(Identity),
    /// The process reports that it is ready.
    Ready,
    /// The process has ended, or could not be started.
    Ended {
        /// Number of early exits in a row, including this one; 0 if the process had been up for long enough.
        failures: u32,
    },
    /// The process has ended by itself, and is not to be started again.
    Finished,
    /// The process ended before anything could make it the app's program, since the keeper died.
    Lost,
    /// The worker's timer has expired.
    Due,
}

/// An action that the daemon has to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start a process.
    Spawn,
    /// Ask the process to end.
    Ask,
    /// Kill the process and its group.
    Kill,
    /// Say that the process has not ended, and forget it.
    GiveUp,
    /// Set the timer after which [`Event::Due`] comes, or clear it.
    Timer(Option<Duration>),
}

/// The rules for keeping a worker.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'o> {
    /// Time limits and bounds.
    pub options: &'o Options,
    /// The worker is to replace another, which keeps running if this one fails.
    pub is_replacement: bool,
    /// What shows that the worker is ready.
    pub readiness: Readiness,
}

impl State {
    /// The name of the state in `list`.
    pub fn name(self) -> &'static str {
        match self {
            State::Starting { .. } => "launching",
            State::Online { .. } => "online",
            State::Stopping { .. } => "stopping",
            State::Waiting => "waiting restart",
            State::Stopped => "stopped",
            State::Errored => "errored",
        }
    }

    /// Returns the running process, if there is one.
    pub fn process(self) -> Option<Identity> {
        match self {
            State::Starting { process } | State::Stopping { process, .. } => process,
            State::Online { process } => Some(process),
            State::Waiting | State::Stopped | State::Errored => None,
        }
    }

    /// Returns whether the process has ended, and only a request starts it again.
    pub fn is_over(self) -> bool {
        matches!(self, State::Stopped | State::Errored)
    }

    /// Returns the next state and the actions after an event, or `None` if the event has no effect in this state.
    pub fn after(self, event: Event, policy: Policy<'_>) -> Option<(State, Vec<Action>)> {
        let options = policy.options;
        Some(match (self, event) {
            (State::Stopped | State::Errored | State::Waiting, Event::Start | Event::Restart) | (State::Waiting, Event::Due) => {
                begin()
            }
            (State::Waiting | State::Errored, Event::Stop) => (State::Stopped, vec![Action::Timer(None)]),

            (State::Starting { .. }, Event::Spawned(process)) => {
                let time = if policy.readiness == Readiness::Uptime { options.min_uptime } else { options.listen_timeout };
                (State::Starting { process: Some(process) }, vec![Action::Timer(Some(time))])
            }
            (State::Starting { process: Some(process) }, Event::Ready) => (State::Online { process }, vec![Action::Timer(None)]),
            (State::Starting { .. } | State::Online { .. }, Event::Ended { failures }) => crashed(failures, policy),
            (State::Starting { .. } | State::Online { .. }, Event::Finished) if policy.is_replacement => crashed(1, policy),
            (State::Starting { .. } | State::Online { .. }, Event::Finished) => (State::Stopped, vec![Action::Timer(None)]),
            (State::Stopping { then, .. }, Event::Finished) => after_end(then, 0, policy),
            (State::Starting { .. }, Event::Lost) => begin(),
            (State::Starting { process: Some(process) }, Event::Due)
                if policy.readiness == Readiness::Uptime
                    || policy.readiness == Readiness::LateSignal && !policy.is_replacement =>
            {
                (State::Online { process }, vec![])
            }
            (State::Starting { process }, Event::Due) => end(process, Then::Fail, options),
            (State::Starting { process }, Event::Stop) => end(process, Then::Stop, options),
            (State::Starting { process }, Event::Restart) => end(process, Then::Restart, options),
            (State::Online { process }, Event::Stop) => end(Some(process), Then::Stop, options),
            (State::Online { process }, Event::Restart) => end(Some(process), Then::Restart, options),

            // The request to end came before the process had started.
            (State::Stopping { then, .. }, Event::Spawned(process)) => end(Some(process), then, options),
            (State::Stopping { process, then, is_killed: false }, Event::Due) => {
                (State::Stopping { process, then, is_killed: true }, vec![Action::Kill, Action::Timer(Some(AFTER_KILL))])
            }
            // Even SIGKILL waits for a process that waits for a device. It is not waited for.
            (State::Stopping { then, is_killed: true, .. }, Event::Due) => {
                let (state, mut actions) = after_end(then, 1, policy);
                actions.insert(0, Action::GiveUp);
                (state, actions)
            }
            (State::Stopping { process, is_killed, .. }, Event::Stop) => {
                (State::Stopping { process, then: Then::Stop, is_killed }, vec![])
            }
            (State::Stopping { process, is_killed, .. }, Event::Start | Event::Restart) => {
                (State::Stopping { process, then: Then::Restart, is_killed }, vec![])
            }
            (State::Stopping { then, .. }, Event::Ended { failures }) => after_end(then, failures, policy),
            (State::Stopping { then, .. }, Event::Lost) => after_end(then, 0, policy),

            (State::Starting { .. } | State::Online { .. }, Event::Start)
            | (State::Stopped, Event::Stop)
            | (State::Starting { process: None } | State::Online { .. } | State::Stopping { .. }, Event::Ready)
            | (State::Online { .. }, Event::Spawned(_) | Event::Due | Event::Lost)
            | (State::Stopped | State::Errored, Event::Due)
            | (
                State::Waiting | State::Stopped | State::Errored,
                Event::Spawned(_) | Event::Ready | Event::Ended { .. } | Event::Finished | Event::Lost,
            ) => {
                return None;
            }
        })
    }
}

/// The timer starts only once the process has started, since the keeper may be busy.
fn begin() -> (State, Vec<Action>) {
    (State::Starting { process: None }, vec![Action::Spawn, Action::Timer(None)])
}

fn after_end(then: Then, failures: u32, policy: Policy<'_>) -> (State, Vec<Action>) {
    match then {
        Then::Stop => (State::Stopped, vec![Action::Timer(None)]),
        Then::Restart => begin(),
        // A job is not tried again.
        Then::Fail if policy.options.restart == Restart::Never => (State::Errored, vec![Action::Timer(None)]),
        Then::Fail => crashed(failures, policy),
    }
}

fn end(process: Option<Identity>, then: Then, options: &Options) -> (State, Vec<Action>) {
    let actions = if process.is_some() { vec![Action::Ask, Action::Timer(Some(options.kill_timeout))] } else { vec![] };
    (State::Stopping { process, then, is_killed: false }, actions)
}

/// Restarts the worker: at once after the first early exit, then after a pause that doubles each time. Gives up in the end.
fn crashed(failures: u32, policy: Policy<'_>) -> (State, Vec<Action>) {
    let options = policy.options;
    if policy.is_replacement || failures > options.max_restarts {
        return (State::Errored, vec![Action::Timer(None)]);
    }
    match failures {
        0 | 1 => begin(),
        _ => {
            let factor = 2_u32.saturating_pow(failures - 2);
            let longest = LONGEST_DELAY.max(options.restart_delay);
            let pause = options.restart_delay.saturating_mul(factor).min(longest);
            (State::Waiting, vec![Action::Timer(Some(pause))])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::options;

    const PROCESS: Identity = Identity { pid: 7, started: 1 };
    const OTHER: Identity = Identity { pid: 8, started: 2 };

    fn after(state: State, event: Event) -> Option<(State, Vec<Action>)> {
        state.after(event, Policy { options: &options(), is_replacement: false, readiness: Readiness::Signal })
    }

    fn spawning() -> Vec<Action> {
        vec![Action::Spawn, Action::Timer(None)]
    }

    fn asking() -> Vec<Action> {
        vec![Action::Ask, Action::Timer(Some(options().kill_timeout))]
    }

    #[test]
    fn a_worker_starts_becomes_ready_and_stops() {
        let starting = State::Starting { process: None };
        assert_eq!(after(State::Stopped, Event::Start), Some((starting, spawning())));
        let started = State::Starting { process: Some(PROCESS) };
        let time = Action::Timer(Some(options().listen_timeout));
        assert_eq!(after(starting, Event::Spawned(PROCESS)), Some((started, vec![time])));
        let online = State::Online { process: PROCESS };
        assert_eq!(after(started, Event::Ready), Some((online, vec![Action::Timer(None)])));
        let stopping = State::Stopping { process: Some(PROCESS), then: Then::Stop, is_killed: false };
        assert_eq!(after(online, Event::Stop), Some((stopping, asking())));
        assert_eq!(after(stopping, Event::Ended { failures: 0 }), Some((State::Stopped, vec![Action::Timer(None)])));
    }

    #[test]
    fn a_crashing_worker_restarts_at_once_then_after_doubling_pauses_until_given_up() {
        let crash = |failures| after(State::Online { process: PROCESS }, Event::Ended { failures }).unwrap();
        let again = (State::Starting { process: None }, spawning());
        assert_eq!(crash(0), again);
        assert_eq!(crash(1), again);
        let pause = options().restart_delay;
        assert_eq!(crash(2), (State::Waiting, vec![Action::Timer(Some(pause))]));
        assert_eq!(crash(4), (State::Waiting, vec![Action::Timer(Some(4 * pause))]));
        assert_eq!(crash(options().max_restarts), (State::Waiting, vec![Action::Timer(Some(LONGEST_DELAY))]));
        assert_eq!(crash(options().max_restarts + 1), (State::Errored, vec![Action::Timer(None)]));
        assert_eq!(after(State::Waiting, Event::Due), Some(again));
    }

    #[test]
    fn a_longer_delay_than_the_usual_longest_is_kept() {
        let options = Options { restart_delay: 4 * LONGEST_DELAY, ..options() };
        let policy = Policy { options: &options, is_replacement: false, readiness: Readiness::Signal };
        for failures in [2, 5] {
            let crashed = State::Online { process: PROCESS }.after(Event::Ended { failures }, policy);
            assert_eq!(crashed, Some((State::Waiting, vec![Action::Timer(Some(4 * LONGEST_DELAY))])), "{failures}");
        }
    }

    #[test]
    fn a_crashed_replacement_is_not_restarted() {
        let policy = Policy { options: &options(), is_replacement: true, readiness: Readiness::Signal };
        let ended = State::Starting { process: Some(PROCESS) }.after(Event::Ended { failures: 1 }, policy);
        assert_eq!(ended, Some((State::Errored, vec![Action::Timer(None)])));
    }

    #[test]
    fn a_worker_that_is_not_ready_in_time_is_stopped_and_counts_as_crashed() {
        let failing = State::Stopping { process: Some(PROCESS), then: Then::Fail, is_killed: false };
        assert_eq!(after(State::Starting { process: Some(PROCESS) }, Event::Due), Some((failing, asking())));
        assert_eq!(after(failing, Event::Ended { failures: 2 }).unwrap().0, State::Waiting);
    }

    #[test]
    fn a_worker_that_does_not_signal_readiness_counts_as_ready_after_min_uptime() {
        let policy = Policy { options: &options(), is_replacement: false, readiness: Readiness::Uptime };
        let begun = State::Stopped.after(Event::Start, policy).unwrap();
        assert_eq!(begun.1, [Action::Spawn, Action::Timer(None)]);
        let there = begun.0.after(Event::Spawned(PROCESS), policy).unwrap();
        assert_eq!(there.1, [Action::Timer(Some(options().min_uptime))]);
        let up = State::Starting { process: Some(PROCESS) }.after(Event::Due, policy);
        assert_eq!(up, Some((State::Online { process: PROCESS }, vec![])));
    }

    #[test]
    fn a_worker_that_is_late_counts_as_ready_unless_it_replaces_another() {
        let due = |is_replacement| {
            let policy = Policy { options: &options(), is_replacement, readiness: Readiness::LateSignal };
            State::Starting { process: Some(PROCESS) }.after(Event::Due, policy).unwrap().0
        };
        assert_eq!(due(false), State::Online { process: PROCESS });
        assert_eq!(due(true), State::Stopping { process: Some(PROCESS), then: Then::Fail, is_killed: false });
    }

    #[test]
    fn a_worker_that_does_not_end_when_asked_is_killed() {
        let stopping = State::Stopping { process: Some(PROCESS), then: Then::Stop, is_killed: false };
        let killed = State::Stopping { process: Some(PROCESS), then: Then::Stop, is_killed: true };
        assert_eq!(after(stopping, Event::Due), Some((killed, vec![Action::Kill, Action::Timer(Some(AFTER_KILL))])));
        assert_eq!(after(killed, Event::Ended { failures: 0 }), Some((State::Stopped, vec![Action::Timer(None)])));
    }

    #[test]
    fn a_worker_that_does_not_end_when_killed_is_not_waited_for() {
        let killed = |then| State::Stopping { process: Some(PROCESS), then, is_killed: true };
        let stopped = (State::Stopped, vec![Action::GiveUp, Action::Timer(None)]);
        assert_eq!(after(killed(Then::Stop), Event::Due), Some(stopped));
        let (state, actions) = after(killed(Then::Restart), Event::Due).unwrap();
        assert_eq!((state, actions[0]), (State::Starting { process: None }, Action::GiveUp));
    }

    #[test]
    fn a_worker_stopped_before_it_runs_is_asked_to_end_once_it_runs() {
        let (stopping, actions) = after(State::Starting { process: None }, Event::Stop).unwrap();
        assert_eq!((stopping, actions), (State::Stopping { process: None, then: Then::Stop, is_killed: false }, vec![]));
        let there = State::Stopping { process: Some(PROCESS), then: Then::Stop, is_killed: false };
        assert_eq!(after(stopping, Event::Spawned(PROCESS)), Some((there, asking())));
    }

    #[test]
    fn a_stop_overrides_a_restart_and_a_start_turns_a_stop_into_one() {
        let restarting = State::Stopping { process: Some(PROCESS), then: Then::Restart, is_killed: false };
        let stopping = State::Stopping { process: Some(PROCESS), then: Then::Stop, is_killed: false };
        assert_eq!(after(restarting, Event::Stop), Some((stopping, vec![])));
        assert_eq!(after(stopping, Event::Start), Some((restarting, vec![])));
        assert_eq!(after(restarting, Event::Ended { failures: 0 }), Some((State::Starting { process: None }, spawning())));
    }

    #[test]
    fn an_event_without_meaning_changes_nothing() {
        let online = State::Online { process: PROCESS };
        for (state, event) in [
            (online, Event::Start),
            (online, Event::Ready),
            (online, Event::Spawned(OTHER)),
            (online, Event::Due),
            (State::Stopped, Event::Stop),
            (State::Stopped, Event::Ready),
            (State::Errored, Event::Ended { failures: 1 }),
            (State::Waiting, Event::Ready),
        ] {
            assert_eq!(after(state, event), None, "{state:?} {event:?}");
        }
    }

    #[test]
    fn every_state_can_be_stopped_and_started_again() {
        let states = [
            State::Starting { process: None },
            State::Starting { process: Some(PROCESS) },
            State::Online { process: PROCESS },
            State::Stopping { process: Some(PROCESS), then: Then::Restart, is_killed: false },
            State::Waiting,
            State::Errored,
        ];
        for state in states {
            let mut now = after(state, Event::Stop).unwrap().0;
            for event in [Event::Spawned(OTHER), Event::Ended { failures: 1 }] {
                now = after(now, event).map_or(now, |(next, _)| next);
            }
            assert_eq!(now, State::Stopped, "from {state:?}");
            assert!(matches!(after(now, Event::Start).unwrap().0, State::Starting { .. }));
        }
    }
}
