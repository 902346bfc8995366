//! From text to the model: which form it is, what serde finds wrong with it, then the form's own checks.

use serde::de::DeserializeOwned;
use serde::de::IgnoredAny;
use serde_path_to_error::Segment;

use super::compile::CompileError;
use super::error::{PolicyError, Problems, Warning};
use super::hook_form::{self, HookPolicy};
use super::include::{Included, Origins, Sources};
use super::json_text;
use super::lower::{self, Lowered};
use super::model::{Form, Policy};
use super::native::NativePolicy;
use super::near;
use super::place::{JsonPath, Place, Step, quoted};
use super::rule_set::RuleSet;
use super::shape::Object;

/// Largest policy that is read, in bytes (16 MiB): 10,000 rules take about 3 MB.
pub const MAX_BYTES: usize = 16 << 20;

/// A policy that was read without a fault.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The model.
    pub policy: Policy,
    /// What its author should know.
    pub warnings: Vec<Warning>,
    origins: Origins,
    rule_paths: Vec<JsonPath>,
}

impl Parsed {
    /// The whole text: what was read, with all that it includes. It includes nothing.
    pub fn text(&self) -> &str {
        self.origins.whole()
    }

    /// The texts that were read.
    pub fn sources(&self) -> &Sources {
        self.origins.sources()
    }

    /// The path in the whole text of the exec rule with this index in `policy.exec.rules` (entries of a hook's lists
    /// that were left out make the two differ); the top of the text for an index that is not there.
    pub fn rule_path(&self, index: usize) -> JsonPath {
        self.rule_paths.get(index).cloned().unwrap_or_default()
    }

    /// Where the value at `path` of the whole text stands: in the policy, or in a rule set.
    pub fn place(&self, path: &JsonPath) -> Place {
        self.origins.locate(path)
    }

    /// An error about the value at `path`, for checks that come after reading (tables, examples).
    pub fn error_at(
        &self,
        path: &JsonPath,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) -> PolicyError {
        PolicyError {
            place: self.place(path),
            what: what.into(),
            mend: mend.into(),
        }
    }

    /// An error about the exec rule with this index in `policy.exec.rules`.
    pub fn error_at_rule(
        &self,
        index: usize,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) -> PolicyError {
        self.error_at(&self.rule_path(index), what, mend)
    }

    /// A compile error at the rule it speaks of.
    pub fn error_of(&self, error: &CompileError) -> PolicyError {
        if let CompileError::Pattern {
            rule,
            pattern,
            why,
            mend,
        } = error
            && let Some(index) = self.policy.exec.rules.iter().position(|r| r.id == *rule)
        {
            return self.error_at_rule(index, format!("pattern `{pattern}`: {why}"), *mend);
        }
        if let CompileError::Unix {
            rule,
            pattern,
            why,
            mend,
        } = error
            && let Some(index) = (self.policy.connect.rules.iter()).position(|r| r.id == *rule)
        {
            return self.error_at_connect_rule(index, format!("pattern `{pattern}`: {why}"), *mend);
        }
        PolicyError::whole(error.to_string(), "see the policy reference")
    }

    /// An error about the name of the group with this index in `policy.syscalls.allow`, or `deny` (`key`).
    pub fn error_at_syscall(
        &self,
        key: &'static str,
        index: usize,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) -> PolicyError {
        let path = JsonPath::top().key("syscalls").key(key);
        self.error_at(&path.index(index).key("name"), what, mend)
    }

    /// An error about the connect rule with this index in `policy.connect.rules` of a native policy; about the
    /// file as a whole in a hook policy, whose connect rules are made from a list of domains.
    pub fn error_at_connect_rule(
        &self,
        index: usize,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) -> PolicyError {
        self.error_at(&self.connect_rule_path(index), what, mend)
    }

    /// Where the rule with this id stands.
    pub fn rule_place(&self, id: &str) -> Option<Place> {
        let exec = self.policy.exec.rules.iter().position(|rule| rule.id == id);
        let connect = || {
            let mut rules = self.policy.connect.rules.iter();
            let at = rules.position(|rule| rule.id == id)?;
            Some(self.connect_rule_path(at))
        };
        let path = exec.map(|at| self.rule_path(at)).or_else(connect)?;
        Some(self.place(&path))
    }

    /// The path in the text of the connect rule with this index; the top of the text in a hook policy, whose connect
    /// rules are made from a list of domains.
    pub fn connect_rule_path(&self, index: usize) -> JsonPath {
        match self.policy.form {
            Form::Native => JsonPath::top().key("connect").key("rules").index(index),
            Form::Hook => JsonPath::top(),
        }
    }
}

/// Reads a policy of either form.
///
/// # Errors
///
/// The first fault; [`parse_all`] gives all that can be told in one reading.
pub fn parse(text: &str) -> Result<Parsed, PolicyError> {
    parse_all(text).map_err(first)
}

/// Reads a policy of either form from bytes.
///
/// # Errors
///
/// As [`parse_all`], and when the bytes are not UTF-8.
pub fn parse_bytes(bytes: &[u8]) -> Result<Parsed, Vec<PolicyError>> {
    match utf8(bytes) {
        Ok(text) => parse_all(text),
        Err(error) => Err(vec![error]),
    }
}

/// The text that these bytes are.
///
/// # Errors
///
/// Where they are not UTF-8.
pub fn utf8(bytes: &[u8]) -> Result<&str, PolicyError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let good = std::str::from_utf8(good).unwrap_or_default();
        let (line, column) = json_text::line_and_column(good, good.len());
        let byte = bytes.get(good.len()).copied().unwrap_or_default();
        PolicyError {
            place: Place {
                line,
                column,
                ..Place::whole()
            },
            what: format!(
                "the text is not UTF-8 (byte 0x{byte:02x} at offset {})",
                good.len()
            ),
            mend: "save the file as UTF-8".into(),
        }
    })
}

/// Reads a policy of either form. What it includes are the rule sets that the program brings along: for files there is
/// `enforcer_policy_files::policy_file::load`.
///
/// # Errors
///
/// As [`parse_sources`].
pub fn parse_all(text: &str) -> Result<Parsed, Vec<PolicyError>> {
    parse_sources(Sources::built_in(text)?)
}

/// Reads a policy of either form with the rule sets that it includes.
///
/// # Errors
///
/// A fault of the JSON text or of its types alone (reading ends there), or all faults of its content, 20 at
/// most. The list is never empty.
pub fn parse_sources(sources: Sources) -> Result<Parsed, Vec<PolicyError>> {
    read(sources, |origins| Problems::new(origins))
}

/// The same, of texts that were read before without a fault, as whoever calls knows from a digest of them: what only finds faults
/// in patterns is left out. Warnings and examples are there, as always.
///
/// # Errors
///
/// As [`parse_sources`].
pub fn parse_sound(sources: Sources) -> Result<Parsed, Vec<PolicyError>> {
    read(sources, |origins| Problems::sound(origins))
}

fn read(
    sources: Sources,
    problems: impl for<'t> FnOnce(&'t Origins) -> Problems<'t>,
) -> Result<Parsed, Vec<PolicyError>> {
    well_formed(sources.own()).map_err(|error| vec![error])?;
    for one in sources.included() {
        rule_set(one).map_err(|error| vec![error])?;
    }
    let origins = Origins::of(sources);
    let text = origins.whole();
    if text.len() > MAX_BYTES {
        return Err(vec![too_large(text.len() as u64)]);
    }
    let place = |path: &JsonPath| origins.locate(path);
    let top: Top = typed(text, &place).map_err(|error| vec![error])?;
    let mut problems = problems(&origins);
    let lowered = if top.is_native() {
        let policy: NativePolicy = typed(text, &place).map_err(|error| vec![error])?;
        lower::native(policy, &mut problems)
    } else {
        if top.has_nothing() {
            return Err(vec![neither_form()]);
        }
        let policy: HookPolicy = typed(text, &place).map_err(|error| vec![error])?;
        hook_form::lower(policy, &mut problems)
    };
    let Lowered { policy, rule_paths } = lowered;
    let mut warnings = problems.finish()?;
    // Each text is sound, and so is the whole: it has all that was brought.
    if origins.lost() {
        return Err(vec![PolicyError::whole(
            "what the policy includes cannot be put together with it",
            "report this as a defect",
        )]);
    }
    warnings.splice(0..0, origins.sources().warnings().iter().cloned());
    Ok(Parsed {
        policy,
        warnings,
        origins,
        rule_paths,
    })
}

/// Checks a rule set for itself: what its rules say is read with the policy.
fn rule_set(included: &Included) -> Result<(), PolicyError> {
    let of_file = |place: Place| Place {
        file: Some(std::sync::Arc::clone(&included.file)),
        ..place
    };
    let text = &included.text;
    let checked = well_formed(text).and_then(|()| {
        let place = |path: &JsonPath| json_text::locate(text, path);
        let set: RuleSet = typed(text, &place)?;
        if set.version == "2" {
            return Ok(());
        }
        Err(PolicyError {
            place: place(&JsonPath::top().key("version")),
            what: format!("version {} of rule sets is not known", quoted(&set.version)),
            mend: "write \"2\"".into(),
        })
    });
    checked.map_err(|error| PolicyError {
        place: of_file(error.place),
        ..error
    })
}

/// Whether a text is a policy of the native form, as far as its keys tell.
pub(super) fn is_native(text: &str) -> bool {
    serde_json::from_str::<Top>(text).is_ok_and(|top| top.is_native())
}

/// Reads a policy that was read before without a fault, as whoever calls knows from a digest of all its texts; `text` is
/// the whole.
/// What only finds faults is left out, and so are the rules' examples: this is for who reads the same text many times.
///
/// # Errors
///
/// The text is not the one that was read.
pub fn parse_known(text: &str) -> Result<Policy, PolicyError> {
    let origins = Origins::of(Sources::alone(text));
    let mut problems = Problems::known(&origins);
    let lowered = if let Ok(policy) = serde_json::from_str::<NativePolicy>(text) {
        lower::native(policy, &mut problems)
    } else {
        let policy = serde_json::from_str::<HookPolicy>(text)
            .map_err(|error| PolicyError::whole(plain(&error), "check it"))?;
        hook_form::lower(policy, &mut problems)
    };
    problems.finish().map_err(first)?;
    Ok(lowered.policy)
}

fn first(errors: Vec<PolicyError>) -> PolicyError {
    errors
        .into_iter()
        .next()
        .unwrap_or_else(|| PolicyError::whole("the policy cannot be used", "check it"))
}

fn neither_form() -> PolicyError {
    PolicyError::whole(
        "this is not a policy: it has neither `exec` or `connect` (native form) nor `bash` (hook form)",
        "write {\"version\": \"2\", \"exec\": {…}, \"connect\": {…}}; `enforcer policy schema` shows all keys",
    )
}

/// What tells the forms apart.
#[derive(serde::Deserialize)]
struct Top {
    version: Option<serde_json::Value>,
    exec: Option<IgnoredAny>,
    connect: Option<IgnoredAny>,
    include: Option<IgnoredAny>,
    bash: Option<IgnoredAny>,
    file_paths: Option<IgnoredAny>,
    agents: Option<IgnoredAny>,
}

impl Top {
    fn is_native(&self) -> bool {
        let two = self
            .version
            .as_ref()
            .is_some_and(|version| version.as_str() == Some("2") || version.as_u64() == Some(2));
        two || self.exec.is_some()
            || self.connect.is_some()
            || (self.include.is_some() && self.has_nothing())
    }

    fn has_nothing(&self) -> bool {
        self.bash.is_none() && self.file_paths.is_none() && self.agents.is_none()
    }
}

/// Checks what is about the text alone: size, emptiness, JSON syntax, depth, keys that stand twice.
fn well_formed(text: &str) -> Result<(), PolicyError> {
    if text.len() > MAX_BYTES {
        return Err(too_large(text.len() as u64));
    }
    if text.trim().is_empty() {
        return Err(PolicyError::whole(
            "the policy is empty",
            "write a policy into it; `enforcer policy schema` shows the keys",
        ));
    }
    if text.starts_with('\u{feff}') {
        return Err(PolicyError::whole(
            "the policy starts with a byte order mark",
            "save the file as UTF-8 without one",
        ));
    }
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        let place = Place {
            line: error.line(),
            column: error.column(),
            path: JsonPath::top(),
            file: None,
        };
        return Err(if error.is_eof() {
            PolicyError {
                place,
                what: format!("the JSON ends too early ({})", plain(&error)),
                mend: "the file may have been cut short: complete it".into(),
            }
        } else {
            PolicyError {
                place,
                what: format!("this is not JSON: {}", plain(&error)),
                mend: "correct the text there or just before".into(),
            }
        });
    }
    json_text::check(text)
}

/// The error for a policy larger than [`MAX_BYTES`].
pub(crate) fn too_large(bytes: u64) -> PolicyError {
    PolicyError::whole(
        format!("the policy is too large ({bytes} bytes, at most {MAX_BYTES} are read)"),
        "split it into policies for different agents, or write fewer, wider rules",
    )
}

/// The message of a JSON error without its position.
fn plain(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message,
    }
}

/// Reads types from a text; `place` finds the values of it.
fn typed<T: DeserializeOwned>(
    text: &str,
    place: &dyn Fn(&JsonPath) -> Place,
) -> Result<T, PolicyError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let object: Result<Object<T>, _> = serde_path_to_error::deserialize(&mut deserializer);
    object.map(|object| object.0).map_err(|error| {
        let path = JsonPath(
            error
                .path()
                .iter()
                .filter_map(|segment| match segment {
                    Segment::Seq { index } => Some(Step::Index(*index)),
                    Segment::Map { key } => Some(Step::Key(key.clone().into())),
                    Segment::Enum { .. } | Segment::Unknown => None,
                })
                .collect(),
        );
        type_error(place, path, &plain(error.inner()))
    })
}

/// Words serde's message anew: what, and how to mend it.
fn type_error(
    place: &dyn Fn(&JsonPath) -> Place,
    mut path: JsonPath,
    message: &str,
) -> PolicyError {
    let (what, mend) = if let Some((key, known)) = named(message, "unknown field `") {
        if path.last_key() != Some(key) {
            path = path.key(key.to_owned());
        }
        (
            format!("unknown key {}", quoted(key)),
            unknown_key(key, &known),
        )
    } else if let Some((key, _)) = named(message, "missing field `") {
        (
            format!("the key {} is missing", quoted(key)),
            "add it".to_owned(),
        )
    } else if let Some((word, known)) = named(message, "unknown variant `") {
        let words: Vec<String> = known.iter().map(|word| quoted(word)).collect();
        (
            format!("{} is not known here", quoted(word)),
            format!("write one of {}", words.join(", ")),
        )
    } else if let Some((found, wanted)) = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "))
    {
        (
            format!("{found} cannot stand here"),
            format!("write {}", in_words(wanted)),
        )
    } else {
        (
            message.to_owned(),
            "correct it; `enforcer policy schema` shows what is allowed".to_owned(),
        )
    };
    PolicyError {
        place: place(&path),
        what,
        mend,
    }
}

/// Splits a message such as ``unknown field `name`, expected one of `a`, `b` `` into the name and the words.
fn named<'m>(message: &'m str, prefix: &str) -> Option<(&'m str, Vec<&'m str>)> {
    let rest = message.strip_prefix(prefix)?;
    // The name comes from the file and can hold anything; the list after it cannot.
    let (name, list) = match rest.rsplit_once("`, expected ") {
        Some((name, list)) => (name, list),
        None => (rest.strip_suffix('`').unwrap_or(rest), ""),
    };
    Some((name, list.split('`').skip(1).step_by(2).collect()))
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    const HOOK: [&str; 4] = ["bash", "file_paths", "web_tools", "tools"];
    if known.contains(&"connect") && HOOK.contains(&key) {
        return "the native form (`version` \"2\", `exec`, `connect`) and the hook form (`bash`, …) cannot be \
                mixed: keep one"
            .into();
    }
    if key == "include" {
        return "only policies of the native form include rule sets, and a rule set includes none: name it in the \
                policy, too"
            .into();
    }
    match near::near(key, known).first() {
        Some(candidate) => format!("did you mean {}?", quoted(candidate)),
        None => format!("remove it; the keys known here are {}", known.join(", ")),
    }
}

/// What serde says it expected, for people.
fn in_words(wanted: &str) -> &str {
    match wanted {
        "a sequence" => "a list: […]",
        "an object" => "an object: {…}",
        "a boolean" => "true or false",
        "u16" => "a number from 1 to 65535",
        "u32" | "u64" => "a whole number, 1 or more",
        "a string" | "string" => "a string: \"…\"",
        other => other,
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
