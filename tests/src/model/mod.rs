//! A model that says what a script has it say, for real agents that would call a real one: an HTTP server on 127.0.0.1 that
//! speaks what theirs speak, and keeps what their tools told it.

mod anthropic;
mod chat;
mod gemini;
mod responses;
mod server;
mod step;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

use self::server::Server;
pub use self::step::Step;

/// The name that it goes by.
pub const NAME: &str = "scripted";
/// What it says when the script has nothing left, and where no tools are offered: titles, summaries, side questions.
const DONE: &str = "done";

/// What an agent sent: the talk so far.
#[derive(Debug, Default, PartialEq)]
struct Talk {
    /// How many calls the model has made. What else stands in its name is not its own: agents open a talk with such words.
    turns: usize,
    /// What came of its last calls, one text a call.
    told: Vec<String>,
    /// The tools that it may call, with the schemas of their arguments.
    tools: BTreeMap<String, Value>,
}

/// What the model says.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    /// A call of a tool with these arguments.
    Call(String, Value),
    /// Words.
    Words(String),
}

/// An answer as it goes over the wire.
#[derive(Debug, PartialEq)]
enum Reply {
    /// All at once.
    Whole(Value),
    /// Server-sent events: each has a name, if the contract names them, and data.
    Events(Vec<(Option<String>, String)>),
}

/// How one contract is read and written.
struct Dialect {
    hear: fn(&Value) -> Talk,
    /// Of a request, and whether events are wanted.
    speak: fn(&Value, bool, &Answer) -> Reply,
}

/// The contract of a path, and whether the path itself asks for events.
fn dialect(path: &str) -> Option<(Dialect, bool)> {
    let of = |hear, speak| Dialect { hear, speak };
    Some(match path {
        _ if path.ends_with("/messages") => (of(anthropic::hear, anthropic::speak), false),
        _ if path.ends_with("/responses") => (of(responses::hear, responses::speak), false),
        _ if path.ends_with("/chat/completions") => (of(chat::hear, chat::speak), false),
        _ if path.ends_with(":generateContent") => (of(gemini::hear, gemini::speak), false),
        _ if path.ends_with(":streamGenerateContent") => (of(gemini::hear, gemini::speak), true),
        _ => return None,
    })
}

/// What the model was asked and told, turn by turn.
#[derive(Debug, Default)]
struct Script {
    steps: Vec<Step>,
    /// Whether the agent offers no tools at all: then its words alone are scripted.
    words_alone: bool,
    heard: Mutex<Vec<Heard>>,
}

/// One turn of the talk.
#[derive(Clone, Debug, PartialEq)]
struct Heard {
    turn: usize,
    told: Vec<String>,
}

impl Script {
    /// Answers a request: step N where the model has made N calls, so that a request that is sent again is answered again.
    fn answer(&self, path: &str, body: &Value) -> Option<Reply> {
        let (dialect, streams) = dialect(path)?;
        let mut talk = (dialect.hear)(body);
        if self.words_alone {
            talk.turns = self.spoken(body);
        }
        let scripted = self.words_alone || !talk.tools.is_empty();
        let answer = if scripted {
            let turn = Heard {
                turn: talk.turns,
                told: talk.told.clone(),
            };
            let mut heard = lock(&self.heard);
            if !heard.contains(&turn) {
                heard.push(turn);
            }
            let step = self.steps.get(talk.turns);
            step.map_or_else(
                || Answer::Words(DONE.to_owned()),
                |step| step.answer(&talk.tools),
            )
        } else {
            Answer::Words(DONE.to_owned())
        };
        let streams = streams || body["stream"] == true;
        Some((dialect.speak)(body, streams, &answer))
    }

    /// How many of the script's words stand in a talk. Agents without tools open the talk with answers that the model never
    /// gave, as examples.
    fn spoken(&self, body: &Value) -> usize {
        let messages = body["messages"].as_array().map_or(&[][..], Vec::as_slice);
        let said = |words: &str| {
            messages.iter().any(|message| {
                message["role"] == "assistant" && text(&message["content"]).trim() == words.trim()
            })
        };
        let words = self.steps.iter().take_while(|step| match step {
            Step::Say(words) => said(words),
            _ => false,
        });
        words.count()
    }
}

/// The model. It listens as long as the value lives.
#[derive(Debug)]
pub struct Model {
    script: Arc<Script>,
    server: Server,
}

impl Model {
    /// A model for an agent with tools.
    ///
    /// # Panics
    ///
    /// When no port is to be had.
    pub fn start(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::listening(steps, false)
    }

    /// A model for an agent that offers no tools and acts on words.
    ///
    /// # Panics
    ///
    /// When no port is to be had.
    pub fn without_tools(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::listening(steps, true)
    }

    fn listening(steps: impl IntoIterator<Item = Step>, words_alone: bool) -> Self {
        let script = Arc::new(Script {
            steps: steps.into_iter().collect(),
            words_alone,
            heard: Mutex::default(),
        });
        let server = Server::start(Arc::clone(&script));
        Self { script, server }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where it listens, as agents are told.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// What each call came to, in order: what the model was told.
    pub fn told(&self) -> Vec<String> {
        let mut heard = lock(&self.script.heard).clone();
        heard.sort_by_key(|heard| heard.turn);
        heard.into_iter().flat_map(|heard| heard.told).collect()
    }

    /// The same in one text.
    pub fn told_text(&self) -> String {
        self.told().join("\n")
    }

    /// Forgets what it was told, before the same script is gone through once more.
    pub fn forget(&self) {
        lock(&self.script.heard).clear();
    }

    /// How many steps of the script have been answered to.
    pub fn turns(&self) -> usize {
        let heard = lock(&self.script.heard);
        heard.iter().map(|heard| heard.turn).max().unwrap_or(0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The words of a content, which the contracts write as a string, a part, or a list of parts.
fn text(content: &Value) -> String {
    match content {
        Value::String(words) => words.clone(),
        Value::Array(parts) => {
            let texts: Vec<String> = parts.iter().map(text).collect();
            texts.join("\n")
        }
        Value::Object(part) => ["text", "content", "output"]
            .iter()
            .find_map(|key| part.get(*key))
            .map_or_else(|| content.to_string(), text),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The elements of a list; none where there is no list.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// An identifier that no other answer has.
fn fresh(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    format!("{prefix}_{:012x}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn script(steps: Vec<Step>, words_alone: bool) -> Script {
        Script {
            steps,
            words_alone,
            heard: Mutex::default(),
        }
    }

    fn ask(script: &Script, messages: &Value) -> String {
        let tools = json!([{"name": "Bash", "input_schema": {"properties": {"command": {"type": "string"}}}}]);
        let body = json!({"messages": messages, "tools": tools});
        let Some(Reply::Whole(reply)) = script.answer("/v1/messages", &body) else {
            panic!("no whole reply");
        };
        reply["content"][0].to_string()
    }

    #[test]
    fn a_step_is_answered_by_how_many_calls_were_made() {
        let script = script(vec![Step::shell("id"), Step::say("bye")], false);
        let first = json!([{"role": "user", "content": "go"}]);
        assert!(ask(&script, &first).contains(r#""input":{"command":"id"}"#));
        let second = json!([
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [{"type": "tool_use"}]},
            {"role": "user", "content": [{"type": "tool_result", "content": "uid=0", "is_error": true}]},
        ]);
        // Asked again it says the same, and what it was told counts once.
        for _ in 0..2 {
            assert!(ask(&script, &second).contains("bye"));
        }
        let heard = lock(&script.heard);
        assert_eq!(heard.len(), 2);
        assert_eq!(heard[1].told, ["uid=0"]);
    }

    #[test]
    fn side_questions_move_nothing_on() {
        let script = script(vec![Step::shell("id")], false);
        let body = json!({"messages": [{"role": "user", "content": "a title?"}]});
        let reply = script.answer("/v1/messages", &body);
        assert!(matches!(reply, Some(Reply::Whole(reply)) if reply["content"][0]["text"] == DONE));
        assert!(lock(&script.heard).is_empty());
        assert!(script.answer("/v1/elsewhere", &body).is_none());
    }

    #[test]
    fn examples_that_an_agent_puts_in_its_mouth_are_no_turns() {
        let script = script(vec![Step::say("one"), Step::say("two")], true);
        let talk = |said: &str| {
            json!({"messages": [
                {"role": "assistant", "content": "an example"}, {"role": "user", "content": "go"},
                {"role": "assistant", "content": said}, {"role": "user", "content": "it failed"},
            ]})
        };
        for (said, answer) in [("nothing of ours", "one"), ("one", "two")] {
            let reply = script.answer("/v1/chat/completions", &talk(said));
            let Some(Reply::Whole(reply)) = reply else {
                panic!("{reply:?}");
            };
            assert_eq!(reply["choices"][0]["message"]["content"], answer);
        }
        let heard = lock(&script.heard);
        assert_eq!(heard[1].told, ["it failed"]);
    }

    #[test]
    fn content_is_read_in_every_form() {
        for (content, words) in [
            (json!("a"), "a"),
            (json!([{"type": "text", "text": "a"}, "b"]), "a\nb"),
            (json!({"output": {"content": "a"}}), "a"),
            (json!(null), ""),
            (json!({"other": 1}), r#"{"other":1}"#),
        ] {
            assert_eq!(text(&content), words);
        }
    }
}
