//! Texts that start processes without end: functions that start themselves more than once, and endless loops that
//! leave jobs behind.

use std::collections::{HashMap, HashSet};

use tree_sitter::Node;

use super::tree;

/// The part that stands for such a text: its best-known form, as one word.
pub(super) const NAME: &str = ":(){ :|:& };:";

/// Conditions that always hold, without their brackets.
const ALWAYS: [&str; 7] = [
    "true",
    ":",
    "/bin/true",
    "/usr/bin/true",
    "1",
    "[ true ]",
    "[ 1 ]",
];
/// Conditions that never hold.
const NEVER: [&str; 3] = ["false", "/bin/false", "/usr/bin/false"];
/// Commands behind which a loop has no job left, or does not go round at once.
const SETTLE: [&str; 6] = ["wait", "sleep", "break", "exit", "return", "read"];
/// Most functions of a text that are looked at.
const FUNCTIONS_MAX: usize = 256;

/// Whether a text has one.
pub(super) fn found(text: &str, root: Node<'_>) -> bool {
    if !text.contains(['&', '|']) {
        return false;
    }
    let mut calls: HashMap<&str, Vec<Call<'_>>> = HashMap::new();
    let mut pending = vec![root];
    while let Some(node) = pending.pop() {
        let body = node.child_by_field_name("body");
        match node.kind() {
            "function_definition" if calls.len() < FUNCTIONS_MAX => {
                if let (Some(name), Some(body)) = (node.child_by_field_name("name"), body) {
                    calls.insert(tree::source(text, name), called(text, body));
                }
            }
            "while_statement" | "c_style_for_statement"
                if endless(text, node) && body.is_some_and(|body| leaves_jobs(text, body)) =>
            {
                return true;
            }
            _ => {}
        }
        pending.extend(tree::named(node));
    }
    multiplies(&calls)
}

/// One call in a function's body.
struct Call<'t> {
    name: &'t str,
    /// The function goes on while what it called runs: in the background, or beside it in a pipeline.
    beside: bool,
}

/// The commands of a body.
fn called<'t>(text: &'t str, body: Node<'_>) -> Vec<Call<'t>> {
    let mut calls = Vec::new();
    let mut pending = vec![(body, false)];
    while let Some((node, beside)) = pending.pop() {
        if node.kind() == "command"
            && let Some(name) = node.child_by_field_name("name")
        {
            calls.push(Call {
                name: tree::source(text, name),
                beside,
            });
        }
        // A pipeline runs the same function in two stages, or it is an ordinary walk with a filter behind it.
        let stages: Vec<&str> = tree::named(node)
            .iter()
            .map(|stage| tree::source(text, *stage))
            .collect();
        let twice = node.kind() == "pipeline"
            && stages
                .iter()
                .enumerate()
                .any(|(at, stage)| stages[..at].contains(stage));
        let children = tree::children(node);
        for (at, child) in children.iter().enumerate() {
            let job = children.get(at + 1).is_some_and(|next| next.kind() == "&");
            if child.is_named() {
                pending.push((*child, beside || job || twice));
            }
        }
    }
    calls
}

/// Whether a function comes back to itself by a call that does not wait.
fn multiplies(calls: &HashMap<&str, Vec<Call<'_>>>) -> bool {
    calls.keys().any(|start| {
        let mut seen = HashSet::new();
        let mut pending = vec![(*start, false)];
        while let Some((name, beside)) = pending.pop() {
            for call in calls.get(name).into_iter().flatten() {
                let beside = beside || call.beside;
                if beside && call.name == *start {
                    return true;
                }
                if seen.insert((call.name, beside)) {
                    pending.push((call.name, beside));
                }
            }
        }
        false
    })
}

/// Whether nothing but its body ends a loop.
fn endless(text: &str, node: Node<'_>) -> bool {
    let condition = node.child_by_field_name("condition");
    if node.kind() == "c_style_for_statement" {
        return condition.is_none();
    }
    let until = tree::children(node)
        .first()
        .is_some_and(|word| word.kind() == "until");
    let Some(condition) = condition else {
        return false;
    };
    let condition = tree::source(text, condition)
        .trim()
        .trim_end_matches(';')
        .trim();
    let inner = condition
        .strip_prefix("((")
        .and_then(|inner| inner.strip_suffix("))"))
        .unwrap_or(condition)
        .trim();
    let values: &[&str] = if until { &NEVER } else { &ALWAYS };
    values.contains(&inner)
}

/// Whether jobs are left when a body ends and begins again.
fn leaves_jobs(text: &str, body: Node<'_>) -> bool {
    let mut left = false;
    for child in tree::children(body) {
        if child.kind() == "&" {
            left = true;
        } else if child.kind() == "command"
            && let Some(name) = child.child_by_field_name("name")
            && SETTLE.contains(&tree::source(text, name))
        {
            left = false;
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn runs_away(text: &str) -> bool {
        parse(text).parts.iter().any(|part| part.texts() == [NAME])
    }

    #[test]
    fn functions_that_multiply_and_loops_that_leave_jobs_are_found() {
        for text in [
            ":(){ :|:& };:",
            "f() { f & f; }; f",
            "f(){ f|f; }; f",
            "a(){ b; }; b(){ c & }; c(){ a; }; a",
            "while true; do x & done",
            "while :; do x & y & done",
            "until false; do x & done",
            "while ((1)); do x & done",
            "while [ true ]; do x & done",
            "for ((;;)); do x & done",
            "for ((i=0;;i++)); do x & done",
            "while true; do x & wait; y & done",
            "while true; do x & if z; then wait; fi; done",
            "bash -c 'f(){ f & f & }; f'",
        ] {
            assert!(runs_away(text), "{text}");
        }
    }

    #[test]
    fn ordinary_loops_and_recursion_are_not() {
        for text in [
            "while true; do x; sleep 1; done",
            "while true; do x & wait; done",
            "while true; do x & sleep 5; done",
            "while read -r line; do x \"$line\" & done; wait",
            "for i in 1 2 3; do x & done; wait",
            "for ((i=0;i<9;i++)); do x & done",
            "f(){ for d in *; do f \"$d\"; done | sort; }; f .",
            "f(){ ls | while read -r d; do f \"$d\"; done; }; f",
            "f(){ g & }; f",
            "f(){ x | y; }; f | f",
            "echo ':(){ :|:& };:'",
        ] {
            assert!(!runs_away(text), "{text}");
        }
    }
}
