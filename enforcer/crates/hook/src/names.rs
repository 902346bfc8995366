//! Agents' names as names of files.

/// An agent without a name is known as in the trail.
pub(super) const UNNAMED: &str = "unknown";

/// An agent's name as the name of a file: other bytes than letters, digits, `-` and `_` as `%XX`; of a long one the
/// start, and its digest.
pub(super) fn file_name(agent: Option<&str>) -> String {
    use sha2::{Digest, Sha256};
    use std::fmt::Write as _;
    let agent = agent.unwrap_or(UNNAMED);
    let mut name = String::new();
    for byte in agent.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "%{byte:02x}");
        }
    }
    if name.len() > 160 {
        let digest = Sha256::digest(agent.as_bytes());
        name.truncate(120);
        name.push('%');
        name.push('-');
        for byte in &digest[..16] {
            let _ = write!(name, "{byte:02x}");
        }
    }
    name
}

/// The agent that a file's name stands for; none for the user's file, and for names that were cut.
pub(super) fn agent_of(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let digits = std::str::from_utf8(&digits).ok()?.to_owned();
            bytes.push(u8::from_str_radix(&digits, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
