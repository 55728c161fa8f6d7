//! The house holds: rooms import one way, experiments and servers are named in their own files only, and no file is too long to read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, each importing only from those before it.
const ROOMS: [&str; 24] = [
    "console",
    "host",
    "http",
    "catalog",
    "stats",
    "metrics",
    "load",
    "process",
    "driver",
    "validity",
    "measure",
    "report",
    "experiment",
    "round",
    "verdict",
    "summary",
    "page",
    "scale_out",
    "contract",
    "selftest",
    "cli",
    "cmd",
    "stage",
    "lib",
];

fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    files
}

/// The first folder, or the file, below `src`.
fn room(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    inside.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The part of a file that is not its tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text).split("#[cfg(test)]\npub").next().unwrap_or(text)
}

#[test]
fn rooms_import_one_way() {
    let order: BTreeMap<&str, usize> = ROOMS.iter().enumerate().map(|(at, room)| (*room, at)).collect();
    for (path, text) in sources() {
        let room = room(&path);
        if room == "main" || path.ends_with("driver/tests.rs") {
            continue;
        }
        let own = *order.get(room.as_str()).unwrap_or_else(|| panic!("{} is in no room", path.display()));
        for part in code(&text).split("crate::").skip(1) {
            let other: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(theirs) = order.get(other.as_str()) else { continue };
            assert!(*theirs <= own, "{} imports from {other}, which comes later", path.display());
        }
    }
}

#[test]
fn no_server_is_named_in_the_code_of_the_harness() {
    let listed = std::process::Command::new(env!("CARGO_BIN_EXE_stallbench")).args(["servers", "--json"]).output().unwrap();
    let servers: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let names: Vec<&str> = servers.as_array().unwrap().iter().map(|server| server["name"].as_str().unwrap()).collect();
    for (path, text) in sources() {
        // Stored trials of known answer are those of certain servers.
        if path.ends_with("selftest/answers.rs") {
            continue;
        }
        let in_code = code(&text).lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        // Help texts give examples.
        for name in names.iter().filter(|_| !path.ends_with("cmd/ab.rs")) {
            assert!(!in_code.contains(&format!("\"{name}\"")), "{} names {name}", path.display());
        }
    }
}

#[test]
fn no_file_is_longer_than_four_hundred_lines() {
    for (path, text) in sources() {
        assert!(text.lines().count() <= 400, "{} has {} lines", path.display(), text.lines().count());
    }
}

/// The pages of the project, without those that are generated.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (mut pages, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() && !name.starts_with('.') && !["target", "node_modules", "bench-results"].contains(&name.as_str()) {
                folders.push(path);
            } else if name.ends_with(".md") {
                pages.push(path);
            }
        }
    }
    pages
}

#[test]
fn every_file_that_a_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut named = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let is_source = |word: &&str| {
            let is_path = word.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c)) && !word.starts_with(['/', '.']);
            is_path && word.contains('/') && [".rs", ".toml", ".md", ".cjs"].iter().any(|ending| word.ends_with(ending))
        };
        for word in text.split('`').skip(1).step_by(2).filter(is_source) {
            // A path without its first folder here is one of a folder that the reader makes.
            let first = word.split('/').next().unwrap();
            let folders: Vec<&Path> =
                [root, page.parent().unwrap()].into_iter().filter(|folder| folder.join(first).exists()).collect();
            let is_there = folders.is_empty() || folders.iter().any(|folder| folder.join(word).exists());
            assert!(is_there, "{} names {word}, which does not exist", page.display());
            named += usize::from(!folders.is_empty());
        }
    }
    assert!(named > 20, "only {named} were found");
}
