//! What waits for a person holds up nothing else in the agent, runs when it is approved, and is told when it is denied.

use enforcer_tests::{Line, Request, Running, model::Step};
use serde_json::json;

use crate::{
    agent::{Agent, CLAUDE, GEMINI, OPENCODE, QWEN},
    scene::Scene,
};

fn push(branch: &str) -> String {
    format!("git push --force origin HEAD:refs/heads/{branch} && echo said: pushed {branch}")
}

/// The same, and the agent does not wait for it: by its own timer, or in the background.
fn impatient(agent: &Agent, branch: &str) -> Step {
    let command = push(branch);
    let (tool, more) = match agent.name {
        name if name == CLAUDE.name => ("Bash", json!({"timeout": 3000})),
        name if name == OPENCODE.name => ("bash", json!({"timeout": 3000})),
        name if name == GEMINI.name || name == QWEN.name => {
            ("run_shell_command", json!({"is_background": true}))
        }
        other => panic!("{other}"),
    };
    let mut input = json!({"command": command, "description": "a step of the test"});
    for (key, value) in more.as_object().unwrap() {
        input[key] = value.clone();
    }
    Step::call(tool, input)
}

/// The request about a branch, as soon as there is one.
fn about(running: &Running, branch: &str) -> Request {
    let mut found = None;
    running.until(branch, |running| {
        let pending = running.pending();
        let mut of_branch = pending
            .into_iter()
            .filter(|request| request.0.to_string().contains(branch));
        found = of_branch.next();
        found.is_some()
    });
    found.unwrap()
}

fn nothing_stands_still(agent: &'static Agent) {
    let steps = vec![
        impatient(agent, "first"),
        Step::shell(push("second")),
        Step::shell(push("third")),
        agent.last(),
    ];
    let scene = Scene::new(agent, steps);
    let (_session, running) = scene.start();
    about(&running, "first");
    // Nobody has answered, and the agent has gone on to its next step.
    let second = about(&running, "second");
    assert!(scene.model.turns() >= 1);
    second.approve(&[]);
    about(&running, "third").deny(&["--reason", "not on a Sunday"]);
    running.until("the third is told", |_| scene.model.turns() >= 3);
    for request in running.pending() {
        request.deny(&[]);
    }
    let ended = running.wait();
    let told = scene.model.told();
    let all = || format!("{told:#?}\n{}\n{}", ended.stderr, ended.trail.shown());
    assert_eq!(ended.code(), 0, "{}", all());
    assert_eq!(scene.said(), ["pushed second"], "{}", all());
    assert!(
        told[2].contains("enforcer: blocked: git push") && told[2].contains("not on a Sunday"),
        "{}",
        all()
    );
    let branches = scene.sh("git ls-remote --heads origin").text;
    assert!(branches.contains("second"), "{branches}");
    assert!(
        !branches.contains("first") && !branches.contains("third"),
        "{branches}"
    );
}

tests_of!(nothing_stands_still: claude CLAUDE, gemini GEMINI, qwen QWEN, opencode OPENCODE);

/// Node.js alone, which starts a program as most of the agents do.
#[test]
fn timers_of_node_go_on() {
    let scene = Scene::new(&GEMINI, Vec::new());
    let script = "setInterval(() => console.log('tick'), 100); \
        require('child_process').spawn('git', ['push', '--force', 'origin', 'HEAD']).on('exit', status => process.exit(status))";
    let (_session, running) = scene.start_command(&["node", "-e", script]);
    let request = running.request();
    let before = running.stdout().lines().count();
    running.until("ten more ticks", |running| {
        running.stdout().lines().count() > before + 10
    });
    request.approve(&[]);
    let ended = running.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let approved = |line: &Line| line.text("approval_state") == "approved";
    assert!(ended.trail.execs().any(approved), "{}", ended.trail.shown());
}
