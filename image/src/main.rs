//! The program `zerobridge-image`: the four programs become an image, with a list of what is linked into them.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use clap::Parser;
use thiserror::Error;
use zerobridge_image::contents::{self, Documents, PACKAGES, PROGRAMS, REPOSITORY};
use zerobridge_image::crates::{self, CratesError, Linked};
use zerobridge_image::notices::{self, NoticeError};
use zerobridge_image::sbom::{self, Subject};
use zerobridge_image::{Image, LayoutError, TreeError};
use zerobridge_proto::chain;

/// Makes the container image of Zerobridge, an OCI image layout in a tar archive, without a container engine.
#[derive(Clone, Debug, Parser)]
#[command(name = "zerobridge-image", version)]
struct Cli {
    /// The folder of the release builds, which are linked statically
    #[arg(long, value_name = "DIR")]
    programs: PathBuf,
    /// Where zerobridge.tar and zerobridge.spdx.json go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Write the image's files below this folder, too, for a container engine that makes an image of them
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The checkout that the programs were built from
    #[arg(long, value_name = "DIR", default_value = ".")]
    source: PathBuf,
    /// For which the programs were built
    #[arg(long, value_name = "TRIPLE", default_value = "x86_64-unknown-linux-gnu")]
    target: String,
    /// Which commit was built
    #[arg(long, value_name = "COMMIT")]
    revision: Option<String>,
    /// When that commit was made, as RFC 3339 has it in UTC
    #[arg(long, value_name = "TIME", default_value = "1970-01-01T00:00:00Z")]
    created: String,
}

/// What keeps it from making an image.
#[derive(Debug, Error)]
enum Failure {
    /// Something that goes into the image.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A program that needs libraries, of which the image has none.
    #[error("{} is not linked statically; build it with `make build`", path.display())]
    Dynamic { path: PathBuf },
    /// What comes out.
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// Cargo cannot be started.
    #[error("cannot start cargo {arguments}")]
    Start { arguments: String, source: io::Error },
    /// Cargo failed.
    #[error("cargo {arguments} ended with {status}")]
    Cargo { arguments: String, status: ExitStatus },
    /// The version of SQLite.
    #[error("{} does not say which SQLite it is of", path.display())]
    Sqlite { path: PathBuf },
    /// The list of crates.
    #[error(transparent)]
    Crates(#[from] CratesError),
    /// Their licences.
    #[error(transparent)]
    Notices(#[from] NoticeError),
    /// The list as a document.
    #[error("cannot write the list of linked crates")]
    Sbom(#[from] serde_json::Error),
    /// The files of the image.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The image.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

fn main() -> ExitCode {
    match make(&Cli::parse()) {
        Ok(said) => match io::stdout().write_all(said.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(failure) => {
            // If even this cannot be written, the exit code still says it.
            let _ = writeln!(io::stderr(), "zerobridge-image: {}", chain(&failure));
            ExitCode::FAILURE
        }
    }
}

fn make(cli: &Cli) -> Result<String, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let crates = linked(cli)?;
    let sbom = sbom_of(cli, version, &crates)?;
    let [zerobridge, ipam, device_plugin, zbctl] = PROGRAMS.map(|name| program(&cli.programs.join(name)));
    let root = contents::tree(
        [zerobridge?, ipam?, device_plugin?, zbctl?],
        Documents {
            licence: read(&cli.source.join("LICENSE"))?,
            notices: notices::document(&crates)?.into_bytes(),
            sbom: sbom.clone(),
        },
    );
    if let Some(folder) = &cli.root {
        root.write(folder)?;
    }
    let name = format!("{REPOSITORY}:{version}");
    let config = contents::config(version, cli.revision.as_deref());
    let image = Image { name: &name, config, created: Some(&cli.created), root: &root };
    let archive = image.archive()?;
    let mut said = String::new();
    for (file, content) in [("zerobridge.tar", &archive), ("zerobridge.spdx.json", &sbom)] {
        let path = cli.out.join(file);
        write(&path, content)?;
        said.push_str(&format!("{}: {} bytes\n", path.display(), content.len()));
    }
    said.push_str(&format!("{name}, {} crates linked\n", crates.len()));
    Ok(said)
}

fn linked(cli: &Cli) -> Result<Vec<Linked>, Failure> {
    let mut tree = vec!["tree", "--locked", "--no-dedupe", "--prefix", "none", "--format", "{p}"];
    tree.extend(["--edges", "normal,no-proc-macro", "--target", &cli.target]);
    tree.extend(PACKAGES.iter().flat_map(|package| ["-p", package]));
    let tree = cargo(&cli.source, &tree)?;
    let metadata = cargo(
        &cli.source,
        &["metadata", "--locked", "--format-version", "1", "--filter-platform", &cli.target],
    )?;
    let lock = read(&cli.source.join("Cargo.lock"))?;
    Ok(crates::linked(&String::from_utf8_lossy(&tree), &metadata, &String::from_utf8_lossy(&lock))?)
}

fn sbom_of(cli: &Cli, version: &str, crates: &[Linked]) -> Result<Vec<u8>, Failure> {
    let header = sbom::sqlite_header(crates).unwrap_or_default();
    let text = String::from_utf8_lossy(&read(&header)?).into_owned();
    let sqlite = sbom::sqlite_version(&text).ok_or(Failure::Sqlite { path: header })?;
    let subject = Subject { version, created: &cli.created, programs: &PACKAGES, sqlite };
    Ok(sbom::document(&subject, crates)?)
}

fn cargo(source: &Path, arguments: &[&str]) -> Result<Vec<u8>, Failure> {
    // Cargo itself says which one it is to what it runs.
    let program = std::env::var_os("CARGO");
    let program = program.as_deref().unwrap_or(OsStr::new("cargo"));
    let output = Command::new(program)
        .args(arguments)
        .current_dir(source)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| Failure::Start { arguments: arguments.join(" "), source })?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(Failure::Cargo { arguments: arguments.join(" "), status: output.status }),
    }
}

fn program(path: &Path) -> Result<Vec<u8>, Failure> {
    let content = read(path)?;
    if names_an_interpreter(&content) { Err(Failure::Dynamic { path: path.to_owned() }) } else { Ok(content) }
}

/// Whether an ELF file of 64 bits asks for a dynamic linker (`PT_INTERP`; elf(5)). What is no such file does, too.
fn names_an_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, size: usize| -> Option<u64> {
        let bytes = elf.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let look = || -> Option<bool> {
        if elf.get(..5)? != b"\x7fELF\x02" {
            return None;
        }
        let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        for index in 0..count {
            let at = usize::try_from(table + index * size).ok()?;
            if number(at, 4)? == PT_INTERP {
                return Some(true);
            }
        }
        Some(false)
    };
    look().unwrap_or(true)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|source| Failure::Read { path: path.to_owned(), source })
}

fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(path, content))
        .map_err(|source| Failure::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_needs_libraries_is_told_from_one_that_does_not() {
        // This test is linked dynamically.
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(names_an_interpreter(&own));
        let mut without = own;
        let at = usize::try_from(u64::from_le_bytes(without[32..40].try_into().unwrap())).unwrap();
        let size = usize::from(u16::from_le_bytes([without[54], without[55]]));
        for index in 0..usize::from(u16::from_le_bytes([without[56], without[57]])) {
            let kind = at + index * size;
            if without[kind] == 3 {
                without[kind] = 0;
            }
        }
        assert!(!names_an_interpreter(&without));
        assert!(names_an_interpreter(b"#!/bin/sh"));
    }
}
