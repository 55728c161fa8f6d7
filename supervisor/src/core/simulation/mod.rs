//! Tests of the decisions in a simulated world: a keeper, processes and a disk, where anything may happen in any order and where the daemon, the keeper
//! or both may die at any time.
//!
//! Whatever happened, once things calm down the list must be true: what it calls online runs and is ready, nothing else runs, no address is bound that
//! nobody uses, no app is lost, and every command has its answer.

mod apps;
mod check;
mod keeper;
mod memory;
mod observers;
mod world;

use crate::control::{Pace, Request, Size};
use crate::core::Input;
use crate::environment::Environment;
use apps::{ASKED, CHECKED, JOB, NODE, other_spec, spec};
use std::time::Duration;
use world::{Expected, World};

impl World {
    /// Lets one thing happen, whichever.
    fn step(&mut self) {
        let name = ["a", "b", JOB, NODE][self.rng.usize(..4)].to_owned();
        match self.rng.u32(..100) {
            0..6 => {
                let instances = self.rng.u32(1..4);
                self.request(Request::Start { spec: Box::new(spec(&name)), instances });
            }
            6..10 => self.request(Request::Stop(name)),
            10..14 => self.request(Request::Restart(name, None)),
            14..19 => self.request(Request::Reload(name, None, Pace::default())),
            19..20 => self.request(Request::Reload(name, Some(other_environment()), Pace::default())),
            20..21 => {
                let pace = Pace { parallel: self.rng.u32(1..4), canary_ms: self.rng.bool().then_some(2000) };
                self.request(Request::Reload(name, Some(other_environment()), pace));
            }
            21..23 => self.request(Request::Delete(name)),
            23..27 => {
                let to = self.rng.u32(1..5);
                self.request(Request::Scale(name, Size::To(to)));
            }
            27..29 => self.request(Request::Resume(name)),
            29..31 => {
                let gone = self.waiting.keys().next().copied();
                if let Some(client) = gone {
                    self.note(format!("client {client} goes"));
                    self.waiting.remove(&client);
                    self.handle(Input::Gone(client));
                }
            }
            31..34 => self.crash(),
            34..35 => self.is_bad_build ^= true,
            35..36 if self.rng.bool() => self.stall(),
            35..36 => {
                self.note(format!("the time of {name} has come"));
                self.handle(Input::Reload(name));
            }
            36..43 if self.rng.u32(..4) >= self.turbulence => drop(self.daemon_hears()),
            36..39 => self.kill_daemon(),
            39..42 => self.kill_keeper(),
            42..43 => self.kill_both(),
            43..45 => drop(self.start_keeper()),
            45..48 => {
                self.now.instant += Duration::from_millis(self.rng.u64(..4000));
                self.handle(Input::Tick);
            }
            48..50 => {
                let spec = Box::new(if self.rng.bool() { spec(&name) } else { other_spec(&name, self.rng.bool()) });
                self.request(Request::Change { spec });
            }
            50..51 => self.save(),
            51..52 => self.resurrect(),
            52..53 if self.rng.u32(..4) < self.turbulence.min(1) => self.restart_system(),
            52..55 => drop(self.check_ends()),
            55..65 => drop(self.keeper_acts()),
            65..75 => drop(self.keeper_looks()),
            75..88 => drop(self.daemon_hears()),
            88..89 => self.close_listeners(),
            _ => drop(self.process_acts()),
        }
    }
}

fn other_environment() -> Environment {
    Environment(vec![("X".into(), "2".into())])
}

#[test]
fn whatever_happens_in_whatever_order_the_list_is_true_in_the_end() {
    for seed in 0..1500 {
        let mut world = World::new(seed);
        for _ in 0..120 {
            world.step();
        }
        world.calm_down();
        world.note(format!("seed {seed}"));
        world.check();
    }
}

#[test]
fn an_app_that_waits_for_its_address_after_a_death_is_not_forgotten_by_the_next_one() {
    let mut world = World::new(1);
    world.request(Request::Start { spec: Box::new(spec("a")), instances: 2 });
    world.calm_down();
    for _ in 0..2 {
        world.kill_both();
        while world.daemon_hears() {}
    }
    world.calm_down();
    world.check();
}

/// Runs a command to its end, except that something dies after so many steps; returns whether that was before the end.
fn with_a_death(name: &str, request: &Request, kill: fn(&mut World), after: usize) -> bool {
    let mut world = World::new(after as u64);
    world.is_bad_build = false;
    world.request(Request::Start { spec: Box::new(spec(name)), instances: 2 });
    world.calm_down();
    assert_eq!(world.expected.get(name), Some(&Expected::Running), "{}", world.history());
    world.request(request.clone());
    let mut steps = 0;
    let mut has_died = false;
    loop {
        let is_moving = world.daemon_hears()
            || world.start_keeper()
            || world.keeper_acts()
            || world.keeper_looks()
            || world.process_acts()
            || world.check_ends();
        steps += 1;
        if steps == after {
            kill(&mut world);
            has_died = true;
        }
        if !is_moving {
            break;
        }
    }
    world.note(format!("{request:?}, with a death after {after} steps"));
    world.calm_down();
    world.check();
    has_died
}

#[test]
fn a_death_at_any_moment_of_any_command_leaves_a_true_list() {
    let name = || "a".to_owned();
    let canary = Pace { parallel: 2, canary_ms: Some(2000) };
    try_each(
        "a",
        [
            Request::Reload(name(), None, Pace::default()),
            Request::Reload(name(), Some(other_environment()), Pace { parallel: 2, canary_ms: None }),
            Request::Reload(name(), Some(other_environment()), canary),
            Request::Restart(name(), None),
            Request::Stop(name()),
            Request::Delete(name()),
            Request::Scale(name(), Size::To(4)),
            Request::Scale(name(), Size::To(1)),
            Request::Change { spec: Box::new(other_spec("a", false)) },
            Request::Change { spec: Box::new(other_spec("a", true)) },
            Request::Start { spec: Box::new(spec("b")), instances: 2 },
            Request::Kill,
        ],
    );
}

#[test]
fn a_death_at_any_moment_leaves_the_listeners_open_that_a_program_asks_for_and_no_others() {
    let name = || NODE.to_owned();
    try_each(
        NODE,
        [
            Request::Reload(name(), None, Pace::default()),
            Request::Reload(name(), Some(other_environment()), Pace::default()),
            Request::Restart(name(), Some(other_environment())),
            Request::Stop(name()),
            Request::Delete(name()),
        ],
    );
}

#[test]
fn a_listener_that_its_processes_have_closed_is_closed_whoever_dies_meanwhile() {
    let hear = |world: &mut World| while world.daemon_hears() {};
    let ways: [fn(&mut World); 3] = [|_| {}, World::kill_daemon, World::kill_keeper];
    for (number, way) in ways.into_iter().enumerate() {
        let mut world = World::new(1);
        world.request(Request::Start { spec: Box::new(spec(NODE)), instances: 2 });
        world.calm_down();
        assert!(world.keeper.listeners.contains(ASKED[0]), "{}", world.history());
        world.close_listeners();
        // A keeper that dies before it has passed that on takes it along.
        hear(&mut world);
        way(&mut world);
        world.calm_down();
        assert!(!world.keeper.listeners.contains(ASKED[0]), "{number}: {}", world.history());
        world.check();
    }
}

#[test]
fn a_program_that_closes_one_listener_after_the_other_keeps_few_of_them_open() {
    // As many in a second as it likes, or one now and then.
    for (pause_ms, most) in [(0, 64), (100, 12)] {
        let mut world = World::new(1);
        world.request(Request::Start { spec: Box::new(spec(NODE)), instances: 1 });
        world.calm_down();
        world.now.instant += Duration::from_secs(60);
        let key = *world.keeper.workers.keys().next().unwrap();
        for port in 4000..4200 {
            let address = format!("127.0.0.1:{port}");
            world.ask(key, address.clone());
            while world.moves() {}
            assert!(world.processes.values().all(|(_, _, held)| held.contains(&address)), "{}", world.history());
            world.close_listeners();
            while world.moves() {}
            world.now.instant += Duration::from_millis(pause_ms);
            world.handle(Input::Tick);
            while world.moves() {}
            assert!(world.keeper.listeners.len() <= most, "{:?}:\n{}", world.keeper.listeners, world.history());
        }
        world.calm_down();
        world.check();
    }
}

#[test]
fn a_death_at_any_moment_leaves_a_true_list_of_processes_that_do_not_say_that_they_are_ready() {
    let name = || CHECKED.to_owned();
    try_each(
        CHECKED,
        [
            Request::Reload(name(), None, Pace::default()),
            Request::Restart(name(), Some(other_environment())),
            Request::Change { spec: Box::new(other_spec(CHECKED, true)) },
            Request::Scale(name(), Size::To(4)),
        ],
    );
}

/// Tries each command about an app, with a death at each of its steps.
fn try_each(name: &str, requests: impl IntoIterator<Item = Request>) {
    for request in requests {
        for kill in [World::kill_daemon, World::kill_keeper, World::kill_both] {
            let tried = (1..).take_while(|after| with_a_death(name, &request, kill, *after)).count();
            assert!(tried > 3, "{request:?} took {tried} steps");
        }
    }
}
