//! Signals to what waits.

use enforcer_tests::root;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::scene::{asking, marks, session};

#[test]
fn signals_that_end_it_end_its_wait() {
    if !root() {
        return;
    }
    let signals = [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGKILL,
    ];
    let session = session(&asking(json!({"mode": "hold"})));
    // Not by a shell: its child may have the shell's own handlers until it is another program.
    let running = session.start(["/bin/sh", "-c", "exec $ASKS many $ASKED 4"]);
    for (request, signal) in running.await_pending(4).iter().zip(signals) {
        let pid = request.0["pid"].as_i64().unwrap() as i32;
        kill(Pid::from_raw(pid), signal).unwrap();
    }
    let ended = running.wait();
    assert_eq!(ended.text(), "129 1\n130 1\n137 1\n143 1\n");
    assert_eq!(marks(&session), 0);
    for request in ended.requests() {
        assert_eq!(request.state(), "cancelled", "{request:?}");
    }
    assert_eq!(ended.trail.denials().count(), 4, "{}", ended.trail.shown());
}

#[test]
fn the_launchers_signals_reach_it() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let running = session.start(["/bin/sh", "-c", "exec $ASKED one"]);
    running.request();
    running.signal(Signal::SIGTERM);
    let ended = running.wait();
    assert_eq!(ended.code(), 143, "{}", ended.stderr);
    assert_eq!(marks(&session), 0);
    assert_eq!(ended.request().state(), "cancelled");
}

/// Signals with handlers arrive all the time before the exec; what is waited for does not change.
fn disturbed(signals: &[Signal], approve: bool) {
    let session = session(&asking(json!({"mode": "hold"})));
    let numbers: Vec<String> = signals.iter().map(|s| (*s as i32).to_string()).collect();
    let script = format!("$ASKS signals $ASKED {}", numbers.join(" "));
    let running = session.start(["/bin/sh", "-c", &script]);
    let request = running.request();
    running.await_file(&session.work().join("signalled"));
    assert_eq!(running.request().id(), request.id(), "it was asked anew");
    if approve {
        request.approve(&[]);
    } else {
        request.deny(&[]);
    }
    let ended = running.wait();
    // The handlers run when the exec has failed, not before.
    let status = if approve { 0 } else { libc::EPERM };
    assert_eq!(
        ended.text(),
        format!("status {status}\n"),
        "{}\n{}",
        ended.stderr,
        ended.trail.shown()
    );
    assert_eq!(marks(&session), usize::from(approve));
    let all = ended.requests();
    assert_eq!(all.len(), 1, "{all:?}");
}

#[test]
fn handled_signals_do_not_disturb_it() {
    if !root() {
        return;
    }
    // What is pending when a program starts meets the default actions, with us as without: these do nothing.
    disturbed(&[Signal::SIGCHLD, Signal::SIGWINCH, Signal::SIGURG], true);
    disturbed(&[Signal::SIGALRM, Signal::SIGUSR1, Signal::SIGCHLD], false);
}

#[test]
fn the_commands_end_ends_what_waits() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let running = session.start([
        "/bin/sh",
        "-c",
        "$ASKED one & while [ ! -e go ]; do sleep 0.05; done",
    ]);
    running.request();
    crate::scene::sign(&session, "go");
    let ended = running.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(marks(&session), 0);
    let request = ended.request();
    assert_eq!(request.state(), "cancelled", "{request:?}");
    let line = ended.trail.denied_exec("asked one");
    assert_eq!(line.text("approval"), request.id());
}
