//! What is wrong, or only worth a word, in a policy's text.

use super::include::Origins;
use super::place::{JsonPath, Place};

/// Most errors and most warnings that one reading reports; the rest is counted.
const MOST_REPORTED: usize = 20;

/// One fault of a policy: where it is, what it is, how to mend it. The message is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}; {mend}")]
pub struct PolicyError {
    /// Where the fault is.
    pub place: Place,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

impl PolicyError {
    /// A fault of the file as a whole.
    pub fn whole(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            place: Place::whole(),
            what: what.into(),
            mend: mend.into(),
        }
    }

    /// The message with the name of the file: `policies/x.json:41:7: exec.rules[3].id: duplicate id …; …`.
    pub fn in_file(&self, file: &str) -> String {
        format!("{}: {}; {}", self.place.in_file(file), self.what, self.mend)
    }
}

/// Something that a policy's author should know, though the policy can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is about.
    pub place: Place,
    /// What to know.
    pub text: String,
}

impl Warning {
    /// The warning with the name of the file.
    pub fn in_file(&self, file: &str) -> String {
        format!("{}: {}", self.place.in_file(file), self.text)
    }
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// Collects faults and warnings while a policy is read. Places are looked up only for what is reported.
pub(super) struct Problems<'t> {
    origins: &'t Origins,
    errors: Vec<PolicyError>,
    more_errors: usize,
    warnings: Vec<Warning>,
    more_warnings: usize,
    /// The text has been read before without a fault.
    known: bool,
    /// The same, and its warnings are to be told all the same.
    sound: bool,
}

impl<'t> Problems<'t> {
    pub(super) fn new(origins: &'t Origins) -> Self {
        Self {
            origins,
            errors: Vec::new(),
            more_errors: 0,
            warnings: Vec::new(),
            more_warnings: 0,
            known: false,
            sound: false,
        }
    }

    /// For a text that has been read before without a fault. Its warnings are told, and its examples taken.
    pub(super) fn sound(origins: &'t Origins) -> Self {
        Self {
            sound: true,
            ..Self::new(origins)
        }
    }

    /// For a text that has been read before without a fault: its warnings have been told.
    pub(super) fn known(origins: &'t Origins) -> Self {
        Self {
            known: true,
            ..Self::sound(origins)
        }
    }

    /// Whether checks that cost much can be left out.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// Whether checks that find nothing but faults, and cost much, can be left out.
    pub(super) fn is_sound(&self) -> bool {
        self.sound
    }

    pub(super) fn error(
        &mut self,
        path: &JsonPath,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        if self.errors.len() == MOST_REPORTED {
            self.more_errors += 1;
            return;
        }
        self.errors.push(PolicyError {
            place: self.origins.locate(path),
            what: what.into(),
            mend: mend.into(),
        });
    }

    pub(super) fn warn(&mut self, path: &JsonPath, text: impl Into<String>) {
        if self.known {
            return;
        }
        if self.warnings.len() == MOST_REPORTED {
            self.more_warnings += 1;
            return;
        }
        self.warnings.push(Warning {
            place: self.origins.locate(path),
            text: text.into(),
        });
    }

    /// An error that names the line of another value too, `first` (`line 7`, with its file if that is another). It is looked
    /// up only if it is shown.
    pub(super) fn error_with_line(
        &mut self,
        path: &JsonPath,
        first: &JsonPath,
        what: impl FnOnce(&str) -> String,
        mend: &str,
    ) {
        let line = if self.errors.len() < MOST_REPORTED {
            self.line(first, path)
        } else {
            String::new()
        };
        self.error(path, what(&line), mend);
    }

    /// A warning that names the line of another value too, as [`Self::error_with_line`].
    pub(super) fn warn_with_line(
        &mut self,
        path: &JsonPath,
        first: &JsonPath,
        text: impl FnOnce(&str) -> String,
    ) {
        let line = if !self.known && self.warnings.len() < MOST_REPORTED {
            self.line(first, path)
        } else {
            String::new()
        };
        self.warn(path, text(&line));
    }

    fn line(&self, of: &JsonPath, seen_from: &JsonPath) -> String {
        self.origins.seen_from(of, &self.origins.locate(seen_from))
    }

    /// The warnings, or all the errors if there are any.
    pub(super) fn finish(mut self) -> Result<Vec<Warning>, Vec<PolicyError>> {
        if self.more_errors > 0 {
            self.errors.push(PolicyError::whole(
                format!("{} more errors are not shown", self.more_errors),
                "mend these first, then check again",
            ));
        }
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        if self.more_warnings > 0 {
            self.warnings.push(Warning {
                place: Place::whole(),
                text: format!("{} more warnings are not shown", self.more_warnings),
            });
        }
        Ok(self.warnings)
    }
}
