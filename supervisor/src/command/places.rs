//! Where the paths of a file lead that is converted to another one.

use anyhow::Result;
use std::path::{Path, PathBuf};
use toml::{Table, Value as Toml};

/// Where the two files are, since paths in each are relative to its folder.
pub struct Places {
    /// The folder of PM2's file.
    pub folder: PathBuf,
    /// The other file is in another folder.
    pub is_elsewhere: bool,
}

impl Places {
    /// Whose paths these are.
    ///
    /// # Errors
    /// Fails if there is no current folder.
    pub fn new(file: &Path, output: Option<&Path>) -> Result<Self> {
        let folder =
            |path: &Path| Ok::<_, std::io::Error>(std::path::absolute(path)?.parent().map(Path::to_owned).unwrap_or_default());
        let (from, to) = (folder(file)?, folder(output.unwrap_or(Path::new("supervisor.toml")))?);
        Ok(Places { is_elsewhere: from != to, folder: from })
    }

    /// Makes the paths of an app relative to the new file, or absolute. To PM2, they are relative to the app's working directory.
    pub fn place(&self, table: &mut Table) {
        let text = |table: &Table, key: &str| table.get(key).and_then(Toml::as_str).map(PathBuf::from);
        let base = if self.is_elsewhere { self.folder.clone() } else { PathBuf::new() };
        let base = text(table, "cwd").map_or(base.clone(), |cwd| base.join(cwd));
        if text(table, "cwd").is_some() || self.is_elsewhere {
            table.insert("cwd".into(), Toml::String(base.display().to_string()));
        }
        for key in ["start", "env-file", "log", "output", "error"] {
            let Some(path) = text(table, key) else { continue };
            let placed = base.join(&path);
            // What is not a file there is a command.
            if key != "start" || self.folder.join(&placed).is_file() {
                table.insert(key.into(), Toml::String(placed.display().to_string()));
            }
        }
    }
}
