//! Hints at what a user may have meant.

use std::collections::BTreeSet;

/// The known names nearest to a wrong one, or all of them where none is near.
pub fn nearest(wanted: &str, known: &[&str]) -> String {
    let known: BTreeSet<&str> = known.iter().copied().collect();
    let mut ranked: Vec<(f64, &str)> = known.iter().map(|name| (strsim::jaro_winkler(wanted, name), *name)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near: Vec<&str> = ranked.iter().take(3).filter(|(score, _)| *score > 0.6).map(|(_, name)| *name).collect();
    if near.is_empty() {
        format!("there are: {}", Vec::from_iter(known).join(", "))
    } else {
        format!("did you mean {}?", near.join(", "))
    }
}
