//! The judgement of a command text: that of the strictest thing it does.

use super::{
    Decision, Engine, ExecAction, Outcome, Risk,
    shell::{self, Kind, Part, Script},
};

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
}

/// What a policy says of one part of a command text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartOutcome {
    /// What the part is.
    pub kind: Kind,
    /// Its words, the program first.
    pub words: Vec<String>,
    /// What the policy says of it.
    pub outcome: Outcome,
}

/// Judges a command text.
pub fn judge(engine: &Engine, text: &str) -> TextOutcome {
    judged(engine, &shell::parse(text), || {
        let words = ["sh", "-c", text].map(|word| word.as_bytes().to_vec());
        engine.exec(&ExecAction::from_words(words.to_vec()))
    })
}

/// Judges a command line: the command itself, and what it starts in its turn.
pub fn judge_words(engine: &Engine, words: &[Vec<u8>]) -> TextOutcome {
    let texts: Vec<String> = words
        .iter()
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let own = engine.exec(&ExecAction::from_words(words.to_vec()));
    let mut script = shell::parse_words(&texts);
    // The command itself is judged by its very bytes, with the default.
    if script
        .parts
        .first()
        .is_some_and(|part| part.texts() == texts)
    {
        script.parts.remove(0);
    }
    let mut all = judged(engine, &script, || own.clone());
    all.parts.insert(
        0,
        PartOutcome {
            kind: Kind::Program,
            words: texts.clone(),
            outcome: own.clone(),
        },
    );
    if own.decision >= all.outcome.decision {
        all.outcome = own;
        all.part = texts;
    }
    all
}

fn judged(engine: &Engine, script: &Script, whole: impl FnOnce() -> Outcome) -> TextOutcome {
    let mut notes = Vec::new();
    if script.broken {
        notes.push(
            "the syntax is broken; what follows the break is split at operators alone".to_owned(),
        );
    }
    if script.parts.iter().any(|part| part.kind == Kind::Unknown) {
        notes.push("a program is known only when it runs, and judged then".to_owned());
    }
    let parts: Vec<PartOutcome> = script
        .parts
        .iter()
        .map(|part| judge_part(engine, part))
        .collect();
    let mut strictest: Option<&PartOutcome> = None;
    for part in &parts {
        if strictest.is_none_or(|known| part.outcome.decision > known.outcome.decision) {
            strictest = Some(part);
        }
    }
    let (outcome, part) = match (script.refused, strictest) {
        (Some(refused), _) => {
            notes.push(format!("the text is not understood: {refused}"));
            (
                Outcome {
                    decision: Decision::Deny,
                    rule: None,
                    reason: format!("The command text is not understood: {refused}"),
                    risk: Risk::High,
                    suggestion: Some("split it into simpler commands".to_owned()),
                    security_risk: true,
                },
                Vec::new(),
            )
        }
        (None, Some(part)) => (part.outcome.clone(), part.words.clone()),
        (None, None) => (whole(), Vec::new()),
    };
    TextOutcome {
        outcome,
        part,
        parts,
        notes,
    }
}

fn judge_part(engine: &Engine, part: &Part) -> PartOutcome {
    let words = part.texts();
    let exec = |words: &[String]| {
        let words = words.iter().map(|word| word.clone().into_bytes());
        engine.exec(&ExecAction::from_words(words.collect()))
    };
    let mut outcome = exec(&words);
    // On a file system that ignores case, `GIT` is git.
    if let Some(program) = words.first()
        && program.bytes().any(|byte| byte.is_ascii_uppercase())
    {
        let lower: Vec<String> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
        let other = exec(&lower);
        if other.rule.is_some() && other.decision > outcome.decision {
            outcome = other;
        }
    }
    match part.kind {
        Kind::Unknown if outcome.decision == Decision::Allow => {
            outcome = not_known(engine.policy().exec.default);
        }
        kind if !kind.has_default() && outcome.rule.is_none() => outcome = no_program(),
        _ => {}
    }
    PartOutcome {
        kind: part.kind,
        words,
        outcome,
    }
}

/// An allow rule cannot vouch for a program that is not known yet.
fn not_known(default: Decision) -> Outcome {
    Outcome {
        decision: default,
        rule: None,
        reason: format!(
            "The program is known only when it runs, and judged then (default: {default})"
        ),
        risk: Risk::Medium,
        suggestion: (default != Decision::Allow).then(|| "name the program itself".to_owned()),
        security_risk: false,
    }
}

fn no_program() -> Outcome {
    Outcome {
        decision: Decision::Allow,
        rule: None,
        reason: "It starts no program, and no rule is about it".to_owned(),
        risk: Risk::Low,
        suggestion: None,
        security_risk: false,
    }
}
