use super::*;
use crate::parse;

/// The texts of the first exec rule's patterns under this ground.
fn settled(rule: &str, homes: &[&str]) -> Vec<String> {
    let text = format!(
        r#"{{"version": "2", "connect": {{}}, "exec": {{"rules": [{{"id": "a", {rule}}}]}}}}"#
    );
    let mut policy = parse(&text).unwrap().policy;
    let homes: Vec<String> = homes.iter().map(|home| (*home).to_owned()).collect();
    settle(
        &mut policy,
        &SettleGround {
            homes: &homes,
            leads_to: &|path| match path {
                "/bin" => Some("/usr/bin".to_owned()),
                "/bin/sh" | "/usr/bin/sh" => Some("/usr/bin/dash".to_owned()),
                _ => None,
            },
            changeable: &|_| false,
        },
    );
    match policy.exec.rules.remove(0).matcher {
        Patterns::Glob(texts) | Patterns::Regex(texts) => texts,
        Patterns::Argv(pattern) => [pattern.program, pattern.args_any].concat(),
    }
}

#[test]
fn the_home_stands_beside_every_way_to_write_it() {
    assert_eq!(
        settled(r#""decision": "deny", "glob": ["rm -rf ~*"]"#, &["/srv/x"]),
        [
            "rm -rf ${HOME}*",
            "rm -rf $HOME*",
            "rm -rf ~*",
            "rm -rf /srv/x*"
        ]
    );
    assert_eq!(
        settled(
            r#""decision": "ask", "glob": ["$HOME/bin/tool *"]"#,
            &["/h[1]"]
        )
        .last(),
        Some(&"/h[[]1]/bin/tool *".to_owned())
    );
    // Not where it begins a longer name, or none.
    for same in ["rm ~root/*", "rm $HOMES", "rm a~", "a~b"] {
        let rule = format!(r#""decision": "deny", "glob": ["{same}"]"#);
        assert_eq!(settled(&rule, &["/srv/x"]), [same]);
    }
}

#[test]
fn a_directory_called_tilde_is_no_home_to_an_allow_rule() {
    let rule = r#""decision": "allow", "glob": ["~/bin/tool *"]"#;
    assert_eq!(settled(rule, &["/srv/x"]), ["/srv/x/bin/tool *"]);
    assert_eq!(settled(rule, &[]), [format!("{NOWHERE}/bin/tool *")]);
    let rule = r#""decision": "allow", "argv": {"program": "~/bin/tool"}"#;
    assert_eq!(settled(rule, &["/srv/x"]), ["/srv/x/bin/tool"]);
    assert_eq!(
        settled(r#""decision": "allow", "glob": ["cat ~/x"]"#, &["/srv/x"]).len(),
        4
    );
}

#[test]
fn programs_behind_links_are_named_too_but_not_allowed() {
    assert_eq!(
        settled(
            r#""decision": "deny", "glob": ["/bin/id*", "/bin/sh -c *"]"#,
            &[]
        ),
        [
            "/bin/id*",
            "/usr/bin/id*",
            "/bin/sh -c *",
            "/usr/bin/dash -c *",
            "/usr/bin/sh -c *"
        ]
    );
    assert_eq!(
        settled(r#""decision": "deny", "argv": {"program": "/bin/sh"}"#, &[]),
        ["/bin/sh", "/usr/bin/sh", "/usr/bin/dash"]
    );
    assert_eq!(
        settled(r#""decision": "allow", "glob": ["/bin/id*"]"#, &[]),
        ["/bin/id*"]
    );
}

#[test]
fn expressions_and_arguments_know_unusual_homes() {
    let rule = r#""decision": "deny", "regex": ["^rm (?:~|\\$HOME|/home/[^/ ]+)$"]"#;
    assert_eq!(
        settled(rule, &["/srv/x.y"]),
        [r"^rm (?:~|(?:\$HOME|/srv/x\.y)|/home/[^/ ]+)$"]
    );
    assert_eq!(
        settled(rule, &["/home/kim"]),
        [r"^rm (?:~|\$HOME|/home/[^/ ]+)$"]
    );
    let rule = r#""decision": "deny", "argv": {"program": "cat", "args_any": ["~/.ssh/**"]}"#;
    assert_eq!(settled(rule, &["/root"]), ["cat", "~/.ssh/**"]);
    assert_eq!(
        settled(rule, &["/var/home/u"]),
        ["cat", "~/.ssh/**", "/var/home/u/.ssh/**"]
    );
    let rule = r#""decision": "deny", "argv": {"program": "cat", "args_any": ["$HOME/secret"]}"#;
    assert_eq!(
        settled(rule, &["/home/kim", "/srv/kim"]),
        ["cat", "$HOME/secret", "~/secret", "/srv/kim/secret"]
    );
}

#[test]
fn sockets_in_the_home_and_directories_that_are_not_trusted() {
    let text = r#"{"version": "2", "exec": {"trusted_dirs": ["/usr/bin", "/home/u/bin"]}, "connect": {"rules": [
{"id": "a", "decision": "deny", "unix": ["~/x.sock", "/run/y"]}]}}"#;
    let mut policy = parse(text).unwrap().policy;
    settle(
        &mut policy,
        &SettleGround {
            homes: &["/home/u".to_owned(), "/var/home/u".to_owned()],
            leads_to: &|_| None,
            changeable: &|dir| dir.starts_with("/home"),
        },
    );
    assert_eq!(
        policy.connect.rules[0].unix,
        ["/home/u/x.sock", "/var/home/u/x.sock", "/run/y"]
    );
    assert_eq!(policy.exec.trusted_dirs, ["/usr/bin"]);
}
