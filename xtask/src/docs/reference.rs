//! A JSON Schema as text: one table for each object, one row for each key.

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What stands before and after a generated part. The schema's path follows the first.
const BEGIN: &str = "<!-- begin generated from ";
const BEGIN_END: &str = " by `cargo xtask docs` -->";
const END: &str = "<!-- end generated -->";

/// Makes the generated parts of a document anew; `schema` reads a schema by its path.
///
/// # Errors
/// When a marker has no counterpart, there is none at all, or a schema cannot be read or used.
pub fn fill(document: &str, schema: impl Fn(&str) -> Result<Value>) -> Result<String> {
    let mut out = String::with_capacity(document.len());
    let mut rest = document;
    let mut parts = 0;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after
            .split_once(BEGIN_END)
            .with_context(|| format!("`{BEGIN}` without `{BEGIN_END}`"))?;
        let (_, after) = after
            .split_once(END)
            .with_context(|| format!("the part from {name} has no `{END}`"))?;
        let text = objects(&schema(name)?).with_context(|| name.to_owned())?;
        out.extend([before, BEGIN, name, BEGIN_END, "\n\n", &text, END]);
        rest = after;
        parts += 1;
    }
    if parts == 0 {
        bail!("no generated part: `{BEGIN}` is missing");
    }
    out.push_str(rest);
    Ok(out)
}

/// All objects of a schema, from the top down.
fn objects(schema: &Value) -> Result<String> {
    let mut out = String::new();
    // What an object holds comes right after it.
    let mut waiting = vec![(String::new(), schema)];
    while let Some((path, object)) = waiting.pop() {
        let mut inner = Vec::new();
        let title = if path.is_empty() {
            "The file".to_owned()
        } else {
            format!("`{path}`")
        };
        out.extend(["### ", &title, "\n\n"]);
        if let Some(text) = described(object) {
            out.extend([&text, "\n\n"]);
        }
        out.push_str("| key | value | meaning |\n|---|---|---|\n");
        let keys = object["properties"]
            .as_object()
            .with_context(|| format!("the object at `{path}` has no properties"))?;
        for (key, value) in keys {
            let required = object["required"]
                .as_array()
                .is_some_and(|names| names.iter().any(|name| name == key));
            let meaning = cell(&described(value).unwrap_or_default());
            let kind = cell(&kind(schema, value)?);
            let required = if required { " (required)" } else { "" };
            out.extend([
                "| `", key, "`", required, " | ", &kind, " | ", &meaning, " |\n",
            ]);
            if let Some((object, suffix)) = inner_object(schema, value) {
                let dot = if path.is_empty() { "" } else { "." };
                inner.push((format!("{path}{dot}{key}{suffix}"), object));
            }
        }
        out.push('\n');
        waiting.extend(inner.into_iter().rev());
    }
    Ok(out)
}

/// The description, on one line.
fn described(value: &Value) -> Option<String> {
    Some(value["description"].as_str()?.replace('\n', " "))
}

/// Text inside a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// What a `$ref` leads to; other schemas are themselves.
fn resolved<'a>(schema: &'a Value, value: &'a Value) -> &'a Value {
    value["$ref"]
        .as_str()
        .and_then(|reference| reference.strip_prefix('#'))
        .and_then(|pointer| schema.pointer(pointer))
        .unwrap_or(value)
}

/// The alternatives of a value, less `null`: a key may be left out instead.
fn alternatives<'a>(schema: &'a Value, value: &'a Value) -> Vec<&'a Value> {
    match value["anyOf"].as_array() {
        Some(any) => any
            .iter()
            .map(|value| resolved(schema, value))
            .filter(|value| value["type"] != "null")
            .collect(),
        None => vec![resolved(schema, value)],
    }
}

/// The object with keys of its own that a value is, or is a list of.
fn inner_object<'a>(schema: &'a Value, value: &'a Value) -> Option<(&'a Value, &'static str)> {
    alternatives(schema, value).into_iter().find_map(|value| {
        if value["properties"].is_object() {
            return Some((value, ""));
        }
        let items = resolved(schema, &value["items"]);
        items["properties"].is_object().then_some((items, "[]"))
    })
}

/// What kind of value it is, in words.
fn kind(schema: &Value, value: &Value) -> Result<String> {
    let kinds: Vec<String> = alternatives(schema, value)
        .into_iter()
        .map(|value| kind_of_one(schema, value))
        .collect::<Result<_>>()?;
    Ok(kinds.join(" or "))
}

fn kind_of_one(schema: &Value, value: &Value) -> Result<String> {
    if let Some(constant) = value.get("const") {
        return Ok(format!("`{constant}`"));
    }
    if let Some(words) = value["oneOf"].as_array()
        && words.iter().all(|word| word["const"].is_string())
    {
        let words: Vec<String> = words
            .iter()
            .map(|word| format!("`{}`", word["const"]))
            .collect();
        return Ok(words.join(", "));
    }
    let name = match &value["type"] {
        Value::String(name) => name.as_str(),
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .find(|name| *name != "null")
            .unwrap_or("null"),
        _ => bail!("a schema that this generator does not know: {value}"),
    };
    Ok(match name {
        "array" => {
            let least = if value["minItems"] == 1 {
                ", not empty"
            } else {
                ""
            };
            format!("list of {}{least}", plural(&kind(schema, &value["items"])?))
        }
        "object" => match value.get("additionalProperties") {
            Some(inner) if inner.is_object() => format!("object: name to {}", kind(schema, inner)?),
            _ => "object".to_owned(),
        },
        "integer" => match (&value["minimum"], &value["maximum"]) {
            (Value::Number(least), Value::Number(most)) => format!("number from {least} to {most}"),
            (Value::Number(least), _) => format!("number from {least}"),
            _ => "number".to_owned(),
        },
        "boolean" => "`true` or `false`".to_owned(),
        "string" => match value["pattern"].as_str() {
            Some(pattern) => format!("string, `{pattern}`"),
            None => "string".to_owned(),
        },
        other => other.to_owned(),
    })
}

/// `string or list of strings` stays as it is in the plural of its first word.
fn plural(kind: &str) -> String {
    for name in ["string", "object", "number"] {
        if let Some(rest) = kind.strip_prefix(name) {
            return format!("{name}s{rest}");
        }
    }
    kind.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({
            "type": "object",
            "description": "A\nthing.",
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "description": "One | two."},
                "port": {"type": ["integer", "null"], "minimum": 1, "maximum": 9},
                "rules": {"type": "array", "items": {"$ref": "#/$defs/Rule"}, "minItems": 1},
            },
            "$defs": {
                "Rule": {"type": "object", "properties": {
                    "say": {"anyOf": [{"$ref": "#/$defs/Word"}, {"type": "null"}]},
                }},
                "Word": {"oneOf": [{"const": "a"}, {"const": "b"}]},
            },
        })
    }

    const TABLES: &str = "### The file\n\nA thing.\n\n| key | value | meaning |\n|---|---|---|\n\
        | `name` (required) | string | One \\| two. |\n\
        | `port` | number from 1 to 9 |  |\n\
        | `rules` | list of objects, not empty |  |\n\n\
        ### `rules[]`\n\n| key | value | meaning |\n|---|---|---|\n\
        | `say` | `\"a\"`, `\"b\"` |  |\n\n";

    #[test]
    fn a_schema_becomes_tables_from_the_top_down() {
        assert_eq!(objects(&schema()).unwrap(), TABLES);
    }

    #[test]
    fn only_what_is_between_the_markers_is_made_anew() {
        let document = |part: &str| format!("a\n{BEGIN}s.json{BEGIN_END}{part}{END}\nb\n");
        let filled = fill(&document("old"), |name| {
            assert_eq!(name, "s.json");
            Ok(schema())
        })
        .unwrap();
        assert_eq!(filled, document(&format!("\n\n{TABLES}")));
        assert_eq!(fill(&filled, |_| Ok(schema())).unwrap(), filled);
    }

    #[test]
    fn markers_must_be_whole() {
        for bad in [
            "no marker",
            "<!-- begin generated from s.json by `cargo xtask docs` --> x",
        ] {
            fill(bad, |_| Ok(schema())).unwrap_err();
        }
    }
}
