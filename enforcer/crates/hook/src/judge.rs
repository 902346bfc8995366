//! What the policy says of an event.

use serde_json::{Map, Value};

use super::{
    format::Format,
    input::ToolCall,
    inside::{self, Inside},
    probe,
    project::EventPlace,
    resolve,
};
use enforcer_control::protocol::CallClass;
use enforcer_decide::{
    ByText, Engine, Find, Outcome,
    command_text::{self, TextOutcome},
    patch::{self, Patches},
    paths::{self, Grounds},
    tool::{self, ToolAction},
    web,
};
use enforcer_files::on_disk::Finder;
use enforcer_policy::{Cause, Decision, Policy};
use enforcer_policy_files::ground::Ground;

/// Entries of a list that are recorded.
const MOST_LISTED: usize = 32;

/// An event, judged by the rules.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What they say.
    pub outcome: Outcome,
    /// What it counts as.
    pub kind: CallClass,
    /// What the trail says of it.
    pub parameters: Map<String, Value>,
    /// The words of the one command that it is, if it is one.
    pub words: Option<Vec<String>>,
    /// Whether the breaker counts it: a limit is no rule.
    pub counts: bool,
}

/// What the trail says of an event that is not judged: what it names, as it is given.
pub fn named(event: &ToolCall, policy: &Policy) -> Map<String, Value> {
    let (key, value) = match tool::call(policy, &event.tool, &event.input) {
        Ok(ToolAction::Text(text)) => ("command", text.into()),
        Ok(ToolAction::Words(words)) => ("command", words.join(" ").into()),
        Ok(ToolAction::Paths { paths, .. }) => ("paths", listed(paths)),
        Ok(ToolAction::Web(urls)) if !urls.is_empty() => ("urls", listed(urls)),
        Ok(ToolAction::Web(_) | ToolAction::Other) | Err(_) => return Map::new(),
    };
    Map::from_iter([(key.to_owned(), value)])
}

/// Judges an event. The engine is made only for commands: for the rest its tables are not needed.
pub fn judge(
    event: &ToolCall,
    policy: &Policy,
    engine: impl FnOnce() -> Result<Engine, String>,
    scene: &EventPlace,
    ground: Option<&Ground>,
    grounds: impl FnOnce() -> Grounds,
) -> Judged {
    let refused = |reason: String| Judged {
        outcome: tool::denied(Cause::Unreadable, reason),
        kind: CallClass::Other,
        parameters: Map::new(),
        words: None,
        counts: true,
    };
    let call = match tool::call(policy, &event.tool, &event.input) {
        Ok(call) => call,
        Err(why) => return refused(format!("The tool call cannot be judged: {why}")),
    };
    let places = match inside::places(&event.tool, &event.input, scene) {
        Ok(places) => places,
        Err(why) => return refused(format!("The tool call cannot be judged: {why}")),
    };
    let find = finder(policy, scene, ground);
    match call {
        ToolAction::Text(text) => {
            let patches = patch::in_text(&text).map(|patches| below(patches, &places));
            let words = shlex::split(&text);
            let (mut judged, by_default) = command(&text, (words, &places), engine, |engine| {
                strictest(&*find, &places, |find| {
                    command_text::judge_found(engine, &text, find)
                })
            });
            // It asks whether the hook answers, not whether a list has a command that does nothing.
            if by_default && probe::is_harmless(event) {
                judged.outcome = tool::allowed(None, "It does nothing".to_owned());
            }
            let judged = (judged, by_default);
            patched(judged, patches, event, policy, scene, grounds)
        }
        ToolAction::Words(words) => {
            let bytes: Vec<Vec<u8>> = words.iter().map(|word| word.clone().into_bytes()).collect();
            let patches = patch::in_words(&words).map(|patches| below(patches, &places));
            let text = words.join(" ");
            let judged = command(&text, (Some(words), &places), engine, |engine| {
                strictest(&*find, &places, |find| {
                    command_text::judge_words_found(engine, &bytes, find)
                })
            });
            patched(judged, patches, event, policy, scene, grounds)
        }
        ToolAction::Paths {
            paths,
            patterns,
            writes,
        } => files(policy, scene, &grounds(), (&paths, &patterns), writes),
        ToolAction::Web(urls) => sites(policy, &event.tool, &urls),
        ToolAction::Other => Judged {
            outcome: tool::judge(policy, &event.tool, false),
            kind: CallClass::Other,
            parameters: Map::new(),
            words: None,
            counts: true,
        },
    }
}

/// Looks for programs where the agent is; without a user who could be asked about, nowhere.
fn finder(policy: &Policy, scene: &EventPlace, ground: Option<&Ground>) -> Box<dyn Find> {
    let Some(ground) = ground else {
        return Box::new(ByText);
    };
    let path = std::env::var_os("PATH");
    Box::new(Finder::new(
        Some(scene.cwd.clone()),
        scene.home.as_deref(),
        path.as_deref(),
        &policy.exec.trusted_dirs,
        ground.changer.clone(),
    ))
}

/// The strictest of what a command comes to by each way to read where it begins.
fn strictest(
    find: &dyn Find,
    places: &[Option<String>],
    judge: impl Fn(&dyn Find) -> TextOutcome,
) -> TextOutcome {
    let at = |place: &Option<String>| {
        judge(&Inside {
            find,
            directory: place.as_deref(),
        })
    };
    let all = places.iter().map(at).reduce(|known, next| {
        if next.outcome.decision > known.outcome.decision {
            next
        } else {
            known
        }
    });
    all.unwrap_or_else(|| at(&None))
}

/// The files of patches, from the session's directory.
fn below(patches: Option<Patches>, places: &[Option<String>]) -> Option<Patches> {
    let mut patches = patches?;
    let from = |place: &Option<String>| {
        let place = place.clone();
        move |path: &String| match &place {
            Some(place) if !path.starts_with(['/', '~']) => format!("{place}/{path}"),
            _ => path.clone(),
        }
    };
    patches.paths = places
        .iter()
        .flat_map(|place| patches.paths.iter().map(from(place)))
        .collect();
    Some(patches)
}

/// Judges a command: all that its text starts, and how much each is. The second is whether it is denied for no more
/// than that no rule allows it. Its words are of use only where it begins in the session's directory.
fn command(
    text: &str,
    (words, places): (Option<Vec<String>>, &[Option<String>]),
    engine: impl FnOnce() -> Result<Engine, String>,
    judge: impl FnOnce(&Engine) -> TextOutcome,
) -> (Judged, bool) {
    let mut counts = true;
    let mut by_default = false;
    let outcome = match engine() {
        Ok(engine) => {
            let judged = judge(&engine);
            counts = !judged.limited;
            by_default = counts
                && judged.outcome.decision == Decision::Deny
                && judged.outcome.cause == Cause::Default;
            judged.outcome
        }
        Err(why) => tool::denied(Cause::Internal, format!("The policy cannot be used: {why}")),
    };
    let mut parameters = Map::from_iter([("command".to_owned(), text.into())]);
    let elsewhere: Vec<String> = places.iter().flatten().cloned().collect();
    if !elsewhere.is_empty() {
        parameters.insert("directories".to_owned(), listed(elsewhere));
    }
    let judged = Judged {
        outcome,
        kind: CallClass::Exec,
        words: words.filter(|_| !parameters.contains_key("directories")),
        parameters,
        counts,
    };
    (judged, by_default)
}

/// A command with the patches in it: each file that they write is judged as one of a file tool.
fn patched(
    (judged, by_default): (Judged, bool),
    patches: Result<Option<Patches>, tool::ToolFault>,
    event: &ToolCall,
    policy: &Policy,
    scene: &EventPlace,
    grounds: impl FnOnce() -> Grounds,
) -> Judged {
    let patches = match patches {
        Ok(None) => return judged,
        Ok(Some(patches)) => patches,
        Err(why) => {
            let all = [judged.outcome, tool::denied(Cause::Unreadable, why)];
            return Judged {
                outcome: tool::strictest(all)
                    .unwrap_or_else(|| tool::denied(Cause::Unreadable, String::new())),
                ..judged
            };
        }
    };
    let files = files(policy, scene, &grounds(), (&patches.paths, &[]), true);
    // Codex starts no program for it, so there is none that a rule would have to allow.
    let applied = patches.sole && event.shape.format == Format::Codex;
    let outcome = if applied && by_default {
        files.outcome
    } else {
        tool::strictest([judged.outcome.clone(), files.outcome]).unwrap_or(judged.outcome)
    };
    let mut parameters = judged.parameters;
    parameters.extend(files.parameters);
    Judged {
        outcome,
        parameters,
        // An approval of the command's words would be one of whatever files it names.
        words: None,
        ..judged
    }
}

fn files(
    policy: &Policy,
    scene: &EventPlace,
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
            Err(why) => outcomes.push(tool::denied(Cause::Unreadable, why)),
        }
    }
    let outcome = tool::strictest(outcomes)
        .unwrap_or_else(|| tool::denied(Cause::Unreadable, "The tool names no path".to_owned()));
    Judged {
        outcome,
        kind: CallClass::Other,
        parameters: Map::from_iter([("paths".to_owned(), listed(real))]),
        words: None,
        counts: true,
    }
}

fn sites(policy: &Policy, tool: &str, urls: &[String]) -> Judged {
    let mut outcome = tool::judge(policy, tool, true);
    if outcome.decision == Decision::Allow {
        let judged = urls.iter().map(|url| match web::host(url) {
            Ok(host) => web::judge(&policy.web_tools, policy.form, &host),
            Err(why) => tool::denied(Cause::Unreadable, why),
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
        kind: CallClass::Connect,
        parameters,
        words: None,
        counts: true,
    }
}

fn listed(mut texts: Vec<String>) -> Value {
    texts.truncate(MOST_LISTED);
    texts.into()
}
