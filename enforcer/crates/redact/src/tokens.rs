//! Secrets that are known by their own shape, wherever they stand.

use super::Span;

/// What replaces a key of a model or cloud provider.
const API_KEY: &str = "[REDACTED_API_KEY]";
/// What replaces a token of GitHub.
const GITHUB: &str = "[REDACTED_GITHUB_TOKEN]";
/// What replaces any other token.
const TOKEN: &str = "[REDACTED_TOKEN]";
/// What replaces a JSON Web Token.
const JWT: &str = "[REDACTED_JWT]";
/// What replaces a private key block.
const PRIVATE_KEY: &str = "[REDACTED_PRIVATE_KEY]";

/// Which bytes follow a prefix.
#[derive(Clone, Copy)]
enum Body {
    /// Letters and digits.
    Alnum,
    /// Letters, digits, `_` and `-`.
    Word,
    /// Letters, digits, `_`, `-`, `.`, `=`, `/`, `+`.
    Wide,
    /// Capitals and digits, exactly as many as the shortest length.
    Upper,
}

/// A published token format.
struct Shape {
    prefix: &'static str,
    body: Body,
    /// Fewest bytes after the prefix.
    least: usize,
    /// Whether the body must hold a digit or a capital (formats whose prefix also starts ordinary words).
    random: bool,
    label: &'static str,
}

const fn shape(prefix: &'static str, body: Body, least: usize, label: &'static str) -> Shape {
    Shape {
        prefix,
        body,
        least,
        random: false,
        label,
    }
}

const fn random(prefix: &'static str, body: Body, least: usize, label: &'static str) -> Shape {
    Shape {
        prefix,
        body,
        least,
        random: true,
        label,
    }
}

/// Formats as their issuers document them; lengths are lower than the documented ones, so that a cut token
/// is hidden too. Longer prefixes stand before their own beginnings.
const SHAPES: [Shape; 61] = [
    shape("sk-ant-", Body::Word, 4, API_KEY),
    shape("sk-proj-", Body::Word, 4, API_KEY),
    shape("sk-svcacct-", Body::Word, 4, API_KEY),
    shape("sk-or-v1-", Body::Word, 4, API_KEY),
    random("sk-", Body::Word, 16, API_KEY),
    shape("sk_live_", Body::Alnum, 8, API_KEY),
    shape("sk_test_", Body::Alnum, 8, API_KEY),
    shape("rk_live_", Body::Alnum, 8, API_KEY),
    shape("rk_test_", Body::Alnum, 8, API_KEY),
    shape("whsec_", Body::Wide, 16, TOKEN),
    shape("github_pat_", Body::Word, 8, GITHUB),
    shape("ghp_", Body::Alnum, 12, GITHUB),
    shape("gho_", Body::Alnum, 12, GITHUB),
    shape("ghu_", Body::Alnum, 12, GITHUB),
    shape("ghs_", Body::Wide, 12, GITHUB),
    shape("ghr_", Body::Alnum, 12, GITHUB),
    shape("glpat-", Body::Wide, 8, TOKEN),
    shape("gldt-", Body::Word, 12, TOKEN),
    shape("glrt-", Body::Word, 12, TOKEN),
    shape("glptt-", Body::Word, 12, TOKEN),
    shape("glcbt-", Body::Word, 12, TOKEN),
    shape("glsoat-", Body::Word, 12, TOKEN),
    shape("glagent-", Body::Word, 12, TOKEN),
    shape("xoxa-", Body::Word, 8, TOKEN),
    shape("xoxb-", Body::Word, 8, TOKEN),
    shape("xoxe-", Body::Word, 8, TOKEN),
    shape("xoxe.", Body::Wide, 8, TOKEN),
    shape("xoxo-", Body::Word, 8, TOKEN),
    shape("xoxp-", Body::Word, 8, TOKEN),
    shape("xoxr-", Body::Word, 8, TOKEN),
    shape("xoxs-", Body::Word, 8, TOKEN),
    shape("xapp-", Body::Word, 8, TOKEN),
    shape("AKIA", Body::Upper, 16, API_KEY),
    shape("ASIA", Body::Upper, 16, API_KEY),
    shape("ABIA", Body::Upper, 16, API_KEY),
    shape("ACCA", Body::Upper, 16, API_KEY),
    random("AIza", Body::Word, 16, API_KEY),
    shape("ya29.", Body::Word, 16, TOKEN),
    shape("GOCSPX-", Body::Word, 12, TOKEN),
    shape("npm_", Body::Alnum, 16, TOKEN),
    random("pypi-", Body::Word, 16, TOKEN),
    shape("hf_", Body::Alnum, 16, TOKEN),
    shape("gsk_", Body::Alnum, 16, API_KEY),
    shape("xai-", Body::Alnum, 20, API_KEY),
    shape("pplx-", Body::Alnum, 20, API_KEY),
    shape("nvapi-", Body::Word, 16, API_KEY),
    random("r8_", Body::Alnum, 20, API_KEY),
    shape("SG.", Body::Wide, 32, API_KEY),
    shape("hvs.", Body::Word, 16, TOKEN),
    shape("hvb.", Body::Word, 16, TOKEN),
    shape("dckr_pat_", Body::Word, 8, TOKEN),
    shape("dop_v1_", Body::Alnum, 16, TOKEN),
    shape("shpat_", Body::Alnum, 16, TOKEN),
    shape("shpss_", Body::Alnum, 16, TOKEN),
    shape("lin_api_", Body::Alnum, 16, TOKEN),
    shape("figd_", Body::Word, 16, TOKEN),
    shape("ATATT3", Body::Wide, 16, TOKEN),
    shape("sntrys_", Body::Wide, 16, TOKEN),
    shape("rubygems_", Body::Alnum, 16, TOKEN),
    shape("tskey-", Body::Word, 12, TOKEN),
    shape("AGE-SECRET-KEY-", Body::Alnum, 16, PRIVATE_KEY),
];

/// Bytes after a prefix that are read to tell a token from an ordinary word. More than any shape's shortest length.
const LOOKAHEAD: usize = 64;

/// Longest first part of a JSON Web Token that is looked for, in bytes.
const JWT_HEADER_MAX: usize = 1024;

/// Whether a token can start with this byte: a quick way past all other text.
fn starts_token(b: u8) -> bool {
    const STARTS: [bool; 256] = {
        let mut starts = [false; 256];
        let mut i = 0;
        while i < SHAPES.len() {
            starts[SHAPES[i].prefix.as_bytes()[0] as usize] = true;
            i += 1;
        }
        starts[b'e' as usize] = true;
        starts[b'-' as usize] = true;
        starts
    };
    STARTS[usize::from(b)]
}

impl Body {
    fn holds(self, b: u8) -> bool {
        match self {
            Self::Alnum => b.is_ascii_alphanumeric(),
            Self::Word => b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'),
            Self::Wide => {
                b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'=' | b'/' | b'+')
            }
            Self::Upper => b.is_ascii_uppercase() || b.is_ascii_digit(),
        }
    }

    fn run(self, bytes: &[u8]) -> usize {
        bytes.iter().take_while(|b| self.holds(**b)).count()
    }
}

/// Adds every token in `text`.
pub(super) fn find(text: &str, spans: &mut Vec<Span>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if starts_token(bytes[at])
            && let Some((len, label)) = token_at(bytes, at)
        {
            spans.push(Span {
                start: at,
                end: at + len,
                label,
            });
            at += len;
        } else {
            at += 1;
        }
    }
}

/// Length and label of the token that starts at `at`.
fn token_at(bytes: &[u8], at: usize) -> Option<(usize, &'static str)> {
    let rest = &bytes[at..];
    let boundary = at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
    match rest[0] {
        b'-' => return private_key(rest).map(|len| (len, PRIVATE_KEY)),
        b'e' => {
            return if boundary {
                jwt(rest).map(|len| (len, JWT))
            } else {
                None
            };
        }
        _ => {}
    }
    // Two formats were always hidden inside words too; they still are.
    if !boundary {
        return inside_word(rest);
    }
    for shape in &SHAPES {
        let Some(body) = rest.strip_prefix(shape.prefix.as_bytes()) else {
            continue;
        };
        // The first bytes settle it, so that a long run which is no token is not read again from each of its bytes.
        let head = &body[..body.len().min(LOOKAHEAD)];
        let run = shape.body.run(head);
        let fits = match shape.body {
            Body::Upper => {
                run == shape.least && !body.get(run).is_some_and(u8::is_ascii_alphanumeric)
            }
            _ => run >= shape.least,
        };
        let looks_random = !shape.random
            || head[..run]
                .iter()
                .any(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
        if fits && looks_random {
            return Some((shape.prefix.len() + shape.body.run(body), shape.label));
        }
    }
    inside_word(rest)
}

/// The formats that need no boundary before them: `sk-` and 20 or `ghp_` and 36 letters and digits.
fn inside_word(rest: &[u8]) -> Option<(usize, &'static str)> {
    for (prefix, least, label) in [("sk-", 20, API_KEY), ("ghp_", 36, GITHUB)] {
        if let Some(body) = rest.strip_prefix(prefix.as_bytes())
            && Body::Alnum.run(&body[..body.len().min(LOOKAHEAD)]) >= least
        {
            return Some((prefix.len() + Body::Alnum.run(body), label));
        }
    }
    None
}

/// Length of a JSON Web Token (RFC 7519: base64url parts joined by dots, the first a JSON object).
fn jwt(rest: &[u8]) -> Option<usize> {
    if !rest.starts_with(b"eyJ") {
        return None;
    }
    let mut end = Body::Word.run(&rest[..rest.len().min(JWT_HEADER_MAX)]);
    if end < 8 {
        return None;
    }
    let mut parts = 1;
    while rest.get(end) == Some(&b'.') && parts < 5 {
        let run = Body::Word.run(&rest[end + 1..]);
        if parts == 1 && run < 4 {
            return None;
        }
        end += 1 + run;
        parts += 1;
    }
    (parts > 1).then_some(end)
}

/// Length of a PEM or PGP private key block (RFC 7468), to its end line or the end of the text.
fn private_key(rest: &[u8]) -> Option<usize> {
    const END: &[u8] = b"-----END ";
    let label = rest.strip_prefix(b"-----BEGIN ".as_slice())?;
    let label_len = label.iter().take(64).position(|b| *b == b'-')?;
    if !contains(&label[..label_len], b"PRIVATE KEY") {
        return None;
    }
    let body_at = 11 + label_len;
    let Some(end_at) = rest[body_at..].windows(END.len()).position(|w| w == END) else {
        return Some(rest.len());
    };
    let tail = body_at + end_at + END.len();
    let close = rest[tail..].windows(5).position(|w| w == b"-----");
    Some(close.map_or(rest.len(), |at| tail + at + 5))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}
