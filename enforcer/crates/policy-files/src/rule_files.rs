//! Finds the rule sets that a policy includes: beside the policy, else among those that the program brings along.
//!
//! Each file is read once, and only what was read counts from then on. A file beside the policy is one of the policy's: it
//! is refused where the policy would be.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::policy_file::{self, PolicyFileError, RULE_SET};
use enforcer_policy::include::{self, Included};
use enforcer_policy::{MAX_BYTES, Place, PolicyError, Sources};

/// The directory beside a policy in which its rule sets lie.
pub const DIRECTORY: &str = "rules";
/// Most names of other rule sets that are looked at for the one that was meant.
const NAMES_MAX: usize = 1_000;

/// Where the rule set of this name lies, if it lies beside the policy.
pub fn beside(policy: &Path, name: &str) -> PathBuf {
    policy
        .with_file_name(DIRECTORY)
        .join(format!("{name}.json"))
}

/// Reads all that a policy's text includes. `agent_uid` as for [`policy_file::load`].
///
/// # Errors
///
/// A name that is none, or that no rule set has; a file that the agent could change or that cannot be read.
pub fn include(
    policy: &Path,
    text: &str,
    agent_uid: Option<u32>,
) -> Result<Sources, PolicyFileError> {
    let shown = policy.display().to_string();
    let invalid = |errors: Vec<PolicyError>| PolicyFileError::Invalid {
        path: shown.clone(),
        errors,
    };
    let names = include::names(text).map_err(&invalid)?;
    let mut included = Vec::with_capacity(names.len());
    let mut warnings = Vec::new();
    let mut size = text.len();
    for (at, name) in names.iter().enumerate() {
        let file = beside(policy, name);
        let built_in = Included::built_in(name);
        let own = match policy_file::read_as(RULE_SET, &file, agent_uid) {
            Ok(bytes) => Some(own(name, &file, &bytes).map_err(|error| invalid(vec![error]))?),
            Err(PolicyFileError::Missing { .. }) => None,
            Err(error) => return Err(error),
        };
        if let (Some(own), Some(built_in)) = (&own, &built_in)
            && own.text != built_in.text
        {
            let (what, mend) = differs(name, &file);
            if agent_uid == Some(0) {
                // Whoever runs as root could have put it there, and no owner tells.
                return Err(invalid(vec![include::refused(text, at, what, mend)]));
            }
            warnings.push((at, format!("{what}; {mend}")));
        }
        let Some(one) = own.or(built_in) else {
            let looked_for = file.display().to_string();
            let beside = names_beside(policy);
            let error = include::missing(text, at, name, Some(&looked_for), &beside);
            return Err(invalid(vec![error]));
        };
        size += one.text.len();
        if size > MAX_BYTES {
            return Err(PolicyFileError::TooLarge {
                file: format!("policy {shown}, with what it includes up to {name:?},"),
                bytes: size as u64,
            });
        }
        included.push(one);
    }
    let mut sources = Sources::new(text, &shown, included);
    for (at, warning) in warnings {
        sources.warn(at, warning);
    }
    Ok(sources)
}

fn own(name: &str, file: &Path, bytes: &[u8]) -> Result<Included, PolicyError> {
    let file: Arc<str> = file.display().to_string().into();
    match enforcer_policy::utf8(bytes) {
        Ok(text) => Ok(Included {
            name: name.to_owned(),
            file,
            text: text.into(),
        }),
        Err(error) => Err(PolicyError {
            place: Place {
                file: Some(file),
                ..error.place
            },
            ..error
        }),
    }
}

/// What there is to say of a file that stands for a built-in rule set, and the mend.
fn differs(name: &str, file: &Path) -> (String, &'static str) {
    let what = format!(
        "the rule set \"{name}\" is that of {file}, and this version of enforcer brings another one of that name",
        file = file.display()
    );
    let mend = "take the file away for the built-in one, or give yours a name of its own";
    (what, mend)
}

/// The names of the rule sets that lie beside a policy; none if they cannot be listed.
fn names_beside(policy: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(policy.with_file_name(DIRECTORY)) else {
        return Vec::new();
    };
    let names = entries.take(NAMES_MAX).filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        Some(name.strip_suffix(".json")?.to_owned())
    });
    names.filter(|name| include::is_name(name)).collect()
}

/// All files that a policy is read from, itself first: also those beside it that are not there, and would count if they
/// were.
pub fn files(policy: &Path, sources: &Sources) -> Vec<PathBuf> {
    let beside = sources
        .included()
        .iter()
        .map(|one| beside(policy, &one.name));
    std::iter::once(policy.to_owned()).chain(beside).collect()
}

#[cfg(test)]
#[path = "rule_files_tests.rs"]
mod tests;
