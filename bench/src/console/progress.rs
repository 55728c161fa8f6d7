//! Progress of a long piece of work: the share done and the time left.

use super::output::say;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// A bar on a terminal, a line for each step elsewhere.
pub struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
}

impl Progress {
    /// Progress over `total` units of work.
    pub fn new(total: u64) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        bar.set_style(style("{bar:24} {percent:>3} %  {elapsed} so far{prefix}  {wide_msg}"));
        bar.enable_steady_tick(Duration::from_millis(500));
        Progress { bar, is_terminal }
    }

    /// Shows the current step.
    pub fn say(&self, what: &str) {
        let left = self.left();
        self.bar.set_prefix(left.clone());
        self.bar.set_message(what.to_owned());
        if !self.is_terminal {
            let percent = 100 * self.bar.position() / self.bar.length().unwrap_or(1).max(1);
            say(&format!("[{percent:>3} %{left}] {what}"));
        }
    }

    /// Shows what is done just now on the bar alone.
    pub fn at(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// The time left, if all units take as long as those so far: the bar's own guess follows the last one and jumps about.
    fn left(&self) -> String {
        let (done, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
        if done == 0 {
            return String::new();
        }
        let left = self.bar.elapsed().as_secs_f64() / done as f64 * all.saturating_sub(done) as f64;
        if left < 100.0 { format!(", {left:.0} s left") } else { format!(", {:.0} min left", left / 60.0) }
    }

    /// Counts units as done.
    pub fn step(&self, units: u64) {
        self.bar.inc(units);
    }

    /// Prints a line without disturbing the bar.
    pub fn line(&self, text: &str) {
        if self.is_terminal { self.bar.println(text) } else { say(text) }
    }

    /// While a load is on, the bar must not wake up and take processor time from what is measured.
    pub fn quiet(&self) {
        self.bar.disable_steady_tick();
        // A time that stands still says that nothing goes on.
        self.bar.set_style(style("{bar:24} {percent:>3} %{prefix}  {wide_msg}"));
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
