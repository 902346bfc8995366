//! The environment that an agent starts with: its caller's, where its user can use it.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::ErrorKind,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use nix::unistd::{Uid, User, getppid};

use super::{Identity, LaunchError, Origin, privilege::with_eyes_of};

/// Variables of our own, which the agent does not get.
const OWN_VARIABLES: &str = "ENFORCER_";
/// Where programs of a user's own lie, below the home directory, as login shells have it.
const OWN_PROGRAMS: [&str; 2] = [".local/bin", "bin"];
/// Programs that start others as root with a new environment, and do not go away meanwhile.
const CLEANERS: [&str; 3] = ["sudo", "sudo-rs", "doas"];

/// A variable that the operator wants the agent to have (`--env`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedVariable {
    /// Its name.
    pub name: String,
    /// Its value; `None`: the caller's, also where `sudo` has taken it out.
    pub value: Option<OsString>,
}

impl WantedVariable {
    /// Reads `NAME` or `NAME=VALUE`.
    ///
    /// # Errors
    /// In words: why it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (text, None),
        };
        let is_name = |name: &str| {
            !name.starts_with(|c: char| c.is_ascii_digit())
                && !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if !is_name(name) {
            return Err("write NAME, or NAME=VALUE".to_owned());
        }
        if name.starts_with(OWN_VARIABLES) {
            return Err(format!(
                "variables {OWN_VARIABLES}… are for enforcer itself"
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            value,
        })
    }
}

/// The agent's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Names and values.
    pub variables: Vec<(OsString, OsString)>,
    /// Variables that were wanted and that the caller does not have.
    pub missing: Vec<String>,
}

impl Environment {
    /// What the caller has (`variables`), without our own variables, and what is `wanted` besides. Where the agent is
    /// another user than the caller, root's own home, name and shell are replaced by that user's, because nothing that the
    /// agent runs could use them; directories of `PATH` that the user cannot enter are left out, and the user's own are put
    /// in front, as a login would.
    ///
    /// # Errors
    /// The user's eyes cannot be had.
    pub fn of(
        identity: &Identity,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        wanted: &[WantedVariable],
    ) -> Result<Self, LaunchError> {
        let current = Uid::effective();
        let changed = identity.uid != current.as_raw();
        let caller = User::from_uid(current).ok().flatten().filter(|_| changed);
        let mut kept = Vec::new();
        for (name, value) in variables {
            if name.as_bytes().starts_with(OWN_VARIABLES.as_bytes()) {
                continue;
            }
            let value = match &caller {
                Some(caller) => replaced(identity, caller, &name, value),
                None => value,
            };
            let value = if changed && name == "PATH" {
                path_of(identity, &value)?
            } else {
                value
            };
            kept.push((name, value));
        }
        let mut missing = Vec::new();
        let cleaned = cleaned_away(identity.origin);
        for want in wanted {
            let name = OsStr::new(&want.name);
            let has = |list: &[(OsString, OsString)]| {
                let found = list.iter().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone())
            };
            match want
                .value
                .clone()
                .or_else(|| has(&kept))
                .or_else(|| has(&cleaned))
            {
                Some(value) => {
                    kept.retain(|(known, _)| known != name);
                    kept.push((name.to_owned(), value));
                }
                None => missing.push(want.name.clone()),
            }
        }
        Ok(Self {
            variables: kept,
            missing,
        })
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        let found = self.variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_os_str())
    }
}

/// A value, or the agent's own where it is the caller's own.
fn replaced(identity: &Identity, caller: &User, name: &OsStr, value: OsString) -> OsString {
    let (callers, ours): (&OsStr, OsString) = match name.to_str() {
        Some("HOME") => (caller.dir.as_os_str(), identity.home.clone().into()),
        Some("SHELL") => (caller.shell.as_os_str(), identity.shell.clone().into()),
        Some("USER" | "LOGNAME" | "USERNAME") => {
            (OsStr::new(&caller.name), identity.display_name().into())
        }
        _ => return value,
    };
    if callers == value { ours } else { value }
}

/// A `PATH` for the user: without directories that it cannot enter (a search there fails, and not as one of a directory that
/// is not there), with its own.
fn path_of(identity: &Identity, path: &OsStr) -> Result<OsString, LaunchError> {
    let given: Vec<&OsStr> = path
        .as_bytes()
        .split(|byte| *byte == b':')
        .map(OsStr::from_bytes)
        .collect();
    let own: Vec<PathBuf> = OWN_PROGRAMS
        .iter()
        .map(|name| identity.home.join(name))
        .filter(|own| !given.contains(&own.as_os_str()))
        .collect();
    with_eyes_of(identity, || {
        let own = own.iter().filter(|own| is_own(own, identity.uid));
        let enterable = given
            .iter()
            .copied()
            .filter(|part| !is_closed(Path::new(part)));
        let parts: Vec<&OsStr> = own.map(|own| own.as_os_str()).chain(enterable).collect();
        parts.join(OsStr::new(":"))
    })
}

fn is_own(directory: &Path, uid: u32) -> bool {
    fs::metadata(directory).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid)
}

/// Whether a directory may not be entered. One that is not there is none: it may come.
fn is_closed(directory: &Path) -> bool {
    // `.` in it: its own permission to search counts, not only those on the way.
    directory.is_absolute()
        && fs::metadata(directory.join("."))
            .is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// What `sudo` and its like, who started this process, were started with themselves: who calls them has it, and they hand
/// little of it on.
fn cleaned_away(origin: Origin) -> Vec<(OsString, OsString)> {
    if !matches!(origin, Origin::Sudo | Origin::Doas) {
        return Vec::new();
    }
    let parent = format!("/proc/{}", getppid());
    let is_cleaner = fs::read_link(format!("{parent}/exe")).is_ok_and(|exe| {
        let name = exe.file_name().and_then(OsStr::to_str);
        name.is_some_and(|name| CLEANERS.contains(&name))
    });
    if !is_cleaner {
        return Vec::new();
    }
    let bytes = fs::read(format!("{parent}/environ")).unwrap_or_default();
    bytes
        .split(|byte| *byte == 0)
        .filter_map(|entry| {
            let at = entry.iter().position(|byte| *byte == b'=')?;
            let (name, value) = entry.split_at(at);
            Some((
                OsString::from_vec(name.to_vec()),
                OsString::from_vec(value[1..].to_vec()),
            ))
        })
        .collect()
}

#[cfg(test)]
#[path = "environment_tests.rs"]
mod tests;
