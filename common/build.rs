//! Passes build facts on to the receipt: the compiler, its flags, and the locked version of every package.

use std::{env, fs, path::Path, process::Command};

fn main() {
    let lock = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../Cargo.lock");
    println!("cargo:rerun-if-changed={}", lock.display());
    println!("cargo:rerun-if-env-changed=RUSTFLAGS");

    let rustc = env::var("RUSTC").expect("set by cargo");
    let version = Command::new(rustc).arg("--version").output().expect("the compiler runs");
    println!("cargo:rustc-env=RECEIPT_COMPILER={}", String::from_utf8_lossy(&version.stdout).trim());
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default().replace('\u{1f}', " ");
    println!("cargo:rustc-env=RECEIPT_RUSTFLAGS={flags}");
    println!("cargo:rustc-env=RECEIPT_PROFILE={}", env::var("PROFILE").expect("set by cargo"));
    println!("cargo:rustc-env=RECEIPT_TARGET={}", env::var("TARGET").expect("set by cargo"));

    let lock = fs::read_to_string(lock).expect("the workspace has a Cargo.lock");
    let table = locked_packages(&lock);
    let out = Path::new(&env::var("OUT_DIR").expect("set by cargo")).join("locked.rs");
    fs::write(out, format!("&{table:?}")).expect("OUT_DIR is writable");
}

/// The `(name, version)` of every package in a `Cargo.lock`.
fn locked_packages(lock: &str) -> Vec<(&str, &str)> {
    let field = |block: &'_ str, key: &str| -> Option<(usize, usize)> {
        let from = block.find(&format!("\n{key} = \""))? + key.len() + 5;
        Some((from, from + block[from..].find('"')?))
    };
    lock.split("[[package]]")
        .filter_map(|block| {
            let (name, version) = (field(block, "name")?, field(block, "version")?);
            Some((&block[name.0..name.1], &block[version.0..version.1]))
        })
        .collect()
}
