//! The limit on memory, with processes that always use more.

use super::apps::{MOST_MEMORY, spec};
use super::world::World;
use crate::control::Request;
use crate::core::Input;
use crate::core::table::Instance;
use crate::spec::{Options, Spec};
use std::time::{Duration, Instant};

const INSTANCES: usize = 3;

impl World {
    fn instances(&self) -> &[Instance] {
        &self.core.table.app("a").unwrap().instances
    }

    /// Lets everything happen that takes no time; at no moment is more than one process being replaced.
    fn watch(&mut self) {
        let steps = [Self::daemon_hears, Self::keeper_acts, Self::keeper_looks, Self::process_acts];
        while steps.into_iter().any(|step| step(self)) {
            let replaced = self.instances().iter().filter(|instance| !instance.is_online()).count();
            assert!(replaced <= 1, "{replaced} are replaced at once:\n{}", self.history());
        }
    }
}

#[test]
fn processes_that_use_too_much_memory_are_replaced_one_after_another_and_ever_more_seldom_and_that_is_counted_and_said() {
    let mut world = World::new(1);
    (world.is_bad_build, world.memory) = (false, Some(MOST_MEMORY / 2));
    let options = Options { max_memory_restart: Some(MOST_MEMORY), ..spec("a").options };
    let limited = Spec { options, ..spec("a") };
    world.request(Request::Start { spec: Box::new(limited), instances: INSTANCES as u32 });
    world.calm_down();
    assert!(world.instances().iter().all(Instance::is_online));

    world.memory = Some(2 * MOST_MEMORY);
    let mut replaced: Vec<Vec<Instant>> = vec![Vec::new(); INSTANCES];
    for _ in 0..400 {
        world.now.instant += Duration::from_millis(100);
        world.handle(Input::Tick);
        world.watch();
        for (times, instance) in replaced.iter_mut().zip(world.core.table.apps[0].instances.iter()) {
            let is_news = instance.restarts as usize > times.len();
            times.extend(is_news.then_some(world.now.instant));
            assert_eq!(instance.restarts as usize, times.len(), "each is counted once");
        }
    }
    for times in replaced {
        let pauses: Vec<Duration> = times.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(pauses.len() >= 4 && pauses[0] >= Duration::from_secs(1), "{pauses:?}");
        assert!(pauses.windows(2).all(|two| two[1] >= two[0] * 3 / 2), "{pauses:?}");
    }
    let remarks = world.core.view().remarks.join("\n");
    assert!(remarks.contains("used 2.0 MiB of at most 1.0 and is being replaced (replacements so far: 4)"), "{remarks}");
}
