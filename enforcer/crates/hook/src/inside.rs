//! Commands that begin in another directory than the session's: the one that the call names for them.

use std::path::Path;

use serde_json::{Map, Value};

use super::{project::EventPlace, resolve};
use enforcer_decide::{
    Find,
    tool::{self, ToolFault},
};
use enforcer_policy::ExecAction;

/// The ways to read where a command begins, as paths from the session's directory: as named, and with links followed.
/// `None` is that directory itself.
///
/// # Errors
///
/// In words: a directory is no path, or cannot be resolved.
pub(super) fn places(
    tool: &str,
    input: &Map<String, Value>,
    scene: &EventPlace,
) -> Result<Vec<Option<String>>, ToolFault> {
    let from = resolve::From {
        cwd: &scene.cwd,
        home: scene.home.as_deref(),
    };
    let real = resolve::real(&scene.cwd);
    let mut places = Vec::new();
    for directory in tool::directories(tool, input)? {
        for way in resolve::path(&directory, &from, false)? {
            let named = below(&way.given, &scene.cwd);
            let led = below(&way.real, &real);
            for place in [named, led] {
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
    }
    if places.is_empty() {
        places.push(None);
    }
    Ok(places)
}

/// A path from a directory: rules tell what is below the session's from what is named from the root.
fn below(path: &str, directory: &Path) -> Option<String> {
    match Path::new(path).strip_prefix(directory) {
        Ok(rest) => rest.to_str().filter(|rest| !rest.is_empty()).map(literal),
        Err(_) => Some(path.to_owned()),
    }
}

/// A name that begins like a home directory is none.
fn literal(path: &str) -> String {
    if path.starts_with('~') {
        format!("./{path}")
    } else {
        path.to_owned()
    }
}

/// Looks for programs as another does, for texts that begin in this directory.
pub(super) struct Inside<'f> {
    /// Who looks.
    pub find: &'f dyn Find,
    /// The directory, from where that one begins.
    pub directory: Option<&'f str>,
}

impl Find for Inside<'_> {
    fn find(&self, words: &[Vec<u8>], moved: &[String]) -> Vec<ExecAction> {
        self.find.find(words, moved)
    }

    fn directory(&self) -> Option<&str> {
        self.find.directory()
    }

    fn inside(&self) -> Option<&str> {
        self.directory
    }

    fn project(&self) -> Option<String> {
        self.find.project()
    }

    fn leads_to(&self, path: &str) -> Option<String> {
        self.find.leads_to(path)
    }
}
