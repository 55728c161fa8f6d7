//! The first sight: two tabs on `/timer`, as bars over time.

use crate::experiment::two_tabs::TwoTabs;
use std::fmt::Write;

/// Columns of the longest bar.
const WIDTH: usize = 40;

/// Draws the waterfalls of several servers under one scale: when each tab had its answer.
pub fn waterfall(servers: &[(&str, &TwoTabs)]) -> String {
    let mut text = String::new();
    let longest = servers.iter().flat_map(|(_, tabs)| &tabs.falls).flat_map(|fall| fall.finished_ms.iter().copied());
    let longest = longest.fold(1.0, f64::max);
    for (name, tabs) in servers {
        let length = tabs.length_ms as f64;
        for fall in &tabs.falls {
            let _ = writeln!(text, "{name}: {} tabs on /timer?ms={}", fall.tabs, tabs.length_ms);
            for (number, finished) in fall.finished_ms.iter().enumerate() {
                // What is longer than its own work was waiting.
                let waited = columns((finished - length).max(0.0), longest);
                let worked = columns(*finished, longest).max(waited + 1) - waited;
                let (wait, work) = ("·".repeat(waited), "█".repeat(worked));
                let _ = writeln!(
                    text,
                    "  tab {}  {wait}{work}{}  {finished:.0} ms",
                    number + 1,
                    " ".repeat(WIDTH + 1 - waited - worked)
                );
            }
        }
    }
    text
}

fn columns(ms: f64, longest: f64) -> usize {
    (ms / longest * WIDTH as f64).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::two_tabs::Fall;

    #[test]
    fn a_tab_that_waits_is_drawn_behind_its_wait() {
        let tabs =
            |finished_ms: &[f64]| TwoTabs { length_ms: 1000, falls: vec![Fall { tabs: 2, finished_ms: finished_ms.to_vec() }] };
        let (one, many) = (tabs(&[1000.0, 2000.0]), tabs(&[1000.0, 1001.0]));
        let text = waterfall(&[("one", &one), ("many", &many)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].contains(&format!("{}{}", "·".repeat(20), "█".repeat(20))), "{text}");
        assert!(!lines[5].contains('·'), "{text}");
    }
}
