//! What the policy says of an event.

use enforcer_common::{
    event::CAUSE_COMPLEXITY,
    limits::{COMPLEX_ARGUMENTS, COMPLEX_BYTES, complexity_rank},
};
use serde_json::{Map, Value};

use super::{input::Event, project::Scene, resolve, state::Kind};
use crate::{
    decide::{
        Decision, Engine, Judgement, Outcome,
        command_text::{self, TextOutcome},
        paths::{self, Grounds},
        tool::{self, Call},
        web,
    },
    policy::Policy,
};

/// Entries of a list that are recorded.
const MOST_LISTED: usize = 32;

/// An event, judged by the rules.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What they say.
    pub outcome: Outcome,
    /// What it counts as.
    pub kind: Kind,
    /// What the trail says of it.
    pub parameters: Map<String, Value>,
    /// The words of the one command that it is, if it is one.
    pub words: Option<Vec<String>>,
    /// Whether the breaker counts it: a limit is no rule.
    pub counts: bool,
}

/// Judges an event. The engine is made only for commands: for the rest its tables are not needed.
pub fn judge(
    event: &Event,
    policy: &Policy,
    engine: impl FnOnce() -> Result<Engine, String>,
    scene: &Scene,
    grounds: impl FnOnce() -> Grounds,
) -> Judged {
    let refused = |reason: String| Judged {
        outcome: tool::denied(reason),
        kind: Kind::Other,
        parameters: Map::new(),
        words: None,
        counts: true,
    };
    let call = match tool::call(policy, &event.tool, &event.input) {
        Ok(call) => call,
        Err(why) => return refused(format!("The tool call cannot be judged: {why}")),
    };
    match call {
        Call::Text(text) => command(&text, shlex::split(&text), engine, |engine| {
            command_text::judge(engine, &text)
        }),
        Call::Words(words) => {
            let bytes: Vec<Vec<u8>> = words.iter().map(|word| word.clone().into_bytes()).collect();
            command(&words.join(" "), Some(words), engine, |engine| {
                command_text::judge_words(engine, &bytes)
            })
        }
        Call::Paths {
            paths,
            patterns,
            writes,
        } => files(policy, scene, &grounds(), (&paths, &patterns), writes),
        Call::Web(urls) => sites(policy, &event.tool, &urls),
        Call::Other => Judged {
            outcome: tool::judge(policy, &event.tool, false),
            kind: Kind::Other,
            parameters: Map::new(),
            words: None,
            counts: true,
        },
    }
}

/// Judges a command: all that its text starts, and how much each is.
fn command(
    text: &str,
    words: Option<Vec<String>>,
    engine: impl FnOnce() -> Result<Engine, String>,
    judge: impl FnOnce(&Engine) -> TextOutcome,
) -> Judged {
    let mut counts = true;
    let outcome = match engine() {
        Ok(engine) => {
            let judged = judge(&engine);
            let complex = judged
                .parts
                .iter()
                .find_map(|part| too_complex(&engine, &part.words));
            match complex {
                Some(complex) if judged.outcome.decision != Decision::Deny => {
                    counts = false;
                    complex
                }
                _ => judged.outcome,
            }
        }
        Err(why) => tool::denied(format!("The policy cannot be used: {why}")),
    };
    Judged {
        outcome,
        kind: Kind::Exec,
        parameters: Map::from_iter([("command".to_owned(), text.into())]),
        words,
        counts,
    }
}

/// The denial of a command that has more arguments, or more bytes of them, than the policy's limits. Variables and
/// patterns are not yet what they will become: the kernel counts what really runs.
fn too_complex(engine: &Engine, words: &[String]) -> Option<Outcome> {
    let limits = &engine.policy().limits;
    let arguments = words.len().saturating_sub(1);
    let bytes: usize = words.iter().map(|word| word.len() + 1).sum();
    let over =
        |limit: Option<u32>, measured: usize| limit.is_some_and(|limit| measured > limit as usize);
    let (what, measured) = if over(limits.arguments, arguments) {
        (COMPLEX_ARGUMENTS, arguments)
    } else if over(limits.argv_bytes, bytes) {
        (COMPLEX_BYTES, bytes)
    } else {
        return None;
    };
    Some(engine.wording().exec_outcome(Judgement {
        decision: Decision::Deny,
        rank: complexity_rank(what, u32::try_from(measured).unwrap_or(u32::MAX)),
        cause: CAUSE_COMPLEXITY,
    }))
}

fn files(
    policy: &Policy,
    scene: &Scene,
    grounds: &Grounds,
    (given, patterns): (&[String], &[String]),
    writes: bool,
) -> Judged {
    let from = resolve::From {
        cwd: &scene.cwd,
        home: scene.home.as_deref(),
    };
    let searched = given.iter().flat_map(|base| {
        patterns
            .iter()
            .map(|pattern| resolve::pattern(pattern, base, &from))
    });
    let resolved = given
        .iter()
        .map(|path| resolve::path(path, &from, writes))
        .chain(searched);
    let mut real = Vec::new();
    let mut outcomes = Vec::new();
    for ways in resolved {
        match ways {
            Ok(ways) => {
                for way in ways {
                    outcomes.push(paths::judge(&policy.file_paths, grounds, &way));
                    if !real.contains(&way.real) {
                        real.push(way.real);
                    }
                }
            }
            Err(why) => outcomes.push(tool::denied(why)),
        }
    }
    let outcome = tool::strictest(outcomes)
        .unwrap_or_else(|| tool::denied("The tool names no path".to_owned()));
    Judged {
        outcome,
        kind: Kind::Other,
        parameters: Map::from_iter([("paths".to_owned(), listed(real))]),
        words: None,
        counts: true,
    }
}

fn sites(policy: &Policy, tool: &str, urls: &[String]) -> Judged {
    let mut outcome = tool::judge(policy, tool, true);
    if outcome.decision == Decision::Allow {
        let judged = urls.iter().map(|url| match web::host(url) {
            Ok(host) => web::judge(&policy.web_tools, &host),
            Err(why) => tool::denied(why),
        });
        // The tool alone is the reason only where there is no URL.
        outcome = tool::strictest(judged).unwrap_or(outcome);
    }
    let mut parameters = Map::new();
    if !urls.is_empty() {
        parameters.insert("urls".to_owned(), listed(urls.to_vec()));
    }
    Judged {
        outcome,
        kind: Kind::Connect,
        parameters,
        words: None,
        counts: true,
    }
}

fn listed(mut texts: Vec<String>) -> Value {
    texts.truncate(MOST_LISTED);
    texts.into()
}
