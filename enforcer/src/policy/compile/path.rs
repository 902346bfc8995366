//! The group over the path of an executable: is it in a trusted directory, is it named through a descriptor.

use enforcer_common::{
    rule::{PATH_DESCRIPTOR, PATH_TRUSTED},
    table::GroupRef,
};

use super::{
    CompileError,
    automaton::Alphabet,
    group::{BUDGETS, Groups},
    union::Target,
};

/// Between two components: slashes, and components `.`.
const SEPARATOR: &str = r"/(?:\.?/)*";

/// The expressions of paths that name an open file: `/proc/N/fd/..`, `/proc/N/task/N/fd/..`, `/dev/fd/..`, the
/// standard streams, and any `fd/N` behind a `..` (which could lead to one of those).
fn descriptors() -> [String; 4] {
    let s = SEPARATOR;
    [
        format!(r"{s}proc{s}[^/]+{s}(?:task{s}[^/]+{s})?fd{s}[^/]"),
        format!(r"{s}dev{s}fd{s}[^/]"),
        format!(r"{s}dev{s}std(?:in|out|err)\z"),
        format!(r"(?s-u:.)*?/\.\.{s}(?:[^/]+{s})*?fd{s}[0-9]+\z"),
    ]
}

/// Builds the path group.
pub(super) fn group(groups: &mut Groups, trusted: &[String]) -> Result<GroupRef, CompileError> {
    let mut targets = Vec::new();
    let trusted = trusted.iter().map(|directory| {
        let directory = regex_syntax::escape(directory.trim_end_matches('/'));
        (PATH_TRUSTED, format!(r"{directory}/[^/]+\z"))
    });
    let descriptors = descriptors().map(|text| (PATH_DESCRIPTOR, text));
    for (accept, text) in trusted.chain(descriptors) {
        let piece = groups
            .expressions
            .add(text)
            .map_err(|why| CompileError::TrustedDirs { why })?;
        targets.push(Target {
            accept: accept as u16,
            pieces: vec![piece],
        });
    }
    let [_, largest] = BUDGETS;
    groups
        .place_numbered(Alphabet::Exact, &targets, largest)
        .map_err(|why| CompileError::TrustedDirs { why })?
        .ok_or_else(|| CompileError::TrustedDirs {
            why: "they make an automaton that is larger than a table segment".to_owned(),
        })
}
