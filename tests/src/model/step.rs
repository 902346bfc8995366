//! What a script is made of.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Answer;

/// The names of shell tools, as agents have them.
const SHELLS: [&str; 6] = [
    "Bash",
    "exec_command",
    "shell_command",
    "shell",
    "run_shell_command",
    "bash",
];
/// How long Codex's shell tool waits for a command before it leaves it in the background, milliseconds. Its own time is too short
/// for a busy machine.
const YIELD_MS: u64 = 30_000;

/// One thing that the model says.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Calls the agent's own shell tool, whatever that is called.
    Shell(String),
    /// Calls a tool by its name. A text in place of arguments is for tools that take no JSON.
    Call(String, Value),
    /// Says words; with them an agent's work ends.
    Say(String),
}

impl Step {
    /// [`Step::Shell`].
    pub fn shell(command: impl Into<String>) -> Self {
        Self::Shell(command.into())
    }

    /// [`Step::Call`].
    pub fn call(tool: &str, input: Value) -> Self {
        Self::Call(tool.to_owned(), input)
    }

    /// [`Step::Say`].
    pub fn say(words: impl Into<String>) -> Self {
        Self::Say(words.into())
    }

    /// What the model says, to an agent that offers these tools.
    pub(super) fn answer(&self, tools: &BTreeMap<String, Value>) -> Answer {
        match self {
            Self::Shell(command) => {
                let shell = SHELLS.iter().find(|name| tools.contains_key(**name));
                shell.map_or_else(
                    || {
                        let offered: Vec<&String> = tools.keys().collect();
                        Answer::Words(format!("no shell tool among {offered:?}"))
                    },
                    |name| Answer::Call((*name).to_owned(), arguments(command, &tools[*name])),
                )
            }
            Self::Call(tool, input) => Answer::Call(tool.clone(), input.clone()),
            Self::Say(words) => Answer::Words(words.clone()),
        }
    }
}

/// The arguments of a shell tool, by its schema.
fn arguments(command: &str, schema: &Value) -> Value {
    let properties = &schema["properties"];
    let known = |name: &str| properties.get(name).is_some();
    let mut arguments = Map::new();
    if known("cmd") {
        arguments.insert("cmd".into(), command.into());
    } else if properties["command"]["type"] == "array" {
        arguments.insert("command".into(), json!(["bash", "-lc", command]));
    } else {
        arguments.insert("command".into(), command.into());
    }
    for (name, value) in [
        ("description", json!("a step of the test")),
        ("is_background", json!(false)),
        ("yield_time_ms", json!(YIELD_MS)),
    ] {
        if known(name) {
            arguments.insert(name.into(), value);
        }
    }
    Value::Object(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_goes_to_the_shell_tool_by_its_schema() {
        for (name, properties, arguments) in [
            (
                "Bash",
                json!({"command": {"type": "string"}}),
                json!({"command": "id"}),
            ),
            (
                "run_shell_command",
                json!({"command": {}, "is_background": {}, "description": {}}),
                json!({"command": "id", "description": "a step of the test", "is_background": false}),
            ),
            (
                "exec_command",
                json!({"cmd": {"type": "string"}, "yield_time_ms": {}}),
                json!({"cmd": "id", "yield_time_ms": YIELD_MS}),
            ),
            (
                "shell",
                json!({"command": {"type": "array"}}),
                json!({"command": ["bash", "-lc", "id"]}),
            ),
        ] {
            let tools = BTreeMap::from([
                ("Read".to_owned(), Value::Null),
                (name.to_owned(), json!({"properties": properties})),
            ]);
            assert_eq!(
                Step::shell("id").answer(&tools),
                Answer::Call(name.to_owned(), arguments)
            );
        }
    }

    #[test]
    fn an_agent_without_a_shell_tool_is_told_so() {
        let tools = BTreeMap::from([("Read".to_owned(), Value::Null)]);
        let Answer::Words(words) = Step::shell("id").answer(&tools) else {
            panic!("a call");
        };
        assert!(words.contains("Read"), "{words}");
    }
}
