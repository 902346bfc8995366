//! OpenAI's Chat Completions, which Qwen Code, OpenCode, mini-swe-agent and aider speak: `POST /v1/chat/completions`.

use serde_json::{Value, json};

use super::{Answer, Reply, Talk, fresh, list, text};

pub(super) fn hear(body: &Value) -> Talk {
    let messages = list(&body["messages"]);
    let assistants = |message: &&Value| message["role"] == "assistant";
    let tools: std::collections::BTreeMap<String, Value> = list(&body["tools"])
        .iter()
        .filter_map(|tool| {
            let name = tool["function"]["name"].as_str()?;
            Some((name.to_owned(), tool["function"]["parameters"].clone()))
        })
        .collect();
    // Where there are no tools, results come back as the user's words.
    let role = if tools.is_empty() { "user" } else { "tool" };
    let last = messages.iter().rposition(|message| assistants(&message));
    let since = last.map_or(&[][..], |last| &messages[last + 1..]);
    Talk {
        turns: messages
            .iter()
            .flat_map(|message| list(&message["tool_calls"]))
            .count(),
        told: since
            .iter()
            .filter(|message| message["role"] == role)
            .map(|message| text(&message["content"]))
            .collect(),
        tools,
    }
}

pub(super) fn speak(body: &Value, streams: bool, answer: &Answer) -> Reply {
    let (mut message, finish) = match answer {
        Answer::Call(name, arguments) => (
            json!({"role": "assistant", "content": null, "tool_calls": [{
                "id": fresh("call"), "type": "function",
                "function": {"name": name, "arguments": arguments.to_string()},
            }]}),
            "tool_calls",
        ),
        Answer::Words(words) => (json!({"role": "assistant", "content": words}), "stop"),
    };
    let usage = json!({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2});
    let id = fresh("chatcmpl");
    let reply = |object: &str, choice: Value| json!({"id": id, "object": object, "created": 1, "model": body["model"], "choices": [choice], "usage": usage});
    if !streams {
        let choice = json!({"index": 0, "message": message, "finish_reason": finish});
        return Reply::Whole(reply("chat.completion", choice));
    }
    if let Some(call) = message.pointer_mut("/tool_calls/0") {
        call["index"] = 0.into();
    }
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        (None, reply("chat.completion.chunk", choice).to_string())
    };
    Reply::Events(vec![
        chunk(message, Value::Null),
        chunk(json!({}), finish.into()),
        (None, "[DONE]".to_owned()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_the_tools_messages_or_without_tools_the_users() {
        let messages = json!([
            {"role": "system", "content": "be good"}, {"role": "user", "content": "go"},
            {"role": "assistant", "content": "understood"},
            {"role": "assistant", "tool_calls": [{}]}, {"role": "tool", "content": "result"},
            {"role": "user", "content": "a remark"},
        ]);
        let tools =
            json!([{"type": "function", "function": {"name": "bash", "parameters": {"a": 1}}}]);
        let talk = hear(&json!({"messages": messages, "tools": tools}));
        assert_eq!((talk.turns, talk.told), (1, vec!["result".to_owned()]));
        assert_eq!(talk.tools["bash"], json!({"a": 1}));
        let talk = hear(&json!({"messages": messages}));
        assert_eq!(talk.told, ["a remark"]);
    }

    #[test]
    fn a_call_streams_with_its_index_and_ends_with_done() {
        let answer = Answer::Call("bash".into(), json!({"command": "id"}));
        let Reply::Events(events) = speak(&json!({}), true, &answer) else {
            panic!("not events");
        };
        let first: Value = serde_json::from_str(&events[0].1).unwrap();
        let call = &first["choices"][0]["delta"]["tool_calls"][0];
        assert_eq!(call["index"], 0);
        assert_eq!(call["function"]["arguments"], r#"{"command":"id"}"#);
        assert!(events[1].1.contains(r#""finish_reason":"tool_calls""#));
        assert_eq!(events[2].1, "[DONE]");
    }
}
