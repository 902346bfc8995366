//! Names of unix sockets, and the patterns that rules have for them.
//!
//! A name is the socket's path, or `@` and its abstract name. `/var/run` is a link to `/run` wherever systemd is,
//! so both spellings are one name here.

use super::place::quoted;

/// The old place of `/run/`.
const OLD_RUN: &str = "/var/run/";
/// What stands for it.
const RUN: &str = "/run/";

/// Why a pattern cannot be used: what is wrong, and the mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixFault {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub mend: &'static str,
}

/// A name as rules see it, in two parts that follow each other.
pub fn normalised(name: &[u8]) -> [&[u8]; 2] {
    match name.strip_prefix(OLD_RUN.as_bytes()) {
        Some(rest) => [RUN.as_bytes(), rest],
        None => [name, b""],
    }
}

/// A pattern as the tables take it.
///
/// # Errors
///
/// The text is not a pattern, or one that matches no name.
pub fn parse_pattern(text: &str) -> Result<String, UnixFault> {
    let fault = |what: String, mend| UnixFault { what, mend };
    if text.contains('\0') {
        return Err(fault(
            "the pattern holds a NUL, which no path can".to_owned(),
            "remove the NUL; `@` stands for the one that begins an abstract name",
        ));
    }
    let home = ["~/", "$HOME/", "${HOME}/"];
    let below_home = home.iter().find_map(|home| text.strip_prefix(home));
    if below_home.is_none() && !text.starts_with(['/', '@', '*']) {
        return Err(fault(
            format!("{} names no unix socket", quoted(text)),
            "write an absolute path (\"/run/x.sock\"), one in the agent's home (\"~/x.sock\"), `@` and an abstract name, or begin it with `*`",
        ));
    }
    if let Some(path) = below_home.or_else(|| text.strip_prefix('/'))
        && path.split('/').any(|part| matches!(part, "" | "." | ".."))
    {
        return Err(fault(
            format!("{} is not a path in its shortest form", quoted(text)),
            "leave out `.`, `..`, doubled slashes and a slash at the end: names are resolved before they are matched",
        ));
    }
    Ok(match text.strip_prefix(OLD_RUN) {
        Some(rest) => format!("{RUN}{rest}"),
        None => text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_run_are_one_name() {
        assert_eq!(normalised(b"/var/run/x"), [&b"/run/"[..], b"x"]);
        for same in [&b"/run/x"[..], b"/var/runner", b"@/var/run/x", b"", b"x"] {
            assert_eq!(normalised(same), [same, b""]);
        }
        assert_eq!(parse_pattern("/var/run/*.sock").unwrap(), "/run/*.sock");
    }

    #[test]
    fn patterns_that_match_no_name_are_refused() {
        for good in [
            "/run/x.sock",
            "@x",
            "@",
            "*",
            "*/docker.sock",
            "/tmp/..x/.y",
            "/a b",
        ] {
            assert_eq!(parse_pattern(good).unwrap(), good);
        }
        for (bad, said) in [
            ("run/x.sock", "names no unix socket"),
            ("", "names no unix socket"),
            ("?run", "names no unix socket"),
            ("/run/../x", "shortest form"),
            ("/run//x", "shortest form"),
            ("/run/./x", "shortest form"),
            ("/run/", "shortest form"),
            ("/", "shortest form"),
            ("/run/\0", "NUL"),
        ] {
            let fault = parse_pattern(bad).unwrap_err();
            assert!(fault.what.contains(said), "{bad}: {}", fault.what);
        }
    }
}
