//! The files of the daemon: the state, which it leaves to the next one, the specifications of the apps, and the saved apps. Each is replaced as a whole.

use crate::control::Event;
use crate::core::{Dump, Found, Saved, Version};
use crate::home::{Home, LONGEST_LOG, rename_durably, replace, replace_durably};
use crate::keeper::rotated;
use crate::proc::boot_id;
use crate::spec::Spec;
use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Version of the files' format. An older one can be read: what it does not have takes its default.
const SCHEMA: u32 = 2;

/// A state takes a multiple of this on the disk, and has at least as much left, in bytes: the next one is longer, perhaps.
const SPARE: usize = 8192;

/// A file's content, with the version of its format.
#[derive(Serialize)]
struct File<'c, C> {
    schema: u32,
    #[serde(flatten)]
    content: &'c C,
}

/// The version of a file's format. The first version of specifications and saved apps did not have it.
#[derive(Deserialize)]
struct Format {
    #[serde(default)]
    schema: u32,
}

/// The state file.
#[derive(Serialize, Deserialize)]
struct State {
    /// Process ids of another boot are meaningless.
    boot_id: String,
    #[serde(flatten)]
    saved: Saved,
}

fn bytes(content: &impl Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&File { schema: SCHEMA, content })?)
}

fn read<C: DeserializeOwned>(path: &Path) -> Result<C> {
    let what = || format!("cannot read {}", path.display());
    let text = fs::read(path).with_context(what)?;
    let format: Format = serde_json::from_slice(&text).with_context(what)?;
    if format.schema > SCHEMA {
        bail!("{}: it has schema {}, and this program knows those up to {SCHEMA}", what(), format.schema);
    }
    serde_json::from_slice(&text).with_context(what)
}

/// Writes the state file.
///
/// # Errors
/// Fails if the file cannot be written, for example because the disk is full.
pub fn save(saved: Saved, home: &Home) -> Result<()> {
    put(&State { boot_id: boot_id(), saved }, home)
}

fn put(state: &State, home: &Home) -> Result<()> {
    let mut content = bytes(state)?;
    content.resize((content.len() + SPARE).next_multiple_of(SPARE), b' ');
    let Err(error) = replace(&home.state(), &content) else {
        // Without it, nothing is saved on a full disk.
        let _ = reserve(home, content.len());
        return Ok(());
    };
    exchange(home, content).map_err(|_| error)
}

/// Keeps a file that has room for the state, so that what is stopped on a full disk stays so: that may be what fills it.
fn reserve(home: &Home, length: usize) -> io::Result<()> {
    let path = home.spare();
    if fs::metadata(&path).is_ok_and(|spare| spare.len() >= length as u64) {
        return Ok(());
    }
    let mut spare = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    spare.write_all(&vec![b' '; length])
}

/// Writes the state over the file that is kept for it, and keeps the other one for the next time: none of that needs room, but on a disk that copies what
/// is written anew. Behind the state, there is white space.
fn exchange(home: &Home, mut content: Vec<u8>) -> Result<()> {
    let mut spare = fs::OpenOptions::new().write(true).open(home.spare())?;
    let room = usize::try_from(spare.metadata()?.len())?;
    let used = content.trim_ascii_end().len();
    anyhow::ensure!(used <= room, "no room is kept");
    content.resize(room, b' ');
    spare.write_all(&content)?;
    // Or the name could outlive the content.
    spare.sync_data()?;
    if home.state().exists() {
        renameat_with(CWD, home.spare(), CWD, home.state(), RenameFlags::EXCHANGE)?;
    } else {
        fs::rename(home.spare(), home.state())?;
    }
    Ok(())
}

/// Lets the next supervisor start nothing of what the last one has left. Does nothing while one runs.
///
/// # Errors
/// Fails if the file cannot be written, for example because the disk is full.
pub fn rest(home: &Home) -> Result<()> {
    let lock = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(home.alive());
    let lock = lock.with_context(|| home.alive().display().to_string())?;
    // What cannot be read is not started either.
    if let (Ok(()), Ok(mut state)) = (lock.try_lock(), read::<State>(&home.state())) {
        state.saved.rest();
        put(&state, home)?;
    }
    Ok(())
}

/// Removes the state file: after a requested end, the next daemon has nothing to resume.
pub fn forget(home: &Home) {
    let _ = fs::remove_file(home.state());
}

/// Reads what the last daemon has left. A state file that cannot be read is renamed.
pub fn load(home: &Home) -> Found {
    let mut found = Found { is_same_boot: true, ..Found::default() };
    (found.specs, found.undone) = specs(home);
    let path = home.state();
    if !path.exists() {
        return found;
    }
    match read::<State>(&path) {
        Ok(state) => {
            found.is_same_boot = state.boot_id == boot_id();
            found.saved = state.saved;
            found.saved.retain_processes(|process| process.is_alive());
            found.is_known = true;
        }
        Err(error) => {
            let aside = path.with_extension("json.broken");
            let _ = fs::rename(&path, &aside);
            found.trouble = Some(format!(
                "{error:#}; it was renamed to {}, and the list may be incomplete: run `supervisor resurrect` for the saved apps",
                aside.display()
            ));
        }
    }
    found
}

/// Reads all specifications; removes those that a reload of the last daemon was trying out, and returns the names of their apps.
fn specs(home: &Home) -> (BTreeMap<String, Result<Spec, String>>, BTreeSet<String>) {
    let (mut specs, mut undone) = (BTreeMap::new(), BTreeSet::new());
    for path in fs::read_dir(home.specs()).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let (Some(name), Some(ending)) = (path.file_stem().and_then(|name| name.to_str()), path.extension()) else { continue };
        if ending == "json" {
            specs.insert(name.to_owned(), read(&path).map_err(|error| format!("{error:#}")));
        } else {
            undone.extend((path == home.next_spec(name)).then(|| name.to_owned()));
            let _ = fs::remove_file(&path);
        }
    }
    (specs, undone)
}

fn path(home: &Home, name: &str, version: Version) -> PathBuf {
    match version {
        Version::Current => home.spec(name),
        Version::Next => home.next_spec(name),
    }
}

/// Writes a specification, so that it survives a power loss.
///
/// # Errors
/// Fails if the file cannot be written, for example because the disk is full.
pub fn write(spec: &Spec, version: Version, home: &Home) -> Result<()> {
    replace_durably(&path(home, &spec.name, version), &bytes(spec)?)
}

/// Writes a specification again if its file is not what it should be: a process is started with what the file says. Returns whether that was something else,
/// and not only the same in the form of another version.
///
/// # Errors
/// Fails if the file cannot be written, for example because the disk is full.
pub fn repair(spec: &Spec, path: &Path) -> Result<bool> {
    let wanted = bytes(spec)?;
    if fs::read(path).is_ok_and(|found| found == wanted) {
        return Ok(false);
    }
    let is_same = read::<Spec>(path).is_ok_and(|found| found == *spec);
    replace_durably(path, &wanted)?;
    Ok(!is_same)
}

/// Makes the specification current that a reload has tried out.
///
/// # Errors
/// Fails if the file cannot be renamed.
pub fn commit(name: &str, home: &Home) -> Result<()> {
    let (next, current) = (home.next_spec(name), home.spec(name));
    rename_durably(&next, &current).with_context(|| format!("cannot write {}", current.display()))
}

/// Removes a specification.
pub fn remove(name: &str, version: Version, home: &Home) {
    let _ = fs::remove_file(path(home, name, version));
}

/// Adds to the event log, which is started anew when it has become long.
///
/// # Errors
/// Fails if the file cannot be written, for example because the disk is full.
pub fn note(event: &Event, home: &Home) -> Result<()> {
    let path = home.events();
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LONGEST_LOG) {
        fs::rename(&path, rotated(&path, 1))?;
    }
    let mut log = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    Ok(log.write_all(&line)?)
}

/// Saves the apps for `resurrect`, so that they survive a power loss; returns what was done, with the names of those that could not be saved.
///
/// # Errors
/// Fails if the file cannot be written, for example because the disk is full.
pub fn dump(dump: &Dump, unknown: &[String], home: &Home) -> Result<String> {
    let path = home.dump();
    replace_durably(&path, &bytes(dump)?)?;
    let count = if dump.apps.len() == 1 { "1 app".into() } else { format!("{} apps", dump.apps.len()) };
    let but = if unknown.is_empty() { String::new() } else { format!(", but not what is damaged: {}", unknown.join(", ")) };
    Ok(format!("saved {count} for `supervisor resurrect` in {}{but}", path.display()))
}

/// Reads the saved apps.
///
/// # Errors
/// Fails if nothing was saved, or the file cannot be read.
pub fn dumped(home: &Home) -> Result<Dump> {
    let path = home.dump();
    if !path.exists() {
        bail!("there are no saved apps: run `supervisor save` first");
    }
    read(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_first_version_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let spec: Spec = read(&put("spec", include_str!("../../tests/files/first-spec.json"))).unwrap();
        assert_eq!(spec.name, "api");
        let state: State = read(&put("state", include_str!("../../tests/files/first-state.json"))).unwrap();
        assert!(!state.boot_id.is_empty());
        let dump: Dump = read(&put("dump", include_str!("../../tests/files/first-dump.json"))).unwrap();
        assert_eq!((dump.apps[0].spec.name.as_str(), dump.apps[0].instances), ("api", 2));
    }

    #[test]
    fn a_specification_of_an_earlier_version_is_written_anew_and_is_not_called_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.json");
        fs::write(&path, include_str!("../../tests/files/first-spec.json")).unwrap();
        let spec: Spec = read(&path).unwrap();
        assert!(!repair(&spec, &path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), bytes(&spec).unwrap());
        fs::write(&path, "{").unwrap();
        assert!(repair(&spec, &path).unwrap());
        assert!(repair(&Spec { umask: spec.umask + 1, ..spec }, &path).unwrap());
    }

    #[test]
    fn a_file_of_a_later_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump.json");
        fs::write(&path, format!(r#"{{"schema":{},"apps":[]}}"#, SCHEMA + 1)).unwrap();
        let error = format!("{:#}", read::<Dump>(&path).unwrap_err());
        assert!(error.contains("this program knows those up to"), "{error}");
    }
}
