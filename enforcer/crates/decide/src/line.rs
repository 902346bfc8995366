//! The lines that a denied or waiting process's terminal gets. Each is one line, printable, without secrets.

use std::time::Duration;

/// Longest command in a line, in characters.
const COMMAND_MAX: usize = 160;
/// Longest reason or suggestion in a line, in characters.
const TEXT_MAX: usize = 400;

/// What a denied process's standard error gets: `enforcer: blocked: rm -rf /: deletes the root [rm-root].
/// Instead: delete single files`. `command` is a command line in raw form (the program, then for each argument a
/// NUL and the argument), or any other text that says what was tried. There is no newline at the end.
pub fn blocked_line(command: &[u8], reason: &str, suggestion: Option<&str>) -> String {
    let mut line = format!(
        "enforcer: blocked: {}: {}",
        shown(command),
        printable(reason)
    );
    if let Some(suggestion) = suggestion {
        line.push_str(". Instead: ");
        line.push_str(&printable(suggestion));
    }
    line
}

/// What a waiting process's standard error gets; `id` is the request's, `command` as in [`blocked_line`],
/// `timeout` what is left of the time.
pub fn waiting_line(id: &str, command: &[u8], reason: &str, timeout: Duration) -> String {
    let id = printable(id);
    format!(
        "enforcer: waiting for approval {id}: {}: {} (answer with: enforcer approvals approve {id}; expires in \
         {} s)",
        shown(command),
        printable(reason),
        timeout.as_secs()
    )
}

/// A command as a line shows it. Secrets are hidden before it is cut, so that no part of one stays.
fn shown(command: &[u8]) -> String {
    cut(enforcer_redact::command(command).trim(), COMMAND_MAX)
}

fn printable(text: &str) -> String {
    let text = enforcer_redact::text(text.as_bytes());
    cut(text.trim().trim_end_matches('.'), TEXT_MAX)
}

/// The first characters of a text; a tab could move what follows out of sight, so it becomes a space.
fn cut(text: &str, most: usize) -> String {
    let mut out: String = text
        .chars()
        .take(most)
        .map(|c| if c == '\t' { ' ' } else { c })
        .collect();
    if text.chars().nth(most).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_told_in_one_line() {
        assert_eq!(
            blocked_line(
                b"rm\0-rf\0/",
                "deletes the file system root [rm-root]",
                Some("delete single files.")
            ),
            "enforcer: blocked: rm -rf /: deletes the file system root [rm-root]. Instead: delete single files"
        );
        assert_eq!(
            blocked_line(
                b"connect 10.0.0.1:443",
                "No rule matches (default: deny)",
                None
            ),
            "enforcer: blocked: connect 10.0.0.1:443: No rule matches (default: deny)"
        );
    }

    #[test]
    fn a_request_says_how_to_answer_it() {
        assert_eq!(
            waiting_line(
                "3f2a91c0",
                b"git\0push\0--force",
                "rewrites history [push-force]",
                Duration::from_mins(5)
            ),
            "enforcer: waiting for approval 3f2a91c0: git push --force: rewrites history [push-force] (answer with: \
             enforcer approvals approve 3f2a91c0; expires in 300 s)"
        );
    }

    #[test]
    fn nothing_of_the_command_leaves_its_line() {
        let line = blocked_line(
            b"x\0a\nenforcer: allowed\r\x1b[2J\x1b]0;t\x07b\x7f\xff\tc\xc2\x9b31m\xe2\x80\xae",
            "why\nelse\x1b[1m",
            Some("do\u{2028}this\x08"),
        );
        assert!(
            !line
                .chars()
                .any(|c| c.is_control() || c == '\u{2028}' || c == '\u{202e}'),
            "{line:?}"
        );
        assert_eq!(line.lines().count(), 1);
        assert!(
            line.starts_with("enforcer: blocked: x a enforcer: allowed"),
            "{line}"
        );
    }

    #[test]
    fn secrets_are_hidden_before_the_command_is_cut() {
        let secret = "Zx9qK2mN8vB4tR7yLw3s";
        let mut command = b"curl\0--header\0Authorization: Bearer ".to_vec();
        command.extend(secret.bytes());
        let line = blocked_line(&command, "why", None);
        assert!(
            !line.contains(secret) && line.contains("[REDACTED"),
            "{line}"
        );
        for pad in 100..170 {
            let mut command = b"mysql\0".to_vec();
            command.extend(std::iter::repeat_n(b'a', pad));
            command.extend(format!("\0--password={secret}").bytes());
            let line = blocked_line(&command, "why", None);
            assert!(!line.contains(&secret[..4]), "{line}");
        }
    }

    #[test]
    fn long_commands_are_cut_by_characters() {
        let line = blocked_line("é".repeat(1000).as_bytes(), &"w".repeat(1000), None);
        let command = format!("{}…", "é".repeat(COMMAND_MAX));
        assert_eq!(
            line,
            format!("enforcer: blocked: {command}: {}…", "w".repeat(TEXT_MAX))
        );
        let fits = blocked_line("é".repeat(COMMAND_MAX).as_bytes(), "w", None);
        assert!(!fits.contains('…'), "{fits}");
    }
}
