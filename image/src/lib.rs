//! Container images without a container engine: a tree of files becomes an OCI image layout in a tar archive, the same bytes
//! for the same files on every machine.
//!
//! `tree` holds the files, `layout` the format, `crates`, `sbom` and `notices` say what is linked into the programs and on whose terms,
//! and `contents` says what Zerobridge's own image has. Refuses to build the programs, and to talk to a registry.
#![forbid(unsafe_code)]

pub mod contents;
pub mod crates;
mod layout;
pub mod notices;
pub mod sbom;
mod tree;

pub use layout::{Image, LayoutError};
pub use tree::{Tree, TreeError};
