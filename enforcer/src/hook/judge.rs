//! What the policy says of an event.

use serde_json::{Map, Value};

use super::{input::Event, project::Scene, resolve, state::Kind};
use crate::{
    decide::{
        Decision, Engine, Outcome,
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
    };
    let call = match tool::call(policy, &event.tool, &event.input) {
        Ok(call) => call,
        Err(why) => return refused(format!("The tool call cannot be judged: {why}")),
    };
    match call {
        Call::Text(text) => command(&text, engine),
        Call::Words(words) => match shlex::try_join(words.iter().map(String::as_str)) {
            Ok(text) => command(&text, engine),
            Err(_) => refused("The tool call cannot be judged: a word holds a NUL".to_owned()),
        },
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
        },
    }
}

fn command(text: &str, engine: impl FnOnce() -> Result<Engine, String>) -> Judged {
    let outcome = match engine() {
        Ok(engine) => judge_text(&engine, text),
        Err(why) => tool::denied(format!("The policy cannot be used: {why}")),
    };
    Judged {
        outcome,
        kind: Kind::Exec,
        parameters: Map::from_iter([("command".to_owned(), text.into())]),
        words: shlex::split(text),
    }
}

/// What the policy says of a command text: of its strictest simple command.
pub fn judge_text(engine: &Engine, text: &str) -> Outcome {
    crate::cli::explain::judge_command(engine, text)
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
    }
}

fn listed(mut texts: Vec<String>) -> Value {
    texts.truncate(MOST_LISTED);
    texts.into()
}
