//! The trail: every exec once, however many at once; secrets nowhere; readable.

use std::{collections::HashMap, fs, path::Path};

use enforcer_tests::{Session, Trail, enforcer, probe, program, quick, root};
use serde_json::json;

use crate::launch::{free, text};

/// The lines of a trail and its older files, the oldest first.
fn whole(path: &Path) -> Trail {
    let mut lines = Vec::new();
    for n in (1..=5).rev() {
        lines.extend(Trail::read(Path::new(&format!("{}.{n}", path.display()))).lines);
    }
    lines.extend(Trail::read(path).lines);
    Trail { lines }
}

/// Runs the spawner and checks that each of its execs is in the trail exactly once.
fn storm(times: usize, workers: usize) {
    let session = free();
    let spawner = session.place(probe!("spawner"), "spawner");
    let leaf = program("true").unwrap();
    let running = session.start([
        spawner.display().to_string(),
        times.to_string(),
        workers.to_string(),
        leaf.display().to_string(),
    ]);
    let path = running.trail_path().to_owned();
    let ended = running.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let said = ended.text();
    let (good, micros) = said.trim().split_once(' ').unwrap();
    assert_eq!(
        good,
        times.to_string(),
        "execs that did not end well: {}",
        ended.stderr
    );
    let micros: f64 = micros.parse().unwrap();
    println!(
        "{times} execs by {workers} workers: {:.2} s, {:.0} execs/s",
        micros / 1e6,
        times as f64 / micros * 1e6
    );
    let trail = whole(&path);
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for line in trail
        .execs()
        .filter(|line| line.command().starts_with("true w"))
    {
        assert!(!line.denied(), "{line:?}");
        *seen.entry(line.command()).or_default() += 1;
    }
    let doubled: Vec<_> = seen.iter().filter(|(_, times)| **times != 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    assert_eq!(seen.len(), times, "lost");
    for worker in 0..workers {
        for number in 0..times / workers {
            let command = format!("true w{worker} n{number}");
            assert!(seen.contains_key(command.as_str()), "{command} is missing");
        }
    }
    assert_eq!(trail.lines.len(), times + 1, "{}", trail.lines[0].0);
    trail.assert_whole();
    assert!(
        ended
            .stderr
            .contains(&format!("{} execs, 0 connects, 0 denied", times + 1)),
        "{}",
        ended.stderr
    );
}

#[test]
fn sixty_four_workers_at_once() {
    if !root() {
        return;
    }
    storm(quick(6400, 640), 64);
}

#[test]
fn twenty_thousand_as_fast_as_the_machine_allows() {
    if !root() {
        return;
    }
    storm(quick(20_000, 1000), 2);
}

/// How many lines a file has by now; the last may still be under way.
fn lines(path: &Path) -> usize {
    fs::read(path).map_or(0, |bytes| {
        bytes.iter().filter(|byte| **byte == b'\n').count()
    })
}

#[test]
fn a_launcher_killed_in_a_storm_loses_nothing() {
    if !root() {
        return;
    }
    // Supervised execs would all fail without their supervisor, and the storm would be over.
    let session = free().unsupervised();
    let spawner = session.place(probe!("spawner"), "spawner");
    let times = quick(4000, 200);
    let script = format!(
        "{} {times} 2 {} >said; mv said done",
        spawner.display(),
        program("true").unwrap().display()
    );
    let running = session.start(["sh", "-c", &script]);
    running.until("the storm is on", |running| {
        lines(running.trail_path()) > times / 8
    });
    let path = running.trail_path().to_owned();
    running.signal(nix::sys::signal::Signal::SIGKILL);
    let ended = running.wait_kept();
    let done = session.work().join("done");
    for _ in 0..quick(6000, 24000) {
        if done.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let said = fs::read_to_string(done).unwrap();
    assert_eq!(
        said.split(' ').next(),
        Some(times.to_string().as_str()),
        "{said}"
    );
    // The tree is empty soon after; the next starts take it down.
    for _ in 0..50 {
        session.run(["true"]);
        if ended.left_over().is_empty() {
            break;
        }
    }
    assert_eq!(ended.left_over().len(), 0);
    let trail = whole(&path);
    let leaves = trail
        .execs()
        .filter(|line| line.command().starts_with("true w"))
        .count();
    assert_eq!(leaves, times, "events lost or doubled");
    trail.assert_whole();
}

/// Words that no trail may hold, each in a command line that gives it away.
const SECRETS: [(&str, &str); 12] = [
    ("hunter2-swordfish", "true --password hunter2-swordfish"),
    ("hunter3-swordfish", "true --password=hunter3-swordfish"),
    (
        "hunter4-swordfish",
        "true -psecret PASSWORD=hunter4-swordfish",
    ),
    (
        "hunter5swordfish",
        "true https://user:hunter5swordfish@example.org/x",
    ),
    (
        "abcdefgh12345678",
        "true -H 'Authorization: Bearer abcdefgh12345678'",
    ),
    (
        "sk-ant-api03-AAAABBBBCCCCDDDDEEEE",
        "true sk-ant-api03-AAAABBBBCCCCDDDDEEEE",
    ),
    (
        "github_pat_11AAAAAAA0aaaaaaaaaaaa_bbbbbbbbbbbb",
        "true github_pat_11AAAAAAA0aaaaaaaaaaaa_bbbbbbbbbbbb",
    ),
    (
        "ghp_0123456789abcdefghijABCDEFGHIJ012345",
        "true ghp_0123456789abcdefghijABCDEFGHIJ012345",
    ),
    ("AKIAIOSFODNN7EXAMPLE", "true AKIAIOSFODNN7EXAMPLE"),
    (
        "nested-token-value-1",
        r#"true '{"a": {"api_key": "nested-token-value-1"}}'"#,
    ),
    ("quoted secret words", "true --token 'quoted secret words'"),
    ("denied-secret-9", "head --password denied-secret-9"),
];

#[test]
fn secrets_in_arguments_reach_no_file() {
    if !root() {
        return;
    }
    let session = Session::new(
        &json!({"version": "2", "exec": {"default": "allow", "rules": [
        {"id": "no-head", "decision": "deny", "glob": ["head *"], "justification": "not head"}]}}),
    );
    // From a file: the operator's own words are in the trail too, and would be one more place to look at.
    let script: String = SECRETS
        .iter()
        .map(|(_, command)| command.replacen("true", "/usr/bin/env true", 1) + "\n")
        .collect();
    // A shell tries what was refused in the next directory too.
    let script = format!("PATH=/usr/bin\n{script}");
    let path = session.directory().join("script");
    fs::write(&path, script).unwrap();
    let ended = session.run([Path::new("/bin/sh"), &path]);
    // Twelve lines, eleven of them by `env`, which execs again.
    assert_eq!(
        ended.trail.execs().count(),
        1 + 12 + 11,
        "{}",
        ended.trail.shown()
    );
    let shown = ended.trail.shown();
    for (secret, command) in SECRETS {
        assert!(!shown.contains(secret), "{command} is told: {shown}");
    }
    assert!(
        shown.contains("--password"),
        "what is no secret stays: {shown}"
    );
    // The operator's command, too.
    let ended = session.sh("true --password hunter6-swordfish; exit 0");
    assert!(
        !ended.trail.shown().contains("hunter6-swordfish"),
        "{}",
        ended.trail.shown()
    );
}

#[test]
fn tail_shows_it_readably() {
    if !root() {
        return;
    }
    let session = Session::new(
        &json!({"version": "2", "exec": {"default": "allow", "rules": [
        {"id": "no-head", "decision": "deny", "risk": "HIGH", "glob": ["head *"], "justification": "no heads"}]},
        "connect": {"default": "deny"}}),
    );
    let running = session.start([
        "bash",
        "-c",
        "/bin/true one; head -c1 /etc/passwd; (: >/dev/tcp/127.0.0.1/9) 2>/dev/null; printf 'a\\033[31mred\\nx' | xargs -0 true; exit 0",
    ]);
    let path = running.trail_path().to_owned();
    let ended = running.wait();
    let tail = |words: &[&str]| {
        let output = enforcer()
            .args(["audit", "tail"])
            .args(words)
            .arg(&path)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let shown = tail(&[]);
    // The time is what differs from run to run.
    let bare: Vec<String> = shown
        .lines()
        .map(|line| {
            let (time, rest) = line.split_at(23);
            let shape: String = time
                .chars()
                .map(|c| if c.is_ascii_digit() { '9' } else { c })
                .collect();
            assert_eq!(shape, "9999-99-99 99:99:99.999", "{line}");
            rest.replace(ended.trail.lines[0].0["agent"].as_str().unwrap(), "AGENT")
        })
        .collect();
    let how = match session.denial() {
        enforcer_tests::Denial::Errno => "errno ",
        enforcer_tests::Denial::Killed => "killed",
    };
    let expected = [
        "  AGENT  allowed        exec true one  (No rule matches (default: allow))".to_owned(),
        format!("  AGENT  DENIED {how}  exec head -c1 /etc/passwd  (no heads [no-head])"),
        "  AGENT  DENIED errno   connect 127.0.0.1:9 tcp by bash  (No rule matches (default: deny))"
            .to_owned(),
        "  AGENT  allowed        exec xargs -0 true  (No rule matches (default: allow))".to_owned(),
        "  AGENT  allowed        exec true ared x  (No rule matches (default: allow))".to_owned(),
    ];
    assert_eq!(bare[1..], expected, "{shown}");
    assert!(
        bare[0].contains("exec bash -c /bin/true one; head"),
        "{shown}"
    );
    assert_eq!(tail(&["-n", "1"]).lines().count(), 1);
    assert_eq!(tail(&["--denied"]).lines().count(), 2);
    let json = tail(&["--json"]);
    assert_eq!(json, fs::read_to_string(&path).unwrap());

    let missing = enforcer()
        .args(["audit", "tail", "/no/such/trail"])
        .output()
        .unwrap();
    crate::launch::refusal(
        &missing,
        2,
        &["no audit trail at /no/such/trail", "name its file"],
    );
}
