//! A round on disk: one folder in `bench-results/`, added to and never overwritten.
//!
//! `round.json` says what was measured, on what, and how; `trials.jsonl` gets a line as each trial ends, so that a round which is
//! killed loses at most one.

pub mod filter;
pub mod plan;

use crate::catalog::nearest;
use crate::experiment::{Mode, Outcome, Settings};
use crate::host::environment::{self, Environment};
use anyhow::{Context, Result, bail};
use common::Receipt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Version of what is written here. A round of another version is refused by name.
pub const SCHEMA: u32 = 1;

/// What stands in `round.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Header {
    /// Version of the layout.
    pub schema: u32,
    /// When it was started, in UTC, by RFC 3339.
    pub started: String,
    /// The command line.
    pub command: Vec<String>,
    /// How it measures.
    pub settings: Settings,
    /// On what.
    pub environment: Environment,
    /// Each time that it was gone on with.
    #[serde(default)]
    pub resumed: Vec<Resumed>,
    /// What is measured, in the order of the tables.
    pub servers: Vec<Entry>,
}

/// A round was gone on with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resumed {
    /// When, in UTC, by RFC 3339.
    pub at: String,
    /// By the harness of which commit.
    pub commit: String,
}

impl Header {
    /// Every server, the headline's experiment, and enough trials for intervals: what a page may quote.
    pub fn is_headline(&self) -> bool {
        let settings = &self.settings;
        settings.mode != Mode::Quick
            && !settings.is_null
            && settings.filters.is_empty()
            && settings.experiments.iter().any(|name| name == "collateral")
    }

    fn to_text(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// A name, and what stands behind it: for above a table.
    pub fn describe(&self, folder: &Path) -> String {
        let (settings, environment) = (&self.settings, &self.environment);
        let count = self.servers.len();
        let resumed: String = self.resumed.iter().map(|one| format!(", resumed at {}", one.commit)).collect();
        format!(
            "round {}: started {}, {count} servers, {} trials, commit {}{resumed}",
            folder.display(),
            self.started,
            settings.trials,
            environment.commit
        )
    }
}

/// A server of a round.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Entry {
    /// Name.
    pub name: String,
    /// The library that schedules work.
    pub runtime: String,
    /// How work meets threads and processes.
    pub model: String,
    /// Whose HTTP codec answers.
    pub http: String,
    /// Others wrote it.
    pub is_peer: bool,
    /// Experiments that it cannot take part in, with the reason.
    pub unsupported: BTreeMap<String, String>,
    /// What the server says of itself; none if it is unavailable.
    pub receipt: Option<Receipt>,
    /// Why it is unavailable.
    pub unavailable: Option<String>,
    /// Of a person's own server: what it is, and what blocks it. The tables say so below.
    #[serde(default)]
    pub own: Option<String>,
}

/// One line of `trials.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trial {
    /// Which server.
    pub server: String,
    /// Which experiment.
    pub experiment: String,
    /// Which trial, from 1.
    pub trial: u32,
    /// Seed of its random order.
    pub seed: u64,
    /// When it ended, in seconds since the round was started or resumed.
    pub at_s: f64,
    /// Share of all processor time that the hypervisor took away meanwhile.
    pub steal: f64,
    /// What was found.
    pub outcome: Outcome,
}

/// A round: its header, its trials, and where they are.
#[derive(Debug, Clone)]
pub struct Round {
    /// Its folder.
    pub folder: PathBuf,
    /// What stands in `round.json`.
    pub header: Header,
    /// What stands in `trials.jsonl`.
    pub trials: Vec<Trial>,
}

impl Round {
    /// Begins a round in a folder of its own.
    ///
    /// # Errors
    /// The folder exists, or cannot be written.
    pub fn create(folder: &Path, header: Header) -> Result<Self> {
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        match fs::create_dir(folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!(
                    "{} exists: rounds are never overwritten; choose another with --out, or go on with --resume",
                    folder.display()
                )
            }
            other => other.with_context(|| format!("cannot make {}", folder.display()))?,
        }
        let round = Round { folder: folder.to_path_buf(), header, trials: Vec::new() };
        write_new(&round.folder.join("round.json"), &round.header.to_text()?)?;
        Ok(round)
    }

    /// Keeps that it is gone on with, and by which harness.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn resume(&mut self) -> Result<()> {
        self.header.resumed.push(Resumed { at: now(), commit: environment::commit() });
        let (path, new) = (self.folder.join("round.json"), self.folder.join("round.json.new"));
        fs::write(&new, self.header.to_text()?)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads a round.
    ///
    /// # Errors
    /// No round, one of another version, or a line that cannot be read, with file and line.
    pub fn open(folder: &Path) -> Result<Self> {
        let header = read_header(folder)?;
        let trials = read_trials(&folder.join("trials.jsonl"))?;
        Ok(Round { folder: folder.to_path_buf(), header, trials })
    }

    /// Adds a trial, on disk first.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn add(&mut self, trial: Trial) -> Result<()> {
        let path = self.folder.join("trials.jsonl");
        let mut line = serde_json::to_string(&trial)?;
        line.push('\n');
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        file.write_all(line.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
        self.trials.push(trial);
        Ok(())
    }

    /// Whether this trial was made already.
    pub fn has(&self, server: &str, experiment: &str, trial: u32) -> bool {
        self.trials.iter().any(|one| one.server == server && one.experiment == experiment && one.trial == trial)
    }
}

#[derive(Deserialize)]
struct Version {
    schema: u32,
}

fn read_header(folder: &Path) -> Result<Header> {
    let path = folder.join("round.json");
    let text =
        fs::read_to_string(&path).with_context(|| format!("{} is no round: cannot read {}", folder.display(), path.display()))?;
    let version: Version = serde_json::from_str(&text).with_context(|| format!("{} is no round's header", path.display()))?;
    if version.schema != SCHEMA {
        let advice = if version.schema > SCHEMA { "use a newer stallbench" } else { "use the stallbench that wrote it" };
        bail!("{} has schema {}, this program reads {SCHEMA}: {advice}", path.display(), version.schema);
    }
    serde_json::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))
}

/// The trials of a file. A last line without an end is the one that was being written when the round was killed; it is cut off.
fn read_trials(path: &Path) -> Result<Vec<Trial>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        let file = OpenOptions::new().write(true).open(path).with_context(|| format!("cannot mend {}", path.display()))?;
        file.set_len(whole as u64)?;
    }
    let lines = text[..whole].lines().enumerate();
    lines.map(|(number, line)| serde_json::from_str(line).with_context(|| format!("{}:{}", path.display(), number + 1))).collect()
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    let mut file = File::create_new(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.write_all(text.as_bytes())?)
}

/// Now, in UTC, by RFC 3339: as text such instants sort by time.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// A folder for a new round: the day, the machine and the kind of round, and a number if there is one already.
pub fn new_folder(base: &Path, host: &str, suffix: &str) -> PathBuf {
    let day = now().chars().take(10).collect::<String>();
    let host: String = host.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect();
    let name = format!("{day}-{host}{suffix}");
    let first = base.join(&name);
    let others = (2..).map(|number| base.join(format!("{name}.{number}")));
    std::iter::once(first).chain(others).find(|folder| !folder.exists()).unwrap_or_else(|| base.join("round"))
}

/// The rounds of a folder of rounds, the newest last. Only their headers say when they were started: a checkout gives all files one
/// age. A folder that cannot be read is none.
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

/// The round that a person means: a folder, or the name of one in `base`.
///
/// # Errors
/// Neither, with the nearest known names.
pub fn find(base: &Path, name: &Path) -> Result<PathBuf> {
    let inside = base.join(name);
    match [name, inside.as_path()].into_iter().find(|folder| folder.join("round.json").exists()) {
        Some(folder) => Ok(folder.to_path_buf()),
        None => {
            let known: Vec<String> = all(base).iter().map(|(_, folder)| name_of(folder)).collect();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            bail!("{} is no round; {}", name.display(), nearest(&name_of(name), &known))
        }
    }
}

/// The last part of a round's path.
pub fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The newest null round of a folder of rounds that was made on the machine of this round and in its placement.
pub fn newest_null(base: &Path, like: &Round) -> Option<PathBuf> {
    let of = |header: &Header| (header.environment.host.clone(), header.environment.processor.clone(), header.settings.placement);
    newest(base, |header| header.settings.is_null && of(header) == of(&like.header)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            schema: SCHEMA,
            started: now(),
            command: vec!["stallbench".into()],
            settings: Settings::of(Mode::Quick, 2, 1),
            environment: Environment::default(),
            resumed: Vec::new(),
            servers: Vec::new(),
        }
    }

    fn trial(number: u32) -> Trial {
        let outcome = Outcome::Invalid { reason: "made up".into() };
        Trial { server: "a-b".into(), experiment: "footprint".into(), trial: number, seed: 1, at_s: 0.0, steal: 0.0, outcome }
    }

    #[test]
    fn keeps_what_was_added_and_refuses_to_overwrite() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("r");
        let mut round = Round::create(&folder, header()).unwrap();
        round.add(trial(1)).unwrap();
        assert!(Round::open(&folder).unwrap().has("a-b", "footprint", 1));
        assert!(Round::create(&folder, header()).unwrap_err().to_string().contains("never overwritten"));
    }

    #[test]
    fn a_round_killed_within_a_line_goes_on_without_it() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("r");
        let mut round = Round::create(&folder, header()).unwrap();
        round.add(trial(1)).unwrap();
        let path = folder.join("trials.jsonl");
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}{}", &whole[..whole.len() / 2])).unwrap();
        let mut round = Round::open(&folder).unwrap();
        round.add(trial(2)).unwrap();
        assert_eq!(Round::open(&folder).unwrap().trials.len(), 2);
    }

    #[test]
    fn the_newest_round_is_the_one_that_was_started_last() {
        let base = tempfile::tempdir().unwrap();
        for (name, started) in [("b", "2026-01-01T10:00:00Z"), ("c", "2026-01-01T09:30:00Z"), ("a", "2026-01-01T09:59:00Z")] {
            Round::create(&base.path().join(name), Header { started: started.into(), ..header() }).unwrap();
        }
        assert!(newest(base.path(), |_| true).unwrap().ends_with("b"));
        assert!(newest(base.path(), |header| header.settings.is_null).unwrap_err().to_string().contains("no such round"));
    }

    #[test]
    fn a_round_is_found_by_its_name_and_a_wrong_name_gets_the_nearest() {
        let base = tempfile::tempdir().unwrap();
        Round::create(&base.path().join("2026-01-01-vm"), header()).unwrap();
        assert!(find(base.path(), Path::new("2026-01-01-vm")).unwrap().starts_with(base.path()));
        assert!(find(base.path(), &base.path().join("2026-01-01-vm")).is_ok());
        let error = find(base.path(), Path::new("2026-01-02-vm")).unwrap_err().to_string();
        assert!(error.contains("did you mean 2026-01-01-vm?"), "{error}");
    }

    #[test]
    fn only_a_whole_round_with_intervals_may_stand_on_a_page() {
        let of = |mode| Header { settings: Settings::of(mode, 2, 1), ..header() };
        assert!(of(Mode::Standard).is_headline() && !of(Mode::Quick).is_headline());
        let mut filtered = of(Mode::Standard);
        filtered.settings.filters = vec!["tokio".into()];
        assert!(!filtered.is_headline());
    }

    #[test]
    fn foreign_and_newer_rounds_are_refused_with_file_and_line() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("r");
        assert!(Round::open(&folder).unwrap_err().to_string().contains("is no round"));
        Round::create(&folder, header()).unwrap();
        fs::write(folder.join("trials.jsonl"), "{}\n").unwrap();
        assert!(Round::open(&folder).unwrap_err().to_string().ends_with("trials.jsonl:1"));
        fs::write(folder.join("round.json"), r#"{"schema": 99}"#).unwrap();
        assert!(Round::open(&folder).unwrap_err().to_string().contains("schema 99"));
    }
}
