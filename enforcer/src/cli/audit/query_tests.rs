use std::fs;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    query: QueryArgs,
}

fn line(time: &str, event: &str, agent: &str, tool: &str, parameters: &str) -> String {
    format!(
        r#"{{"timestamp":"{time}+00:00","event":"{event}","agent":"{agent}","tool":"{tool}","reason":"r","security_risk":false,"parameters":{{{parameters}}}}}"#
    )
}

/// What a query of a small trail and one older file shows, by the first word of each command.
fn found(words: &[&str]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.jsonl");
    let older = [
        line(
            "2026-11-20T10:00:00.000001",
            "approval",
            "Coder",
            "exec",
            r#""command":"a","rule":"ls","decision":"allow","risk":"LOW","user":"kim","tenant":"acme""#,
        ),
        line(
            "2026-11-20T11:00:00.000001",
            "denial",
            "coder",
            "exec",
            r#""command":"b","rule":"rm","decision":"deny","risk":"HIGH","user":"kim","tenant":"globex""#,
        ),
    ];
    let newer = [
        "{torn".to_owned(),
        line(
            "2026-11-21T10:00:00.000001",
            "denial",
            "other",
            "connect",
            r#""command":"c","decision":"ask","risk":"HIGH","user":"lee","tenant":"acme""#,
        ),
        line(
            "2026-11-21T11:00:00.000001",
            "approval",
            "other",
            "exec",
            r#""command":"d","decision":"allow","risk":"LOW","user":"lee""#,
        ),
    ];
    fs::write(
        directory.path().join("audit.jsonl.1"),
        older.join("\n") + "\n",
    )
    .unwrap();
    fs::write(&file, newer.join("\n") + "\n").unwrap();
    let words = ["query", file.to_str().unwrap(), "--json"]
        .into_iter()
        .chain(words.iter().copied());
    let args = Line::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
    let mut out = Vec::new();
    show(&args.query, Style { colour: false }, &mut out).unwrap();
    String::from_utf8(out)
        .unwrap()
        .lines()
        .map(|line| Entry::parse(line.as_bytes()).unwrap().parameter("command"))
        .collect()
}

#[test]
fn every_condition_must_hold() {
    for (words, commands) in [
        (&[][..], "abcd"),
        (&["--tenant", "acme"], "ac"),
        (&["--tenant", "acme", "--event", "denial"], "c"),
        (&["--tenant", "initech"], ""),
        (&["--agent", "CODER"], "ab"),
        (&["--user", "lee"], "cd"),
        (&["--event", "denial"], "bc"),
        (&["--tool", "connect"], "c"),
        (&["--risk", "high"], "bc"),
        (&["--risk", "HIGH", "--decision", "deny"], "b"),
        (&["--rule", "ls"], "a"),
        (&["--since", "2026-11-21"], "cd"),
        (
            &[
                "--since",
                "2026-11-20T10:30:00Z",
                "--until",
                "2026-11-21T10:30:00Z",
            ],
            "bc",
        ),
        (&["--until", "2026-11-20T10:00:00Z"], ""),
        (&["-n", "1"], "d"),
        (&["-n", "3", "--tenant", "acme"], "ac"),
    ] {
        assert_eq!(found(words).concat(), commands, "{words:?}");
    }
}

#[test]
fn times_are_read_in_three_ways() {
    assert_eq!(
        time("2026-11-21T09:30:00Z").unwrap(),
        time("2026-11-21T09:30").unwrap()
    );
    let ago = Timestamp::now().duration_since(time("2h").unwrap());
    assert!((7_190..7_210).contains(&ago.as_secs()), "{ago}");
    for text in ["", "h", "yesterday", "-1h", "3w", "é"] {
        assert!(time(text).is_err(), "{text}");
    }
}

#[test]
fn a_tenant_is_no_path() {
    for name in ["../etc", "/etc", ".", "a/b"] {
        assert!(Line::try_parse_from(["query", "--tenant", name]).is_err());
    }
}

#[test]
fn a_tenants_trail_is_its_own_whether_it_is_there_or_not() {
    let args = Line::try_parse_from(["query", "--tenant", "no-such-tenant"]).unwrap();
    let own = "/var/log/enforcer/tenants/no-such-tenant/audit.jsonl";
    assert_eq!(args.query.file(), Path::new(own));
    let error = show(&args.query, Style { colour: false }, &mut Vec::new()).unwrap_err();
    let text = error.message();
    assert!(
        text.contains(own) && text.contains("--tenant no-such-tenant"),
        "{text}"
    );
    let named = Line::try_parse_from(["query", "/x", "--tenant", "no-such-tenant"]).unwrap();
    assert_eq!(named.query.file(), Path::new("/x"));
}
