//! Harmless work goes under an agent's policy as it goes without.

use enforcer_tests::model::Step;

use crate::{
    agent::{Agent, Talk},
    scene::Scene,
};

/// What work comes to.
#[derive(Debug, PartialEq)]
struct Outcome {
    code: i32,
    /// What the model was told of what commands said.
    said: Vec<String>,
    /// The file that was made and changed.
    notes: String,
    commits: usize,
    /// What git has not committed.
    left: String,
}

/// A scene in which the agent runs a command, writes a file, changes it, and commits it.
fn scene(agent: &'static Agent) -> Scene {
    let look = "sed 's/^/said: /' README.md";
    if agent.talk == Talk::Words {
        // It writes and commits by itself.
        return Scene::commands(agent, &[look, "git log --oneline | sed 's/.* /said: /'"]);
    }
    Scene::new_in(agent, |project| {
        let notes = project.join("notes.txt");
        let mut steps = vec![Step::shell(look)];
        match (agent.write, agent.edit) {
            (Some(write), Some(edit)) => {
                steps.extend([write(&notes, "one\n"), edit(&notes, "one", "two")]);
            }
            _ => steps.push(Step::shell(
                "echo one >notes.txt && sed -i s/one/two/ notes.txt",
            )),
        }
        steps.push(Step::shell(if agent.sandboxed {
            // Its own sandbox keeps git's data from being written.
            "git status --short | sed 's/^/said: /'"
        } else {
            "git add -A && git commit -qm made && git log --oneline | sed 's/.* /said: /'"
        }));
        steps.push(agent.last());
        steps
    })
}

fn outcome(scene: &Scene, code: i32) -> Outcome {
    let said = scene.said();
    let commits = scene.sh("git log --oneline").text.lines().count();
    Outcome {
        code,
        said,
        notes: scene.file("notes.txt"),
        commits,
        left: scene.sh("git status --short -uno").text,
    }
}

fn goes_as_without(agent: &'static Agent) {
    let free = scene(agent);
    let ended = free.agent_ungoverned();
    let expected = outcome(&free, ended.code);
    // What it is compared with is itself as it should be.
    let told = free.model.told();
    assert_eq!(expected.code, 0, "{}: {told:#?}", ended.text);
    assert_eq!(
        expected.said.first().map(String::as_str),
        Some("hello"),
        "{told:#?}"
    );
    assert!(
        ["two\n", "version 2\n"].contains(&&*expected.notes),
        "{told:#?}"
    );
    assert_eq!(expected.commits > 1, !agent.sandboxed, "{told:#?}");

    let governed = scene(agent);
    let ended = governed.agent_governed();
    assert_eq!(
        outcome(&governed, ended.code()),
        expected,
        "{:#?}\n{}\n{}",
        governed.model.told(),
        ended.stderr,
        ended.trail.shown()
    );
    assert_eq!(ended.trail.denials().count(), 0, "{}", ended.trail.shown());
    ended.trail.assert_whole();
}

tests_of!(goes_as_without:
    claude CLAUDE, codex CODEX, codex_unsandboxed CODEX_UNSANDBOXED, gemini GEMINI, qwen QWEN, opencode OPENCODE, mini MINI, aider AIDER,
);
