//! A round on disk. Reading never writes; only the round that is being measured is written to.

use super::header::{Header, Resumed, SCHEMA};
use super::schema1;
use super::trial::{Outcome, Trial};
use crate::host::environment::{self, Environment};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const HEADER: &str = "round.json";
const TRIALS: &str = "trials.jsonl";

/// A round.
#[derive(Debug, Clone)]
pub struct Round {
    /// Its folder.
    pub folder: PathBuf,
    /// The content of `round.json`.
    pub header: Header,
    /// The content of `trials.jsonl`.
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
                bail!("{} exists, and rounds are never overwritten: choose another with --out, or --resume it", folder.display())
            }
            other => other.with_context(|| format!("cannot make {}", folder.display()))?,
        }
        let round = Round { folder: folder.to_path_buf(), header, trials: Vec::new() };
        round.write_header()?;
        Ok(round)
    }

    /// Reads a round.
    ///
    /// # Errors
    /// Not a round, one of a newer schema, or a line that cannot be read, with file and line.
    pub fn open(folder: &Path) -> Result<Self> {
        let header = read_header(folder)?;
        let trials = read_trials(&folder.join(TRIALS))?;
        Ok(Round { folder: folder.to_path_buf(), header, trials })
    }

    /// The trials that were taken of each server that has any: of a round that is not finished, some may have more.
    pub fn trials_found(&self) -> u32 {
        let planned = self.header.settings.trials;
        let mut taken: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for trial in &self.trials {
            *taken.entry((&trial.server, &trial.experiment)).or_default() += 1;
        }
        let least = taken.into_values().min().unwrap_or(0);
        if self.header.finished.is_some() { planned } else { least.min(planned) }
    }

    /// Prepares to add the trials that are missing: on the same machine, by a harness whose commit is noted.
    ///
    /// # Errors
    /// Another machine, a round of an older schema, or a full disk.
    pub fn resume(&mut self) -> Result<()> {
        let (then, now_here) = (&self.header.environment, Environment::here());
        let moved: Vec<&str> = then.differences(&now_here).into_iter().filter(|name| *name != "commit").collect();
        let name = self.folder.display();
        if !moved.is_empty() {
            bail!("{name} was begun on another machine (its {} differs): begin a new round", moved.join(", "));
        }
        if self.header.schema != SCHEMA {
            bail!("{name} was begun by an older stallbench, which measured with other settings: begin a new round");
        }
        cut_half_line(&self.folder.join(TRIALS))?;
        self.header.resumed.push(Resumed { at: now(), commit: environment::commit() });
        self.write_header()
    }

    /// Notes that all trials are there.
    ///
    /// # Errors
    /// A full disk.
    pub fn finish(&mut self) -> Result<()> {
        self.header.finished = Some(now());
        self.write_header()
    }

    /// Adds a trial, on disk first.
    ///
    /// # Errors
    /// A full disk.
    pub fn add(&mut self, mut trial: Trial) -> Result<()> {
        let path = self.folder.join(TRIALS);
        let mut line = serde_json::to_string(&trial)?;
        line.push('\n');
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).with_context(|| format!("cannot write {}", path.display()))?;
        trial.line = self.trials.iter().map(|other| other.line).max().unwrap_or_default() + 1;
        keep(&mut self.trials, trial);
        Ok(())
    }

    /// A trial, if it was taken already.
    pub fn of(&self, server: &str, experiment: &str, trial: u32) -> Option<&Trial> {
        self.trials.iter().find(|one| one.server == server && one.experiment == experiment && one.trial == trial)
    }

    fn write_header(&self) -> Result<()> {
        let (path, new) = (self.folder.join(HEADER), self.folder.join("round.json.new"));
        let text = serde_json::to_string_pretty(&self.header)? + "\n";
        // Whoever reads it meanwhile sees the old one or the new one.
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).with_context(|| format!("cannot write {}", path.display()))
    }
}

#[derive(Deserialize)]
struct Version {
    schema: u32,
}

/// Reads the header of a round.
///
/// # Errors
/// Not a round, or one of a newer schema.
pub fn read_header(folder: &Path) -> Result<Header> {
    let path = folder.join(HEADER);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("{} is not a round; cannot read {}", folder.display(), path.display()))?;
    let version: Version =
        serde_json::from_str(&text).with_context(|| format!("{} is not the header of a round", path.display()))?;
    let cannot = || format!("cannot understand {}", path.display());
    match version.schema {
        SCHEMA => serde_json::from_str(&text).with_context(cannot),
        1 => {
            let old: Json = serde_json::from_str(&text).with_context(cannot)?;
            schema1::header(old, count_lines(&folder.join(TRIALS))).with_context(cannot)
        }
        newer => bail!("{} has schema {newer}, and this program reads up to {SCHEMA}: use a newer stallbench", path.display()),
    }
}

fn count_lines(path: &Path) -> usize {
    fs::read(path).map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count())
}

/// The trials of a file. A last line that is not complete is being written by somebody else, or was when the round was killed.
fn read_trials(path: &Path) -> Result<Vec<Trial>> {
    let mut trials = Vec::new();
    for (number, line) in read_lines(path)?.split_inclusive(|byte| *byte == b'\n').enumerate() {
        match serde_json::from_slice(line) {
            Ok(trial) => keep(&mut trials, Trial { line: number + 1, ..trial }),
            Err(_) if !line.ends_with(b"\n") => break,
            Err(error) => return Err(error).with_context(|| format!("{}:{}", path.display(), number + 1)),
        }
    }
    Ok(trials)
}

/// The lines of a file that is there or not yet: bytes, since the last line may end within a character.
fn read_lines(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => other.with_context(|| format!("cannot read {}", path.display())),
    }
}

/// A trial that was taken again counts instead of the first, which stays on disk; not one that found nothing where the first had found something.
fn keep(trials: &mut Vec<Trial>, trial: Trial) {
    let is_same = |one: &&mut Trial| one.server == trial.server && one.experiment == trial.experiment && one.trial == trial.trial;
    match trials.iter_mut().find(is_same) {
        Some(first) if matches!((&first.outcome, &trial.outcome), (Outcome::Found(_), Outcome::Invalid { .. })) => {}
        Some(first) => *first = trial,
        None => trials.push(trial),
    }
}

/// Before lines are added: cuts off a last line that is not complete, or completes one that lacks only its end.
fn cut_half_line(path: &Path) -> Result<()> {
    let lines = read_lines(path)?;
    let whole = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole == lines.len() {
        return Ok(());
    }
    let file = OpenOptions::new().append(true).open(path);
    let is_complete = serde_json::from_slice::<Trial>(&lines[whole..]).is_ok();
    let mend = |mut file: File| if is_complete { file.write_all(b"\n") } else { file.set_len(whole as u64) };
    file.and_then(mend).with_context(|| format!("cannot repair {}", path.display()))
}

/// Now, in UTC, by RFC 3339: as text such instants sort by time.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::header::Settings;
    use super::*;
    use crate::experiment::Choices;
    use crate::measure::Mode;

    pub fn header(mode: Mode) -> Header {
        Header {
            schema: SCHEMA,
            started: now(),
            finished: None,
            command: vec!["stallbench".into()],
            settings: Settings::new(mode, &[], &Choices::default(), 1).unwrap(),
            environment: Environment::here(),
            resumed: Vec::new(),
            servers: Vec::new(),
        }
    }

    fn trial(number: u32) -> Trial {
        let outcome = Outcome::Invalid { reason: "made up".into() };
        Trial { server: "a-b".into(), experiment: "x".into(), trial: number, seed: 1, at_s: 0.0, steal: 0.0, outcome, line: 0 }
    }

    /// The line of the second trial.
    fn another(first: &str) -> String {
        first.replace(r#""trial":1"#, r#""trial":2"#)
    }

    fn round(base: &Path) -> Round {
        let mut round = Round::create(&base.join("r"), header(Mode::Quick)).unwrap();
        round.add(trial(1)).unwrap();
        round
    }

    #[test]
    fn keeps_what_was_added_and_refuses_to_overwrite() {
        let base = tempfile::tempdir().unwrap();
        let round = round(base.path());
        let again = Round::open(&round.folder).unwrap();
        assert!(again.of("a-b", "x", 1).is_some() && again.of("a-b", "x", 2).is_none());
        assert!(matches!(&again.trials[0].outcome, Outcome::Invalid { reason } if reason == "made up"));
        assert!(Round::create(&round.folder, header(Mode::Quick)).unwrap_err().to_string().contains("never overwritten"));
    }

    #[test]
    fn a_trial_that_was_taken_again_counts_instead_of_the_first_which_stays_on_disk() {
        let base = tempfile::tempdir().unwrap();
        let mut round = round(base.path());
        round.add(Trial { steal: 0.5, ..trial(1) }).unwrap();
        let again = Round::open(&round.folder).unwrap();
        for one in [&round, &again] {
            assert_eq!(one.trials.iter().map(|trial| trial.steal).collect::<Vec<_>>(), [0.5]);
        }
        assert_eq!(fs::read_to_string(round.folder.join(TRIALS)).unwrap().lines().count(), 2);
    }

    #[test]
    fn a_second_attempt_that_found_nothing_does_not_replace_what_the_first_one_found() {
        let base = tempfile::tempdir().unwrap();
        let mut round = Round::create(&base.path().join("r"), header(Mode::Quick)).unwrap();
        round.add(Trial { outcome: Outcome::Found(serde_json::json!({ "run": 1 })), ..trial(1) }).unwrap();
        round.add(trial(1)).unwrap();
        for one in [&round, &Round::open(&round.folder).unwrap()] {
            assert!(matches!(&one.trials[..], [Trial { outcome: Outcome::Found(_), .. }]), "{:?}", one.trials);
        }
    }

    #[test]
    fn reading_a_round_that_is_being_written_changes_nothing_and_loses_nothing() {
        let base = tempfile::tempdir().unwrap();
        let round = round(base.path());
        let path = round.folder.join(TRIALS);
        let whole = fs::read_to_string(&path).unwrap();
        let half = format!("{whole}{}", &whole[..whole.len() / 2]);
        fs::write(&path, &half).unwrap();
        assert_eq!(Round::open(&round.folder).unwrap().trials.len(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), half, "reading wrote");
        // A whole line without its end is a whole line.
        let unended = format!("{whole}{}", another(&whole).trim_end());
        fs::write(&path, &unended).unwrap();
        assert_eq!(Round::open(&round.folder).unwrap().trials.len(), 2);
        assert_eq!(fs::read_to_string(&path).unwrap(), unended, "reading wrote");
    }

    #[test]
    fn a_resumed_round_drops_half_a_line_and_keeps_one_that_lacks_only_its_end() {
        for (cut, kept) in [(10, 2), (1, 3)] {
            let base = tempfile::tempdir().unwrap();
            let mut round = round(base.path());
            let path = round.folder.join(TRIALS);
            let whole = fs::read_to_string(&path).unwrap();
            fs::write(&path, format!("{whole}{}", &another(&whole)[..whole.len() - cut])).unwrap();
            round = Round::open(&round.folder).unwrap();
            round.resume().unwrap();
            round.add(trial(3)).unwrap();
            assert_eq!(Round::open(&round.folder).unwrap().trials.len(), kept);
        }
    }

    #[test]
    fn a_line_that_is_cut_within_a_character_is_dropped_as_any_other() {
        let base = tempfile::tempdir().unwrap();
        let mut round = round(base.path());
        let path = round.folder.join(TRIALS);
        let whole = fs::read(&path).unwrap();
        let half = r#"{"server": "a-b", "outcome": {"reason": "40 µ"#.as_bytes();
        fs::write(&path, [whole.as_slice(), &half[..half.len() - 1]].concat()).unwrap();
        assert!(String::from_utf8(fs::read(&path).unwrap()).is_err());
        round = Round::open(&round.folder).unwrap();
        assert_eq!(round.trials.len(), 1);
        round.resume().unwrap();
        round.add(trial(2)).unwrap();
        assert_eq!(Round::open(&round.folder).unwrap().trials.len(), 2);
    }

    #[test]
    fn a_round_is_not_resumed_on_another_machine() {
        let base = tempfile::tempdir().unwrap();
        let mut round = round(base.path());
        round.header.environment.kernel = "2.4.0".into();
        let error = round.resume().unwrap_err().to_string();
        assert!(error.contains("another machine (its kernel differs)"), "{error}");
    }

    #[test]
    fn foreign_and_newer_rounds_are_refused_with_file_and_line() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("r");
        assert!(Round::open(&folder).unwrap_err().to_string().contains("is not a round"));
        Round::create(&folder, header(Mode::Quick)).unwrap();
        fs::write(folder.join(TRIALS), "{}\n").unwrap();
        assert!(Round::open(&folder).unwrap_err().to_string().ends_with("trials.jsonl:1"));
        fs::write(folder.join(HEADER), r#"{"schema": 99}"#).unwrap();
        assert!(Round::open(&folder).unwrap_err().to_string().contains("schema 99"));
    }
}
