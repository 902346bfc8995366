//! Which policy a hook without a launcher judges by: `--policy`, `ENFORCER_POLICY`, the project's own, the machine's.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

use crate::policy_file;

/// The variable that names a policy.
pub const VARIABLE: &str = "ENFORCER_POLICY";
/// A project's own policy, below its directory.
pub const PROJECT: &str = ".enforcer/policy.json";
/// The machine's.
pub const MACHINE: &str = "/etc/enforcer/policies/coding-agent.json";

/// The policy's file and its text.
///
/// # Errors
///
/// In words, with the mend: there is none, or it cannot be used.
pub fn read(flag: Option<&Path>, projects: &[PathBuf]) -> Result<(PathBuf, String), String> {
    let named = env::var_os(VARIABLE).filter(|name| !name.is_empty());
    let file = match (flag, named) {
        (Some(flag), _) => flag.to_owned(),
        (None, Some(named)) => PathBuf::from(named),
        (None, None) => match project(projects)? {
            Some(own) => own,
            None if Path::new(MACHINE).exists() => PathBuf::from(MACHINE),
            None => {
                return Err(format!(
                    "There is no policy: name one with --policy or {VARIABLE}, or install it as {PROJECT} in the \
                     project or as {MACHINE}"
                ));
            }
        },
    };
    let bytes = policy_file::read(&file, None).map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes)
        .map_err(|_| format!("policy {} is not UTF-8; save it as UTF-8", file.display()))?;
    Ok((file, text))
}

/// A project's own policy. It is refused where somebody else could have put it there.
fn project(projects: &[PathBuf]) -> Result<Option<PathBuf>, String> {
    for project in projects {
        let file = project.join(PROJECT);
        let directory = file.parent().unwrap_or(project);
        for path in [directory, file.as_path()] {
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
        if file.exists() {
            return Ok(Some(file));
        }
    }
    Ok(None)
}
