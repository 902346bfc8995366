//! Where things lie in the repository.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The repository's top directory.
///
/// cargo names the xtask's manifest directory when it runs us; a binary started by hand was built there.
pub fn repository() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        manifest
            .parent()
            .map_or(manifest.clone(), Path::to_path_buf)
    })
}

/// `target/`, whatever `CARGO_TARGET_DIR` says: documents and tests name files below it.
pub fn target() -> PathBuf {
    repository().join("target")
}
