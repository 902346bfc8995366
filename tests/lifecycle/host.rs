//! The host: kernel programs that are loaded once, found by those who come later, and made anew where they are not whole.

use std::{fs, process::Output};

use enforcer_common::seat::SLOTS;
use enforcer_kernel::{
    agent::{Agent, AgentPlan},
    instance::Instance,
};
use enforcer_policy::compile::compile;
use enforcer_tests::{Session, enforcer, open, root};
use serde_json::{Value, json};

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
    ] {
        let output = fresh.sh(&format!("{before}; run -q -- echo it ran"));
        let (out, err) = both(&output);
        assert_eq!(output.status.code(), Some(2), "{before}: {err}");
        assert!(err.contains(says), "{before}: {err}");
        assert!(!out.contains("it ran"), "{before}");
    }
}

/// Takes away all that is mounted there.
const BARE: &str = "while mountpoint -q /sys/fs/bpf; do umount -l /sys/fs/bpf; done";

#[test]
fn the_bpf_file_system_is_mounted_where_it_is_not() {
    let Some(fresh) = Fresh::new() else { return };
    for before in [
        BARE,
        &format!("{BARE}; mkdir bpf; mount -t bpf none bpf"),
        &format!("{BARE}; mount -t tmpfs none /sys/fs/bpf"),
        // Over it: the list of mounts still names both.
        "mount -t tmpfs none /sys/fs/bpf",
        "mkdir -p elsewhere; mount --bind elsewhere /sys/fs/bpf",
    ] {
        let output = fresh.sh(&format!(
            "{HOSTS}
            {before}
            \"$E\" doctor --json | grep -A2 '\"BPF file system\"' | grep -q '\"ok\": true' && echo well
            \"$E\" status; \"$E\" stop --all
            run -q -- echo it ran; stat -f -c %T /sys/fs/bpf
            run -q -- echo again; hosts | wc -l
            \"$E\" stop --all; rmdir bpf 2>/dev/null || :"
        ));
        assert_eq!(
            lines(&output),
            [
                "well",
                "No kernel programs are loaded: the first `enforcer run` loads them.",
                "No agent is running.",
                "No kernel programs were loaded.",
                "it ran",
                "bpf_fs",
                "again",
                "1",
                "The kernel programs are taken down."
            ],
            "{before}"
        );
    }
}

#[test]
fn where_the_bpf_file_system_cannot_be_used_nothing_starts() {
    let Some(fresh) = Fresh::new() else { return };
    for (before, says, mend) in [
        (
            "mount -o remount,ro,bind /sys/fs/bpf",
            "/sys/fs/bpf: it is mounted read-only",
            "mount -o remount,rw /sys/fs/bpf",
        ),
        // With what others have pinned there.
        (
            "run -q -- true; mount -o remount,ro,bind /sys/fs/bpf",
            "/sys/fs/bpf: it is mounted read-only",
            "mount -o remount,rw /sys/fs/bpf",
        ),
        (
            "chown 1 /sys/fs/bpf",
            "/sys/fs/bpf: others than root may change it (it belongs to uid 1,",
            "chown root /sys/fs/bpf && chmod 0700 /sys/fs/bpf",
        ),
        (
            "chmod 777 /sys/fs/bpf",
            "/sys/fs/bpf: others than root may change it (it belongs to uid 0, mode 0777)",
            "chown root /sys/fs/bpf && chmod 0700 /sys/fs/bpf",
        ),
        (
            "mkdir -p /run/cgroups; mount --rbind /sys/fs/cgroup /run/cgroups; mount -t tmpfs none /sys/fs
            mkdir /sys/fs/cgroup; mount --rbind /run/cgroups /sys/fs/cgroup",
            "/sys/fs/bpf: it does not exist",
            "mount sysfs at /sys",
        ),
    ] {
        let output = fresh.sh(&format!(
            "{before}
            ! run -q -- echo it ran; ! \"$E\" doctor --json > report; cat report
            rm report; ls -A /run/enforcer /var/log/enforcer"
        ));
        let (out, err) = both(&output);
        assert_eq!(output.status.code(), Some(0), "{before}: {out}{err}");
        assert!(
            err.contains(&format!("enforcer: {says}")) && err.contains(mend),
            "{before}: {err}"
        );
        assert!(!out.contains("it ran"), "{before}");
        let (report, left) = out.split_once("\n}\n").unwrap();
        assert!(report.contains(says) && report.contains(mend), "{report}");
        let there = if before.starts_with("run") { "audit.jsonl\n" } else { "" };
        assert_eq!(
            left,
            format!("/run/enforcer:\n\n/var/log/enforcer:\n{there}"),
            "{before}"
        );
    }
    // With the mend it goes on where it was.
    let output = fresh.sh(&format!(
        "{HOSTS}
        run -q -- true; was=$(hosts); mount -o remount,ro,bind /sys/fs/bpf; ! run -q -- true
        \"$E\" status; ! \"$E\" stop --all; [ \"$(hosts)\" = \"$was\" ] && echo whole
        mount -o remount,rw /sys/fs/bpf; run -q -- echo it ran; [ \"$(hosts)\" = \"$was\" ] && echo joined"
    ));
    let (_, err) = both(&output);
    assert_eq!(
        err.matches("mount -o remount,rw /sys/fs/bpf").count(),
        2,
        "{err}"
    );
    let lines = lines(&output);
    assert_eq!(
        lines[1..],
        ["No agent is running.", "whole", "it ran", "joined"]
    );
}

#[test]
fn who_is_stopped_while_it_starts_does_not_start() {
    let Some(fresh) = Fresh::new() else { return };
    let output = fresh.sh(&format!(
        "{HOSTS}
        run -q -- true
        for ms in 05 10 15 20 25 30 35 40 50 60 80; do
            run -q --agent hasty -- sleep 77 & launcher=$!
            sleep 0.0$ms
            tries=0
            until \"$E\" stop hasty > said 2>&1; do
                # Nothing is there yet; anything else is a stop that did not do what it says.
                grep -q 'no running agent is called' said || {{ cat said; exit 1; }}
                tries=$((tries + 1)); [ $tries -lt 500 ] || exit 1
            done
            wait $launcher || true
            \"$E\" status | tail -n 1
        done
        run -q --agent hasty -- sleep 77 & launcher=$!
        until [ \"$(ls -A /run/enforcer)\" ]; do :; done
        \"$E\" stop --all; wait $launcher || true; \"$E\" status | tail -n 1"
    ));
    let (out, err) = both(&output);
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    let still = out.lines().filter(|line| *line == "No agent is running.");
    assert_eq!(still.count(), 12, "{out}{err}");
}

#[test]
fn a_host_of_others_keeps_no_other_from_being_taken_down() {
    let Some(fresh) = Fresh::new() else { return };
    let output = fresh.sh(&format!(
        "{HOSTS}
        run -q -- true; mkdir -m 777 /sys/fs/bpf/enforcer/0foreign
        ! \"$E\" stop --all; ls /sys/fs/bpf/enforcer"
    ));
    let (_, err) = both(&output);
    assert!(err.contains("0foreign"), "{err}");
    assert_eq!(lines(&output), ["0foreign"]);
}

/// An agent that makes more events than anybody can write holds up nobody but itself.
#[test]
fn a_flood_of_denials_holds_up_no_change_and_no_end() {
    let Some(fresh) = Fresh::new() else { return };
    let output = fresh.sh(&format!(
        "{HOSTS}
        cat > flood.py <<'END'
import socket, sys, time
until = time.monotonic() + 60
begun = sys.argv[1] + '.begun'
while time.monotonic() < until:
    for _ in range(100):
        try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)
        except OSError: pass
    if begun: open(begun, 'w'); begun = None
open(sys.argv[1], 'w')
END
        chmod 777 .
        floods='for i in 1 2; do python3 flood.py ended & done; until [ -e ended.begun ]; do :; done'
        run -q -- sh -c \"$floods; exit 3\" || echo it ended with $?
        [ -e ended ] || echo before the flood
        rm ended.begun; run -q --agent flood -- sh -c \"$floods; wait\" & launcher=$!
        until [ -e ended.begun ]; do sleep 0.1; done; sleep 1
        \"$E\" reload flood > said 2>&1 && echo read anew
        \"$E\" agent set flood --grant deploy > said 2>&1 && echo granted
        [ -e ended ] || echo before the flood
        kill -TERM $(ls /run/enforcer | cut -d- -f2); wait $launcher || echo it ended
        [ -e ended ] || echo before the flood"
    ));
    let (out, err) = both(&output);
    assert_eq!(
        lines(&output),
        [
            "it ended with 3",
            "before the flood",
            "read anew",
            "granted",
            "before the flood",
            "it ended",
            "before the flood"
        ],
        "{out}{err}"
    );
}

#[test]
fn no_more_start_than_there_is_room_for() {
    if !root() {
        return;
    }
    let policy =
        enforcer_policy::parse(r#"{"version": "2", "exec": {"default": "allow"}}"#).unwrap();
    let tables = compile(&policy.policy, 7).unwrap();
    let plan = AgentPlan {
        ring_bytes: 1 << 12,
        shared: true,
        ..AgentPlan::new(&tables)
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
    assert_eq!(found["governed"], "enforce");
    assert_eq!(found["mode"], "everywhere");
    assert_eq!(found["lost"], 0);
    assert!(found["execs"]["allowed"].as_u64().unwrap() >= 2, "{found}");
    // The launcher's own process in the agent's cgroup is none of the agent's.
    assert_eq!(found["processes"].as_array().unwrap().len(), 1, "{found}");
    let policy = fs::canonicalize(session.policy()).unwrap();
    assert_eq!(found["policy"].as_str().unwrap(), policy.to_str().unwrap());
    let text = enforcer().arg("status").output().unwrap();
    let id = found["id"].as_str().unwrap();
    assert!(String::from_utf8_lossy(&text.stdout).contains(&format!("{name} [{id}]")));

    let stop = enforcer().args(["stop", &name]).output().unwrap();
    assert_eq!(stop.status.code(), Some(0), "{stop:?}");
    assert_eq!(
        String::from_utf8_lossy(&stop.stdout),
        format!("{id}: ended, with 1 process\n")
    );
    let ended = running.wait();
    assert_eq!(ended.code(), 137, "{}", ended.stderr);
    assert!(ended.left_over().is_empty(), "{:?}", ended.left_over());
    let last = ended.trail.lines.last().unwrap();
    assert_eq!(
        (&last.0["tool"], &last.0["event"]),
        (&json!("agent"), &json!("approval")),
        "{}",
        ended.trail.shown()
    );
    let reason = last.reason();
    assert!(
        reason.starts_with("Stopped by root") && reason.contains(" process"),
        "{reason}"
    );
    assert!(status().is_none());
    let stop = enforcer().args(["stop", &name]).output().unwrap();
    assert_eq!(stop.status.code(), Some(1), "there is none any more");
}
