//! What arithmetic gives for the wait behind blockers, where it gives a closed form.

use super::climb;
use crate::metrics::Percentile;

/// The percentile of the wait behind k blockers that take T each, where each connection stays on one of `loops` loops; `None` where it depends on which
/// loops the blockers are on. Behind one, a share f of all probes comes while it is on their loop, and waits for what is left of it, which is anything up
/// to T: P(wait > x) = f (1 - x/T). Several on one loop take turns, so that it never rests: a probe waits for what is left of one and for the others. The
/// client that was answered last asks again a moment after that, so all of them are there for the rest of the turn: P(wait > x) = (k T - moment - x)/T.
pub fn behind(k: usize, block_ms: f64, loops: usize, percentile: Percentile) -> Option<f64> {
    let (think_ms, beyond) = (climb::THINK.as_secs_f64() * 1e3, 1.0 - percentile.quantile());
    match (k, loops) {
        (1, _) => {
            let share = block_ms / (block_ms + think_ms) / loops.max(1) as f64;
            Some((block_ms * (1.0 - beyond / share)).max(0.0))
        }
        (2.., 0 | 1) if beyond * block_ms < block_ms - think_ms => Some(block_ms * (k as f64 - beyond) - think_ms),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Waits of probes on one of `loops` loops, on which k clients each request a block of T, again and again, and are served in turn.
    fn simulated(k: usize, block: f64, think: f64, loops: usize) -> Vec<f64> {
        let mut random = fastrand::Rng::with_seed(7);
        // When each client asks next, and until when the loop is busy with whoever has asked before.
        let (mut asks, mut free, mut waits) = (VecDeque::from(vec![0.0_f64; k]), 0.0_f64, Vec::new());
        let mut probe = 0.0;
        while waits.len() < 200_000 {
            probe += random.f64() * 2.0 * think;
            while let Some(ask) = asks.front().copied().filter(|ask| *ask <= probe) {
                asks.pop_front();
                free = free.max(ask) + block;
                asks.push_back(free + think);
            }
            waits.push(if random.usize(..loops) == 0 { (free - probe).max(0.0) } else { 0.0 });
        }
        waits.sort_by(f64::total_cmp);
        waits
    }

    #[test]
    fn the_wait_behind_blockers_is_what_a_simulation_of_them_gives() {
        let think = climb::THINK.as_secs_f64() * 1e3;
        let one_behind = [(1, 1, 99.0), (1, 2, 99.0), (1, 2, 50.0), (1, 4, 90.0), (1, 200, 99.0)];
        let several = [(2, 1, 99.0), (4, 1, 50.0), (16, 1, 99.0)];
        for (block, (k, loops, q)) in
            [110.0, 10.0].iter().flat_map(|block| one_behind.iter().chain(&several).map(|case| (*block, *case)))
        {
            let waits = simulated(k, block, think, loops);
            let wanted = waits[(waits.len() as f64 * q / 100.0) as usize];
            let found = behind(k, block, loops, q.to_string().parse().unwrap()).unwrap();
            assert!(
                (found - wanted).abs() < think / 2.0,
                "{k} of {block} ms on {loops} loops, p{q}: {found} instead of {wanted}"
            );
        }
        assert_eq!(behind(2, 110.0, 2, Percentile::default()), None);
    }
}
