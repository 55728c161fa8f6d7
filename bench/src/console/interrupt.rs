//! Ctrl-C and SIGTERM: noticed between two steps, so that children are ended and finished work is kept.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
/// The number of the signal that came.
static SIGNAL: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// The reason of an error that is not a failure: the user asked to stop.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// From here on the first signal is noted and the second ends the process at once.
pub fn install() -> std::io::Result<()> {
    let flag = REQUESTED.get_or_init(Arc::default);
    let number = SIGNAL.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, flag.clone())?;
        signal_hook::flag::register_usize(signal, number.clone(), signal.unsigned_abs() as usize)?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(())
}

/// Whether the user asked to stop.
pub fn is_requested() -> bool {
    REQUESTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// The exit code of a program that the signal ended: 130 after Ctrl-C, 143 after SIGTERM.
pub fn exit_code() -> u8 {
    let number = SIGNAL.get().map_or(0, |number| number.load(Ordering::Relaxed));
    128 + u8::try_from(number).unwrap_or(0)
}

/// Returns an error if the user asked to stop.
///
/// # Errors
/// [`Interrupted`].
pub fn check() -> anyhow::Result<()> {
    if is_requested() { Err(Interrupted.into()) } else { Ok(()) }
}
