//! Signals to what waits.

use enforcer_tests::{Running, probe, root};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::scene::{asking, marks, session};

fn waiting_pid(running: &Running) -> Pid {
    Pid::from_raw(running.request().0["pid"].as_i64().unwrap() as i32)
}

#[test]
fn signals_that_end_it_end_its_wait() {
    if !root() {
        return;
    }
    for (signal, status) in [
        (Signal::SIGINT, 130),
        (Signal::SIGTERM, 143),
        (Signal::SIGHUP, 129),
        (Signal::SIGKILL, 137),
    ] {
        let session = session(&asking(json!({})));
        // A trap keeps the shell alive, whatever it is that its child gets.
        let running = session.start([
            "/bin/sh",
            "-c",
            "trap : INT TERM HUP; $ASKED one; echo status $?",
        ]);
        kill(waiting_pid(&running), signal).unwrap();
        let ended = running.wait();
        assert_eq!(ended.text(), format!("status {status}\n"), "{signal}");
        assert_eq!(marks(&session), 0, "{signal}");
        assert_eq!(ended.request().state(), "cancelled", "{signal}");
    }
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

#[test]
fn handled_signals_do_not_disturb_it() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let asks = session.place(probe!("asks"), "bin/asks");
    let running = session.start([
        "/bin/sh".as_ref(),
        "-c".as_ref(),
        format!("{} signals $ASKED", asks.display()).as_ref() as &std::ffi::OsStr,
    ]);
    let request = running.request();
    running.await_file(&session.work().join("signalled"));
    assert_eq!(running.request().id(), request.id(), "it was asked anew");
    request.approve(&[]);
    let ended = running.wait();
    assert_eq!(marks(&session), 1, "{}\n{}", ended.text(), ended.trail.shown());
    let all = ended.requests();
    assert_eq!(all.len(), 1, "{all:?}");
}

#[test]
fn the_commands_end_ends_what_waits() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let running = session.start(["/bin/sh", "-c", "$ASKED one & while [ ! -e go ]; do sleep 0.05; done"]);
    running.request();
    crate::scene::sign(&session, "go");
    let ended = running.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(marks(&session), 0);
    let request = ended.request();
    assert!(
        ["cancelled", "denied"].contains(&request.state()),
        "{request:?}"
    );
    let line = ended.trail.denied_exec("asked one");
    assert_eq!(line.text("approval"), request.id());
}
