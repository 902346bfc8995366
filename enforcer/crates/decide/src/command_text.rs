//! The judgement of a command text: that of the strictest thing it does.

use super::{ByText, Engine, Find, Outcome, amount::too_complex, hook_text, tracers};
use enforcer_policy::{Cause, Decision, ExecAction, Risk, matcher::base_name};
use enforcer_shell::{Part, PartKind, Script};

/// What a policy says of a command text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextOutcome {
    /// The strictest outcome of all parts; the first among equals.
    pub outcome: Outcome,
    /// The words of the part that decided; none if the text as a whole did.
    pub part: Vec<String>,
    /// All parts, in the order of the text.
    pub parts: Vec<PartOutcome>,
    /// What the reader of the outcome should know: what was not understood, what is known only when it runs.
    pub notes: Vec<String>,
    /// The exec that decided, if one did.
    pub action: Option<ExecAction>,
    /// Whether a limit decided, not a rule.
    pub limited: bool,
    /// Groups of system calls that will be refused to what the text starts.
    pub refused: Vec<&'static str>,
}

/// What a policy says of one part of a command text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartOutcome {
    /// What the part is.
    pub kind: PartKind,
    /// Its words, the program first.
    pub words: Vec<String>,
    /// What the policy says of it.
    pub outcome: Outcome,
    /// The exec that it says that of.
    pub action: ExecAction,
}

/// Judges a command text by what it says alone.
pub fn judge(engine: &Engine, text: &str) -> TextOutcome {
    judge_found(engine, text, &ByText)
}

/// Judges a command text with the programs that are found.
pub fn judge_found(engine: &Engine, text: &str, find: &dyn Find) -> TextOutcome {
    let script = enforcer_shell::parse_at(text, find.directory(), find.inside());
    let mut all = judged(engine, &script, find, || {
        let words = ["sh", "-c", text].map(|word| word.as_bytes().to_vec());
        engine.exec(&ExecAction::from_words(words.to_vec()))
    });
    contain(engine, Some(text), find, &mut all);
    all
}

/// Judges a command line by what it says alone: the command itself, and what it starts in its turn.
pub fn judge_words(engine: &Engine, words: &[Vec<u8>]) -> TextOutcome {
    judge_words_found(engine, words, &ByText)
}

/// Judges a command line with the programs that are found.
pub fn judge_words_found(engine: &Engine, words: &[Vec<u8>], find: &dyn Find) -> TextOutcome {
    let texts: Vec<String> = words
        .iter()
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let moved: Vec<String> = find.inside().map(str::to_owned).into_iter().collect();
    let (own, action) = strictest(engine, find.find(words, &moved));
    let mut script = enforcer_shell::parse_words(&texts, find.directory(), find.inside());
    // The command itself is judged by its very bytes, with the default.
    if script
        .parts
        .first()
        .is_some_and(|part| part.texts() == texts)
    {
        script.parts.remove(0);
    }
    let mut all = judged(engine, &script, find, || own.clone());
    add_refused(engine, &action, &mut all);
    all.parts.insert(
        0,
        PartOutcome {
            kind: PartKind::Program,
            words: texts.clone(),
            outcome: own.clone(),
            action: action.clone(),
        },
    );
    if own.decision >= all.outcome.decision || all.limited {
        if own.decision == Decision::Deny || !all.limited {
            all.limited = false;
            all.outcome = own;
            all.part = texts;
            all.action = Some(action);
        }
        limit(engine, &mut all);
    }
    contain(engine, None, find, &mut all);
    all
}

/// Denies what the hook form denies of a text as a whole, or of the files that it names.
fn contain(engine: &Engine, given: Option<&str>, find: &dyn Find, text: &mut TextOutcome) {
    if text.outcome.decision == Decision::Deny && !text.limited {
        return;
    }
    if let Some((outcome, at)) = hook_text::judge(engine.policy(), given, &text.parts, find) {
        let about = at.and_then(|at| text.parts.get(at));
        text.part = about.map(|part| part.words.clone()).unwrap_or_default();
        text.outcome = outcome;
        text.action = None;
        text.limited = false;
    }
}

/// The strictest outcome of all that words may become, the first among equals.
fn strictest(engine: &Engine, actions: Vec<ExecAction>) -> (Outcome, ExecAction) {
    let mut best: Option<(Outcome, ExecAction)> = None;
    for action in actions {
        let outcome = engine.exec(&action);
        if best
            .as_ref()
            .is_none_or(|(known, _)| outcome.decision > known.decision)
        {
            best = Some((outcome, action));
        }
    }
    best.unwrap_or_else(|| {
        let action = ExecAction::default();
        (engine.exec(&action), action)
    })
}

/// Denies what is more than the limits allow, where no rule denies already.
fn limit(engine: &Engine, text: &mut TextOutcome) {
    if text.outcome.decision == Decision::Deny {
        return;
    }
    let complex = text.parts.iter().find_map(|part| {
        let complex = too_complex(engine, &part.action)?;
        Some((complex, part.words.clone(), part.action.clone()))
    });
    if let Some((complex, words, action)) = complex {
        text.outcome = complex;
        text.part = words;
        text.action = Some(action);
        text.limited = true;
    }
}

/// Notes which system calls will be refused to a program.
fn add_refused(engine: &Engine, action: &ExecAction, text: &mut TextOutcome) {
    let program = base_name(&action.path);
    for group in tracers::refused(engine.policy(), program) {
        if !text.refused.contains(&group) {
            text.refused.push(group);
            let program = String::from_utf8_lossy(program);
            text.notes
                .push(tracers::note(&program, group, engine.policy().form));
        }
    }
}

fn judged(
    engine: &Engine,
    script: &Script,
    find: &dyn Find,
    whole: impl FnOnce() -> Outcome,
) -> TextOutcome {
    let mut notes = Vec::new();
    if script.broken {
        notes.push(
            "the syntax is broken; what follows the break is split at operators alone".to_owned(),
        );
    }
    if script
        .parts
        .iter()
        .any(|part| part.kind == PartKind::Unknown)
    {
        notes.push("a program is known only when it runs, and judged then".to_owned());
    }
    let mut moved: Vec<String> = find.inside().map(str::to_owned).into_iter().collect();
    let mut parts: Vec<PartOutcome> = Vec::with_capacity(script.parts.len());
    for part in &script.parts {
        let part = judge_part(engine, part, find, &moved);
        if let [program, directory, ..] = part.words.as_slice()
            && matches!(program.as_str(), "cd" | "pushd")
            && part.kind == PartKind::Builtin
        {
            moved.push(directory.clone());
        }
        parts.push(part);
    }
    let mut strictest: Option<&PartOutcome> = None;
    for part in &parts {
        if strictest.is_none_or(|known| tells_more(part, known)) {
            strictest = Some(part);
        }
    }
    let (outcome, part) = match (script.refused, strictest) {
        (Some(refused), _) => {
            notes.push(format!("the text is not understood: {refused}"));
            (
                Outcome {
                    decision: Decision::Deny,
                    cause: Cause::Unreadable,
                    rule: None,
                    reason: format!("The command text is not understood: {refused}"),
                    risk: Risk::High,
                    suggestion: Some(SIMPLER.to_owned()),
                    suggestions: vec![SIMPLER.to_owned()],
                    security_risk: true,
                },
                Vec::new(),
            )
        }
        (None, Some(part)) => (part.outcome.clone(), part.words.clone()),
        (None, None) => (whole(), Vec::new()),
    };
    let action = strictest
        .filter(|_| script.refused.is_none())
        .map(|part| part.action.clone());
    let mut text = TextOutcome {
        outcome,
        part,
        action,
        notes,
        limited: false,
        refused: Vec::new(),
        parts: Vec::new(),
    };
    for part in parts.iter().filter(|part| part.kind.has_default()) {
        add_refused(engine, &part.action, &mut text);
    }
    text.parts = parts;
    limit(engine, &mut text);
    text
}

/// Whether a part says more of the text than one before it: it is stricter, or, where all may go on, it starts a program
/// and the other does not.
fn tells_more(part: &PartOutcome, known: &PartOutcome) -> bool {
    let (decision, before) = (part.outcome.decision, known.outcome.decision);
    decision > before
        || decision == Decision::Allow
            && before == Decision::Allow
            && part.kind.has_default()
            && !known.kind.has_default()
}

fn judge_part(engine: &Engine, part: &Part, find: &dyn Find, moved: &[String]) -> PartOutcome {
    let words = part.texts();
    let exec = |words: &[String]| {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.clone().into_bytes()).collect();
        // Only what is started is looked for: of the others rules see the words.
        let actions = if part.kind.has_default() || part.kind == PartKind::Reading {
            find.find(&words, moved)
        } else {
            ByText.find(&words, moved)
        };
        strictest(engine, actions)
    };
    let (mut outcome, mut action) = exec(&words);
    // On a file system that ignores case, `GIT` is git.
    if let Some(program) = words.first()
        && program.bytes().any(|byte| byte.is_ascii_uppercase())
    {
        let lower: Vec<String> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
        let (other, of) = exec(&lower);
        if other.rule.is_some() && other.decision > outcome.decision {
            outcome = other;
            action = of;
        }
    }
    match part.kind {
        PartKind::Unknown if outcome.decision == Decision::Allow => {
            outcome = not_known(engine.policy().exec.default);
        }
        kind if !kind.has_default() && outcome.rule.is_none() => outcome = no_program(),
        _ => {}
    }
    PartOutcome {
        kind: part.kind,
        words,
        outcome,
        action,
    }
}

/// What to do about a text that is not understood.
const SIMPLER: &str = "split it into simpler commands";
/// What to do about a program that is not known yet.
const NAMED: &str = "name the program itself";

/// An allow rule cannot vouch for a program that is not known yet.
fn not_known(default: Decision) -> Outcome {
    Outcome {
        decision: default,
        cause: Cause::Default,
        rule: None,
        reason: format!(
            "The program is known only when it runs, and judged then (default: {default})"
        ),
        risk: Risk::Medium,
        suggestion: (default != Decision::Allow).then(|| NAMED.to_owned()),
        suggestions: match default {
            Decision::Allow => Vec::new(),
            Decision::Ask | Decision::Deny => vec![NAMED.to_owned()],
        },
        security_risk: false,
    }
}

fn no_program() -> Outcome {
    Outcome {
        decision: Decision::Allow,
        cause: Cause::NoProgram,
        rule: None,
        reason: "It starts no program, and no rule is about it".to_owned(),
        risk: Risk::Low,
        suggestion: None,
        suggestions: Vec::new(),
        security_risk: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> (Vec<String>, String) {
        let policy = r#"{"version": "2", "exec": {"default": "allow", "rules": [
            {"id": "no-rm", "decision": "deny", "argv": {"program": "rm"}}]}}"#;
        let engine = Engine::new(enforcer_policy::parse(policy).unwrap().policy, 7).unwrap();
        let judged = judge(&engine, text);
        (judged.part, judged.outcome.reason)
    }

    #[test]
    fn what_starts_a_program_is_told_of_rather_than_what_does_not() {
        let default = "No rule matches (default: allow)";
        for (text, part) in [
            ("FOO=bar ls", "ls"),
            ("cd src && make", "make"),
            ("echo x > y && git status", "git status"),
            ("ls && cd src", "ls"),
        ] {
            let (words, reason) = told(text);
            assert_eq!(
                (words.join(" ").as_str(), reason.as_str()),
                (part, default),
                "{text}"
            );
        }
        let (_, reason) = told("cd src");
        assert_eq!(reason, "It starts no program, and no rule is about it");
        assert_eq!(told("make && FOO=bar rm x").0, ["rm", "x"]);
    }
}
