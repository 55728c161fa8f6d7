//! What becomes of a worker: a pure table of states and events.

use crate::proc::Identity;
use crate::spec::{LONGEST_DELAY, Options};
use std::time::Duration;

/// Where a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Asked for, or running and not ready yet.
    Starting {
        /// None until the keeper has started it.
        process: Option<Identity>,
    },
    /// Ready.
    Online {
        /// What runs.
        process: Identity,
    },
    /// Asked to end.
    Stopping {
        /// None until the keeper has started it.
        process: Option<Identity>,
        /// What comes after.
        then: Then,
    },
    /// Ended too soon; waits to be started again.
    Waiting,
    /// Ended as it was asked to, or never started.
    Stopped,
    /// Given up.
    Errored,
}

/// What comes after an end that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Stop,
    /// A new process.
    Restart,
    /// What comes after a crash, since it was not ready in time.
    Fail,
}

/// What happens to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants it to run.
    Start,
    /// Somebody wants it to end.
    Stop,
    /// Somebody wants a new process in its place.
    Restart,
    /// The keeper has started it.
    Spawned(Identity),
    /// It says that it is ready.
    Ready,
    /// It has ended, or could not be started.
    Ended {
        /// Ends in a row, this one included, before it had been up for long; none if it had.
        failures: u32,
    },
    /// The time is over that was set.
    Due,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start a process.
    Spawn,
    /// Ask it to end.
    Ask,
    /// End it and its group.
    Kill,
    /// Set the time after which [`Event::Due`] comes, or none.
    Timer(Option<Duration>),
}

/// How a worker is kept.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'o> {
    /// Times and bounds.
    pub options: &'o Options,
    /// It is to replace another, which goes on if this one fails.
    pub is_replacement: bool,
    /// It says when it is ready. One that does not is taken for ready once it has been up for long enough.
    pub speaks: bool,
}

impl State {
    /// As `list` has it.
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

    /// What runs.
    pub fn process(self) -> Option<Identity> {
        match self {
            State::Starting { process } | State::Stopping { process, .. } => process,
            State::Online { process } => Some(process),
            State::Waiting | State::Stopped | State::Errored => None,
        }
    }

    /// Whether it has ended, and nothing starts it again but somebody who wants it.
    pub fn is_over(self) -> bool {
        matches!(self, State::Stopped | State::Errored)
    }

    /// What follows from an event; nothing if it means nothing here.
    pub fn after(self, event: Event, policy: Policy<'_>) -> Option<(State, Vec<Action>)> {
        let options = policy.options;
        Some(match (self, event) {
            (State::Stopped | State::Errored | State::Waiting, Event::Start | Event::Restart) | (State::Waiting, Event::Due) => {
                begin()
            }
            (State::Waiting | State::Errored, Event::Stop) => (State::Stopped, vec![Action::Timer(None)]),

            (State::Starting { .. }, Event::Spawned(process)) => {
                let time = if policy.speaks { options.listen_timeout } else { options.min_uptime };
                (State::Starting { process: Some(process) }, vec![Action::Timer(Some(time))])
            }
            (State::Starting { process: Some(process) }, Event::Ready) => (State::Online { process }, vec![Action::Timer(None)]),
            (State::Starting { .. } | State::Online { .. }, Event::Ended { failures }) => crashed(failures, policy),
            (State::Starting { process: Some(process) }, Event::Due) if !policy.speaks => (State::Online { process }, vec![]),
            (State::Starting { process }, Event::Due) => end(process, Then::Fail, options),
            (State::Starting { process }, Event::Stop) => end(process, Then::Stop, options),
            (State::Starting { process }, Event::Restart) => end(process, Then::Restart, options),
            (State::Online { process }, Event::Stop) => end(Some(process), Then::Stop, options),
            (State::Online { process }, Event::Restart) => end(Some(process), Then::Restart, options),

            // It was asked to end before it was there to be asked.
            (State::Stopping { then, .. }, Event::Spawned(process)) => end(Some(process), then, options),
            (State::Stopping { .. }, Event::Due) => (self, vec![Action::Kill, Action::Timer(None)]),
            (State::Stopping { process, .. }, Event::Stop) => (State::Stopping { process, then: Then::Stop }, vec![]),
            (State::Stopping { process, .. }, Event::Start | Event::Restart) => {
                (State::Stopping { process, then: Then::Restart }, vec![])
            }
            (State::Stopping { then: Then::Stop, .. }, Event::Ended { .. }) => (State::Stopped, vec![Action::Timer(None)]),
            (State::Stopping { then: Then::Restart, .. }, Event::Ended { .. }) => begin(),
            (State::Stopping { then: Then::Fail, .. }, Event::Ended { failures }) => crashed(failures, policy),

            (State::Starting { .. } | State::Online { .. }, Event::Start)
            | (State::Stopped, Event::Stop)
            | (State::Starting { process: None } | State::Online { .. } | State::Stopping { .. }, Event::Ready)
            | (State::Online { .. }, Event::Spawned(_) | Event::Due)
            | (State::Stopped | State::Errored, Event::Due)
            | (State::Waiting | State::Stopped | State::Errored, Event::Spawned(_) | Event::Ready | Event::Ended { .. }) => {
                return None;
            }
        })
    }
}

/// Its time begins when it is there: the keeper may have much to do.
fn begin() -> (State, Vec<Action>) {
    (State::Starting { process: None }, vec![Action::Spawn, Action::Timer(None)])
}

fn end(process: Option<Identity>, then: Then, options: &Options) -> (State, Vec<Action>) {
    let actions = if process.is_some() { vec![Action::Ask, Action::Timer(Some(options.kill_timeout))] } else { vec![] };
    (State::Stopping { process, then }, actions)
}

/// Replaced at once, then after a pause that doubles, then given up.
fn crashed(failures: u32, policy: Policy<'_>) -> (State, Vec<Action>) {
    let options = policy.options;
    if policy.is_replacement || failures > options.max_restarts {
        return (State::Errored, vec![Action::Timer(None)]);
    }
    match failures {
        0 | 1 => begin(),
        _ => {
            let factor = 2_u32.saturating_pow(failures - 2);
            let pause = options.restart_delay.saturating_mul(factor).min(LONGEST_DELAY);
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
        state.after(event, Policy { options: &options(), is_replacement: false, speaks: true })
    }

    fn spawning() -> Vec<Action> {
        vec![Action::Spawn, Action::Timer(None)]
    }

    fn asking() -> Vec<Action> {
        vec![Action::Ask, Action::Timer(Some(options().kill_timeout))]
    }

    #[test]
    fn a_worker_starts_says_that_it_is_ready_and_stops() {
        let starting = State::Starting { process: None };
        assert_eq!(after(State::Stopped, Event::Start), Some((starting, spawning())));
        let started = State::Starting { process: Some(PROCESS) };
        let time = Action::Timer(Some(options().listen_timeout));
        assert_eq!(after(starting, Event::Spawned(PROCESS)), Some((started, vec![time])));
        let online = State::Online { process: PROCESS };
        assert_eq!(after(started, Event::Ready), Some((online, vec![Action::Timer(None)])));
        let stopping = State::Stopping { process: Some(PROCESS), then: Then::Stop };
        assert_eq!(after(online, Event::Stop), Some((stopping, asking())));
        assert_eq!(after(stopping, Event::Ended { failures: 0 }), Some((State::Stopped, vec![Action::Timer(None)])));
    }

    #[test]
    fn one_that_crashes_is_replaced_at_once_then_after_pauses_that_double_then_given_up() {
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
    fn a_replacement_that_crashes_is_not_tried_again() {
        let policy = Policy { options: &options(), is_replacement: true, speaks: true };
        let ended = State::Starting { process: Some(PROCESS) }.after(Event::Ended { failures: 1 }, policy);
        assert_eq!(ended, Some((State::Errored, vec![Action::Timer(None)])));
    }

    #[test]
    fn one_that_is_not_ready_in_time_is_ended_and_counts_as_crashed() {
        let failing = State::Stopping { process: Some(PROCESS), then: Then::Fail };
        assert_eq!(after(State::Starting { process: Some(PROCESS) }, Event::Due), Some((failing, asking())));
        assert_eq!(after(failing, Event::Ended { failures: 2 }).unwrap().0, State::Waiting);
    }

    #[test]
    fn one_that_does_not_speak_is_taken_for_ready_once_it_has_been_up_for_long_enough() {
        let policy = Policy { options: &options(), is_replacement: false, speaks: false };
        let begun = State::Stopped.after(Event::Start, policy).unwrap();
        assert_eq!(begun.1, [Action::Spawn, Action::Timer(None)]);
        let there = begun.0.after(Event::Spawned(PROCESS), policy).unwrap();
        assert_eq!(there.1, [Action::Timer(Some(options().min_uptime))]);
        let up = State::Starting { process: Some(PROCESS) }.after(Event::Due, policy);
        assert_eq!(up, Some((State::Online { process: PROCESS }, vec![])));
    }

    #[test]
    fn one_that_does_not_end_when_asked_is_killed() {
        let stopping = State::Stopping { process: Some(PROCESS), then: Then::Stop };
        assert_eq!(after(stopping, Event::Due), Some((stopping, vec![Action::Kill, Action::Timer(None)])));
    }

    #[test]
    fn one_that_is_stopped_before_it_is_there_is_asked_as_soon_as_it_is() {
        let (stopping, actions) = after(State::Starting { process: None }, Event::Stop).unwrap();
        assert_eq!((stopping, actions), (State::Stopping { process: None, then: Then::Stop }, vec![]));
        let there = State::Stopping { process: Some(PROCESS), then: Then::Stop };
        assert_eq!(after(stopping, Event::Spawned(PROCESS)), Some((there, asking())));
    }

    #[test]
    fn a_stop_overrides_a_restart_and_a_start_turns_a_stop_into_one() {
        let restarting = State::Stopping { process: Some(PROCESS), then: Then::Restart };
        let stopping = State::Stopping { process: Some(PROCESS), then: Then::Stop };
        assert_eq!(after(restarting, Event::Stop), Some((stopping, vec![])));
        assert_eq!(after(stopping, Event::Start), Some((restarting, vec![])));
        assert_eq!(after(restarting, Event::Ended { failures: 0 }), Some((State::Starting { process: None }, spawning())));
    }

    #[test]
    fn what_means_nothing_changes_nothing() {
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
            State::Stopping { process: Some(PROCESS), then: Then::Restart },
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
