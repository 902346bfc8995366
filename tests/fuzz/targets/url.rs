//! Any text as a URL, and as an entry of a list of domains: the host that is read is in one spelling only, what is
//! blocked stays blocked however it is spelt, and nothing internal is reached because all domains are allowed.

#![no_main]

use std::net::IpAddr;

use enforcer_policy::{Decision, model::{Form, WebTools}};
use enforcer_decide::web::{self, WebHost};
use libfuzzer_sys::fuzz_target;

/// How the host is written in a URL.
fn written(host: &WebHost) -> String {
    match host {
        WebHost::Address(bytes) => match IpAddr::from(*bytes).to_canonical() {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        },
        WebHost::Name(name) => name.clone(),
    }
}

fn everything() -> WebTools {
    WebTools {
        allow_all_domains: true,
        ..WebTools::default()
    }
}

/// What holds for a host that was read.
fn check(host: &WebHost, text: &str) {
    let shown = host.to_string();
    let own = written(host);
    match host {
        WebHost::Name(name) => {
            assert!(
                !name.is_empty() && name.is_ascii() && !name.ends_with('.'),
                "{text:?}: {name:?}"
            );
            assert!(
                !name.bytes().any(|byte| byte.is_ascii_uppercase()),
                "{text:?}: {name:?}"
            );
            // An address that passes for a name would pass the lists of addresses.
            assert!(name.parse::<IpAddr>().is_err(), "{text:?}: {name:?}");
        }
        WebHost::Address(bytes) => {
            let address = IpAddr::from(*bytes).to_canonical();
            let internal = match address {
                IpAddr::V4(v4) => {
                    v4.is_loopback()
                        || v4.is_private()
                        || v4.is_link_local()
                        || v4.is_unspecified()
                        || v4.is_multicast()
                }
                IpAddr::V6(v6) => {
                    v6.is_loopback()
                        || v6.is_unique_local()
                        || v6.is_unicast_link_local()
                        || v6.is_unspecified()
                        || v6.is_multicast()
                }
            };
            let said = web::judge(&everything(), Form::Native, host);
            assert!(
                !internal || said.decision == Decision::Deny,
                "{text:?}: {said:?}"
            );
        }
    }
    // Its own spelling leads to it again.
    let again = web::host(&format!("https://{own}/"))
        .unwrap_or_else(|why| panic!("{text:?}: {own}: {why}"));
    assert_eq!(again, *host, "{text:?}: {own}");
    // What names it blocks it, whatever else is allowed.
    let blocked = WebTools {
        blocked_domains: vec![shown.clone()],
        allowed_domains: vec![shown.clone()],
        ..everything()
    };
    assert_eq!(
        web::judge(&blocked, Form::Native, host).decision,
        Decision::Deny,
        "{text:?}: {shown}"
    );
    // What names it allows it, internal or not.
    let allowed = WebTools {
        allowed_domains: vec![shown.clone()],
        ..WebTools::default()
    };
    assert_eq!(
        web::judge(&allowed, Form::Native, host).decision,
        Decision::Allow,
        "{text:?}: {shown}"
    );
}

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    // The first line is an entry of a list, the rest a URL, or a text that holds some.
    let (entry, text) = text.split_once('\n').unwrap_or(("*", &*text));
    let found = web::urls_in(text);
    assert!(found.iter().map(|url| url.len()).sum::<usize>() <= text.len());
    for url in found.into_iter().chain([text]) {
        let Ok(host) = web::host(url) else {
            continue;
        };
        check(&host, url);
        // An entry blocks whatever else it stands in.
        let lists = WebTools {
            blocked_domains: vec![entry.to_owned()],
            ..everything()
        };
        let said = web::judge(&lists, Form::Native, &host);
        assert!(!said.reason.is_empty());
        let both = WebTools {
            allowed_domains: vec![entry.to_owned()],
            ..lists
        };
        if said.rule.is_some() && said.decision == Decision::Deny {
            assert_eq!(
                web::judge(&both, Form::Native, &host).decision,
                Decision::Deny,
                "{entry:?}: {url:?}"
            );
        }
    }
    // A text that begins as a web URL is not overlooked.
    if (text.starts_with("http://") || text.starts_with("https://")) && web::host(text).is_ok() {
        assert!(!web::urls_in(text).is_empty(), "{text:?}");
    }
});
