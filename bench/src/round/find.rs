//! Finding rounds: by name, the newest of a kind, and the null round that calibrates another.

use super::header::Header;
use super::store::{Round, now, read_header};
use crate::console::hint::nearest;
use crate::console::usage::refuse;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder for a new round: the day, the machine and the kind of round, and a number if there is one already.
pub fn new_folder(base: &Path, host: &str, suffix: &str) -> PathBuf {
    let day = now().chars().take(10).collect::<String>();
    let host: String = host.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect();
    let name = format!("{day}-{host}{suffix}");
    let first = base.join(&name);
    let others = (2..).map(|number| base.join(format!("{name}.{number}")));
    std::iter::once(first).chain(others).find(|folder| !folder.exists()).unwrap_or_else(|| base.join("round"))
}

/// The rounds of a folder of rounds, the newest last. Only their headers say when they were started: a checkout gives all files one age. A
/// folder that cannot be read is not a round.
pub fn all(base: &Path) -> Vec<(Header, PathBuf)> {
    let folders = fs::read_dir(base).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut rounds: Vec<_> = folders.filter_map(|folder| Some((read_header(&folder).ok()?, folder))).collect();
    rounds.sort_by(|a, b| (&a.0.started, &a.1).cmp(&(&b.0.started, &b.1)));
    rounds
}

/// The newest round of a folder of rounds that is of the wanted kind.
///
/// # Errors
/// There is none.
pub fn newest(base: &Path, is_wanted: impl Fn(&Header) -> bool) -> Result<PathBuf> {
    let newest = all(base).into_iter().rev().find(|(header, _)| is_wanted(header));
    let folder = newest.map(|(_, folder)| folder);
    folder.with_context(|| format!("no such round in {}: make one with `stallbench bench`", base.display()))
}

/// The round that a user means: a folder, or the name of one in a folder of rounds.
///
/// # Errors
/// Neither, with the nearest known names.
pub fn find(bases: &[PathBuf], name: &Path) -> Result<PathBuf> {
    let inside = bases.iter().map(|base| base.join(name));
    let found = std::iter::once(name.to_path_buf()).chain(inside).find(|folder| folder.join("round.json").exists());
    if let Some(folder) = found {
        return Ok(folder);
    }
    let known: Vec<String> = bases.iter().flat_map(|base| all(base)).map(|(_, folder)| name_of(&folder)).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    refuse!("{} is not a round; {}", name.display(), nearest(&name_of(name), &known))
}

/// The last part of a round's path.
pub fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The null rounds that calibrate a round, the newest first: of the same machine, with the same settings, and at least as many trials.
pub fn null_for(base: &Path, like: &Round) -> Vec<PathBuf> {
    let fits = |header: &Header| header.settings.is_null && differences(header, &like.header).is_empty();
    all(base).into_iter().rev().filter(|(header, _)| fits(header)).map(|(_, folder)| folder).collect()
}

/// The reasons why a null round does not calibrate another round.
pub fn differences(null: &Header, like: &Header) -> Vec<String> {
    let (a, b) = (&null.environment, &like.environment);
    let mut names: Vec<String> = null.settings.differences(&like.settings);
    if null.settings.trials > like.settings.trials {
        // Its first trials are a null round of as many trials.
        names.retain(|name| name != "trials");
    }
    for (name, differs) in [("host", a.host != b.host), ("processor", a.processor != b.processor), ("cores", a.cores != b.cores)]
    {
        names.extend(differs.then(|| name.to_owned()));
    }
    let shares = null.settings.experiments.keys().any(|name| like.settings.experiments.contains_key(name));
    names.extend((!shares).then(|| "experiments".to_owned()));
    names
}

#[cfg(test)]
mod tests {
    use super::super::store::tests::header;
    use super::*;
    use crate::measure::Mode;

    #[test]
    fn the_newest_round_is_the_one_that_was_started_last() {
        let base = tempfile::tempdir().unwrap();
        for (name, started) in [("b", "2026-01-01T10:00:00Z"), ("c", "2026-01-01T09:30:00Z"), ("a", "2026-01-01T09:59:00Z")] {
            Round::create(&base.path().join(name), Header { started: started.into(), ..header(Mode::Quick) }).unwrap();
        }
        assert!(newest(base.path(), |_| true).unwrap().ends_with("b"));
        assert!(newest(base.path(), |header| header.settings.is_null).unwrap_err().to_string().contains("no such round"));
    }

    #[test]
    fn a_round_is_found_by_its_name_and_a_wrong_name_gets_the_nearest() {
        let base = tempfile::tempdir().unwrap();
        let bases = [base.path().to_path_buf()];
        Round::create(&base.path().join("2026-01-01-vm"), header(Mode::Quick)).unwrap();
        assert!(find(&bases, Path::new("2026-01-01-vm")).unwrap().starts_with(base.path()));
        assert!(find(&bases, &base.path().join("2026-01-01-vm")).is_ok());
        let error = find(&bases, Path::new("2026-01-02-vm")).unwrap_err().to_string();
        assert!(error.contains("did you mean 2026-01-01-vm?"), "{error}");
    }

    #[test]
    fn a_null_round_with_other_settings_does_not_calibrate() {
        let like = header(Mode::Standard);
        let mut null = header(Mode::Standard);
        null.settings.is_null = true;
        assert!(differences(&null, &like).is_empty());
        null.settings.experiments.get_mut("collateral").unwrap()["window_ms"] = 300.into();
        assert_eq!(differences(&null, &like), ["settings of collateral"]);
        null.settings.trials = like.settings.trials + 1;
        assert_eq!(differences(&null, &like), ["settings of collateral"]);
        null.settings.trials = like.settings.trials - 1;
        assert_eq!(differences(&null, &like), ["trials", "settings of collateral"]);
        null.environment.host = "elsewhere".into();
        assert!(differences(&null, &like).contains(&"host".to_owned()));
    }

    #[test]
    fn only_a_finished_round_of_all_servers_with_intervals_may_stand_on_a_page() {
        let finished = |mode| Header { finished: Some(now()), ..header(mode) };
        assert!(finished(Mode::Standard).is_headline() && !finished(Mode::Quick).is_headline());
        assert!(!header(Mode::Standard).is_headline(), "not finished");
        let mut filtered = finished(Mode::Standard);
        filtered.settings.filters = vec!["tokio".into()];
        assert!(!filtered.is_headline());
    }
}
