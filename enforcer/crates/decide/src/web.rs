//! What web tools may reach. A URL is read as browsers and HTTP clients read it (the WHATWG URL standard), so that
//! every spelling of an address is the one address: ports, userinfo, upper case, decimal, octal, hexadecimal and short
//! IPv4, IPv6 that carries IPv4, a dot at the end, punycode.
//!
//! A name is judged as a name: to what it will resolve is not known here.

use std::net::IpAddr;

use enforcer_common::address;
use url::{Host, Url};

use enforcer_policy::{
    compile::Glob,
    hosts,
    model::{Form, Network, WebTools},
};

use super::{Outcome, tool};
use enforcer_policy::{Cause, Risk};

/// Networks that are no part of the public Internet: loopback, private, shared, link-local (with the metadata services
/// of clouds), documentation, benchmarks, multicast, reserved. IANA's special-purpose registries (RFC 6890).
const INTERNAL: [&str; 22] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/127",
    "100::/64",
    "2001:db8::/32",
    "64:ff9b:1::/48",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// Names that stand for this machine or its network, with all below them: RFC 6761, RFC 6762, RFC 8375, and those under
/// which clouds hand out credentials.
const INTERNAL_NAMES: [&str; 12] = [
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "lan",
    "home.arpa",
    "metadata",
    "instance-data",
    "metadata.goog",
    "kubernetes",
    "svc",
];

/// Public names that resolve to whatever address they spell, loopback among them.
const ECHOING_NAMES: [&str; 6] = [
    "nip.io",
    "sslip.io",
    "xip.io",
    "localtest.me",
    "lvh.me",
    "vcap.me",
];

/// How a host is allowed by name.
fn by_name(form: Form) -> String {
    match form {
        Form::Native => "the operator can add it to `web_tools.allowed_domains` of the policy",
        Form::Hook => {
            "only a policy of the native form can allow it by name (`web_tools.allowed_domains`)"
        }
    }
    .to_owned()
}

/// How a host that merely nothing allows is allowed.
fn to_allow(form: Form) -> String {
    match form {
        Form::Native => by_name(form),
        Form::Hook => "the operator can set `web_tools.allow_all_domains` of the policy".to_owned(),
    }
}

/// What a URL leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebHost {
    /// A name: lower case, ASCII (punycode), no dot at the end.
    Name(String),
    /// An address, normalised; IPv4 as `::ffff:a.b.c.d`.
    Address([u8; 16]),
}

impl std::fmt::Display for WebHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(bytes) => IpAddr::from(*bytes).to_canonical().fmt(f),
        }
    }
}

/// Reads a URL.
///
/// # Errors
///
/// Why no client could, or may, fetch it.
pub fn host(text: &str) -> Result<WebHost, String> {
    let url = Url::parse(text).map_err(|error| format!("Not a URL that can be judged: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!(
            "Scheme `{}` is not allowed: only http and https are",
            url.scheme()
        ));
    }
    match url.host() {
        Some(Host::Domain(name)) => {
            // More than one dot at the end is no name; some clients take them off all the same.
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            if name.is_empty() {
                return Err("The URL has no host".to_owned());
            }
            // `127.0.0.1..` is a name to the standard and an address to who cuts the dots off.
            Ok(match Url::parse(&format!("http://{name}/")) {
                Ok(again) => match again.host() {
                    Some(Host::Ipv4(v4)) => WebHost::Address(address::normalise(v4_bytes(v4))),
                    _ => WebHost::Name(name),
                },
                // `.10..`: a broken address once the dots are off.
                Err(error) => return Err(format!("Not a URL that can be judged: {error}")),
            })
        }
        Some(Host::Ipv4(v4)) => Ok(WebHost::Address(address::normalise(v4_bytes(v4)))),
        Some(Host::Ipv6(v6)) => Ok(WebHost::Address(address::normalise(v6.octets()))),
        None => Err("The URL has no host".to_owned()),
    }
}

fn v4_bytes(address: std::net::Ipv4Addr) -> [u8; 16] {
    address.to_ipv6_mapped().octets()
}

/// The URLs in a text that is not itself one (a prompt): whatever begins with `http:`, `https:` or another scheme and
/// `//`.
pub fn urls_in(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let bytes = text.as_bytes();
    let mut from = 0;
    while let Some(colon) = text[from..].find(':').map(|at| from + at) {
        let scheme = bytes[..colon]
            .iter()
            .rev()
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
            .count();
        let start = colon - scheme;
        let behind = &text[colon + 1..];
        let name = text[start..colon].to_ascii_lowercase();
        let web = ["http", "https"].iter().any(|known| name.ends_with(known))
            && !behind.starts_with([' ', '\n', '\t', '\r']);
        let slashes = scheme > 0 && (behind.starts_with("//") || behind.starts_with("\\\\"));
        from = colon + 1;
        if !(web && !behind.is_empty() || slashes) {
            continue;
        }
        // A client that looks for URLs finds `http:` behind other letters too.
        let start = if web && !slashes {
            colon - if name.ends_with("https") { 5 } else { 4 }
        } else {
            start
        };
        let end = text[start..]
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>' | '`' | '|' | '^'))
            .map_or(text.len(), |length| start + length);
        found.push(&text[start..end]);
        from = end.max(from);
    }
    found
}

/// Judges what a URL leads to. What is blocked beats what is allowed; what is internal must be allowed by name. `form` is
/// that of the policy, for what is advised.
pub fn judge(web: &WebTools, form: Form, host: &WebHost) -> Outcome {
    if let Some(entry) = web.blocked_domains.iter().find(|entry| blocks(entry, host)) {
        return denied(
            Cause::Rule,
            Some(entry),
            format!("Domain is blocked: {host} (matches blacklist pattern: {entry})"),
        );
    }
    let allowed = (web.allowed_domains.iter()).find(|entry| allows(entry, host));
    if let Some(entry) = allowed {
        return tool::allowed(
            Some(entry),
            format!("Domain is allowed: {host} (matches {entry})"),
        );
    }
    if let Some(why) = internal(host) {
        return Outcome {
            suggestions: vec![by_name(form)],
            ..denied(
                Cause::InternalHost,
                None,
                format!("Domain is blocked: {host} ({why})"),
            )
        };
    }
    if web.allow_all_domains {
        return tool::allowed(None, format!("All domains are allowed: {host}"));
    }
    Outcome {
        suggestions: vec![to_allow(form)],
        ..tool::denied(
            Cause::Default,
            format!("Domain not in allowed domains (deny by default): {host}"),
        )
    }
}

fn denied(cause: Cause, rule: Option<&str>, reason: String) -> Outcome {
    Outcome {
        rule: rule.map(str::to_owned),
        risk: Risk::High,
        security_risk: true,
        ..tool::denied(cause, reason)
    }
}

/// Whether a host is none of the public Internet, and why.
fn internal(host: &WebHost) -> Option<&'static str> {
    match host {
        WebHost::Address(bytes) => {
            let inside = |text: &&str| networks(text).iter().any(|net| net.contains(*bytes));
            INTERNAL
                .iter()
                .any(inside)
                .then_some("a loopback, private, link-local or reserved address")
        }
        WebHost::Name(name) => {
            let is = |names: &[&str]| names.iter().any(|known| is_or_below(name, known));
            if is(&INTERNAL_NAMES) || !name.contains('.') {
                Some("a name of this machine or its network")
            } else if is(&ECHOING_NAMES) {
                Some("a name that resolves to the address that it spells")
            } else {
                None
            }
        }
    }
}

/// Whether an entry of `blocked_domains` is about a host: a name with all below it, a pattern, an address, a network.
fn blocks(entry: &str, host: &WebHost) -> bool {
    match host {
        WebHost::Address(bytes) => networks(entry).iter().any(|net| net.contains(*bytes)),
        WebHost::Name(name) => {
            let entry = plain(entry);
            if entry.contains(['*', '?', '[']) {
                Glob::parse(&entry).matches(name)
            } else {
                is_or_below(name, &entry)
            }
        }
    }
}

/// Whether an entry of `allowed_domains` is about a host: a name alone, `*.name` for all below it, an address, a
/// network. Stars reach no address.
fn allows(entry: &str, host: &WebHost) -> bool {
    match host {
        WebHost::Address(bytes) => {
            entry != "*" && networks(entry).iter().any(|net| net.contains(*bytes))
        }
        WebHost::Name(name) => {
            let entry = plain(entry);
            match entry.strip_prefix("*.") {
                Some(domain) => name
                    .strip_suffix(domain)
                    .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
                None => *name == entry,
            }
        }
    }
}

fn is_or_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// An entry as names are compared: lower case, punycode, no dot at the end.
fn plain(entry: &str) -> String {
    let lower = entry.trim_end_matches('.').to_lowercase();
    let (wild, name) = match lower.strip_prefix("*.") {
        Some(name) => ("*.", name),
        None => ("", lower.as_str()),
    };
    match Host::parse(name) {
        Ok(Host::Domain(ascii)) => format!("{wild}{ascii}"),
        _ => lower,
    }
}

/// The networks that an entry stands for; none for a name.
fn networks(entry: &str) -> Vec<Network> {
    if let Some(networks) = hosts::parse_blocked(entry) {
        return networks;
    }
    // `0.0.0.0/8` and other spellings that connect rules refuse, for there the kernel normalises first.
    if let Some((address, prefix)) = entry.split_once('/')
        && let (Ok(address), Ok(prefix)) = (address.parse::<IpAddr>(), prefix.parse::<u8>())
    {
        let (address, prefix) = match address {
            IpAddr::V4(v4) => (v4_bytes(v4), prefix.saturating_add(96).min(128)),
            IpAddr::V6(v6) => (v6.octets(), prefix.min(128)),
        };
        return vec![Network { address, prefix }];
    }
    match Host::parse(entry) {
        Ok(Host::Ipv4(v4)) => exactly(v4_bytes(v4)),
        Ok(Host::Ipv6(v6)) => exactly(v6.octets()),
        _ => Vec::new(),
    }
}

fn exactly(address: [u8; 16]) -> Vec<Network> {
    vec![Network {
        address: address::normalise(address),
        prefix: 128,
    }]
}

#[cfg(test)]
#[path = "web_tests.rs"]
mod tests;
