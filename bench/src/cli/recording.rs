//! Files that other runs have written, and that are read whole.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

/// The longest file, in GiB: an hour of k6's JSON at a few hundred requests a second.
const MOST_GIB: u64 = 8;

/// A path, unless it leads to something that has no end, or to a very long file. Whether it can be read shows when it is.
pub fn recording(text: &str) -> Result<PathBuf, String> {
    if let Ok(found) = fs::metadata(text) {
        if found.file_type().is_char_device() || found.file_type().is_block_device() {
            return Err("it is a device: name a file that a run has written".into());
        }
        if found.len() > MOST_GIB << 30 {
            return Err(format!("it is longer than {MOST_GIB} GiB: record a shorter run"));
        }
    }
    Ok(PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_device_or_a_very_long_file_is_refused_and_anything_else_is_left_to_its_reader() {
        assert!(recording("/dev/zero").unwrap_err().contains("device"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        // It has a length, and takes no space.
        File::create(&path).unwrap().set_len((MOST_GIB << 30) + 1).unwrap();
        assert!(recording(&path.display().to_string()).unwrap_err().contains("longer than 8 GiB"));
        for fine in ["/no-such-file", "Cargo.toml"] {
            assert_eq!(recording(fine), Ok(fine.into()));
        }
    }
}
