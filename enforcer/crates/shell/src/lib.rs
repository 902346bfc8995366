//! What a shell would start for a command text, without running it.
//!
//! The grammar is tree-sitter's of bash: it takes any text, finds what it can in a broken one, and can be stopped.
//! Over its tree the text is walked as a shell would run it, every branch taken: words lose their quotes, braces and
//! variables whose value stands in the same text are expanded, and a command that starts another (`sudo`, `xargs`,
//! `sh -c`, `eval`, a here document to a shell …) is opened. The result is a flat list of [`Part`]s, in the order of
//! the text.
//!
//! Nothing here is trusted to be complete: it serves those who judge a text *before* it runs. What really runs is
//! judged by the kernel, one exec at a time. Where a text exceeds a bound it is [`Refused`], to be denied.

#![forbid(unsafe_code)]

mod assignments;
mod clients;
mod commands;
mod containers;
mod documents;
mod expand;
mod fallback;
mod files;
mod git;
mod interpreters;
mod packages;
mod parameters;
mod places;
mod redirections;
mod rewrite;
mod runaway;
mod secrets;
mod shells;
mod simple;
mod state;
mod statements;
mod stdin;
mod tree;
mod unwrap;
mod variables;
mod words;
mod wrappers;

pub use expand::Word;
pub use places::shortest;

/// Longest text, in bytes: the longest argument that Linux takes (`MAX_ARG_STRLEN`), so no shell can be given more
/// by `-c`.
pub const TEXT_MAX: usize = 128 << 10;
/// Most bytes that all texts inside one text may add up to.
pub const TEXTS_MAX: usize = 1 << 20;
/// Most texts inside one another: `sh -c`, `eval`, substitutions in backquotes, function calls.
pub const NESTING_MAX: usize = 16;
/// Most statements and words inside one another in one text.
pub const TREE_DEPTH_MAX: usize = 256;
/// Most parts of one text.
pub const PARTS_MAX: usize = 20_000;
/// Most bytes of the words of all parts of one text.
pub const PARTS_BYTES_MAX: usize = 16 << 20;

/// Why a text is not looked into any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is too long.
    #[error("it is longer than {TEXT_MAX} bytes, or the texts inside it than {TEXTS_MAX}")]
    Long,
    /// Texts inside one another.
    #[error("more than {NESTING_MAX} commands stand inside one another")]
    Nested,
    /// Statements inside one another.
    #[error("its statements or expansions are more than {TREE_DEPTH_MAX} deep")]
    Deep,
    /// Too many commands.
    #[error("it has more than {PARTS_MAX} parts, or more than {PARTS_BYTES_MAX} bytes in them")]
    Parts,
    /// Braces that become too many words.
    #[error("its braces become too many words")]
    Braces,
    /// The grammar needed too many steps.
    #[error("its syntax takes too long to read")]
    Steps,
    /// A NUL byte, which no shell passes on.
    #[error("it has a NUL byte")]
    Nul,
}

/// What a part is, and so how much of a policy applies to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// A program that the shell starts.
    Program,
    /// A program whose name is known only when it runs.
    Unknown,
    /// A builtin or a function: nothing is started under this name.
    Builtin,
    /// A file opened for writing, as `tee FILE` (`tee -a FILE`).
    Write,
    /// A file opened for reading, as `cat FILE`.
    Read,
    /// A command with the assignments before it, as `env NAME=VALUE COMMAND`.
    Assigned,
    /// Another reading of the part before it, such as with an unset variable taken as empty.
    Reading,
}

impl PartKind {
    /// Whether the policy's default applies where no rule matches. What starts no program under its own words is
    /// only looked up in the rules.
    pub fn has_default(self) -> bool {
        matches!(self, Self::Program | Self::Unknown)
    }
}

/// One thing that a text does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub kind: PartKind,
    /// Its words, the program first.
    pub words: Vec<Word>,
}

impl Part {
    /// The words as texts.
    pub fn texts(&self) -> Vec<String> {
        self.words.iter().map(|word| word.text.clone()).collect()
    }
}

/// What a text does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// Its parts, in the order of the text.
    pub parts: Vec<Part>,
    /// Whether the syntax was broken somewhere: the rest was split at operators alone.
    pub broken: bool,
    /// Set if the text was not looked into to its end.
    pub refused: Option<Refused>,
}

/// Reads a text. Never fails: what cannot be read is said in the result.
pub fn parse(text: &str) -> Script {
    parse_at(text, None, None)
}

/// Reads a text that a shell runs in a directory, if that is known: an absolute path; or `inside` another one, a path from
/// there.
pub fn parse_at(text: &str, directory: Option<&str>, inside: Option<&str>) -> Script {
    // The shell of an agent is started without arguments.
    let mut state = state::State::new(Some(Vec::new()));
    state.base = directory.map(str::to_owned);
    state.begin_in(inside);
    if text.contains('\0') {
        state.refuse(Refused::Nul);
    }
    state.text(text, &stdin::Input::Inherited);
    // Some terminals and tools take a carriage return for the end of a line; a shell takes it for a letter.
    if text.contains('\r') {
        state.text(
            &text.replace("\r\n", "\n").replace('\r', "\n"),
            &stdin::Input::Inherited,
        );
    }
    state.has_begun_in(inside);
    state.into_script()
}

/// Reads the words of a command line: the command, and what it starts in its turn.
pub fn parse_words(words: &[String], directory: Option<&str>, inside: Option<&str>) -> Script {
    let mut state = state::State::new(None);
    state.base = directory.map(str::to_owned);
    state.begin_in(inside);
    let words = words
        .iter()
        .map(|word| Word::literal(word.clone()))
        .collect();
    state.simple(words, &stdin::Input::Inherited);
    state.has_begun_in(inside);
    state.into_script()
}

#[cfg(test)]
#[path = "shell_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "hostile_tests.rs"]
mod hostile_tests;

#[cfg(test)]
#[path = "bash_tests.rs"]
mod bash_tests;

#[cfg(test)]
mod bounds_tests;
