//! Names and labels stand in the trail as they were at the start, whatever the agent says later.

use std::fs;

use enforcer_tests::{Session, enforcer, open, root};
use serde_json::{Value, json};

use crate::line;

#[test]
fn control_characters_leave_an_agents_name() {
    if !root() {
        return;
    }
    let session = Session::new(&open());
    let trail = session.directory().join("audit.jsonl");
    let run = |agent: Option<&str>, variable: &str| -> Vec<String> {
        let _ = fs::remove_file(&trail);
        let mut command = enforcer();
        command
            .arg("run")
            .arg("--policy")
            .arg(session.policy())
            .arg("--audit")
            .arg(&trail)
            .args(["--user", &session.uid().to_string()]);
        if let Some(agent) = agent {
            command.args(["--agent", agent]);
        }
        let output = command
            .args([
                "--",
                "/bin/sh",
                "-c",
                "CLAUDE_AGENT_NAME=other /bin/true; /bin/true",
            ])
            .env("CLAUDE_AGENT_NAME", variable)
            .current_dir(session.work())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = fs::read_to_string(&trail).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["agent"].to_string())
            .collect()
    };
    for (agent, variable, name) in [
        (Some("a\nb"), "", "\"ab\""),
        (Some(" \u{1b}[31mx "), "ignored", "\"[31mx\""),
        (None, "from\tthe environment ", "\"fromthe environment\""),
        (None, "", "\"unknown\""),
    ] {
        // What a child puts into its environment changes nothing.
        let names = run(agent, variable);
        assert!(names.len() >= 3, "{names:?}");
        assert!(names.iter().all(|of| of == name), "{names:?}");
    }
}

#[test]
fn labels_stand_in_every_line() {
    if !root() {
        return;
    }
    let mut policy = open();
    policy["exec"]["rules"] =
        json!([{"id": "no-false", "decision": "deny", "argv": {"program": "false"}}]);
    let session = Session::new(&policy);
    let ended = session.sh("/bin/true; /bin/false");
    for line in &ended.trail.lines {
        // Whoever launches it, where nobody is named.
        assert_eq!(line.text("user"), "root", "{line:?}");
        assert!(line.0["parameters"]["tenant"].is_null());
    }
    let labelled = session
        .option("--label-user")
        .option("kim")
        .option("--tenant")
        .option("acme");
    let ended = labelled.sh("/bin/true; /bin/false");
    assert!(line(&ended, "false").denied());
    assert!(ended.trail.lines.len() >= 3);
    for line in &ended.trail.lines {
        assert_eq!((line.text("user"), line.text("tenant")), ("kim", "acme"));
        let keys: Vec<&String> = line.0["parameters"].as_object().unwrap().keys().collect();
        assert_eq!(keys[keys.len() - 2..], ["user", "tenant"], "{line:?}");
    }
    assert!(ended.stderr.contains("for kim of acme"), "{}", ended.stderr);
}

#[test]
fn a_tenant_has_a_trail_of_its_own() {
    if !root() {
        return;
    }
    let session = Session::new(&open());
    let tenant = format!("test-{}", std::process::id());
    let own = std::path::Path::new("/var/log/enforcer/tenants").join(&tenant);
    let output = enforcer()
        .arg("run")
        .arg("--policy")
        .arg(session.policy())
        .args(["--user", &session.uid().to_string(), "--agent", &tenant])
        .args(["--tenant", &tenant, "--", "/bin/true"])
        .current_dir(session.work())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let query = |tenant: &str| {
        let output = enforcer()
            .args(["audit", "query", "--json", "--tenant", tenant])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).lines().count()
    };
    let (mine, others) = (query(&tenant), query(&format!("{tenant}x")));
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&own).unwrap());
    fs::remove_dir_all(&own).unwrap();
    assert!(mine >= 1 && others == 0, "{mine} {others}");
    assert_eq!(mode & 0o7, 0, "others can read it: {mode:o}");
}

#[test]
fn personal_data_is_masked_in_the_trail() {
    if !root() {
        return;
    }
    let mut policy = open();
    policy["exec"]["rules"] = json!([{
        "id": "mail", "decision": "deny", "argv": {"program": "false"},
        "justification": "Ask ops@example.com",
    }]);
    let script =
        "/bin/true kim@example.com 555-123-4567 123-45-6789 4111111111111111 10.0.0.1; /bin/false";
    let ended = Session::new(&policy).sh(script);
    assert!(line(&ended, "true").command().contains("kim@example.com"));
    for (masking, command) in [
        (
            "standard",
            "true ***@***.com (***) ***-4567 ***-**-6789 ****-****-****-1111 10.0.0.1",
        ),
        (
            "strict",
            "true ***@***.com (***) ***-**** ***-**-**** ****-****-****-**** 10.0.0.1",
        ),
    ] {
        policy["audit"] = json!({"pii": masking});
        let ended = Session::new(&policy).sh(script);
        assert_eq!(line(&ended, "true").command(), command);
        assert_eq!(line(&ended, "false").reason(), "Ask ***@***.com [mail]");
        let text = ended.trail.shown();
        assert!(!text.contains("kim@"), "{text}");
        ended.trail.assert_whole();
    }
}
