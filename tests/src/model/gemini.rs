//! Gemini's `generateContent` and `streamGenerateContent`, which Gemini CLI speaks.

use serde_json::{Map, Value, json};

use super::{Answer, Reply, Talk, list};

pub(super) fn hear(body: &Value) -> Talk {
    let contents = list(&body["contents"]);
    let models = |content: &&Value| content["role"] == "model";
    let last = contents.iter().rposition(|content| models(&content));
    let since = last.map_or(&[][..], |last| &contents[last + 1..]);
    Talk {
        turns: contents
            .iter()
            .flat_map(|content| list(&content["parts"]))
            .filter(|part| part.get("functionCall").is_some())
            .count(),
        told: since
            .iter()
            .flat_map(|content| list(&content["parts"]))
            .filter_map(|part| part.pointer("/functionResponse/response"))
            .map(|response| {
                response["output"]
                    .as_str()
                    .map_or_else(|| response.to_string(), str::to_owned)
            })
            .collect(),
        tools: list(&body["tools"])
            .iter()
            .flat_map(|tool| list(&tool["functionDeclarations"]))
            .filter_map(|function| {
                let schema = ["parametersJsonSchema", "parameters"]
                    .iter()
                    .find_map(|key| function.get(*key));
                Some((
                    function["name"].as_str()?.to_owned(),
                    schema.cloned().unwrap_or_default(),
                ))
            })
            .collect(),
    }
}

pub(super) fn speak(body: &Value, streams: bool, answer: &Answer) -> Reply {
    let schema = &body["generationConfig"]["responseJsonSchema"];
    let part = match answer {
        Answer::Call(name, arguments) => {
            json!({"functionCall": {"name": name, "args": arguments}})
        }
        // A side question: which model to take, who speaks next.
        Answer::Words(_) if schema.is_object() => json!({"text": least(schema).to_string()}),
        Answer::Words(words) => json!({"text": words}),
    };
    let reply = json!({
        "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
        "modelVersion": super::NAME,
    });
    if streams {
        Reply::Events(vec![(None, reply.to_string())])
    } else {
        Reply::Whole(reply)
    }
}

/// The smallest value that a JSON schema accepts.
fn least(schema: &Value) -> Value {
    if let Some(first) = list(&schema["enum"]).first() {
        return first.clone();
    }
    match schema["type"].as_str().map(str::to_lowercase).as_deref() {
        Some("object") => {
            let required = list(&schema["required"]).iter().filter_map(Value::as_str);
            let members: Map<String, Value> = required
                .map(|name| (name.to_owned(), least(&schema["properties"][name])))
                .collect();
            Value::Object(members)
        }
        Some("array") => json!([]),
        Some("boolean") => json!(false),
        Some("number" | "integer") => json!(1),
        _ => json!("x"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_of_functions_are_heard() {
        let talk = hear(&json!({
            "contents": [
                {"role": "user", "parts": [{"text": "go"}]},
                {"role": "model", "parts": [{"functionCall": {}}]},
                {"role": "user", "parts": [
                    {"functionResponse": {"response": {"output": "Exit Code: 0"}}},
                    {"functionResponse": {"response": {"error": "no"}}}]},
            ],
            "tools": [{"functionDeclarations": [{"name": "run_shell_command", "parametersJsonSchema": {"a": 1}}]}],
        }));
        assert_eq!(talk.turns, 1);
        assert_eq!(talk.told, ["Exit Code: 0", r#"{"error":"no"}"#]);
        assert_eq!(talk.tools["run_shell_command"], json!({"a": 1}));
    }

    #[test]
    fn a_side_question_gets_what_its_schema_wants() {
        let body = json!({"generationConfig": {"responseJsonSchema": {
            "type": "object", "required": ["choice", "why"],
            "properties": {"choice": {"enum": ["flash", "pro"]}, "why": {"type": "string"}, "more": {"type": "array"}},
        }}});
        let Reply::Whole(reply) = speak(&body, false, &Answer::Words("x".into())) else {
            panic!("events");
        };
        let text = reply["candidates"][0]["content"]["parts"][0]["text"].as_str();
        assert_eq!(text, Some(r#"{"choice":"flash","why":"x"}"#));
    }
}
