fn faults(sections: &str) -> Vec<String> {
    let text = format!(
        r#"{{"version":"2","exec":{{"default":"deny"}},"connect":{{"default":"deny"}},{sections}}}"#
    );
    match crate::parse_all(&text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn good_sections_are_read() {
    let sections = r#""file_paths":{"whitelist":["*","~/x","/srv/*"],"blacklist":["*/.env","?x","[/]x","~"]},
        "web_tools":{"whitelist":["WebFetch","mcp__*__search"],"allowed_domains":["docs.rs","*.example.com",
        "b\u00fccher.example","10.0.0.0/8","[::1]","127.0.0.1","localhost"],
        "blocked_domains":["10.*","*.evil.*","metadata.google.internal","0.0.0.0","fd00::/8"]},
        "tools":{"always_allowed":["Task","Todo*"]}"#;
    assert_eq!(faults(sections), [""; 0]);
}

#[test]
fn bad_entries_are_named_with_place_and_mend() {
    for (sections, place, what, mend) in [
        (
            r#""file_paths":{"whitelist":["*","src/*"]}"#,
            "file_paths.whitelist[1]",
            "from the root",
            "`*/`",
        ),
        (
            r#""file_paths":{"blacklist":[""]}"#,
            "file_paths.blacklist[0]",
            "empty",
            "remove",
        ),
        (
            r#""file_paths":{"blacklist":["/a\u0000"]}"#,
            "file_paths.blacklist[0]",
            "NUL",
            "NUL",
        ),
        (
            r#""web_tools":{"whitelist":["Web Fetch"]}"#,
            "web_tools.whitelist[0]",
            "no space",
            "WebFetch",
        ),
        (
            r#""web_tools":{"allowed_domains":["https://docs.rs"]}"#,
            "web_tools.allowed_domains[0]",
            "no host",
            "docs.rs",
        ),
        (
            r#""web_tools":{"blocked_domains":["x.test:80"]}"#,
            "web_tools.blocked_domains[0]",
            "port",
            "alone",
        ),
        (
            r#""web_tools":{"allowed_domains":["*.x.*"]}"#,
            "web_tools.allowed_domains[0]",
            "wildcard",
            "alone",
        ),
        (
            r#""web_tools":{"allowed_domains":["10.0.0.1/8"]}"#,
            "web_tools.allowed_domains[0]",
            "no host",
            "alone",
        ),
        (
            r#""tools":{"always_allowed":[" "]}"#,
            "tools.always_allowed[0]",
            "empty",
            "remove",
        ),
    ] {
        let said = faults(sections);
        assert_eq!(said.len(), 1, "{sections}: {said:?}");
        for part in [place, what, mend] {
            assert!(said[0].contains(part), "{sections}: {}", said[0]);
        }
    }
}
