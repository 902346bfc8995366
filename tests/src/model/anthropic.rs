//! Anthropic's Messages, which Claude Code speaks: `POST /v1/messages`, with named events.

use serde_json::{Value, json};

use super::{Answer, Reply, Talk, fresh, list, text};

pub(super) fn hear(body: &Value) -> Talk {
    let messages = list(&body["messages"]);
    let assistants = |message: &&Value| message["role"] == "assistant";
    // Reminders may follow the results in messages of their own.
    let last = messages.iter().rposition(|message| assistants(&message));
    let since = last.map_or(&[][..], |last| &messages[last + 1..]);
    let results = since
        .iter()
        .flat_map(|message| list(&message["content"]))
        .filter(|part| part["type"] == "tool_result");
    Talk {
        turns: messages
            .iter()
            .filter(assistants)
            .flat_map(|message| list(&message["content"]))
            .filter(|part| part["type"] == "tool_use")
            .count(),
        told: results.map(|part| text(&part["content"])).collect(),
        tools: list(&body["tools"])
            .iter()
            .filter_map(|tool| {
                let name = tool["name"].as_str()?;
                Some((name.to_owned(), tool["input_schema"].clone()))
            })
            .collect(),
    }
}

pub(super) fn speak(body: &Value, streams: bool, answer: &Answer) -> Reply {
    let (block, stop) = match answer {
        Answer::Call(name, input) => (
            json!({"type": "tool_use", "id": fresh("toolu"), "name": name, "input": input}),
            "tool_use",
        ),
        Answer::Words(words) => (json!({"type": "text", "text": words}), "end_turn"),
    };
    let mut message = json!({
        "id": fresh("msg"), "type": "message", "role": "assistant", "model": body["model"], "content": [block],
        "stop_reason": stop, "stop_sequence": null,
        "usage": {"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
    });
    if !streams {
        return Reply::Whole(message);
    }
    message["content"] = json!([]);
    message["stop_reason"] = Value::Null;
    // A block comes empty, and fills by deltas: words, or arguments as JSON text.
    let (empty, delta) = match answer {
        Answer::Call(_, input) => {
            let mut empty = block;
            empty["input"] = json!({});
            let delta = json!({"type": "input_json_delta", "partial_json": input.to_string()});
            (empty, delta)
        }
        Answer::Words(words) => (
            json!({"type": "text", "text": ""}),
            json!({"type": "text_delta", "text": words}),
        ),
    };
    let events = [
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": empty}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": null}, "usage": {"output_tokens": 1}}),
        json!({"type": "message_stop"}),
    ];
    let named = events.map(|event| (event["type"].as_str().map(str::to_owned), event.to_string()));
    Reply::Events(named.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_since_the_last_turn_are_heard_whatever_follows_them() {
        let talk = hear(&json!({
            "messages": [
                {"role": "user", "content": "go"},
                {"role": "assistant", "content": "understood"},
                {"role": "assistant", "content": [{"type": "tool_use"}]},
                {"role": "user", "content": [{"type": "tool_result", "content": "old"}]},
                {"role": "assistant", "content": [{"type": "tool_use"}]},
                {"role": "user", "content": [
                    {"type": "tool_result", "content": [{"type": "text", "text": "new"}]},
                    {"type": "text", "text": "a reminder"}]},
                {"role": "user", "content": "another"},
            ],
            "tools": [{"name": "Bash", "input_schema": {"a": 1}}, {"type": "no name"}],
        }));
        assert_eq!((talk.turns, talk.told), (2, vec!["new".to_owned()]));
        assert_eq!(talk.tools["Bash"], json!({"a": 1}));
    }

    #[test]
    fn a_call_comes_as_named_events_whose_deltas_are_its_arguments() {
        let answer = Answer::Call("Bash".into(), json!({"command": "id"}));
        let Reply::Events(events) = speak(&json!({"model": "m"}), true, &answer) else {
            panic!("not events");
        };
        let names: Vec<&str> = events
            .iter()
            .filter_map(|(name, _)| name.as_deref())
            .collect();
        assert_eq!(names.len(), 6);
        assert_eq!((names[0], names[5]), ("message_start", "message_stop"));
        let delta: Value = serde_json::from_str(&events[2].1).unwrap();
        assert_eq!(delta["delta"]["partial_json"], r#"{"command":"id"}"#);
        assert!(events[4].1.contains("tool_use"));
    }
}
