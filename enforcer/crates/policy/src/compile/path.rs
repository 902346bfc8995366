//! The group over the path of an executable: is it in a trusted directory, is it named through a descriptor, does it go
//! back up on its way.

use enforcer_common::{
    rule::{PATH_DESCRIPTOR, PATH_TRUSTED, PATH_WINDING},
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

/// The expressions of paths with an empty component or a `.` behind their beginning, or with a `..` behind anything but
/// others: where `../x` and `./x` lead is said by their beginning.
fn winding() -> [String; 4] {
    let up = r"\.\.(?:/|\z)";
    [
        r"(?s-u:.)*?//".to_owned(),
        r"(?s-u:.)*?/\.(?:/|\z)".to_owned(),
        format!("/{up}"),
        format!(r"(?:(?s-u:.)*?/)?(?:\.|[^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+)/{up}"),
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
    let winding = winding().map(|text| (PATH_WINDING, text));
    for (accept, text) in trusted.chain(descriptors).chain(winding) {
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
