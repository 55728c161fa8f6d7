//! The names of apps that come from PM2, which allows any.

use serde_json::Value;
use std::collections::BTreeSet;
use supervisor::spec::check_name;
use toml::{Table, Value as Toml};

/// Bytes that are kept of a name that cannot stay as it is. A name may have 64, and something may be added that tells it from others.
const LONGEST_PART: usize = 54;

/// Gives an app a name that is allowed here.
pub fn settle(table: &mut Table) {
    let Some(name) = table.get("name").and_then(Toml::as_str).filter(|name| check_name(name).is_err()) else { return };
    let is_plain = |c: char| c.is_alphanumeric() || "-_@".contains(c);
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
    let fits = |(at, c): &(usize, char)| at + c.len_utf8() <= LONGEST_PART;
    let plain: String = plain.char_indices().take_while(fits).map(|(_, c)| c).collect();
    let plain = if check_name(&plain).is_ok() { plain } else { format!("app-{plain}") };
    table.insert("name".into(), Toml::String(plain));
}

/// Gives apps whose names became those of others names of their own. Two whose name was valid, and is the same in PM2 too, are for the user to tell apart.
/// Returns what is to be said about it.
pub fn tell_apart(all: &mut [(Value, Table, usize)]) -> Vec<String> {
    let text = |theirs: &Value| theirs.as_str().map_or_else(|| theirs.to_string(), str::to_owned);
    let is_same = |theirs: &Value, table: &Table| table.get("name").and_then(Toml::as_str) == Some(&text(theirs));
    let kept = all.iter().filter(|(theirs, table, _)| is_same(theirs, table));
    let mut taken: BTreeSet<String> = kept.map(|(theirs, ..)| text(theirs)).collect();
    let mut renamed = Vec::new();
    for (theirs, table, _) in all.iter_mut().filter(|(theirs, table, _)| !is_same(theirs, table)) {
        let Some(name) = table.get("name").and_then(Toml::as_str).map(str::to_owned) else { continue };
        let others = (2..).map(|number| format!("{name}-{number}"));
        let own = std::iter::once(name.clone()).chain(others).find(|name| !taken.contains(name)).unwrap_or_default();
        renamed.push(format!("the app '{}' is called '{own}' here", text(theirs)));
        table.insert("name".into(), Toml::String(own.clone()));
        taken.insert(own);
    }
    renamed
}
