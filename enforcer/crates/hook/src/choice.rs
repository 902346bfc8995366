//! Which policy a hook without a launcher judges by: `--policy`, `ENFORCER_POLICY`, the project's own, the machine's, the one
//! that comes along.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

use enforcer_policy::Sources;
use enforcer_policy_files::{policy_file, rule_files, shipped::default_policy};

/// The variable that names a policy.
pub const VARIABLE: &str = "ENFORCER_POLICY";
/// A project's own policy, below its directory.
pub const PROJECT: &str = ".enforcer/policy.json";

/// The policy's file and its texts.
///
/// # Errors
///
/// In words, with the mend: there is none, or it cannot be used.
pub fn read(flag: Option<&Path>, projects: &[PathBuf]) -> Result<(PathBuf, Sources), String> {
    let named = env::var_os(VARIABLE).filter(|name| !name.is_empty());
    let mut own = None;
    let file = match (flag, named) {
        (Some(flag), _) => flag.to_owned(),
        (None, Some(named)) => PathBuf::from(named),
        (None, None) => match project(projects)? {
            Some(file) => own.insert(file).clone(),
            None => default_policy(),
        },
    };
    let texts = policy_file::sources(&file, None).map_err(|error| error.to_string())?;
    if let Some(policy) = own {
        // What it includes is as much its own.
        for file in rule_files::files(&policy, &texts).iter().skip(1) {
            trusted(file.parent().unwrap_or(file), file)?;
        }
    }
    Ok((file, texts))
}

/// A project's own policy. It is refused where somebody else could have put it there.
fn project(projects: &[PathBuf]) -> Result<Option<PathBuf>, String> {
    for project in projects {
        let file = project.join(PROJECT);
        let directory = file.parent().unwrap_or(project);
        trusted(directory, &file)?;
        if file.exists() {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// Refuses a file, or its directory, where somebody else could have put it there.
fn trusted(directory: &Path, file: &Path) -> Result<(), String> {
    for path in [directory, file] {
        let Ok(metadata) = fs::symlink_metadata(path) else {
            continue;
        };
        let how = if metadata.file_type().is_symlink() {
            "is a symbolic link"
        } else if metadata.uid() != geteuid().as_raw() && metadata.uid() != 0 {
            "belongs to another user"
        } else if metadata.mode() & 0o002 != 0 {
            "can be written by everyone"
        } else {
            continue;
        };
        return Err(format!(
            "The project's policy cannot be trusted: {} {how}; put the file itself there, or name another with \
             --policy",
            path.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
