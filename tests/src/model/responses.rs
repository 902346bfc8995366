//! OpenAI's Responses, which Codex speaks: `POST /v1/responses`, with named events.

use serde_json::{Value, json};

use super::{Answer, Reply, Talk, fresh, list, text};

pub(super) fn hear(body: &Value) -> Talk {
    let items = list(&body["input"]);
    let kind = |item: &Value| item["type"].as_str().unwrap_or("message").to_owned();
    let called = |item: &&Value| kind(item).ends_with("_call");
    let last = items.iter().rposition(|item| called(&item));
    let since = last.map_or(&[][..], |last| &items[last + 1..]);
    Talk {
        turns: items.iter().filter(called).count(),
        told: since
            .iter()
            .filter(|item| kind(item).ends_with("_output"))
            .map(|item| text(&item["output"]))
            .collect(),
        tools: list(&body["tools"])
            .iter()
            .filter_map(|tool| {
                let name = tool["name"].as_str().or_else(|| tool["type"].as_str())?;
                Some((name.to_owned(), tool["parameters"].clone()))
            })
            .collect(),
    }
}

pub(super) fn speak(body: &Value, streams: bool, answer: &Answer) -> Reply {
    let item = match answer {
        // A tool without a schema takes text as it is.
        Answer::Call(name, Value::String(input)) => json!({
            "type": "custom_tool_call", "id": fresh("ctc"), "call_id": fresh("call"), "name": name, "input": input,
            "status": "completed",
        }),
        Answer::Call(name, arguments) => json!({
            "type": "function_call", "id": fresh("fc"), "call_id": fresh("call"), "name": name,
            "arguments": arguments.to_string(), "status": "completed",
        }),
        Answer::Words(words) => json!({
            "type": "message", "id": fresh("msg"), "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": words, "annotations": []}],
        }),
    };
    let whole = json!({
        "id": fresh("resp"), "object": "response", "status": "completed", "model": body["model"], "output": [item],
        "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2,
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}},
    });
    if !streams {
        return Reply::Whole(whole);
    }
    let mut begun = whole.clone();
    begun["status"] = "in_progress".into();
    begun["output"] = json!([]);
    begun["usage"] = Value::Null;
    let events = [
        json!({"type": "response.created", "response": begun}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": item}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
        json!({"type": "response.completed", "response": whole}),
    ];
    let named = events.map(|event| (event["type"].as_str().map(str::to_owned), event.to_string()));
    Reply::Events(named.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_turns_and_outputs_are_heard() {
        let talk = hear(&json!({
            "input": [
                {"type": "message", "role": "user", "content": []}, {"type": "message", "role": "assistant"},
                {"type": "function_call"}, {"type": "function_call_output", "output": "old"},
                {"type": "custom_tool_call"},
                {"type": "custom_tool_call_output", "output": [{"type": "input_text", "text": "new"}]},
                {"type": "message", "role": "developer", "content": "a remark"},
            ],
            "tools": [{"name": "exec_command", "parameters": {"a": 1}}, {"type": "web_search"}],
        }));
        assert_eq!((talk.turns, talk.told), (2, vec!["new".to_owned()]));
        assert_eq!(talk.tools["exec_command"], json!({"a": 1}));
        assert!(talk.tools.contains_key("web_search"));
    }

    #[test]
    fn text_in_place_of_arguments_is_a_free_form_call() {
        let item = |answer: &Answer| match speak(&json!({}), false, answer) {
            Reply::Whole(reply) => reply["output"][0].clone(),
            Reply::Events(_) => panic!("events"),
        };
        let patch = item(&Answer::Call("apply_patch".into(), "*** Begin".into()));
        assert_eq!(
            (&patch["type"], &patch["input"]),
            (&json!("custom_tool_call"), &json!("*** Begin"))
        );
        let call = item(&Answer::Call("exec_command".into(), json!({"cmd": "id"})));
        assert_eq!(call["arguments"], r#"{"cmd":"id"}"#);
    }
}
