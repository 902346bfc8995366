//! The syntax tree of a text, under a bound on the steps it may take.

use std::ops::ControlFlow;

use tree_sitter::{Node, ParseOptions, ParseState, Parser, Tree};

use super::Refused;

/// The parser reports after each hundred of its operations; an ordinary text takes about one report for 30 bytes.
/// Broken text can make it try many readings side by side, at a cost that grows with the square of the length.
const REPORTS_MIN: usize = 2_000;
const BYTES_PER_REPORT: usize = 4;

/// Most here documents: the scanner copies all open ones at every step.
const HEREDOCS_MAX: usize = 200;

/// Reads a text.
pub(super) fn read(text: &str) -> Result<Tree, Refused> {
    if text.matches("<<").take(HEREDOCS_MAX + 1).count() > HEREDOCS_MAX {
        return Err(Refused::Steps);
    }
    let mut parser = Parser::new();
    parser
        .set_language(&tree_sitter_bash::LANGUAGE.into())
        .map_err(|_| Refused::Steps)?;
    let mut left = REPORTS_MIN + text.len() / BYTES_PER_REPORT;
    let mut progress = |_: &ParseState| match left.checked_sub(1) {
        Some(less) => {
            left = less;
            ControlFlow::Continue(())
        }
        None => ControlFlow::Break(()),
    };
    let bytes = text.as_bytes();
    parser
        .parse_with_options(
            &mut |at, _| bytes.get(at..).unwrap_or_default(),
            None,
            Some(ParseOptions::new().progress_callback(&mut progress)),
        )
        .ok_or(Refused::Steps)
}

/// The text of a node.
pub(super) fn source<'t>(text: &'t str, node: Node<'_>) -> &'t str {
    text.get(node.byte_range()).unwrap_or_default()
}

/// The children of a node.
pub(super) fn children(node: Node<'_>) -> Vec<Node<'_>> {
    let mut cursor = node.walk();
    node.children(&mut cursor).collect()
}

/// The children of a node that the grammar names.
pub(super) fn named(node: Node<'_>) -> Vec<Node<'_>> {
    let mut cursor = node.walk();
    node.named_children(&mut cursor).collect()
}
