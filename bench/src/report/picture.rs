//! A waterfall as text: requests sent at the same instant, as bars over time.

use std::fmt::Write;

/// Columns of the longest bar.
const WIDTH: usize = 24;

/// Draws the waterfalls of several servers side by side on one scale: a title, the length of each request, and when each was done, in ms.
pub fn waterfall(servers: &[(String, f64, Vec<f64>)]) -> String {
    let longest = servers.iter().flat_map(|(_, _, finished)| finished).copied().fold(1.0, f64::max);
    let blocks: Vec<Vec<String>> =
        servers.iter().map(|(title, length, finished)| block(title, *length, finished, longest)).collect();
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
fn block(title: &str, length: f64, finished: &[f64], longest: f64) -> Vec<String> {
    let mut lines = vec![title.to_owned()];
    for (number, finished) in finished.iter().enumerate() {
        // Whatever exceeds its own work was waiting.
        let waited = columns((finished - length).max(0.0), longest);
        let worked = columns(*finished, longest).max(waited + 1) - waited;
        let (wait, work, rest) = ("·".repeat(waited), "█".repeat(worked), " ".repeat(WIDTH + 1 - waited - worked));
        lines.push(format!("  tab {}  {wait}{work}{rest} {finished:.0} ms", number + 1));
    }
    lines
}

fn columns(ms: f64, longest: f64) -> usize {
    (ms / longest * WIDTH as f64).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tab_that_waits_is_drawn_behind_its_wait() {
        let text = waterfall(&[("one".into(), 1000.0, vec![1000.0, 2000.0]), ("many".into(), 1000.0, vec![1000.0, 1001.0])]);
        let second = text.lines().nth(2).unwrap();
        let bars: Vec<&str> = second.split("tab 2").collect();
        assert!(bars[1].contains(&format!("{}{}", "·".repeat(12), "█".repeat(12))), "{text}");
        assert!(!bars[2].contains('·'), "{text}");
    }
}
