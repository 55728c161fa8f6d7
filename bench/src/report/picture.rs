//! The first sight: two tabs on `/timer`, as bars over time.

use crate::experiment::two_tabs::TwoTabs;
use std::fmt::Write;

/// Columns of the longest bar.
const WIDTH: usize = 24;

/// Draws the waterfalls of several servers side by side under one scale: when each tab had its answer.
pub fn waterfall(servers: &[(&str, &TwoTabs)]) -> String {
    let longest = servers.iter().flat_map(|(_, tabs)| &tabs.falls).flat_map(|fall| fall.finished_ms.iter().copied());
    let longest = longest.fold(1.0, f64::max);
    let blocks: Vec<Vec<String>> = servers.iter().map(|(name, tabs)| block(name, tabs, longest)).collect();
    let height = blocks.iter().map(Vec::len).max().unwrap_or(0);
    let mut text = String::new();
    for line in 0..height {
        for block in &blocks {
            let width = block.iter().map(|line| line.chars().count()).max().unwrap_or(0);
            let _ = write!(text, "{:width$}   ", block.get(line).map_or("", String::as_str));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// One server's lines.
fn block(name: &str, tabs: &TwoTabs, longest: f64) -> Vec<String> {
    let length = tabs.length_ms as f64;
    let mut lines = Vec::new();
    for fall in &tabs.falls {
        lines.push(format!("{name}: {} tabs on /timer?ms={}", fall.tabs, tabs.length_ms));
        for (number, finished) in fall.finished_ms.iter().enumerate() {
            // What is longer than its own work was waiting.
            let waited = columns((finished - length).max(0.0), longest);
            let worked = columns(*finished, longest).max(waited + 1) - waited;
            let (wait, work, rest) = ("·".repeat(waited), "█".repeat(worked), " ".repeat(WIDTH + 1 - waited - worked));
            lines.push(format!("  tab {}  {wait}{work}{rest} {finished:.0} ms", number + 1));
        }
    }
    lines
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
        let second = text.lines().nth(2).unwrap();
        let bars: Vec<&str> = second.split("tab 2").collect();
        assert!(bars[1].contains(&format!("{}{}", "·".repeat(12), "█".repeat(12))), "{text}");
        assert!(!bars[2].contains('·'), "{text}");
    }
}
