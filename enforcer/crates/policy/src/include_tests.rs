//! How the texts of rule sets and of a policy become one, and how what is wrong in one of them is told.

use super::*;
use crate::Decision;
use crate::judged::Judge;
use crate::{Parsed, parse, parse_known, parse_sources};

fn set(name: &str, text: &str) -> Included {
    Included {
        name: name.to_owned(),
        file: format!("rules/{name}.json").into(),
        text: text.into(),
    }
}

/// A rule set with these exec rules: id, decision and glob.
fn rules(name: &str, rules: &[(&str, &str, &str)]) -> Included {
    let rules: Vec<String> = rules
        .iter()
        .map(|(id, decision, glob)| {
            format!(r#"{{"id": "{id}", "decision": "{decision}", "glob": ["{glob}"]}}"#)
        })
        .collect();
    let rules = rules.join(",\n");
    let text = format!("{{\"version\": \"2\",\n\"exec\": {{\"rules\": [\n{rules}]}}}}");
    set(name, &text)
}

fn read(policy: &str, included: Vec<Included>) -> Result<Parsed, Vec<String>> {
    parse_sources(Sources::new(policy, "p.json", included))
        .map_err(|errors| errors.iter().map(|error| error.in_file("p.json")).collect())
}

fn ids(parsed: &Parsed) -> Vec<&str> {
    let rules = parsed.policy.exec.rules.iter();
    rules.map(|rule| rule.id.as_str()).collect()
}

/// Two rule sets and a policy with a rule of its own.
const POLICY: &str = r#"{"version": "2", "include": ["a", "b"], "connect": {},
"exec": {"default": "allow", "rules": [
  {"id": "own", "decision": "deny", "glob": ["own *"]}]}}"#;

fn two() -> Vec<Included> {
    vec![
        rules("a", &[("a1", "deny", "a *"), ("a2", "ask", "aa *")]),
        rules("b", &[("b1", "deny", "b *")]),
    ]
}

#[test]
fn rules_come_in_the_order_of_the_names_and_before_the_policys_own() {
    let parsed = read(POLICY, two()).unwrap();
    assert_eq!(ids(&parsed), ["a1", "a2", "b1", "own"]);
    assert_eq!(parsed.policy.exec.default, Decision::Allow);
    let places: Vec<String> = (0..4)
        .map(|at| parsed.place(&parsed.rule_path(at)).in_file("p.json"))
        .collect();
    assert_eq!(
        places,
        [
            "rules/a.json:3:1: exec.rules[0]",
            "rules/a.json:4:1: exec.rules[1]",
            "rules/b.json:3:1: exec.rules[0]",
            "p.json:3:3: exec.rules[0]",
        ]
    );
}

#[test]
fn the_whole_is_a_policy_that_says_the_same_and_includes_nothing() {
    let parsed = read(POLICY, two()).unwrap();
    let again = parse(parsed.text()).unwrap();
    assert_eq!(again.policy.exec.rules, parsed.policy.exec.rules);
    assert!(again.sources().included().is_empty());
    assert!(parse_known(parsed.text()).is_ok());
    // What stands in the whole was never found beside the policy.
    assert!(parse_known(POLICY).is_err());
}

#[test]
fn every_list_is_joined_and_sections_are_made_where_the_policy_has_none() {
    let lists = set(
        "lists",
        r#"{"version": "2", "connect": {"rules": [{"id": "mail", "decision": "deny", "ports": [25]}]},
        "file_paths": {"whitelist": ["/w/*"], "blacklist": ["*/.env"]},
        "web_tools": {"whitelist": ["WebFetch"], "allowed_domains": ["docs.rs"], "blocked_domains": ["0x0.st"]},
        "tools": {"always_allowed": ["Task"]}, "exec": {"rules": [{"id": "x", "decision": "deny", "glob": ["x"]}]}}"#,
    );
    for policy in [
        r#"{"include": ["lists"], "version": "2"}"#,
        r#"{"include": ["lists"], "version": "2", "exec": null, "connect": null, "file_paths": null}"#,
        r#"{"version": "2", "exec": {}, "\u0063onnect": {}, "file_paths": {}, "web_tools": {}, "tools": {}, "include": ["lists"]}"#,
        r#"{"version": "2", "exec": {"rules": []}, "include": ["lists"], "file_paths": {"blacklist": []}}"#,
    ] {
        let parsed = read(policy, vec![lists.clone()]).unwrap();
        let policy = &parsed.policy;
        assert_eq!(ids(&parsed), ["x"]);
        assert_eq!(policy.exec.default, Decision::Deny);
        assert_eq!(policy.connect.rules.len(), 1);
        assert_eq!(policy.file_paths.whitelist, ["/w/*"]);
        assert_eq!(policy.file_paths.blacklist, ["*/.env"]);
        assert_eq!(policy.web_tools.whitelist, ["WebFetch"]);
        assert_eq!(policy.web_tools.allowed_domains, ["docs.rs"]);
        assert_eq!(policy.web_tools.blocked_domains, ["0x0.st"]);
        assert_eq!(policy.tools.always_allowed, ["Task"]);
        assert!(!policy.web_tools.allow_all_domains);
    }
}

#[test]
fn a_whitelist_that_is_included_lifts_no_denial() {
    let included = vec![
        rules("a", &[("allow-all", "allow", "*")]),
        rules("b", &[("no-rm", "deny", "rm *")]),
    ];
    let parsed = read(POLICY, included).unwrap();
    let judge = Judge::new(parsed.policy);
    for (line, wanted) in [
        ("rm x", Decision::Deny),
        ("own x", Decision::Deny),
        ("ls x", Decision::Allow),
    ] {
        let words = line.split(' ').map(|word| word.as_bytes().to_vec());
        assert_eq!(judge.exec(words.collect()).0, wanted, "{line}");
    }
}

#[test]
fn an_id_that_two_files_have_is_told_with_both() {
    let included = vec![
        rules("a", &[("same", "deny", "a *")]),
        rules("b", &[("x", "deny", "x *"), ("same", "allow", "b *")]),
    ];
    assert_eq!(
        read(POLICY, included).unwrap_err(),
        [
            "rules/b.json:4:2: exec.rules[1].id: duplicate id \"same\" (first at line 3 of rules/a.json); give each rule \
             an id of its own"
        ]
    );
    let included = vec![
        rules("a", &[("own", "allow", "*")]),
        set("b", r#"{"version": "2"}"#),
    ];
    assert_eq!(
        read(POLICY, included).unwrap_err(),
        [
            "p.json:3:4: exec.rules[0].id: duplicate id \"own\" (first at line 3 of rules/a.json); give each rule an id of \
             its own"
        ]
    );
    // A connect rule of a rule set comes after the policy's exec rules.
    let connects = set(
        "b",
        r#"{"version": "2", "connect": {"rules": [{"id": "own", "decision": "allow", "ports": [1]}]}}"#,
    );
    let said = read(POLICY, vec![set("a", r#"{"version": "2"}"#), connects]).unwrap_err();
    assert!(
        said[0].starts_with("rules/b.json:1:41: connect.rules[0].id: duplicate id \"own\" (first at line 3 of p.json)"),
        "{said:?}"
    );
}

#[test]
fn what_is_wrong_in_a_rule_set_is_told_with_its_file_and_line() {
    for (text, said) in [
        ("", "rules/a.json: the policy is empty"),
        (
            "{\"version\": \"2\",",
            "rules/a.json:1:16: the JSON ends too early",
        ),
        (
            "{\"version\": \"2\",\n\"limits\": {}}",
            "rules/a.json:2:1: limits: unknown key \"limits\"; remove it; the keys known here are",
        ),
        (
            "{\"version\": \"2\",\n\"include\": [\"a\"]}",
            "rules/a.json:2:1: include: unknown key \"include\"; only policies of the native form include rule sets",
        ),
        (
            "{\"version\": \"2\",\n\"exec\": {\"default\": \"allow\", \"rules\": []}}",
            "rules/a.json:2:10: exec.default: unknown key \"default\"",
        ),
        (
            "{\"version\": \"2\",\n\"web_tools\": {\"allow_all_domains\": true}}",
            "rules/a.json:2:15: web_tools.allow_all_domains: unknown key",
        ),
        (
            "{\"version\": \"2\",\n\"exec\": {\"rules\": [\n{\"id\": \"x\", \"decision\": \"deny\", \"glob\": [\"\"]}]}}",
            "rules/a.json:3:42: exec.rules[0].glob[0]: the text is empty",
        ),
        (
            "{\"version\": \"2\",\n\"exec\": {\"rules\": [\n{\"id\": \"x\", \"decision\": \"perhaps\", \"glob\": [\"y\"]}]}}",
            "rules/a.json:3:13: exec.rules[0].decision: \"perhaps\" is not known here",
        ),
        (
            "{\"version\": \"3\"}",
            "rules/a.json:1:2: version: version \"3\" of rule sets is not known",
        ),
        (
            "{\"exec\": {\"rules\": []}}",
            "rules/a.json:1:1: the key \"version\" is missing",
        ),
        (
            "{\"version\": \"2\", \"version\": \"2\"}",
            "rules/a.json:1:18: version: the key stands twice",
        ),
        ("[]", "rules/a.json:1:1: "),
    ] {
        let policy = r#"{"version": "2", "include": ["a"], "exec": {}, "connect": {}}"#;
        let told = read(policy, vec![set("a", text)]).unwrap_err();
        assert!(told[0].starts_with(said), "{told:?} for {text}");
    }
}

#[test]
fn names_are_plain() {
    let long = "x".repeat(65);
    for name in [
        "",
        "..",
        "../x",
        "/etc/x",
        "a/b",
        "a.json",
        ".hidden",
        "a b",
        "é",
        "a\\u0000b",
        &long,
    ] {
        let text = format!("{{\"version\": \"2\",\n \"include\": [\"good\", \"{name}\"]}}");
        let said = names(&text).unwrap_err();
        assert_eq!(said.len(), 1);
        let said = said[0].in_file("p.json");
        assert!(said.starts_with("p.json:2:22: include[1]: "), "{said}");
        assert!(said.contains("cannot be the name of a rule set"), "{said}");
    }
    let twice = r#"{"version": "2", "include": ["a", "b", "a"]}"#;
    let said = names(twice).unwrap_err()[0].to_string();
    assert!(said.contains("\"a\" is included twice"), "{said}");
    let many: Vec<String> = (0..100).map(|at| format!("\"s{at}\"")).collect();
    let many = format!("{{\"version\": \"2\", \"include\": [{}]}}", many.join(","));
    let said = names(&many).unwrap_err()[0].to_string();
    assert!(said.contains("more than 64 rule sets"), "{said}");
}

#[test]
fn only_the_native_form_includes() {
    let hook = r#"{"version": "1.0", "include": ["git"], "bash": {"whitelist": [], "blacklist": []},
        "file_paths": {"whitelist": [], "blacklist": []}, "agents": {"trusted": []}}"#;
    assert_eq!(names(hook), Ok(Vec::new()));
    let said = parse(hook).unwrap_err().to_string();
    assert!(said.contains("only policies of the native form"), "{said}");
    // Types are told as everywhere.
    for (text, said) in [
        (r#"{"version": "2", "include": "git"}"#, "include: string"),
        (r#"{"version": "2", "include": [1]}"#, "include[0]: integer"),
        (
            r#"{"version": "2", "include": ["no-such-set"]}"#,
            "include[0]: there is no rule set \"no-such-set\"",
        ),
        (r#"{"include": ["git"]}"#, "the key \"version\" is missing"),
        (
            r#"{"version": "2", "include": ["git"], "include": []}"#,
            "include: the key stands twice",
        ),
    ] {
        let told = parse(text).unwrap_err().to_string();
        assert!(told.contains(said), "{told}");
    }
    assert!(parse(r#"{"version": "2", "include": [], "exec": {}, "connect": {}}"#).is_ok());
}

#[test]
fn digests_cover_all_texts() {
    let keys: Vec<String> = [
        two(),
        two().split_off(1),
        vec![two().remove(1), two().remove(0)],
    ]
    .into_iter()
    .map(|included| Sources::new(POLICY, "p", included).key().into_owned())
    .collect();
    assert_ne!(keys[0], keys[1]);
    assert_ne!(keys[0], keys[2]);
    assert_eq!(Sources::alone(POLICY).key(), POLICY);
}

/// Each rule set of the program is one, and lies in `policies/rules` under its name.
#[test]
fn the_built_in_rule_sets_are_those_of_the_repository() {
    let directory =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../policies/rules");
    let mut files: Vec<String> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort_unstable();
    let mut names: Vec<String> = rule_set::built_in_names()
        .map(|name| format!("{name}.json"))
        .collect();
    names.sort_unstable();
    assert_eq!(
        names, files,
        "the list in rule_set.rs is not that of {directory:?}"
    );
    for name in rule_set::built_in_names() {
        let text =
            format!(r#"{{"version": "2", "include": ["{name}"], "exec": {{}}, "connect": {{}}}}"#);
        let parsed = parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(parsed.warnings, [], "{name}");
        let brings = parsed.policy.exec.rules.len()
            + parsed.policy.connect.rules.len()
            + parsed.policy.file_paths.blacklist.len()
            + parsed.policy.web_tools.blocked_domains.len();
        assert!(brings > 0, "{name} brings nothing");
    }
}
