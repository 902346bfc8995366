//! Secrets that are known by their place among the words of a command line: `--password x`, `curl -u user:x`,
//! `mysql -px`, `Authorization: Bearer x`.

use super::{REDACTED, Span, assign, keys};

/// A word of a command line and where it starts in the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'a> {
    pub start: usize,
    pub text: &'a str,
}

/// What a program's short options mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    Other,
    /// `-pSECRET`, attached only.
    Mysql,
    /// `-pSECRET` or `-p SECRET`.
    PasswordP,
    /// `-u user:password`.
    Curl,
    /// `-p SECRET` once the word `login` was seen.
    Login,
    /// `-a SECRET`.
    Redis,
    /// `-a user:password`.
    Httpie,
    /// `-k SECRET`, `-K KEY`, `pass:SECRET`.
    Openssl,
    /// `-w SECRET`.
    Ldap,
    /// `-P SECRET`.
    PasswordCapitalP,
    /// `-pSECRET`, attached only.
    Archiver,
    /// `-N SECRET`, `-P SECRET`.
    SshKeygen,
    /// `-U user%password`.
    Smb,
}

fn program(word: &str) -> Option<Program> {
    let base = word.rsplit('/').next().unwrap_or(word);
    Some(match base {
        "mysql" | "mysqldump" | "mysqladmin" | "mysqlimport" | "mysqlshow" | "mysqlcheck"
        | "mysqlsh" | "mariadb" | "mariadb-dump" | "mariadb-admin" => Program::Mysql,
        "sshpass" | "mongo" | "mongosh" | "mongodump" | "mongorestore" | "mongoexport"
        | "mongoimport" | "twine" | "useradd" | "usermod" | "cqlsh" => Program::PasswordP,
        "curl" => Program::Curl,
        "docker" | "podman" | "buildah" | "skopeo" | "helm" | "nerdctl" | "oc" | "az" | "oras"
        | "crane" | "heroku" | "cf" => Program::Login,
        "redis-cli" | "valkey-cli" => Program::Redis,
        "http" | "https" | "xh" | "xhs" => Program::Httpie,
        "openssl" => Program::Openssl,
        "ldapsearch" | "ldapadd" | "ldapmodify" | "ldapdelete" | "ldappasswd" | "ldapwhoami" => {
            Program::Ldap
        }
        "unzip" | "zip" | "sqlcmd" | "bcp" => Program::PasswordCapitalP,
        "7z" | "7za" | "7zr" | "7zz" | "rar" | "unrar" => Program::Archiver,
        "ssh-keygen" => Program::SshKeygen,
        "smbclient" | "rpcclient" | "smbget" => Program::Smb,
        _ => return None,
    })
}

/// Adds the secrets among the words of one command line.
pub(super) fn find(words: &[Word<'_>], spans: &mut Vec<Span>) {
    let mut current = Program::Other;
    let mut login = false;
    let mut i = 0;
    while i < words.len() {
        let word = words[i];
        let next = words.get(i + 1).copied();
        let previous = i.checked_sub(1).map(|p| words[p]);
        if let Some(known) = program(word.text) {
            current = known;
            login = false;
        } else if matches!(word.text, "|" | "||" | "&&" | ";" | "&") {
            current = Program::Other;
        }
        login |= word.text == "login";
        assignment(words, i, spans);
        i += if header(words, i, spans)
            || named(previous, word, next, spans)
            || option(current, login, word, next, spans)
        {
            2
        } else {
            1
        };
    }
}

fn hide(word: Word<'_>, from: usize, spans: &mut Vec<Span>) {
    if from < word.text.len() {
        spans.push(Span {
            start: word.start + from,
            end: word.start + word.text.len(),
            label: REDACTED,
        });
    }
}

/// `user:password`: the part after the separator.
fn hide_after(word: Word<'_>, from: usize, separator: char, spans: &mut Vec<Span>) {
    if let Some(at) = word.text.get(from..).and_then(|t| t.find(separator)) {
        hide(word, from + at + separator.len_utf8(), spans);
    }
}

/// HTTP headers in one word or in several, and `Bearer x`. True if the next word was taken.
fn header(words: &[Word<'_>], i: usize, spans: &mut Vec<Span>) -> bool {
    let word = words[i];
    let bare = word.text.trim_matches(['"', '\'', ':']);
    // A whole header in one word: everything behind the colon is its value.
    if let Some(colon) = word.text.find(':') {
        let (name, value) = word.text.split_at(colon);
        let value = &value[1..];
        let is_header =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if is_header && keys::is_secret(name) && !value.starts_with(':') && !value.trim().is_empty()
        {
            let lead = value.len() - value.trim_start().len();
            let wide =
                assign::is_authorization(name) || name.to_ascii_lowercase().ends_with("cookie");
            if wide {
                hide(word, colon + 1 + lead, spans);
            }
        }
    }
    let Some(next) = words.get(i + 1).copied() else {
        return false;
    };
    if assign::is_authorization(bare) && bare.len() <= 32 {
        let scheme = assign::is_scheme(next.text.trim_matches(['"', '\'']));
        // "the Authorization header" is prose.
        if !scheme && !word.text.ends_with(':') && !is_random(next.text) {
            return false;
        }
        hide(next, 0, spans);
        if scheme && let Some(secret) = words.get(i + 2) {
            hide(*secret, 0, spans);
        }
        return true;
    }
    // Prose has words behind "bearer", a header has something that is none.
    if bare.eq_ignore_ascii_case("bearer") && is_random(next.text) {
        hide(next, 0, spans);
        return true;
    }
    false
}

/// Whether a word is more likely a token than a word of a language.
fn is_random(word: &str) -> bool {
    let odd = word
        .bytes()
        .filter(|b| b.is_ascii_digit() || matches!(b, b'_' | b'.'))
        .count();
    (word.len() >= 6 && odd > 0 && !word.ends_with('.')) || word.len() >= 20
}

/// Words before which `NAME=value` is one assignment to its end, and not the start of a shell line.
const ASSIGNS_NEXT: [&str; 9] = [
    "-e",
    "--env",
    "--build-arg",
    "--set",
    "--set-string",
    "--from-literal",
    "export",
    "env",
    "/usr/bin/env",
];

/// Assignments whose value may have spaces, because the word is known to be one: `--token=a b`, `env TOKEN=a b`;
/// and those in three words, `token = x`.
fn assignment(words: &[Word<'_>], i: usize, spans: &mut Vec<Span>) {
    let word = words[i];
    if let Some(equals) = word.text.find('=') {
        let name = &word.text[..equals];
        let flag = name.starts_with('-');
        let previous = i.checked_sub(1).map(|p| words[p].text);
        if (flag || previous.is_some_and(|p| ASSIGNS_NEXT.contains(&p)))
            && name.bytes().all(keys::is_name_byte)
            && keys::is_secret(name)
        {
            hide(word, equals + 1, spans);
        }
    } else if let (Some(operator), Some(value)) = (words.get(i + 1), words.get(i + 2))
        && matches!(operator.text, "=" | ":" | ":=" | "==" | "=>")
        && keys::is_secret(word.text)
        && word
            .text
            .bytes()
            .all(|b| keys::is_name_byte(b) || b == b'$')
    {
        hide(*value, 0, spans);
    }
}

/// `--password x`, `password: x`, `configure set aws_secret_access_key x`. True if the next word was taken.
fn named(
    previous: Option<Word<'_>>,
    word: Word<'_>,
    next: Option<Word<'_>>,
    spans: &mut Vec<Span>,
) -> bool {
    let Some(next) = next else {
        return false;
    };
    if keys::is_secret_flag(word.text) {
        if next.text.starts_with('-') && next.text.len() < 8 || next.text.starts_with("--") {
            return false;
        }
        // OpenSSL's sources of a password that are no password (openssl-passphrase-options(1)).
        if ["env:", "file:", "fd:", "stdin"]
            .iter()
            .any(|s| next.text.starts_with(s))
        {
            return false;
        }
        hide(next, 0, spans);
        return true;
    }
    if let Some(previous) = previous
        && previous.text == "set"
        && word
            .text
            .bytes()
            .all(|b| keys::is_name_byte(b) || matches!(b, b'/' | b':'))
        && keys::is_secret(word.text.rsplit([':', '/']).next().unwrap_or_default())
    {
        hide(next, 0, spans);
        return true;
    }
    if let Some(name) = word.text.strip_suffix(':') {
        let name = name.trim_matches(['"', '\'']);
        if !name.ends_with(':') && name.bytes().all(keys::is_name_byte) && keys::is_secret(name) {
            hide(next, 0, spans);
            return true;
        }
    }
    false
}

/// Options of known programs. True if the next word was taken.
fn option(
    program: Program,
    login: bool,
    word: Word<'_>,
    next: Option<Word<'_>>,
    spans: &mut Vec<Span>,
) -> bool {
    let text = word.text;
    let attached =
        |flag: &str| (text.len() > flag.len() && text.starts_with(flag)).then_some(flag.len());
    // The secret is the next word, whole.
    let whole = |flags: &[&str], spans: &mut Vec<Span>| match next {
        Some(next) if flags.contains(&text) => {
            hide(next, 0, spans);
            true
        }
        _ => false,
    };
    match program {
        Program::Other => false,
        Program::Mysql | Program::Archiver => {
            let rar_header = attached("-hp").filter(|_| program == Program::Archiver);
            if let Some(from) = rar_header.or_else(|| attached("-p"))
                && !text.starts_with("-port")
            {
                hide(word, from, spans);
            }
            false
        }
        Program::PasswordP => {
            if whole(&["-p"], spans) {
                return true;
            }
            if let Some(from) = attached("-p") {
                hide(word, from, spans);
            }
            false
        }
        Program::Curl => curl(word, next, spans),
        Program::Login => {
            if text == "--creds" || text == "--src-creds" || text == "--dest-creds" {
                if let Some(next) = next {
                    hide_after(next, 0, ':', spans);
                }
                return next.is_some();
            }
            if !login {
                return false;
            }
            if whole(&["-p"], spans) {
                return true;
            }
            if let Some(from) = attached("-p") {
                hide(word, from, spans);
            }
            false
        }
        Program::Redis => whole(&["-a", "--pass"], spans),
        Program::Httpie => {
            if matches!(text, "-a" | "--auth")
                && let Some(next) = next
            {
                hide_after(next, 0, ':', spans);
                return true;
            }
            false
        }
        Program::Openssl => {
            if let Some(from) = attached("pass:") {
                hide(word, from, spans);
            }
            whole(&["-k", "-K"], spans)
        }
        Program::Ldap => whole(&["-w"], spans),
        Program::PasswordCapitalP => {
            if whole(&["-P"], spans) {
                return true;
            }
            if let Some(from) = attached("-P") {
                hide(word, from, spans);
            }
            false
        }
        Program::SshKeygen => whole(&["-N", "-P"], spans),
        Program::Smb => {
            if text == "-U" && next.is_some() {
                if let Some(next) = next {
                    hide_after(next, 0, '%', spans);
                }
                return true;
            }
            false
        }
    }
}

/// `curl`: `-u user:password` also at the end of a cluster (`-su`), attached (`-uuser:password`), proxy, cookies.
fn curl(word: Word<'_>, next: Option<Word<'_>>, spans: &mut Vec<Span>) -> bool {
    let text = word.text;
    for long in ["--user=", "--proxy-user="] {
        if text.starts_with(long) {
            hide_after(word, long.len(), ':', spans);
            return false;
        }
    }
    let Some(cluster) = text.strip_prefix('-') else {
        return false;
    };
    let credentials = matches!(cluster, "-user" | "-proxy-user");
    let at = if cluster.starts_with('-') {
        None
    } else {
        // Flags without an argument may stand before `u`.
        cluster.find(['u', 'U']).filter(|at| {
            cluster[..*at]
                .bytes()
                .all(|b| b"#0123456fgijklnpqsvBGIJLMNOSVZa".contains(&b))
        })
    };
    if let Some(at) = at
        && cluster.len() > at + 1
    {
        hide_after(word, at + 2, ':', spans);
        return false;
    }
    let Some(next) = next else {
        return false;
    };
    if credentials || at.is_some() {
        hide_after(next, 0, ':', spans);
        return true;
    }
    if matches!(text, "-b" | "--cookie") && next.text.contains('=') {
        hide(next, 0, spans);
        return true;
    }
    false
}

/// Splits a text into words as a shell would, quotes removed at a word's ends only.
pub(super) fn split(text: &str) -> Vec<Word<'_>> {
    let bytes = text.as_bytes();
    let mut words = Vec::new();
    let mut at = 0;
    // Once a quote has no partner, no later one of its kind has: it is not looked for again.
    let mut lone = [false; 2];
    while at < bytes.len() {
        if bytes[at].is_ascii_whitespace() {
            at += 1;
            continue;
        }
        let start = at;
        while at < bytes.len() && !bytes[at].is_ascii_whitespace() {
            let quote = bytes[at];
            let kind = usize::from(quote == b'"');
            at += 1;
            if matches!(quote, b'"' | b'\'') && !lone[kind] {
                match bytes[at..].iter().position(|b| *b == quote) {
                    Some(close) => at += close + 1,
                    None => lone[kind] = true,
                }
            }
        }
        let mut word = Word {
            start,
            text: &text[start..at],
        };
        for quote in ['"', '\''] {
            if let Some(inner) = word
                .text
                .strip_prefix(quote)
                .and_then(|t| t.strip_suffix(quote))
            {
                word = Word {
                    start: start + 1,
                    text: inner,
                };
                break;
            }
        }
        words.push(word);
    }
    words
}
