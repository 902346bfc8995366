//! An approval is for exactly what was shown: what is swapped meanwhile does not run.

use std::{fs, time::Duration};

use enforcer_tests::{Level, Running, Session, level, open, probe, quick, root};
use serde_json::{Value, json};

use crate::scene::{asking, marks, session, sign};

/// Approves what waits, once the attacker has done its deed; the approval may come too late for a process that it
/// has already cost its life.
fn approve_after_the_deed(session: &Session, running: &Running) {
    let request = running.request();
    sign(session, "go");
    running.await_file(&session.work().join("swapped"));
    request.approve(&[]);
}

/// A program of the agent's own, which it changes while it is asked about.
fn changed_by(attack: &str) {
    let session = session(&asking(json!({})));
    let script = format!(
        "cp $FINE asked; cp $FINE other; echo >>other\n\
         (./asked word; echo asked $?) &\n\
         while [ ! -e go ]; do sleep 0.05; done\n\
         {attack}\n\
         echo >swapped; wait"
    );
    let running = session.start(["/bin/sh", "-c", &script]);
    approve_after_the_deed(&session, &running);
    let ended = running.wait();
    assert_eq!(
        ended.text(),
        "asked 126\n",
        "{attack}: {}\n{}",
        ended.stderr,
        ended.trail.shown()
    );
    assert_eq!(marks(&session), 0, "{attack}");
    let line = ended.trail.denied_exec("./asked word");
    assert_eq!(line.text("verdict"), "errno");
    assert!(line.reason().contains("changed"), "{line:?}");
}

#[test]
fn the_program_is_replaced() {
    if root() {
        changed_by("mv other asked");
    }
}

#[test]
fn the_program_is_written_to() {
    if root() {
        changed_by("cat other >asked");
        // Length and time of modification as before.
        changed_by("touch -r asked ref; cat $FINE >asked; touch -r ref asked");
    }
}

#[test]
fn the_program_becomes_a_link() {
    if root() {
        changed_by("ln -sf other asked");
        changed_by("rm asked");
    }
}

#[test]
fn a_directory_on_the_way_is_replaced() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let script = "mkdir d e; cp $FINE d/asked; cp $FINE e/asked; echo >>e/asked\n\
         (d/asked word; echo asked $?) &\n\
         while [ ! -e go ]; do sleep 0.05; done\n\
         mv d f; mv e d; echo >swapped; wait";
    let running = session.start(["/bin/sh", "-c", script]);
    approve_after_the_deed(&session, &running);
    let ended = running.wait();
    // What was shown is still the same file, but the path leads to another now: the kernel sees to it.
    let outcome = ended.text();
    assert!(
        ["asked 126\n", "asked 137\n"].contains(&outcome.as_str()),
        "{outcome} {}",
        ended.stderr
    );
    assert_eq!(marks(&session), 0);
    assert!(ended.trail.denied_exec("d/asked word").denied());
}

/// A thread changes what the waiting thread has in its memory.
fn swapped_by_a_thread(mode: &str, other: impl FnOnce(&Session) -> String) {
    let session = session(&asking(json!({})));
    let other = other(&session);
    let session = session.variable("OTHER", other).variable("MODE", mode);
    let swapped = session.work().join("swapped");
    let session = session.variable("SWAPPED", swapped);
    let running = session.start([
        "/bin/sh",
        "-c",
        "mkdir sub; $ASKS $MODE $ASKED $OTHER; echo status $?",
    ]);
    approve_after_the_deed(&session, &running);
    let ended = running.wait();
    let text = ended.text();
    assert!(
        text.ends_with("status 126\n") || text.ends_with("status 137\n"),
        "{mode}: {text} {}\n{}",
        ended.stderr,
        ended.trail.shown()
    );
    assert_eq!(marks(&session), 0, "{mode}: it ran");
    let denied: Vec<_> = ended
        .trail
        .denials()
        .filter(|line| line.is_exec())
        .collect();
    assert_eq!(denied.len(), 1, "{mode}: {}", ended.trail.shown());
}

#[test]
fn an_argument_is_overwritten() {
    if root() {
        swapped_by_a_thread("word", |_| "else".to_owned());
        // The approved text is the start of it, or the other way round.
        swapped_by_a_thread("word", |_| "fine-and-more".to_owned());
        swapped_by_a_thread("word", |_| "fin".to_owned());
    }
}

#[test]
fn the_pointer_to_an_argument_is_overwritten() {
    if root() {
        swapped_by_a_thread("argv", |_| "else".to_owned());
    }
}

#[test]
fn the_path_is_overwritten() {
    if root() {
        swapped_by_a_thread("path", |session| {
            let other = session.place(probe!("shout"), "other/asked");
            other.to_str().unwrap().to_owned()
        });
    }
}

#[test]
fn the_directory_is_changed_by_a_thread() {
    if root() {
        swapped_by_a_thread("chdir", |_| "sub".to_owned());
    }
}

/// Asks about both programs; one request is put to a person, whatever else is new is refused at once.
fn racing() -> Value {
    let mut policy = open();
    policy["exec"]["rules"] = json!([
        {"id": "both", "decision": "ask", "argv": {"program": ["fine-name", "forbidden"]}}]);
    policy["approvals"] = json!({"rate": "1/1d"});
    policy
}

/// One exec is approved for the session; then a thread swaps it for one that is not, over and over. No grant may do
/// for the other.
fn raced(mode: &str) {
    let session = Session::new(&racing()).option("--quiet");
    let mark = session.work().join("mark");
    let good = session.place(probe!("shout"), "bin/fine-name");
    let bad = session.place(probe!("shout"), "bin/forbidden");
    let racer = session.place(probe!("race"), "bin/race");
    let session = session
        .variable("MARK", &mark)
        .variable("GOOD", good)
        .variable("BAD", bad)
        .variable("RACE", racer);
    // Four kinds: ten thousand in all.
    let tries = quick(2500, 25);
    let calm = if mode == "link" { "link" } else { "path" };
    let script = format!(
        "$RACE {calm} $GOOD $GOOD 1 >first; echo >raced; exec $RACE {mode} $GOOD $BAD {tries}"
    );
    let running = session.start(["/bin/sh", "-c", &script]);
    let request = running.request();
    request.approve(&["--scope", "session"]);
    let ended = running.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);

    let ran = fs::read(&mark).unwrap_or_default();
    let won = ran.iter().filter(|byte| **byte != b'g').count();
    assert_eq!(won, 0, "{mode}: won {won} times");
    // The first one, and some of the others.
    assert!(ran.len() > 1, "{mode}: nothing ran: {}", ended.text());
    let asked = ended
        .trail
        .execs()
        .filter(|line| line.rule() == "both")
        .collect::<Vec<_>>();
    let allowed = asked.iter().filter(|line| !line.denied());
    assert!(
        allowed
            .clone()
            .all(|line| line.text("approval") == request.id()),
        "{mode}: ran without an approval"
    );
    assert_eq!(allowed.count(), ran.len(), "{mode}: {}", ended.text());
    assert!(
        asked.iter().any(|line| line.denied()),
        "{mode}: nothing was swapped: {}",
        ended.text()
    );
    ended.trail.assert_whole();
}

#[test]
fn a_race_for_the_path_is_never_won() {
    if root() {
        raced("path");
    }
}

#[test]
fn a_race_for_the_argument_is_never_won() {
    if root() {
        raced("word");
    }
}

#[test]
fn a_race_for_the_pointer_is_never_won() {
    if root() {
        raced("argv");
    }
}

#[test]
fn a_race_for_the_link_is_never_won() {
    if root() {
        raced("link");
    }
}

/// A script is approved with its content.
#[test]
fn a_script_that_changes_is_not_run() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let script = "printf '#!/bin/sh\\necho one >>ran\\n' >asked; chmod 755 asked\n\
         (./asked word; echo asked $?) &\n\
         while [ ! -e go ]; do sleep 0.05; done\n\
         echo echo two \\>\\>ran >>asked; echo >swapped; wait";
    let running = session.start(["/bin/sh", "-c", script]);
    approve_after_the_deed(&session, &running);
    let ended = running.wait();
    assert_eq!(ended.text(), "asked 126\n", "{}", ended.stderr);
    assert!(!session.work().join("ran").exists());
}

#[test]
fn a_script_that_stays_runs_with_its_arguments() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let script = "printf '#!/bin/sh\\necho \"ran $*\"\\n' >asked; chmod 755 asked\n\
         ./asked one 'two words'; echo asked $?";
    let running = session.start(["/bin/sh", "-c", script]);
    let request = running.request();
    assert!(request.text("file").ends_with("/work/asked"));
    request.approve(&[]);
    let ended = running.wait();
    assert_eq!(
        ended.text(),
        "ran one two words\nasked 0\n",
        "{}\n{}",
        ended.stderr,
        ended.trail.shown()
    );
}

/// A grant that was not used is void after a while; it cannot be kept for later.
#[test]
fn a_stopped_process_does_not_keep_its_grant() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let running = session.start(["/bin/sh", "-c", "$ASKED one; echo status $?"]);
    let request = running.request();
    let pid = nix::unistd::Pid::from_raw(request.0["pid"].as_i64().unwrap() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    request.approve(&[]);
    std::thread::sleep(Duration::from_secs(1));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    let ended = running.wait();
    // Stopped or not, one answer: it runs once, or it is denied; never twice, never without a line.
    let ran = marks(&session);
    let line = ended
        .trail
        .execs()
        .find(|line| line.rule() == "asks")
        .unwrap();
    assert_eq!(!line.denied(), ran == 1, "{}", ended.trail.shown());
    if level() == Level::Partial {
        assert_eq!(ended.text(), "status 0\n", "{}", ended.stderr);
    }
}
