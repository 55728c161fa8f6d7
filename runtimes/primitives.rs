//! Code shared by the benches of all async runtimes. The task, the yield and the timer differ by runtime, so each bench brings
//! its own.

use std::future::Future;
use std::time::{Duration, Instant};

/// The time that `count` calls of `act` take, one after the other.
pub async fn timed<F: Future>(count: u64, mut act: impl FnMut() -> F) -> Duration {
    let start = Instant::now();
    for _ in 0..count {
        act().await;
    }
    start.elapsed()
}

/// The total lateness of `count` timers of 1 ms.
pub async fn late<F: Future>(count: u64, mut sleep: impl FnMut(Duration) -> F) -> Duration {
    const TIME: Duration = Duration::from_millis(1);
    let mut late = Duration::ZERO;
    for _ in 0..count {
        let start = Instant::now();
        sleep(TIME).await;
        late += start.elapsed().saturating_sub(TIME);
    }
    late
}
