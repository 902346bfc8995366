//! The syntax tree of a text, under a bound on the steps it may take.

use std::ops::ControlFlow;

use tree_sitter::{Node, ParseOptions, ParseState, Parser, Tree};

use super::Refused;

/// The lexer is fed this many bytes at a time, and each piece that it asks for is counted: where the grammar looks
/// far ahead, or tries several readings, it asks for the same bytes again and again.
const PIECE: usize = 512;
/// Pieces that any text may ask for, and one more for each so many bytes. An ordinary text asks once or twice for
/// each of its pieces; broken text can make the cost grow with the square of the length.
const PIECES_MIN: usize = 2_000;
const BYTES_PER_PIECE: usize = 64;
/// The parser reports after each hundred of its operations; an ordinary text makes it report once in 50 bytes.
const REPORTS_MIN: usize = 1_000;
const BYTES_PER_REPORT: usize = 5;
/// Most pipes: the cost of one pipeline grows with the square of its length.
const PIPES_MAX: usize = 2_000;
/// Most here documents: the scanner copies all open ones at every step.
const HEREDOCS_MAX: usize = 200;

/// A byte as the grammar is given it. Its scanner, in C, asks tables of 256 entries about characters, so others must
/// not reach it. To bash they are letters of words, as capitals are, of which no keyword has any.
fn letter(byte: u8) -> u8 {
    if byte.is_ascii() {
        byte
    } else {
        b'A' + byte % 26
    }
}

/// Writes `<` for `<<<`: the grammar knows the string behind that in few places, a file everywhere. What is read of a word
/// comes from the text itself, so it does not matter if it stands in quotes.
fn widen_strings(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(three) = bytes.get_mut(at..at + 3) {
        if three == b"<<<" {
            three.copy_from_slice(b"<  ");
            at += 3;
        } else {
            at += 1;
        }
    }
}

/// Reads a text.
pub(super) fn read(text: &str) -> Result<Tree, Refused> {
    let more_than = |mark: &str, most: usize| text.matches(mark).nth(most).is_some();
    if more_than("<<", HEREDOCS_MAX) || more_than("|", PIPES_MAX) {
        return Err(Refused::Steps);
    }
    let mut parser = Parser::new();
    parser
        .set_language(&tree_sitter_bash::LANGUAGE.into())
        .map_err(|_| Refused::Steps)?;
    let mut bytes: Vec<u8> = text.bytes().map(letter).collect();
    widen_strings(&mut bytes);
    let mut reports = REPORTS_MIN + bytes.len() / BYTES_PER_REPORT;
    let mut pieces = PIECES_MIN + bytes.len() / BYTES_PER_PIECE;
    let mut exhausted = false;
    let mut feed = |at: usize, _| {
        let Some(less) = pieces.checked_sub(1) else {
            exhausted = true;
            return bytes.get(..0).unwrap_or_default();
        };
        pieces = less;
        let rest = bytes.get(at..).unwrap_or_default();
        rest.get(..PIECE).unwrap_or(rest)
    };
    let mut progress = |_: &ParseState| match reports.checked_sub(1) {
        Some(less) => {
            reports = less;
            ControlFlow::Continue(())
        }
        None => ControlFlow::Break(()),
    };
    let options = ParseOptions::new().progress_callback(&mut progress);
    let tree = parser.parse_with_options(&mut feed, None, Some(options));
    tree.filter(|_| !exhausted).ok_or(Refused::Steps)
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
