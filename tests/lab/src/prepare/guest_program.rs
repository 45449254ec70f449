//! `lab-guest`, built from this checkout: the program that the guest starts first.

use std::fs;
use std::path::Path;

use super::PrepareError;
use super::cache::{Cache, CacheError, Entry, Key};
use super::checkout;
use super::host::HostCommand;

const PROGRAM: &str = "lab-guest";
/// What the program is made of, below the checkout.
const FOLDERS: [&str; 2] = ["tests/guest", "proto"];
const FILES: [&str; 3] = ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml"];

/// A folder with `lab-guest`.
pub(crate) fn prepare(cache: &Cache) -> Result<Entry, PrepareError> {
    let checkout = checkout();
    let mut key = Key::new();
    for folder in FOLDERS {
        key = key.with_folder(&checkout.join(folder))?;
    }
    for file in FILES {
        let path = checkout.join(file);
        key = key.with(file, fs::read(&path).map_err(CacheError::file("read", &path))?);
    }
    // A target folder of its own: this runs below `cargo test`, which may hold the lock of the usual one.
    let target = cache.root().join("cargo-target");
    cache.entry("guest", &key, |folder| {
        build(checkout, &target)?;
        let path = folder.join(PROGRAM);
        fs::copy(target.join("release").join(PROGRAM), &path).map_err(CacheError::file("write", &path))?;
        Ok(())
    })
}

fn build(checkout: &Path, target: &Path) -> Result<(), PrepareError> {
    HostCommand::new("cargo")
        .args(["build", "--locked", "--release", "--package", "zerobridge-lab-guest"])
        // The shipped programs' whole-program optimisation would cost a minute here and buy nothing.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_TARGET_DIR", target)
        .folder(checkout)
        .run()?;
    Ok(())
}
