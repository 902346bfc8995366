//! The host: kernel programs that are loaded once, found by those who come later, and made anew where they are not whole.

use std::{fs, process::Output};

use enforcer::{
    kernel::{
        agent::{Agent, Plan},
        instance::Instance,
    },
    policy::{self, compile::compile},
};
use enforcer_common::seat::SLOTS;
use enforcer_tests::{Session, enforcer, open, root};
use serde_json::Value;

use crate::fresh::{Fresh, both};

/// The lines of a script's output that ran to its end.
fn lines(output: &Output) -> Vec<String> {
    let (out, err) = both(output);
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    out.lines().map(str::to_owned).collect()
}

const HOSTS: &str = "hosts() { ls /sys/fs/bpf/enforcer | sort; }\n";

#[test]
fn later_starts_join_and_the_last_word_takes_it_down() {
    let Some(fresh) = Fresh::new() else { return };
    let output = fresh.sh(&format!(
        "{HOSTS}
        run -q -- true; hosts; echo -
        run -q -- echo it ran; run -q -- true; hosts; echo -
        \"$E\" status; echo -
        \"$E\" stop --all; hosts 2>&1"
    ));
    let lines = lines(&output);
    let parts: Vec<&[String]> = lines.split(|line| line == "-").collect();
    let [first, later, status, end] = parts[..] else {
        panic!("{lines:?}");
    };
    let [host] = first else { panic!("{first:?}") };
    assert_eq!(later, ["it ran", host]);
    assert!(
        status[0].starts_with(&format!("host {host}: ")) && status[0].contains("0 of 1024 slots"),
        "{status:?}"
    );
    assert_eq!(status[1], "No agent is running.");
    assert_eq!(end, ["The kernel programs are taken down."]);
}

#[test]
fn of_two_that_come_first_one_loads() {
    let Some(fresh) = Fresh::new() else { return };
    let output = fresh.sh(&format!(
        "{HOSTS}
        run -q -- echo one > one & run -q -- echo two > two & run -q -- echo three > three & wait
        cat one two three; hosts"
    ));
    let lines = lines(&output);
    assert_eq!(lines[..3], ["one", "two", "three"]);
    assert_eq!(lines.len(), 4, "one host: {lines:?}");
}

#[test]
fn a_host_that_is_not_whole_is_not_joined() {
    let Some(fresh) = Fresh::new() else { return };
    for damage in [
        // The record is what is pinned last: so it looks when a loader was killed.
        "rm HOST",
        "rm link-task_forked",
        "rm program-connect4",
        "rm SLOTS",
        "mv link-cgroup_attached x; mv link-task_forked link-cgroup_attached; mv x link-task_forked",
        "rm -r agents",
        "mkdir ../stray",
        "chmod 777 .",
    ] {
        let output = fresh.sh(&format!(
            "{HOSTS}
            run -q -- true; was=$(hosts); cd /sys/fs/bpf/enforcer/$was; {damage}; cd /
            run -q -- echo it ran; now=$(hosts)
            [ \"$now\" != \"$was\" ] && echo another || echo the same
            run -q -- true; [ \"$(hosts)\" = \"$now\" ] && echo joined"
        ));
        let same = damage.starts_with("mkdir");
        let expected = if same { "the same" } else { "another" };
        // What belongs to root and is changeable by all is not taken down: who knows whose it is?
        if damage.starts_with("chmod") {
            let lines = lines(&output);
            assert_eq!(lines[..2], ["it ran", "another"], "{damage}");
        } else {
            assert_eq!(lines(&output), ["it ran", expected, "joined"], "{damage}");
        }
    }
}

#[test]
fn pins_of_others_are_not_trusted() {
    let Some(fresh) = Fresh::new() else { return };
    for (before, says) in [
        (
            "mkdir /sys/fs/bpf/enforcer; chown 1 /sys/fs/bpf/enforcer",
            "belongs to user 1",
        ),
        (
            "mkdir /sys/fs/bpf/enforcer; chmod 777 /sys/fs/bpf/enforcer",
            "others than root may change it",
        ),
        (
            "mount -o remount,ro,bind /sys/fs/bpf",
            "/sys/fs/bpf/enforcer",
        ),
    ] {
        let output = fresh.sh(&format!("{before}; run -q -- echo it ran"));
        let (out, err) = both(&output);
        assert_eq!(output.status.code(), Some(2), "{before}: {err}");
        assert!(err.contains(says), "{before}: {err}");
        assert!(!out.contains("it ran"), "{before}");
    }
}

#[test]
fn no_more_start_than_there_is_room_for() {
    if !root() {
        return;
    }
    let policy = policy::parse(r#"{"version": "2", "exec": {"default": "allow"}}"#).unwrap();
    let tables = compile(&policy.policy, 7).unwrap();
    let plan = Plan {
        ring_bytes: 1 << 12,
        shared: true,
        ..Plan::new(&tables)
    };
    // Programs of its own: others run on this machine.
    let instance = Instance::load(2).unwrap();
    let agents: Vec<Agent> = (0..SLOTS).map(|_| instance.admit(&plan).unwrap()).collect();
    let mut slots: Vec<u32> = agents.iter().map(|agent| agent.place().slot).collect();
    slots.sort_unstable();
    assert!(slots.iter().copied().eq(0..SLOTS));
    let error = instance.admit(&plan).unwrap_err().to_string();
    assert!(
        error.contains("1024 agents") && error.contains("enforcer status"),
        "{error}"
    );
    let ended = agents[777].place();
    agents[777].free().unwrap();
    let next = instance.admit(&plan).unwrap().place();
    assert_eq!(next.slot, ended.slot);
    assert!(next.tenure > ended.tenure);
}

#[test]
fn status_and_stop_know_who_runs() {
    if !root() {
        return;
    }
    let session = Session::new(&open());
    let work = session.work();
    let running = session.start(["/bin/sh", "-c", "echo > here; exec sleep 600"]);
    running.await_file(&work.join("here"));
    let name = running.agent().to_owned();
    let status = || -> Option<Value> {
        let output = enforcer().args(["status", "--json"]).output().unwrap();
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut agents = all["agents"].as_array().unwrap().iter();
        agents.find(|agent| agent["name"] == *name).cloned()
    };
    let found = status().unwrap();
    assert_eq!(found["launcher"], "running");
    assert_eq!(found["mode"], "enforce");
    assert_eq!(found["lost"], 0);
    assert!(found["execs"]["allowed"].as_u64().unwrap() >= 2, "{found}");
    assert!(!found["processes"].as_array().unwrap().is_empty());
    let policy = fs::canonicalize(session.policy()).unwrap();
    assert_eq!(found["policy"].as_str().unwrap(), policy.to_str().unwrap());
    let text = enforcer().arg("status").output().unwrap();
    let id = found["id"].as_str().unwrap();
    assert!(String::from_utf8_lossy(&text.stdout).contains(&format!("{name} [{id}]")));

    let stop = enforcer().args(["stop", &name]).output().unwrap();
    assert_eq!(stop.status.code(), Some(0), "{stop:?}");
    assert!(String::from_utf8_lossy(&stop.stdout).starts_with(&format!("{id}: ended, with ")));
    let ended = running.wait();
    assert_eq!(ended.code(), 137, "{}", ended.stderr);
    assert!(ended.left_over().is_empty(), "{:?}", ended.left_over());
    assert!(status().is_none());
    let stop = enforcer().args(["stop", &name]).output().unwrap();
    assert_eq!(stop.status.code(), Some(1), "there is none any more");
}
