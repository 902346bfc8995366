//! Codex's trust in a hook: it runs none that nobody has trusted, and `codex exec` does not say so.
//!
//! The user's own `config.toml` holds it, one table for each hook: `[hooks.state."FILE:EVENT:GROUP:HANDLER"]` with the
//! `trusted_hash` of the definition that was trusted (codex-rs/hooks/src/engine/discovery.rs). Trust in settings of the
//! project stands there too; settings of the machine need none.

use std::fmt::Write;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use toml_edit::{DocumentMut, Item, Table};

use super::edit;

/// The event of ours, as the key has it.
const EVENT: &str = "pre_tool_use";
/// Seconds that Codex waits where a hook says nothing.
const DEFAULT_TIMEOUT_S: u64 = 600;
/// Members of a handler that make the definition. One that has others is of a format that is not known here.
const HANDLER: [&str; 5] = ["type", "command", "timeout", "async", "statusMessage"];
/// Members of a group.
const GROUP: [&str; 2] = ["matcher", "hooks"];

/// A hook of ours in Codex's settings, as its trust names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// File, event, and the places of group and handler.
    pub key: String,
    /// Of the definition; `None`: it has members that are not known, so nobody here can say.
    pub hash: Option<String>,
}

/// What a user's settings say of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustStatus {
    /// This very definition is trusted.
    Trusted,
    /// Nobody has trusted it.
    Untrusted,
    /// Another definition was trusted in its place.
    Modified,
    /// The user has turned it off.
    Off,
}

/// The hooks in settings, which are those of this file, that look like ours, or run exactly this command. Only the
/// latter may be trusted: what merely looks like ours may be anybody's.
pub fn of(settings: &Value, file: &str, command: Option<&str>) -> Vec<Trust> {
    let wanted = |handler: &Value| match command {
        Some(command) => handler["command"] == command,
        None => edit::runs_us(handler),
    };
    let groups = settings["hooks"]["PreToolUse"].as_array();
    let mut found = Vec::new();
    for (place, group) in groups.into_iter().flatten().enumerate() {
        let handlers = group["hooks"].as_array();
        for (nth, handler) in handlers.into_iter().flatten().enumerate() {
            if wanted(handler) {
                found.push(Trust {
                    key: format!("{file}:{EVENT}:{place}:{nth}"),
                    hash: hash(group, handler),
                });
            }
        }
    }
    found
}

/// The hash of a definition: SHA-256 over JSON with sorted keys, in which defaults are spelled out.
fn hash(group: &Value, handler: &Value) -> Option<String> {
    let known = |value: &Value, names: &[&str]| {
        value
            .as_object()
            .is_some_and(|members| members.keys().all(|key| names.contains(&key.as_str())))
    };
    if !known(group, &GROUP) || !known(handler, &HANDLER) {
        return None;
    }
    let timeout = match handler.get("timeout") {
        None | Some(Value::Null) => DEFAULT_TIMEOUT_S,
        Some(seconds) => seconds.as_u64()?.max(1),
    };
    let waits = match handler.get("async") {
        None | Some(Value::Null) => false,
        Some(waits) => waits.as_bool()?,
    };
    let mut normal = json!({"async": waits, "command": handler.get("command")?.as_str()?});
    if let Some(text) = handler.get("statusMessage").filter(|text| !text.is_null()) {
        normal["statusMessage"] = text.as_str()?.into();
    }
    normal["timeout"] = timeout.into();
    normal["type"] = handler.get("type")?.as_str()?.into();
    let mut identity = Map::new();
    identity.insert("event_name".to_owned(), EVENT.into());
    identity.insert("hooks".to_owned(), json!([normal]));
    if let Some(matcher) = group.get("matcher").filter(|matcher| !matcher.is_null()) {
        identity.insert("matcher".to_owned(), matcher.as_str()?.into());
    }
    let digest = Sha256::digest(Value::Object(identity).to_string());
    let mut text = "sha256:".to_owned();
    for byte in digest {
        write!(text, "{byte:02x}").ok()?;
    }
    Some(text)
}

/// The user's settings with the trust in these hooks, and without that in those that are gone. What else stands there
/// stays as it is, to the byte.
///
/// # Errors
///
/// In words: the settings are no TOML, or `hooks.state` is not what Codex makes of it.
pub fn write(text: &str, gone: &[Trust], here: &[Trust]) -> Result<String, String> {
    let mut text = text.to_owned();
    for trust in gone {
        if !here.iter().any(|kept| kept.key == trust.key) {
            text = without(&text, &trust.key)?;
        }
    }
    for trust in here {
        if let Some(hash) = &trust.hash {
            text = with(&text, &trust.key, hash)?;
        }
    }
    Ok(text)
}

/// What the user's settings say of a hook.
///
/// # Errors
///
/// As [`write`].
pub fn standing(text: &str, trust: &Trust) -> Result<TrustStatus, String> {
    let document = parse(text)?;
    let Some(state) = state(document.as_item(), &trust.key) else {
        return Ok(TrustStatus::Untrusted);
    };
    if state.get("enabled").and_then(Item::as_bool) == Some(false) {
        return Ok(TrustStatus::Off);
    }
    Ok(match state.get("trusted_hash").and_then(Item::as_str) {
        None => TrustStatus::Untrusted,
        Some(said) if Some(said) == trust.hash.as_deref() => TrustStatus::Trusted,
        Some(_) => TrustStatus::Modified,
    })
}

fn parse(text: &str) -> Result<DocumentMut, String> {
    text.parse::<DocumentMut>().map_err(|error| {
        let said = error.to_string();
        let mut lines = said.lines();
        let (first, last) = (lines.next().unwrap_or_default(), lines.last());
        format!("is no TOML: {first}: {}", last.unwrap_or_default())
    })
}

fn state<'d>(top: &'d Item, key: &str) -> Option<&'d Item> {
    top.get("hooks")?.get("state")?.get(key)
}

/// The table as it is added where there is none yet.
fn block(key: &str, hash: &str) -> String {
    let key = toml_edit::Value::from(key).to_string();
    format!("[hooks.state.{key}]\ntrusted_hash = \"{hash}\"")
}

fn with(text: &str, key: &str, hash: &str) -> Result<String, String> {
    let mut document = parse(text)?;
    if state(document.as_item(), key).is_none() {
        let block = block(key, hash);
        // A file whose last line does not end keeps that, behind the table.
        let added = match text {
            "" => format!("{block}\n"),
            text if text.ends_with('\n') => format!("{text}\n{block}\n"),
            text => format!("{text}\n\n{block}"),
        };
        // Where `hooks` is an inline table, or dotted, a header cannot add to it.
        if parse(&added).is_ok_and(|made| state(made.as_item(), key).is_some()) {
            return Ok(added);
        }
    }
    let mut item = document.as_item_mut();
    for name in ["hooks", "state", key] {
        let table = item
            .as_table_like_mut()
            .ok_or_else(|| format!("has no table where `hooks.state` must be: `{name}` is one"))?;
        if !table.contains_key(name) {
            table.insert(name, Item::Table(Table::new()));
        }
        item = table
            .get_mut(name)
            .ok_or_else(|| format!("has no room for `{name}`"))?;
    }
    let table = item
        .as_table_like_mut()
        .ok_or_else(|| format!("has `hooks.state.\"{key}\"`, which is no table"))?;
    let same = table.get("trusted_hash").and_then(Item::as_str) == Some(hash);
    // Who puts the hook in wants it asked, whoever has turned it off before.
    let off = table.get("enabled").and_then(Item::as_bool) == Some(false);
    if !same {
        match table.get_mut("trusted_hash").and_then(Item::as_value_mut) {
            Some(value) => {
                let decor = value.decor().clone();
                *value = hash.into();
                *value.decor_mut() = decor;
            }
            None => {
                table.insert("trusted_hash", toml_edit::value(hash));
            }
        }
    }
    if off {
        table.remove("enabled");
    }
    Ok(if same && !off {
        text.to_owned()
    } else {
        document.to_string()
    })
}

fn without(text: &str, key: &str) -> Result<String, String> {
    let mut document = parse(text)?;
    let Some(found) = state(document.as_item(), key) else {
        return Ok(text.to_owned());
    };
    // As it was added: it goes as it came.
    if let Some(hash) = found.get("trusted_hash").and_then(Item::as_str) {
        let block = block(key, hash);
        let rest = if text == format!("{block}\n") {
            Some(String::new())
        } else if let Some(rest) = text.strip_suffix(&format!("\n\n{block}")) {
            Some(rest.to_owned())
        } else {
            text.split_once(&format!("\n{block}\n"))
                .map(|(before, behind)| format!("{before}{behind}"))
        };
        if let Some(rest) = rest
            && parse(&rest).is_ok_and(|made| same_but(document.as_item(), made.as_item(), key))
        {
            return Ok(rest);
        }
    }
    let mut item = document.as_item_mut();
    for name in ["hooks", "state"] {
        item = item
            .get_mut(name)
            .ok_or_else(|| format!("has no `{name}`"))?;
    }
    if let Some(table) = item.as_table_like_mut() {
        table.remove(key);
    }
    Ok(document.to_string())
}

/// Whether `after` still has everything of `before` but the state of this hook.
fn same_but(before: &Item, after: &Item, key: &str) -> bool {
    let keys = |item: &Item| -> Vec<String> {
        let states = item.get("hooks").and_then(|hooks| hooks.get("state"));
        let table = states.and_then(Item::as_table_like);
        table
            .into_iter()
            .flat_map(|table| table.iter().map(|(key, state)| format!("{key}={state}")))
            .collect()
    };
    let top = |item: &Item| item.as_table_like().map_or(0, |table| table.iter().count());
    let mark = format!("{key}=");
    let mut left = keys(before);
    left.retain(|state| !state.starts_with(&mark));
    keys(after) == left && top(before).abs_diff(top(after)) <= 1
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
