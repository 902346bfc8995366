//! The connector is one process, whatever becomes of its number.

use std::{fs, path::PathBuf, time::Duration};

use enforcer_tests::{Running, Session, enforcer, open, root, skip};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// Where the kernel takes the number before the next process's from.
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

/// Starts one process after another until one has the number that it was told.
const HEIR: &str = r#"
echo > ready
until [ -s wanted ]; do sleep 0.05; done
read wanted < wanted
while :; do
    sleep 600 &
    if [ $! = "$wanted" ]; then echo > here; wait; fi
    kill $!
done"#;

/// The agent's processes, as `status` has them.
fn processes(running: &Running) -> Vec<i32> {
    let output = enforcer().args(["status", "--json"]).output().unwrap();
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut agents = all["agents"].as_array().unwrap().iter();
    let own = agents
        .find(|one| one["name"] == running.agent())
        .unwrap()
        .clone();
    serde_json::from_value(own["processes"].clone()).unwrap()
}

/// The process in the agent's cgroup that is none of the agent's.
fn connector(running: &Running) -> Option<i32> {
    let procs = fs::read_to_string(running.cgroup().unwrap().join("cgroup.procs")).unwrap();
    let own = processes(running);
    let mut all = procs.lines().map(|line| line.parse().unwrap());
    all.find(|pid| !own.contains(pid) && is_enforcer(*pid))
}

fn is_enforcer(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("enforcer"))
}

#[test]
fn who_gets_its_number_is_a_process_as_any_other() {
    if !root() {
        return;
    }
    let session = Session::new(&open());
    let running = session.start(["/bin/sh", "-c", HEIR]);
    running.await_file(&session.work().join("ready"));
    let Some(pid) = connector(&running) else {
        return skip("where LSM programs judge the sockets there is no connector");
    };
    // As an agent can where nothing keeps its signals in.
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let place = PathBuf::from(format!("/proc/{pid}"));
    running.until("it is waited for", |_| !place.exists());
    fs::write(session.work().join("wanted"), format!("{pid}\n")).unwrap();
    let here = session.work().join("here");
    running.until("another process has its number", |_| {
        // Others start processes, too.
        fs::write(LAST_PID, (pid - 2).to_string()).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        here.exists()
    });
    let own = processes(&running);
    assert!(own.contains(&pid), "{pid}: {own:?}");
    let stop = enforcer().args(["stop", running.agent()]).output().unwrap();
    assert_eq!(stop.status.code(), Some(0), "{stop:?}");
    running.wait();
}
