//! What the benches of all async runtimes do alike. Whose task, whose yield and whose timer it is: that is the difference, and stays theirs.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long so many of them take, one after the other.
pub async fn timed<F: Future>(count: u64, mut act: impl FnMut() -> F) -> Duration {
    let start = Instant::now();
    for _ in 0..count {
        act().await;
    }
    start.elapsed()
}

/// By how much so many timers of 1 ms are late, together.
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
