//! `apply_patch`: the files that a patch writes, and patches in command texts.
//!
//! Codex applies a patch that stands in a shell call itself, without an exec (codex-rs/apply-patch/src/invocation.rs):
//! `apply_patch <<'EOF'`, `cd DIR && apply_patch <<'EOF'` as the whole text, and `apply_patch PATCH` as words. In any
//! other place the text starts the program of that name, which does the same. So a patch is judged wherever a command
//! of that name stands, and one that cannot be read is denied. A patch that is data of another command is none.

use tree_sitter::{Node, Parser};

use super::tool::ToolFault;
use enforcer_shell::PartKind;

/// Names of the program.
const NAMES: [&str; 2] = ["apply_patch", "applypatch"];
/// Lines of a patch that name a file.
const MARKS: [&str; 4] = ["Add File:", "Update File:", "Delete File:", "Move to:"];
/// Shells whose scripts Codex looks into, by the name without what is behind its dot.
const SHELLS: [&str; 6] = ["bash", "zsh", "sh", "pwsh", "powershell", "cmd"];
/// Their options before a script, in lower case.
const FLAGS: [&str; 4] = ["-lc", "-c", "-command", "/c"];
/// Texts inside one another that are looked into.
const NESTING_MAX: usize = 8;

/// Patches in a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patches {
    /// The files, relative to the working directory of the call.
    pub paths: Vec<String>,
    /// Whether the call is nothing but this patch, so that Codex applies it and starts nothing.
    pub sole: bool,
}

/// The files that a patch names: those that it adds, updates, deletes and moves to.
///
/// Only a line that begins with it is a mark; one in the content has a `+`, `-` or space before it. Lines that are
/// indented as a whole count as well: some readers take the space away.
pub fn paths(text: &str) -> Vec<String> {
    let named = text.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix("***")?.trim_start();
        let file = MARKS.iter().find_map(|mark| rest.strip_prefix(mark))?;
        Some(file.trim()).filter(|file| !file.is_empty())
    });
    named.map(str::to_owned).collect()
}

/// The patches in a command text; `None` where it has none.
///
/// # Errors
///
/// A command of that name whose patch cannot be read.
pub fn in_text(text: &str) -> Result<Option<Patches>, ToolFault> {
    nested(text, 0)
}

/// The patches in a command line.
///
/// # Errors
///
/// As [`in_text`].
pub fn in_words(words: &[String]) -> Result<Option<Patches>, ToolFault> {
    let of = |words: &[&str]| -> Option<Result<Option<Patches>, ToolFault>> {
        match words {
            [name, patch] if is_name(name) => Some(of_patch(patch, None).map(|paths| {
                let sole = NAMES.contains(name);
                Some(Patches { paths, sole })
            })),
            [shell, flag, script] | [shell, _, flag, script] if runs(shell, flag) => {
                Some(in_text(script))
            }
            _ => None,
        }
    };
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    if let Some(found) = of(&texts) {
        return found;
    }
    let starts = enforcer_shell::parse_words(words, None, None);
    if calls(&starts) > 0 {
        return Err(unreadable("it stands behind another command"));
    }
    Ok(None)
}

fn nested(text: &str, depth: usize) -> Result<Option<Patches>, ToolFault> {
    if text.len() > enforcer_shell::TEXT_MAX && NAMES.iter().any(|name| text.contains(name)) {
        return Err(unreadable("the text is longer than any command"));
    }
    let starts = enforcer_shell::parse(text);
    let expected = calls(&starts);
    let mut found = Vec::new();
    if NAMES.iter().any(|name| text.contains(name)) {
        found = commands(text)?;
    }
    let mut read = found.len();
    let sole = matches!(found.as_slice(), [one] if one.sole);
    let mut paths: Vec<String> = found.into_iter().flat_map(|patch| patch.paths).collect();
    for part in &starts.parts {
        let words = part.texts();
        if let [shell, flag, script] = words.as_slice()
            && runs(shell, flag)
            && part.words.iter().all(|word| !word.unknown)
        {
            if depth == NESTING_MAX {
                return Err(unreadable("too many commands stand inside one another"));
            }
            if let Some(inner) = nested(script, depth + 1)? {
                read += calls(&enforcer_shell::parse(script));
                paths.extend(inner.paths);
            }
        }
    }
    if read < expected {
        return Err(unreadable(
            "it stands in no here document and in no quoted word of that command",
        ));
    }
    Ok((read > 0).then_some(Patches { paths, sole }))
}

/// Commands of that name that a text starts.
fn calls(script: &enforcer_shell::Script) -> usize {
    let named = script.parts.iter().filter(|part| {
        part.kind != PartKind::Reading && part.words.first().is_some_and(|word| is_name(&word.text))
    });
    named.count()
}

fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

fn is_name(program: &str) -> bool {
    NAMES.contains(&base_name(program))
}

fn runs(shell: &str, flag: &str) -> bool {
    let name = base_name(shell);
    let name = name.split_once('.').map_or(name, |(stem, _)| stem);
    SHELLS.contains(&name.to_ascii_lowercase().as_str())
        && FLAGS.contains(&flag.to_ascii_lowercase().as_str())
}

fn unreadable(why: &str) -> ToolFault {
    format!(
        "apply_patch is called, and its patch cannot be read ({why}), so nobody can say which files it writes; use the \
         form apply_patch <<'EOF' with the patch up to EOF, or a file tool"
    )
}

fn of_patch(patch: &str, below: Option<&str>) -> Result<Vec<String>, ToolFault> {
    let mut paths = paths(patch);
    if paths.is_empty() {
        return Err("apply_patch is called with a patch that names no file".to_owned());
    }
    if let Some(directory) = below {
        for path in &mut paths {
            if !path.starts_with('/') {
                *path = format!("{directory}/{path}");
            }
        }
    }
    Ok(paths)
}

/// The commands of that name in the syntax of a text.
fn commands(text: &str) -> Result<Vec<Patches>, ToolFault> {
    let mut parser = Parser::new();
    let tree = parser
        .set_language(&tree_sitter_bash::LANGUAGE.into())
        .ok()
        .and_then(|()| parser.parse(text, None))
        .ok_or_else(|| unreadable("the text has no syntax"))?;
    let mut found = Vec::new();
    let mut moves = 0;
    let mut followed = 0;
    let mut left = vec![tree.root_node()];
    while let Some(node) = left.pop() {
        if node.kind() == "command" {
            let name = node.child_by_field_name("name");
            let name = name.map_or("", |name| source(text, name));
            if is_name(name) {
                let call = Call::of(text, node)?;
                followed += usize::from(call.below.is_some());
                let paths = of_patch(&call.patch, call.below.as_deref())?;
                let sole = call.whole && NAMES.contains(&name);
                found.push(Patches { paths, sole });
            }
            moves += usize::from(["cd", "pushd", "popd", "chdir"].contains(&name));
        }
        let mut cursor = node.walk();
        left.extend(node.named_children(&mut cursor));
    }
    let relative = || {
        let mut all = found.iter().flat_map(|patch| &patch.paths);
        all.any(|path| !path.starts_with('/'))
    };
    if moves > followed && relative() {
        return Err(unreadable(
            "the text changes the directory in another way than cd DIR && apply_patch",
        ));
    }
    Ok(found)
}

/// A command as it stands in a text.
struct Call {
    patch: String,
    /// The directory of the `cd` before it.
    below: Option<String>,
    /// Whether it is all that the text is.
    whole: bool,
}

impl Call {
    fn of(text: &str, node: Node<'_>) -> Result<Self, ToolFault> {
        let mut arguments = Vec::new();
        let mut redirects = Vec::new();
        let mut cursor = node.walk();
        for child in node.named_children(&mut cursor) {
            match child.kind() {
                "command_name" => {}
                kind if kind.ends_with("_redirect") => redirects.push(child),
                _ => arguments.push(child),
            }
        }
        // `cd DIR && apply_patch <<EOF`: the here document belongs to the list as a whole.
        let mut top = node;
        let mut below = None;
        let mut whole = true;
        if let Some(list) = top.parent().filter(|parent| parent.kind() == "list") {
            let mut cursor = list.walk();
            let parts: Vec<Node<'_>> = list.children(&mut cursor).collect();
            match parts.as_slice() {
                [first, and, last] if and.kind() == "&&" && *last == node => {
                    below = directory(text, *first)?;
                    whole = below.is_some();
                }
                _ => whole = false,
            }
            top = list;
        }
        if let Some(parent) = top.parent()
            && parent.kind() == "redirected_statement"
        {
            let mut cursor = parent.walk();
            redirects.extend(parent.children_by_field_name("redirect", &mut cursor));
            top = parent;
        }
        whole &= top
            .parent()
            .is_some_and(|program| program.kind() == "program" && program.named_child_count() == 1);
        let patch = match (arguments.as_slice(), redirects.as_slice()) {
            ([argument], []) => {
                whole = false;
                literal(text, *argument)
            }
            ([], [redirect]) if redirect.kind() == "heredoc_redirect" => document(text, *redirect)?,
            ([], [redirect]) if redirect.kind() == "herestring_redirect" => {
                whole = false;
                let word = redirect.named_child(0);
                word.and_then(|word| literal(text, word))
            }
            _ => None,
        };
        Ok(Self {
            patch: patch.ok_or_else(|| {
                unreadable("it comes from a pipe, a file, a variable or several places")
            })?,
            below,
            whole,
        })
    }
}

/// Where `cd DIR` leads; `None` if it is another command.
fn directory(text: &str, node: Node<'_>) -> Result<Option<String>, ToolFault> {
    let mut cursor = node.walk();
    let parts: Vec<Node<'_>> = node.named_children(&mut cursor).collect();
    if node.kind() != "command" || parts.first().is_none_or(|name| source(text, *name) != "cd") {
        return Ok(None);
    }
    let plain = |word: &String| !word.is_empty() && !word.starts_with('-');
    match parts.as_slice() {
        [_, word] => literal(text, *word)
            .filter(plain)
            .map(Some)
            .ok_or_else(|| unreadable("the directory of its cd is known only when it runs")),
        _ => Err(unreadable("its cd has no directory, or several words")),
    }
}

/// The content of a here document, where nothing is expanded in it.
fn document(text: &str, redirect: Node<'_>) -> Result<Option<String>, ToolFault> {
    let mut cursor = redirect.walk();
    let parts: Vec<Node<'_>> = redirect.named_children(&mut cursor).collect();
    let [start, body, end] = parts.as_slice() else {
        return Ok(None);
    };
    if (start.kind(), body.kind(), end.kind()) != ("heredoc_start", "heredoc_body", "heredoc_end") {
        return Ok(None);
    }
    let content = source(text, *body);
    let quoted = source(text, *start).contains(['\'', '"', '\\']);
    if !quoted && content.contains(['$', '`']) {
        return Err(unreadable(
            "a shell would expand it: quote the word behind <<",
        ));
    }
    Ok(Some(content.to_owned()))
}

/// A word that says what it is.
fn literal(text: &str, word: Node<'_>) -> Option<String> {
    let source = source(text, word);
    match word.kind() {
        "raw_string" => {
            let inner = source.strip_prefix('\'')?.strip_suffix('\'')?;
            Some(inner.to_owned())
        }
        "string" => {
            let inner = source.strip_prefix('"')?.strip_suffix('"')?;
            (!inner.contains(['$', '`', '\\'])).then(|| inner.to_owned())
        }
        "word" => {
            (!source.contains(['$', '`', '\\', '*', '?', '[', '{', '~'])).then(|| source.to_owned())
        }
        _ => None,
    }
}

fn source<'t>(text: &'t str, node: Node<'_>) -> &'t str {
    text.get(node.byte_range()).unwrap_or_default()
}

#[cfg(test)]
#[path = "patch_tests.rs"]
mod tests;
