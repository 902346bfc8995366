use super::*;
use enforcer_policy::Decision;

fn open() -> WebTools {
    WebTools {
        whitelist: vec!["WebFetch".to_owned()],
        allow_all_domains: true,
        ..WebTools::default()
    }
}

fn seed() -> WebTools {
    WebTools {
        blocked_domains: [
            "localhost",
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "metadata.google.internal",
            "[::1]",
            "10.*",
            "172.16.*",
            "192.168.*",
        ]
        .map(String::from)
        .to_vec(),
        ..open()
    }
}

fn decision(web: &WebTools, url: &str) -> Decision {
    host(url).map_or(Decision::Deny, |host| {
        judge(web, Form::Native, &host).decision
    })
}

/// One address in every spelling that some client understands.
const INTERNAL_SPELLINGS: [&str; 84] = [
    "http://127.0.0.1",
    "http://127.0.0.1:8080/x",
    "http://user:pass@127.0.0.1/",
    "http://example.com@127.0.0.1/",
    "http://example.com:80@127.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0X7F.1/",
    "http://0177.0.0.1/",
    "http://017700000001/",
    "http://0000000000000177.0.0.1/",
    "http://127.0.0.1./",
    "http://127.0.0.1../",
    "http://127.255.255.254/",
    "HTTP://127.0.0.1/",
    "hTTps://LOCALHOST/",
    "http://localhost./",
    "http://localhost../",
    "http://LocalHost:9001",
    "http://a.localhost/",
    "http://localhost.localdomain/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
    "http://loc\u{ad}alhost/",
    "http://%31%32%37.0.0.1/",
    "http://127.0.0.%31/",
    "http://lo%63alhost/",
    "http://0/",
    "http://0.0.0.0/",
    "http://0x0/",
    "http://[::]/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]:80/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b:1::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a00:1::1]/",
    "http://[fe80::1]/",
    "http://[fd00:ec2::254]/latest/meta-data",
    "http://[fc00::1]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://10.0.0.1/",
    "http://10.1/",
    "http://167772161/",
    "http://012.0.0.1/",
    "http://[::ffff:10.0.0.1]/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://0xac.0x1f.1/",
    "http://192.168.0.1/",
    "http://3232235521/",
    "http://192.168.257/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.43518/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://metadata.google.internal/",
    "http://METADATA.google.internal./computeMetadata/v1/",
    "http://metadata/",
    "http://metadata.goog/",
    "http://instance-data/",
    "http://router.local/",
    "http://db.lan/",
    "http://intranet/",
    "http://127.0.0.1.nip.io/",
    "http://app.10-0-0-1.sslip.io/",
    "http://localtest.me/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
];

#[test]
fn no_spelling_of_an_internal_address_passes() {
    for web in [open(), seed()] {
        for url in INTERNAL_SPELLINGS {
            assert_eq!(
                decision(&web, url),
                Decision::Deny,
                "{url}: {:?}",
                host(url)
            );
        }
    }
}

#[test]
fn what_clients_repair_is_repaired_first() {
    for url in [
        " http://127.0.0.1/",
        "http:127.0.0.1",
        "http:/127.0.0.1/",
        "http:///127.0.0.1/",
        "http:\\\\127.0.0.1\\",
        "http://example.com\\@127.0.0.1/\u{0}",
        "ht\ntp://127.0.0.1/",
        "http://127.0\t.0.1/",
        "http://127.0.0.1\n",
        "http://127.0.0.1#@example.com/",
        "http://127.0.0.1?.example.com",
        "http://127.0.0.1\\.example.com/",
    ] {
        let judged = decision(&open(), url);
        // The one with `\\@` leads to example.com, as browsers read it.
        let expected = if url.contains("com\\@") {
            Decision::Allow
        } else {
            Decision::Deny
        };
        assert_eq!(judged, expected, "{url:?}: {:?}", host(url));
    }
}

#[test]
fn what_is_no_http_url_is_denied() {
    for url in [
        "",
        "example.com",
        "//example.com/",
        "localhost:80",
        "file:///etc/passwd",
        "ftp://example.com/",
        "gopher://127.0.0.1:70/_",
        "javascript:alert(1)",
        "data:text/plain,x",
        "http://",
        "http://../",
        "http://[::1",
        "http://256.256.256.256/",
        "http://1.2.3.4.5/",
        "http://exa mple.com/",
        "http://exam%00ple.com/",
        "ws://example.com/",
    ] {
        assert!(host(url).is_err(), "{url}: {:?}", host(url));
    }
}

#[test]
fn public_hosts_pass_where_all_may() {
    for url in [
        "https://example.com/",
        "https://EXAMPLE.com:8443/path?x=http://127.0.0.1/#y",
        "https://user@docs.rs./",
        "http://1.1.1.1/",
        "http://[2606:4700::1111]/",
        "https://bücher.example.org/",
        "http://localhost.example.com/",
        "http://internal.example.com/",
        "http://172.32.0.1/",
        "http://11.0.0.1/",
    ] {
        assert_eq!(decision(&seed(), url), Decision::Allow, "{url}");
    }
}

#[test]
fn blocked_beats_allowed_and_names_are_compared_as_names() {
    let web = WebTools {
        allowed_domains: [
            "docs.rs",
            "*.example.com",
            "bücher.example",
            "10.1.0.0/16",
            "evil.test",
        ]
        .map(String::from)
        .to_vec(),
        blocked_domains: ["evil.test", "bad.example.com", "10.1.2.3"]
            .map(String::from)
            .to_vec(),
        ..WebTools::default()
    };
    for (url, expected) in [
        ("https://docs.rs/", Decision::Allow),
        ("https://DOCS.RS.:443/", Decision::Allow),
        ("https://x.docs.rs/", Decision::Deny),
        ("https://docs.rs.evil.org/", Decision::Deny),
        ("https://docs.rs@evil.org/", Decision::Deny),
        ("https://xdocs.rs/", Decision::Deny),
        ("https://a.example.com/", Decision::Allow),
        ("https://example.com/", Decision::Deny),
        ("https://bad.example.com/", Decision::Deny),
        ("https://x.bad.example.com/", Decision::Deny),
        ("https://notbad.example.com/", Decision::Allow),
        ("https://xn--bcher-kva.example/", Decision::Allow),
        ("https://BÜCHER.example/", Decision::Allow),
        ("https://evil.test/", Decision::Deny),
        ("https://sub.evil.test/", Decision::Deny),
        ("http://10.1.9.9/", Decision::Allow),
        ("http://10.1.2.3/", Decision::Deny),
        ("http://10.2.0.1/", Decision::Deny),
        ("http://0xa010909/", Decision::Allow),
    ] {
        assert_eq!(decision(&web, url), expected, "{url}");
    }
}

#[test]
fn all_domains_are_no_internal_ones() {
    let mut web = open();
    assert_eq!(decision(&web, "http://localhost/"), Decision::Deny);
    web.allowed_domains = vec!["localhost".to_owned(), "127.0.0.0/8".to_owned()];
    assert_eq!(decision(&web, "http://LOCALHOST:8080/"), Decision::Allow);
    assert_eq!(decision(&web, "http://127.1/"), Decision::Allow);
    assert_eq!(decision(&web, "http://[::1]/"), Decision::Allow);
    assert_eq!(decision(&web, "http://10.0.0.1/"), Decision::Deny);
}

#[test]
fn urls_are_found_in_prompts() {
    for (text, urls) in [
        ("no url: here, nor at 10:30", &[][..]),
        (
            "see https://a.test/x and http://b.test",
            &["https://a.test/x", "http://b.test"],
        ),
        ("(HTTPS://A.test)", &["HTTPS://A.test)"]),
        ("a http:127.0.0.1 b", &["http:127.0.0.1"]),
        ("xhttp://127.0.0.1/", &["xhttp://127.0.0.1/"]),
        ("seehttp:127.0.0.1", &["http:127.0.0.1"]),
        ("ftp://x gopher://y", &["ftp://x", "gopher://y"]),
        ("http:\\\\127.0.0.1", &["http:\\\\127.0.0.1"]),
        ("<http://a.test>", &["http://a.test"]),
        ("é http://é.test", &["http://é.test"]),
        ("http:", &[]),
        (":", &[]),
    ] {
        assert_eq!(urls_in(text), urls, "{text}");
    }
}

#[test]
fn what_is_a_broken_address_without_its_dots_is_refused() {
    for url in ["http://.10../", "http://p@.10..:18/", "http://1.2.3.256../"] {
        assert!(host(url).is_err(), "{url}");
    }
}
