//! Patterns over single arguments as expressions of a word.
//!
//! `*` is any text without a slash, `**` any text (`**/` in front also nothing), `?` one character but the slash,
//! `[...]` one of a set as in globs. Paths are read as the kernel reads them: a slash stands for any number of slashes
//! and `.` components, the root's `..` is the root, and what a path ends with may be followed by a slash. `~` where a
//! path begins (in front, or behind `=`, `@`, `:` or `,`) is every home directory, as a shell's text has it (`~`,
//! `~ann`, `$HOME`) and as an exec has it (`/home/ann`, `/Users/ann`, `/root`).

use std::fmt::Write as _;

/// Slashes and `.` components between two names.
const SEPARATOR: &str = r"/(?:\.?/)*";
/// The root: `..` leads to itself.
const ROOT: &str = r"/(?:\.{0,2}/)*";
/// The root with nothing behind it.
const ONLY_ROOT: &str = r"/(?:\.{0,2}/)*\.{0,2}";
/// What may stand behind a whole path.
const TRAILING: &str = r"(?:/(?:\.?/)*\.?)?";
/// Every home directory.
const HOME: &str = r"(?:~[A-Za-z0-9_.\-]*|\$HOME|\$\{HOME\}|/(?:\.{0,2}/)*(?:(?:home|Users)/(?:\.?/)*[^/\x00]+|(?:var/(?:\.?/)*)?root))";
/// One character that is no slash, or one byte of a broken one.
const ANY: &str = r"(?:(?su:[^/\x00])|(?-u:[\x80-\xff]))";

/// The expression of the words that a pattern matches.
pub(super) fn expression(pattern: &str) -> String {
    let chars: Vec<char> = pattern.chars().collect();
    if pattern == "/" {
        return ONLY_ROOT.to_owned();
    }
    let mut out = String::new();
    let mut at = 0;
    // Whether a path can begin here.
    let mut begins = true;
    while at < chars.len() {
        let (piece, length) = match chars[at] {
            '*' if chars.get(at + 1) == Some(&'*') => {
                if at == 0 && chars.get(2) == Some(&'/') {
                    (r"(?:[^\x00]*/)?".to_owned(), 3)
                } else {
                    (r"[^\x00]*".to_owned(), 2)
                }
            }
            '*' => (r"[^/\x00]*".to_owned(), 1),
            '?' => (ANY.to_owned(), 1),
            '[' => set(&chars[at..]).unwrap_or_else(|| (r"\[".to_owned(), 1)),
            '/' if begins => (ROOT.to_owned(), 1),
            '/' => (SEPARATOR.to_owned(), 1),
            '~' if begins => (HOME.to_owned(), 1),
            c => (regex_syntax::escape(c.encode_utf8(&mut [0; 4])), 1),
        };
        out.push_str(&piece);
        begins = matches!(chars[at], '=' | '@' | ':' | ',');
        at += length;
    }
    let path = pattern.contains('/') || pattern.starts_with('~');
    if path && !pattern.ends_with('/') && !pattern.ends_with("**") {
        out.push_str(TRAILING);
    }
    out
}

/// A set from its `[` on: its expression, and how many characters it takes.
fn set(chars: &[char]) -> Option<(String, usize)> {
    let negated = chars.get(1) == Some(&'!');
    let first = if negated { 2 } else { 1 };
    // A `]` in the first place is a member.
    let end = first + 1 + chars.get(first + 1..)?.iter().position(|c| *c == ']')?;
    let mut members = String::new();
    let mut at = first;
    while at < end {
        let range = at + 2 < end && chars[at + 1] == '-';
        let (low, high) = (chars[at], if range { chars[at + 2] } else { chars[at] });
        if low <= high {
            let _ = write!(members, r"\x{{{:x}}}-\x{{{:x}}}", low as u32, high as u32);
        }
        at += if range { 3 } else { 1 };
    }
    let expression = match (members.is_empty(), negated) {
        // The set that nothing is in.
        (true, false) => r"[^\x00-\xff]".to_owned(),
        (true, true) => ANY.to_owned(),
        (false, false) => format!("(?u:[{members}])"),
        (false, true) => format!(r"(?:(?su:[^{members}/\x00])|(?-u:[\x80-\xff]))"),
    };
    Some((expression, end + 1))
}
