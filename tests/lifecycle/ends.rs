//! How a session ends: descendants, signals, kept trees, killed launchers, several at once.

use std::{fs, os::unix::process::ExitStatusExt, thread, time::Duration};

use enforcer_tests::{Denial, Ended, Running, Session, open, program, quick, root};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::launch::{free, launch, no_empty_parent, own, text};

/// Denies one program, `head`, and allows the rest.
fn no_head() -> Value {
    json!({"version": "2", "exec": {"default": "allow", "rules": [
        {"id": "no-head", "decision": "deny", "argv": {"program": "head"}}]}, "connect": {"default": "allow"}})
}

/// Whether the process runs; one that is dead and not yet waited for does not.
fn alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

#[test]
fn descendants_end_with_the_command() {
    if !root() {
        return;
    }
    let session = free();
    let ended = session.sh("sleep 1000 & echo $!
         setsid sh -c 'trap \"\" TERM HUP; echo $$ >pid; (sleep 1000 &) ; sleep 1000' &
         (setsid nohup sleep 1000 >/dev/null 2>&1 & echo $!)
         while ! test -s pid; do sleep 0.01; done; cat pid; exit 3");
    assert_eq!(ended.code(), 3);
    let pids = ended.text();
    assert_eq!(pids.lines().count(), 3, "{pids}");
    for pid in pids.lines() {
        assert!(!alive(pid), "{pid} outlived the session");
    }
    no_empty_parent();
}

#[test]
fn signals_to_the_launcher_reach_the_command() {
    if !root() {
        return;
    }
    let session = free();
    for (signal, name) in [
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGHUP, "HUP"),
    ] {
        let script =
            format!("trap 'echo got; exit 5' {name}; echo ready; while :; do sleep 0.02; done");
        let running = session.start(["sh", "-c", &script]);
        running.until("the trap is set", |running| {
            running.stdout().contains("ready")
        });
        running.signal(signal);
        let ended = running.wait();
        assert_eq!(
            (ended.code(), ended.text().as_str()),
            (5, "ready\ngot\n"),
            "{name}"
        );
    }
    let running = session.start(["sh", "-c", "echo ready; exec sleep 1000"]);
    running.until("it runs", |running| running.stdout().contains("ready"));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code(), 143);
}

/// A tree that tries the forbidden program once `go` is there, writes the status to `status`, and stays.
const TRIES_LATER: &str = "
    setsid sh -c 'while ! test -e go; do sleep 0.02; done
        head -c1 /etc/passwd; echo $? >status.new; mv status.new status
        while ! test -e end; do sleep 0.02; done' </dev/null >/dev/null 2>&1 &
    echo started";

/// The tree left by `ended` is still governed; once it is empty the next start takes it down.
fn governed_until_empty(session: &Session, ended: &Ended, trail: &std::path::Path) {
    let work = session.work();
    assert_eq!(
        ended.left_over().len(),
        2,
        "cgroup, state: {:?}",
        ended.left_over()
    );
    fs::write(work.join("go"), "").unwrap();
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        for _ in 0..quick(2000, 12000) {
            if done() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("not in time: {what}");
    };
    wait("the exec was tried", &|| work.join("status").exists());
    let status = fs::read_to_string(work.join("status")).unwrap();
    let expected = match session.denial() {
        Denial::Errno => "126",
        Denial::Killed => "137",
    };
    assert_eq!(status.trim(), expected, "no longer governed");

    // Not empty: the next start writes what is buffered and leaves it governed.
    // (Another start at the same moment may be the one that does so: then the one after it.)
    let told = (0..20).any(|_| {
        text(&launch(session).run(&["true"]).stderr).contains("of an earlier run is still governed")
    });
    assert!(told, "no start tells of the tree");
    let now = enforcer_tests::Trail::read(trail);
    now.denied_exec("head -c1");
    fs::write(work.join("end"), "").unwrap();
    let left = ended.left_over();
    wait("its tree is empty", &|| {
        left.iter()
            .filter_map(|path| fs::read_to_string(path.join("cgroup.events")).ok())
            .all(|events| events.contains("populated 0"))
    });
    launch(session).run(&["true"]);
    assert_eq!(ended.left_over().len(), 0, "{:?}", ended.left_over());
    let whole = enforcer_tests::Trail::read(trail);
    whole.assert_whole();
    whole.denied_exec("head -c1");
    no_empty_parent();
}

#[test]
fn a_kept_tree_stays_governed() {
    if !root() {
        return;
    }
    let session = Session::new(&no_head()).option("--keep");
    let running = session.start(["sh", "-c", TRIES_LATER]);
    let trail = running.trail_path().to_owned();
    let ended = running.wait_kept();
    assert_eq!(ended.code(), 0);
    assert!(
        ended.stderr.contains("goes on under its policy"),
        "{}",
        ended.stderr
    );
    governed_until_empty(&session, &ended, &trail);
}

#[test]
fn keep_leaves_nothing_when_nothing_is_left() {
    if !root() {
        return;
    }
    let ended = free().option("--keep").sh("exit 6");
    assert_eq!(ended.code(), 6);
    assert!(!ended.stderr.contains("goes on"), "{}", ended.stderr);
}

#[test]
fn a_killed_launcher_leaves_its_tree_governed() {
    if !root() {
        return;
    }
    // Supervised execs would all fail without their supervisor, which says nothing of the kernel programs.
    let session = Session::new(&no_head()).unsupervised();
    let running = session.start(["sh", "-c", &format!("{TRIES_LATER}\nsleep 1000")]);
    running.until("it runs", |running| {
        running.stdout().contains("started") && running.trail().lines.len() > 2
    });
    let sleeper = running.cgroup().unwrap();
    let trail = running.trail_path().to_owned();
    running.signal(Signal::SIGKILL);
    let ended = running.wait_kept();
    assert_eq!(ended.status.signal(), Some(9));
    // The main command would stay for ever.
    for pid in fs::read_to_string(sleeper.join("cgroup.procs"))
        .unwrap()
        .lines()
    {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if command.starts_with(b"sleep\x001000") || command.ends_with(b"sleep 1000\0") {
            let _ = kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL);
        }
    }
    governed_until_empty(&session, &ended, &trail);
}

#[test]
fn a_left_over_whose_trail_is_gone_is_taken_down() {
    if !root() {
        return;
    }
    let session = free();
    let running = session.start(["sh", "-c", "echo ready; sleep 1000"]);
    running.until("it runs", |running| running.stdout().contains("ready"));
    let cgroup = running.cgroup().unwrap();
    let trail = running.trail_path().to_owned();
    running.signal(Signal::SIGKILL);
    let ended = running.wait_kept();
    fs::write(cgroup.join("cgroup.kill"), "1").unwrap();
    // No trail of ours any more.
    fs::remove_file(&trail).unwrap();
    std::os::unix::fs::symlink("/dev/null", &trail).unwrap();
    for _ in 0..200 {
        launch(&session).run(&["true"]);
        if ended.left_over().is_empty() {
            break;
        }
    }
    assert_eq!(ended.left_over().len(), 0);
}

#[test]
fn two_at_once_do_not_disturb_each_other() {
    if !root() {
        return;
    }
    let strict = Session::new(&no_head());
    let other = Session::new(
        &json!({"version": "2", "exec": {"default": "allow", "rules": [
        {"id": "no-tail", "decision": "deny", "argv": {"program": "tail"}}]}, "connect": {"default": "allow"}}),
    );
    let script = "PATH=/usr/bin; while ! test -e go; do sleep 0.02; done
        for n in 1 2 3 4 5 6 7 8 9 10; do head -c1 /etc/passwd >/dev/null; echo head $?; tail -c1 /etc/passwd >/dev/null; echo tail $?; done";
    let runs: Vec<(&Session, Running, &str, &str)> = vec![
        (&strict, strict.start(["sh", "-c", script]), "head", "tail"),
        (&other, other.start(["sh", "-c", script]), "tail", "head"),
    ];
    for (_, running, ..) in &runs {
        running.until("both run", |running| !running.trail().lines.is_empty());
    }
    for (session, ..) in &runs {
        fs::write(session.work().join("go"), "").unwrap();
    }
    for (session, running, denied, allowed) in runs {
        let ended = running.wait();
        let status = match session.denial() {
            Denial::Errno => 126,
            Denial::Killed => 137,
        };
        let said = ended.text();
        assert_eq!(
            said.matches(&format!("{denied} {status}\n")).count(),
            10,
            "{said}"
        );
        assert_eq!(
            said.matches(&format!("{allowed} 0\n")).count(),
            10,
            "{said}"
        );
        assert_eq!(ended.trail.denials().count(), 10);
        for line in ended.trail.denials() {
            assert_eq!(line.rule(), format!("no-{denied}"));
        }
        let agents: std::collections::BTreeSet<_> = ended
            .trail
            .lines
            .iter()
            .map(|line| line.0["agent"].to_string())
            .collect();
        assert_eq!(agents.len(), 1, "lines of another run");
        ended.trail.assert_whole();
    }
}

#[test]
fn many_start_and_end_at_once() {
    if !root() {
        return;
    }
    let session = free();
    thread::scope(|scope| {
        for _ in 0..quick(8, 3) {
            scope.spawn(|| {
                for _ in 0..quick(4, 1) {
                    let mut launch = launch(&session);
                    launch.command.arg("-q");
                    let output = launch.run(&["sh", "-c", "true; exit 9"]);
                    assert_eq!(
                        (output.status.code(), own(&output.stderr).as_str()),
                        (Some(9), "")
                    );
                }
            });
        }
    });
    no_empty_parent();
}

#[test]
fn the_launcher_ends_though_a_stranger_holds_its_output() {
    if !root() {
        return;
    }
    // A process outside the tree that holds the pipe is not waited for, and not killed.
    let Some(sleep) = program("sleep") else {
        panic!("no sleep");
    };
    let session = Session::new(&open());
    let mut outside = std::process::Command::new(sleep)
        .arg("1000")
        .spawn()
        .unwrap();
    let ended = session.sh("exit 2");
    assert_eq!(ended.code(), 2);
    assert!(
        outside.try_wait().unwrap().is_none(),
        "a stranger was killed"
    );
    outside.kill().unwrap();
    outside.wait().unwrap();
}
