//! Files that a user names: read up to a size, since what is named may be a device or a pipe that never ends.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The longest body of a request, in MiB: each connection sends it at the same time.
pub const MOST_BODY_MIB: u64 = 64;

/// Reads a file, or what comes out of a pipe, of up to this many MiB.
///
/// # Errors
/// It cannot be read, or is longer.
pub fn read_named(path: &Path, most_mib: u64) -> Result<Vec<u8>> {
    let cannot = || format!("cannot read {}", path.display());
    let most = most_mib << 20;
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(cannot)?;
    file.take(most + 1).read_to_end(&mut bytes).with_context(cannot)?;
    if bytes.len() as u64 > most {
        bail!("{} is longer than {most_mib} MiB: name a shorter file", path.display());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_be_as_long_as_the_limit_and_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(read_named(&path, 1).unwrap().len(), 1 << 20);
        std::fs::write(&path, vec![b'x'; (1 << 20) + 1]).unwrap();
        let refused = read_named(&path, 1).unwrap_err().to_string();
        assert!(refused.ends_with("file is longer than 1 MiB: name a shorter file"), "{refused}");
        assert!(read_named(Path::new("/dev/zero"), 1).is_err());
    }
}
