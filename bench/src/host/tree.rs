//! The checkout that stallbench works on, and the folder that its results go to.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The folder of results inside a checkout, or inside a user's own folder.
const RESULTS: &str = "bench-results";

static NAMED: OnceLock<PathBuf> = OnceLock::new();

/// Works on this checkout, whatever the current directory is.
pub fn set_root(root: PathBuf) {
    let _ = NAMED.set(root);
}

/// The checkout: the one that was named, else the one that the current directory lies in, else the one that this program was built from.
pub fn root() -> PathBuf {
    if let Some(named) = NAMED.get() {
        return named.clone();
    }
    around_current().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf())
}

/// The folder for results: of the checkout, or of the current directory where that is outside.
pub fn results() -> PathBuf {
    if NAMED.get().is_some() || around_current().is_some() { root().join(RESULTS) } else { PathBuf::from(RESULTS) }
}

/// The folder of the recorded rounds of the checkout.
pub fn recorded() -> PathBuf {
    root().join(RESULTS)
}

fn around_current() -> Option<PathBuf> {
    let current = std::env::current_dir().ok()?;
    current.ancestors().find(|folder| is_checkout(folder)).map(Path::to_path_buf)
}

fn is_checkout(folder: &Path) -> bool {
    folder.join("runtimes").is_dir() && folder.join("common/src/routes.rs").is_file() && folder.join("Cargo.toml").is_file()
}
