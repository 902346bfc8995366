//! Secrets that stand behind their name: `password=x`, `"token": "x"`, `Authorization: Bearer x`, and the user
//! part of a URL.

use super::{REDACTED, Span, keys};

/// Authorization schemes whose next word is the secret (RFC 7235 and common practice).
const SCHEMES: [&str; 8] = [
    "bearer",
    "basic",
    "token",
    "digest",
    "negotiate",
    "ntlm",
    "apikey",
    "api-key",
];

/// How far a URL's user part is looked for without an `@` in its authority, in bytes.
const USERINFO_MAX: usize = 512;

/// Adds the value of every assignment to a secret's name.
pub(super) fn find(text: &str, spans: &mut Vec<Span>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !matches!(bytes[at], b'=' | b':') {
            at += 1;
            continue;
        }
        // `::` joins names in several languages; it assigns nothing.
        if bytes[at] == b':' && bytes.get(at + 1) == Some(&b':') {
            at += 2;
            continue;
        }
        if bytes[at..].starts_with(b"://") {
            user_info(text, at + 3, spans);
            at += 3;
            continue;
        }
        let Some((name, quoted)) = name_before(text, at) else {
            at += 1;
            continue;
        };
        if keys::is_secret(name) {
            let operator = bytes[at];
            if let Some((start, end)) = value_after(bytes, at + 1, quoted, is_authorization(name)) {
                // The shell's variable of this name, also as `-e PWD=…`, is not a password.
                if !(operator == b'=' && matches!(name, "PWD" | "OLDPWD")) {
                    spans.push(Span {
                        start,
                        end,
                        label: REDACTED,
                    });
                    at = end.max(at + 1);
                    continue;
                }
            }
        }
        at += 1;
    }
}

/// Whether the value of this name is a scheme and then the secret.
pub(super) fn is_authorization(name: &str) -> bool {
    let tail = name.len().saturating_sub("authorization".len());
    name.get(tail..)
        .is_some_and(|end| end.eq_ignore_ascii_case("authorization"))
}

/// Whether a word is an authorization scheme.
pub(super) fn is_scheme(word: &str) -> bool {
    SCHEMES.iter().any(|s| word.eq_ignore_ascii_case(s))
}

/// The name that ends before the operator at `at`, and whether it is quoted (`"name":`).
fn name_before(text: &str, at: usize) -> Option<(&str, bool)> {
    let bytes = text.as_bytes();
    let mut end = at;
    while end > 0 && (bytes[end - 1] == b' ' || bytes[end - 1] == b'\t') {
        end -= 1;
    }
    let mut quoted = false;
    if end > 0 && matches!(bytes[end - 1], b'"' | b'\'') {
        quoted = true;
        end -= 1;
        if end > 0 && bytes[end - 1] == b'\\' {
            end -= 1;
        }
    } else if end > 0 && matches!(bytes[end - 1], b']' | b')') {
        // `config['password'] = …`
        let tail = &bytes[..end - 1];
        if let Some((b'"' | b'\'', _)) = tail.split_last() {
            end -= 2;
        }
    }
    let mut start = end;
    while start > 0 && end - start < keys::NAME_MAX && keys::is_name_byte(bytes[start - 1]) {
        start -= 1;
    }
    (start < end).then(|| (&text[start..end], quoted))
}

/// The value behind an operator: its quoted text, or all up to the next space.
fn value_after(
    bytes: &[u8],
    mut at: usize,
    quoted_name: bool,
    authorization: bool,
) -> Option<(usize, usize)> {
    while matches!(bytes.get(at), Some(b'=' | b':' | b'>' | b'~')) {
        at += 1;
    }
    while matches!(bytes.get(at), Some(b' ' | b'\t')) {
        at += 1;
    }
    if at >= bytes.len() {
        return None;
    }
    // `\"` quotes inside an already quoted JSON text.
    if bytes[at] == b'\\' && matches!(bytes.get(at + 1), Some(b'"' | b'\'')) {
        let quote = bytes[at + 1];
        let start = at + 2;
        let close = bytes[start..].windows(2).position(|w| w == [b'\\', quote]);
        return Some((start, close.map_or(bytes.len(), |c| start + c)));
    }
    if matches!(bytes[at], b'"' | b'\'') {
        let close = closing_quote(bytes, at);
        if quoted_name {
            return Some((at + 1, close.unwrap_or(bytes.len())));
        }
        // As a shell joins them: `'a b'c"d e"`.
        let mut end = close.map_or(bytes.len(), |c| c + 1);
        // A quote without a partner is looked for once, so that the pass stays linear.
        let mut lone = false;
        while end < bytes.len() && !bytes[end].is_ascii_whitespace() {
            let close = match bytes[end] {
                b'"' | b'\'' if !lone => {
                    let close = closing_quote(bytes, end);
                    lone = close.is_none();
                    close
                }
                _ => None,
            };
            end = close.unwrap_or(end) + 1;
        }
        return Some((at, end));
    }
    if authorization {
        return Some((at, authorization_end(bytes, at)));
    }
    let end = at
        + bytes[at..]
            .iter()
            .take_while(|b| !is_value_end(**b, quoted_name))
            .count();
    let end = without_closing_quote(bytes, at, end);
    (at < end).then_some((at, end))
}

/// End of `Scheme secret` or of a lone secret.
fn authorization_end(bytes: &[u8], at: usize) -> usize {
    let word = |from: usize| {
        from + bytes[from..]
            .iter()
            .take_while(|b| !b.is_ascii_whitespace())
            .count()
    };
    let first = word(at);
    let is_scheme = std::str::from_utf8(&bytes[at..first]).is_ok_and(is_scheme);
    let mut end = first;
    if is_scheme {
        let next = first
            + bytes[first..]
                .iter()
                .take_while(|b| b.is_ascii_whitespace())
                .count();
        if next < bytes.len() {
            end = word(next);
        }
    }
    without_closing_quote(bytes, at, end)
}

fn is_value_end(b: u8, quoted_name: bool) -> bool {
    b.is_ascii_whitespace() || (quoted_name && matches!(b, b',' | b'}' | b']'))
}

/// Leaves the quote that closes the word around the assignment (`-H 'x-api-key: abc'`) visible.
fn without_closing_quote(bytes: &[u8], start: usize, end: usize) -> usize {
    let mut end = end;
    while end > start + 1
        && matches!(bytes[end - 1], b'"' | b'\'')
        && !bytes[start..end - 1].contains(&bytes[end - 1])
    {
        end -= 1;
    }
    end
}

/// Place of the quote that closes the one at `open`. In double quotes a backslash hides the next byte.
fn closing_quote(bytes: &[u8], open: usize) -> Option<usize> {
    let quote = bytes[open];
    let mut at = open + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote == b'"' => at += 1,
            b if b == quote => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The password of `scheme://user:password@host`, or a token that stands for the user.
fn user_info(text: &str, start: usize, spans: &mut Vec<Span>) {
    let bytes = text.as_bytes();
    let run = bytes[start..]
        .iter()
        .take(USERINFO_MAX)
        .take_while(|b| !b.is_ascii_whitespace() && !matches!(b, b'"' | b'\'' | b'<' | b'>' | b'`'))
        .count();
    let rest = &bytes[start..start + run];
    let authority = rest
        .iter()
        .position(|b| matches!(b, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    let colon = rest[..authority].iter().position(|b| *b == b':');
    let at_sign = match rest[..authority].iter().rposition(|b| *b == b'@') {
        Some(at) => at,
        // A password with a bare `/`, `?` or `#` in it; `host:8080/a@b` is none.
        None => match (colon, rest.iter().rposition(|b| *b == b'@')) {
            (Some(colon), Some(at))
                if rest[0] != b'['
                    && !rest[colon + 1..authority].iter().all(u8::is_ascii_digit) =>
            {
                at
            }
            _ => return,
        },
    };
    let secret = match colon {
        Some(colon) if colon < at_sign => colon + 1..at_sign,
        // No password: long enough for a token, too long for a name.
        _ if at_sign >= 20 => 0..at_sign,
        _ => return,
    };
    if !secret.is_empty() {
        spans.push(Span {
            start: start + secret.start,
            end: start + secret.end,
            label: REDACTED,
        });
    }
}
