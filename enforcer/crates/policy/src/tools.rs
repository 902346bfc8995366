//! What the hook's tools may do: the sections `file_paths`, `web_tools` and `tools` of the native form.

use super::{
    error::Problems,
    hosts,
    model::{PathLists, Tools, WebTools},
    native::{PathsSection, ToolsSection, WebSection},
    place::{JsonPath, quoted},
    shape::Object,
};

/// Turns `file_paths` into the model.
pub(super) fn paths(
    section: Option<Object<PathsSection>>,
    problems: &mut Problems<'_>,
) -> PathLists {
    let section = section.map(|section| section.0).unwrap_or_default();
    let at = JsonPath::top().key("file_paths");
    for (key, patterns) in [
        ("whitelist", &section.whitelist),
        ("blacklist", &section.blacklist),
    ] {
        each(patterns, &at.key(key), problems, |pattern| {
            let home = pattern == "~" || pattern.starts_with("~/");
            (!home && !pattern.starts_with(['/', '*', '?', '['])).then(|| {
                (
                    format!(
                        "the pattern {} matches no path: paths are matched from the root",
                        quoted(pattern)
                    ),
                    "begin it with `/`, `~/` or `*/`",
                )
            })
        });
    }
    PathLists {
        whitelist: section.whitelist,
        blacklist: section.blacklist,
    }
}

/// Turns `web_tools` into the model.
pub(super) fn web(section: Option<Object<WebSection>>, problems: &mut Problems<'_>) -> WebTools {
    let section = section.map(|section| section.0).unwrap_or_default();
    let at = JsonPath::top().key("web_tools");
    each(&section.whitelist, &at.key("whitelist"), problems, tool);
    for (key, domains, blocked) in [
        ("allowed_domains", &section.allowed_domains, false),
        ("blocked_domains", &section.blocked_domains, true),
    ] {
        each(domains, &at.key(key), problems, |text| {
            domain(text, blocked)
        });
    }
    WebTools {
        whitelist: section.whitelist,
        allow_all_domains: section.allow_all_domains,
        allowed_domains: section.allowed_domains,
        blocked_domains: section.blocked_domains,
    }
}

/// Turns `tools` into the model.
pub(super) fn others(section: Option<Object<ToolsSection>>, problems: &mut Problems<'_>) -> Tools {
    let section = section.map(|section| section.0).unwrap_or_default();
    let at = JsonPath::top().key("tools").key("always_allowed");
    each(&section.always_allowed, &at, problems, tool);
    Tools {
        always_allowed: section.always_allowed,
    }
}

/// What is wrong with an entry, and the mend.
type Fault = (String, &'static str);

/// Checks each entry of a list: none is empty or holds a NUL, and what else `wrong` finds.
fn each(
    entries: &[String],
    at: &JsonPath,
    problems: &mut Problems<'_>,
    wrong: impl Fn(&str) -> Option<Fault>,
) {
    for (index, entry) in entries.iter().enumerate() {
        let fault = if entry.trim().is_empty() {
            Some(("the text is empty".to_owned(), "remove it, or complete it"))
        } else if entry.contains('\0') {
            Some(("the text holds a NUL".to_owned(), "remove the NUL"))
        } else {
            wrong(entry)
        };
        if let Some((what, mend)) = fault {
            problems.error(&at.index(index), what, mend);
        }
    }
}

fn tool(pattern: &str) -> Option<Fault> {
    pattern.contains(char::is_whitespace).then(|| {
        (
            format!(
                "the pattern {} matches no tool: names have no space",
                quoted(pattern)
            ),
            "write the tool's name, such as \"WebFetch\" or \"mcp__*__search\"",
        )
    })
}

/// What keeps an entry from being a name, a pattern of names, an address or a network.
fn domain(text: &str, blocked: bool) -> Option<Fault> {
    const MEND: &str =
        "write the host alone: \"docs.rs\", \"*.example.com\", \"10.0.0.0/8\", \"[::1]\"";
    if hosts::parse_blocked(text).is_some() {
        return None;
    }
    let shown = quoted(text);
    if text.contains("://") || text.contains(['/', '@', '\\']) || text.contains(char::is_whitespace)
    {
        return Some((format!("{shown} is no host"), MEND));
    }
    if text.contains(':') {
        return Some((
            format!("{shown} has a port, or is no address: hosts are matched, whatever the port"),
            MEND,
        ));
    }
    let wild = text.strip_prefix("*.").unwrap_or(text);
    if !blocked && wild.contains(['*', '?', '[']) {
        return Some((
            format!("{shown}: what is allowed can have one `*.` in front, and no other wildcard"),
            MEND,
        ));
    }
    None
}

#[cfg(test)]
#[path = "tools_tests.rs"]
mod tests;
