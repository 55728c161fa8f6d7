//! What arithmetic gives for the wait behind blockers, where it gives a closed form.

use super::climb;
use crate::metrics::Percentile;

/// The percentile of the wait behind k blockers that take T each, where each connection stays on one of `loops` loops; `None` where it depends on which
/// loops the blockers are on. Behind one, a share f of all probes comes while it is on their loop, and waits for what is left of it, which is anything up
/// to T: P(wait > x) = f (1 - x/T). Several on one loop take turns, so that it never rests: a share f comes while all of them are there, and waits for
/// what is left of one and for the others, P(wait > x) = f (k - x/T). The rest comes in the moment before a client asks again, and waits for one fewer.
pub fn behind(k: usize, block_ms: f64, loops: usize, percentile: Percentile) -> Option<f64> {
    let think_ms = climb::THINK.as_secs_f64() * 1e3;
    let share = match (k, loops) {
        (1, _) => block_ms / (block_ms + think_ms) / loops.max(1) as f64,
        (2.., 0 | 1) => (block_ms - think_ms) / block_ms,
        _ => return None,
    };
    Some((block_ms * (k as f64 - (1.0 - percentile.quantile()) / share)).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Waits of probes on one of `loops` loops, on which k clients ask for T, again and again, and are served in turn.
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
        let (block, think) = (110.0, climb::THINK.as_secs_f64() * 1e3);
        for (k, loops, q) in
            [(1, 1, 99.0), (1, 2, 99.0), (1, 2, 50.0), (1, 4, 90.0), (1, 200, 99.0), (2, 1, 99.0), (4, 1, 50.0), (16, 1, 99.0)]
        {
            let waits = simulated(k, block, think, loops);
            let wanted = waits[(waits.len() as f64 * q / 100.0) as usize];
            let found = behind(k, block, loops, q.to_string().parse().unwrap()).unwrap();
            assert!((found - wanted).abs() < 0.02 * block, "{k} on {loops} loops, p{q}: {found} instead of {wanted}");
        }
        assert_eq!(behind(2, block, 2, Percentile::default()), None);
    }
}
