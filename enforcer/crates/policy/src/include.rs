//! Rule sets that a policy includes by name: their texts and the policy's become one text, the *whole*, and what stands in
//! it is still known by the file that it came from.
//!
//! The lists of a rule set come first, in the order of `include`, then the policy's own. A rule set has nothing but lists of
//! which the strictest entry wins, so including one more never lifts what another denies. Finding and reading the files is
//! the business of `enforcer-policy-files`: here are texts alone.

use std::borrow::Cow;
use std::sync::Arc;

use super::error::{PolicyError, Warning};
use super::json_text::{self, Member};
use super::near;
use super::parse;
use super::place::{JsonPath, Place, Step, quoted};
use super::rule_set;

/// Most rule sets that a policy includes.
const MOST: usize = 64;
/// Longest name of a rule set.
const NAME_MAX: usize = 64;
/// The key.
const KEY: &str = "include";
/// The lists that a rule set can have: section and key.
const LISTS: [(&str, &str); 8] = [
    ("exec", "rules"),
    ("connect", "rules"),
    ("file_paths", "whitelist"),
    ("file_paths", "blacklist"),
    ("web_tools", "whitelist"),
    ("web_tools", "allowed_domains"),
    ("web_tools", "blocked_domains"),
    ("tools", "always_allowed"),
];

/// A rule set that a policy includes, as it was read.
#[derive(Clone, Debug)]
pub struct Included {
    /// The name in `include`.
    pub name: String,
    /// The file, for messages; `built-in rule set NAME` for one of the program's own.
    pub file: Arc<str>,
    /// What it says.
    pub text: Arc<str>,
}

impl Included {
    /// The rule set of this name that the program brings along.
    pub fn built_in(name: &str) -> Option<Self> {
        rule_set::built_in(name).map(|text| Self {
            name: name.to_owned(),
            file: format!("built-in rule set {name}").into(),
            text: text.into(),
        })
    }
}

/// A policy's text with those of the rule sets that it includes, each read once.
#[derive(Clone, Debug)]
pub struct Sources {
    own: Arc<str>,
    file: Arc<str>,
    included: Vec<Included>,
    warnings: Vec<Warning>,
}

impl Sources {
    /// A text that includes nothing.
    pub fn alone(text: impl Into<Arc<str>>) -> Self {
        Self {
            own: text.into(),
            file: "the policy".into(),
            included: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The text of a policy and the rule sets that [`names`] lists, in that order. `file` is the policy's, for messages.
    pub fn new(text: impl Into<Arc<str>>, file: &str, included: Vec<Included>) -> Self {
        Self {
            file: file.into(),
            included,
            ..Self::alone(text)
        }
    }

    /// A text with the program's own rule sets for all that it includes.
    ///
    /// # Errors
    ///
    /// A name that is none, or that no rule set of the program has.
    pub fn built_in(text: &str) -> Result<Self, Vec<PolicyError>> {
        let mut included = Vec::new();
        for (at, name) in names(text)?.iter().enumerate() {
            match Included::built_in(name) {
                Some(one) => included.push(one),
                None => return Err(vec![missing(text, at, name, None, &[])]),
            }
        }
        Ok(Self::new(text, "the policy", included))
    }

    /// Adds what the author should know of the `at`th name in `include`.
    pub fn warn(&mut self, at: usize, text: String) {
        let place = json_text::locate(&self.own, &JsonPath::top().key(KEY).index(at));
        self.warnings.push(Warning { place, text });
    }

    pub(super) fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The policy's own text.
    pub fn own(&self) -> &str {
        &self.own
    }

    /// What is included.
    pub fn included(&self) -> &[Included] {
        &self.included
    }

    /// All that was read, as one text that no other texts have: for digests.
    pub fn key(&self) -> Cow<'_, str> {
        if self.included.is_empty() {
            return Cow::Borrowed(&self.own);
        }
        // No JSON text holds a NUL.
        let mut key = self.own.to_string();
        for one in &self.included {
            key.extend(["\0", &one.name, "\0", &one.text]);
        }
        Cow::Owned(key)
    }

    /// The text that all of them are together: a policy that includes nothing. It is one only if each text is sound,
    /// which is not looked at here.
    pub fn whole(&self) -> Arc<str> {
        Origins::of(self.clone()).whole
    }
}

/// The names in a policy's `include`, in its order. None where the text is not a policy of the native form: what is wrong
/// with it then is told by who reads it.
///
/// # Errors
///
/// All that cannot be the names of rule sets. Nothing may be looked for by a name that was not checked here.
pub fn names(text: &str) -> Result<Vec<String>, Vec<PolicyError>> {
    let value = json_text::members(text)
        .and_then(|members| members.into_iter().find(|member| member.key == KEY))
        .and_then(|member| text.get(member.value));
    let Some(value) = value.filter(|_| parse::is_native(text)) else {
        return Ok(Vec::new());
    };
    let Ok(Some(names)) = serde_json::from_str::<Option<Vec<String>>>(value) else {
        return Ok(Vec::new());
    };
    let fault = |at, what, mend| refused(text, at, what, mend);
    let mut faults = Vec::new();
    for (at, name) in names.iter().enumerate() {
        if !is_name(name) {
            faults.push(fault(
                at,
                format!("{} cannot be the name of a rule set", quoted(name)),
                "write the file's name without directory and `.json`: letters, digits, `-` and `_`",
            ));
        } else if names[..at].contains(name) {
            faults.push(fault(
                at,
                format!("the rule set {} is included twice", quoted(name)),
                "keep one of the two",
            ));
        } else if at == MOST {
            faults.push(fault(
                at,
                format!("more than {MOST} rule sets are included"),
                "put some of them together",
            ));
            break;
        }
    }
    if faults.is_empty() {
        Ok(names)
    } else {
        Err(faults)
    }
}

/// Whether a text is a plain name: no path, no dot, nothing hidden.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(plain)
}

/// An error about the `at`th name of a policy's `include`.
pub fn refused(text: &str, at: usize, what: String, mend: &str) -> PolicyError {
    PolicyError {
        place: json_text::locate(text, &JsonPath::top().key(KEY).index(at)),
        what,
        mend: mend.to_owned(),
    }
}

/// The error for the `at`th name of a policy's `include`, which no rule set has. `looked_for` is the file that is not
/// there, `beside` the names of those that are.
pub fn missing(
    text: &str,
    at: usize,
    name: &str,
    looked_for: Option<&str>,
    beside: &[String],
) -> PolicyError {
    let mut known: Vec<&str> = rule_set::built_in_names().collect();
    known.extend(beside.iter().map(String::as_str));
    known.sort_unstable();
    known.dedup();
    let close = near::near(name, &known);
    let mend = if close.is_empty() {
        format!("those that there are: {}", known.join(", "))
    } else {
        let close: Vec<String> = close.iter().map(|name| quoted(name)).collect();
        format!("did you mean {}?", close.join(" or "))
    };
    let not_there = looked_for.map_or_else(String::new, |file| {
        format!(": {file} is not there, and none of that name is built in")
    });
    let what = format!("there is no rule set {}{not_there}", quoted(name));
    refused(text, at, what, &mend)
}

/// Entries of a list in the whole that one source brought.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Index in [`LISTS`].
    list: usize,
    /// Index among what is included; `None`: the policy itself.
    from: Option<usize>,
    /// Index in the whole of the first.
    first: usize,
    count: usize,
}

/// The whole, and where its parts come from.
#[derive(Clone, Debug)]
pub(super) struct Origins {
    sources: Sources,
    whole: Arc<str>,
    pieces: Vec<Piece>,
    lost: bool,
}

impl Origins {
    /// Puts the texts together.
    pub(super) fn of(sources: Sources) -> Self {
        if sources.included.is_empty() {
            return Self {
                whole: Arc::clone(&sources.own),
                pieces: Vec::new(),
                lost: false,
                sources,
            };
        }
        let mut joined = Joined::default();
        for (at, one) in sources.included.iter().enumerate() {
            joined.bring(at, &one.text);
        }
        let whole = joined.onto(&sources.own);
        Self {
            // What cannot be put together is no policy: reading the own text says why.
            lost: whole.is_none() || joined.lost,
            whole: whole.map_or_else(|| Arc::clone(&sources.own), Arc::from),
            pieces: joined.pieces,
            sources,
        }
    }

    pub(super) fn sources(&self) -> &Sources {
        &self.sources
    }

    pub(super) fn whole(&self) -> &str {
        &self.whole
    }

    /// Whether something that is included is not in the whole.
    pub(super) fn lost(&self) -> bool {
        self.lost
    }

    /// Where the value at this path of the whole stands: its file, line and column, and its path there.
    pub(super) fn locate(&self, path: &JsonPath) -> Place {
        let Some((from, own)) = self.origin(path) else {
            return json_text::locate(&self.sources.own, path);
        };
        match from.and_then(|at| self.sources.included.get(at)) {
            None => json_text::locate(&self.sources.own, &own),
            Some(one) => Place {
                file: Some(Arc::clone(&one.file)),
                ..json_text::locate(&one.text, &own)
            },
        }
    }

    /// A place as another one's message names it: its line, and its file where that is another.
    pub(super) fn seen_from(&self, path: &JsonPath, other: &Place) -> String {
        let place = self.locate(path);
        if place.file == other.file {
            return format!("line {}", place.line);
        }
        let file = place.file.as_ref().unwrap_or(&self.sources.file);
        format!("line {} of {file}", place.line)
    }

    /// The source of an entry of a list that was put together, and the path there.
    fn origin(&self, path: &JsonPath) -> Option<(Option<usize>, JsonPath)> {
        let [Step::Key(section), Step::Key(key), Step::Index(index), ..] = &path.0[..] else {
            return None;
        };
        let piece = self.pieces.iter().find(|piece| {
            LISTS[piece.list] == (section.as_ref(), key.as_ref())
                && (piece.first..piece.first + piece.count).contains(index)
        })?;
        let mut own = path.clone();
        own.0[2] = Step::Index(index - piece.first);
        Some((piece.from, own))
    }
}

/// The lists of rule sets on their way into a policy's text.
#[derive(Default)]
struct Joined<'t> {
    /// By the index in [`LISTS`]: what is brought, as it is written, and which rule set brings it.
    brought: [Vec<(usize, Vec<&'t str>)>; LISTS.len()],
    pieces: Vec<Piece>,
    lost: bool,
}

impl<'t> Joined<'t> {
    /// Takes the lists of a rule set.
    fn bring(&mut self, at: usize, text: &'t str) {
        let sections = members(text).unwrap_or_default();
        for (list, (section, key)) in LISTS.iter().enumerate() {
            let entries = value(text, &sections, section).and_then(|section| {
                let lists = members(section)?;
                elements(value(section, &lists, key)?)
            });
            if let Some(entries) = entries.filter(|entries| !entries.is_empty()) {
                self.brought[list].push((at, entries));
            }
        }
    }

    /// The policy's text with what was brought in front of its own lists, and without `include`.
    fn onto(&mut self, own: &str) -> Option<String> {
        let sections = members(own)?;
        let mut out: Vec<String> = Vec::with_capacity(sections.len() + 1);
        for member in &sections {
            let written = own.get(member.value.clone())?;
            // A section that is null is none, and is made below.
            if member.key == KEY || (self.brings(&member.key) && written == "null") {
                continue;
            }
            let written = if self.brings(&member.key) {
                Cow::Owned(self.section(&member.key, written))
            } else {
                Cow::Borrowed(written)
            };
            out.push(format!("  {}: {written}", own.get(member.name.clone())?));
        }
        for (section, _) in LISTS {
            let there = out
                .iter()
                .any(|one| one.starts_with(&format!("  \"{section}\":")));
            let written = |member: &Member<'_>| {
                member.key == section && own.get(member.value.clone()) != Some("null")
            };
            if self.brings(section) && !there && !sections.iter().any(written) {
                out.push(format!("  \"{section}\": {}", self.section(section, "{}")));
            }
        }
        Some(format!("{{\n{}\n}}\n", out.join(",\n")))
    }

    fn brings(&self, section: &str) -> bool {
        let mut lists = LISTS.iter().zip(&self.brought);
        lists.any(|((of, _), brought)| *of == section && !brought.is_empty())
    }

    /// A section of the policy with what was brought.
    fn section(&mut self, section: &str, own: &str) -> String {
        let Some(lists) = members(own) else {
            self.lost = true;
            return own.to_owned();
        };
        let mut out: Vec<String> = Vec::with_capacity(lists.len() + 1);
        for (list, _) in LISTS.iter().enumerate().filter(|(_, (of, key))| {
            *of == section && lists.iter().all(|member| member.key != *key)
        }) {
            if !self.brought[list].is_empty() {
                out.push(format!(
                    "    \"{}\": {}",
                    LISTS[list].1,
                    self.list(list, "[]")
                ));
            }
        }
        for member in &lists {
            let list = LISTS
                .iter()
                .position(|of| *of == (section, member.key.as_ref()));
            let written = own.get(member.value.clone()).unwrap_or_default();
            let written = match list.filter(|list| !self.brought[*list].is_empty()) {
                Some(list) => Cow::Owned(self.list(list, written)),
                None => Cow::Borrowed(written),
            };
            let name = own.get(member.name.clone()).unwrap_or_default();
            out.push(format!("    {name}: {written}"));
        }
        format!("{{\n{}\n  }}", out.join(",\n"))
    }

    /// A list of the policy behind what was brought.
    fn list(&mut self, list: usize, own: &str) -> String {
        let Some(own) = elements(own) else {
            self.lost = true;
            return own.to_owned();
        };
        let brought = &self.brought[list];
        let all = brought.iter().map(|(at, entries)| (Some(*at), entries));
        let (mut out, mut first) = (Vec::new(), 0);
        for (from, entries) in all.chain([(None, &own)]) {
            out.extend_from_slice(entries);
            let count = entries.len();
            self.pieces.push(Piece {
                list,
                from,
                first,
                count,
            });
            first += count;
        }
        format!("[\n      {}\n    ]", out.join(",\n      "))
    }
}

fn members(object: &str) -> Option<Vec<Member<'_>>> {
    json_text::members(object)
}

/// The elements of an array, as they are written.
fn elements(array: &str) -> Option<Vec<&str>> {
    let ranges = json_text::elements(array)?;
    ranges.into_iter().map(|range| array.get(range)).collect()
}

fn value<'t>(text: &'t str, members: &[Member<'_>], key: &str) -> Option<&'t str> {
    let member = members.iter().find(|member| member.key == key)?;
    text.get(member.value.clone())
}

#[cfg(test)]
#[path = "include_tests.rs"]
mod tests;
