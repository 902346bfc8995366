//! Many agents of one set of kernel programs: each has its own policy, its own events and its own end.

use std::{
    fs,
    net::TcpListener,
    thread::{self, JoinHandle},
    time::Duration,
};

use enforcer_common::{event::CAUSE_RULE, seat};
use enforcer_kernel::{
    KernelError, agent::AgentPlan, attach::mount_bpf, events::Body, host::LockedHosts,
};
use enforcer_policy::compile::Tables;
use nix::{sys::stat::Mode, unistd::mkfifo};

use crate::world::{Exec, World, connect, tables};

const TRUE: &str = "/usr/bin/true";

fn ruled(exec: &str, connect: &str) -> String {
    format!(
        r#"{{"version": "2", "exec": {{"default": "allow", "rules": [
            {{"id": "one", "decision": "{exec}", "argv": {{"program": "true"}}}}]}},
            "connect": {{"default": "{connect}"}}}}"#
    )
}

/// What a denied exec comes to.
fn denied(world: &World) -> Option<i32> {
    world.has_lsm().then_some(libc::EPERM)
}

/// A shell of an agent, which carries its mark and waits; somebody outside has moved it out of the agent's cgroup.
struct Stray {
    directory: tempfile::TempDir,
    ended: JoinHandle<Option<i32>>,
}

impl Stray {
    /// Let go, it executes `last`.
    fn of(world: &World, last: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let script = format!("read go < {}; {last}", pipe.display());
        let shell = Exec::new("/bin/sh", &["sh", "-c", &script]);
        let child = world.child(shell.act());
        let pid = child.pid;
        let before = world.agent.events().unwrap();
        let ended = thread::spawn(move || child.go());
        // With the event of its exec it has the mark.
        while world.agent.events().unwrap() == before {
            thread::sleep(Duration::from_millis(1));
        }
        let home = world.cgroup.parent().unwrap();
        fs::write(home.join("cgroup.procs"), pid.to_string()).unwrap();
        Self { directory, ended }
    }

    /// Its exit status; `None` if it was killed, or refused what it executes (the shell says 126 then).
    fn go(self) -> Option<i32> {
        fs::write(self.directory.path().join("pipe"), "go\n").unwrap();
        self.ended.join().unwrap().filter(|status| *status != 126)
    }
}

#[test]
fn each_agent_has_a_policy_and_events_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (strict, open) = (
        tables(&ruled("deny", "deny")),
        tables(&ruled("allow", "allow")),
    );
    let mut first = World::new(&strict);
    let mut second = first.beside(&AgentPlan::new(&open));
    let mut third = first.beside(&AgentPlan::new(&strict));
    let exec = Exec::new(TRUE, &["true"]);
    for _ in 0..3 {
        assert_eq!(first.child(exec.act()).go(), denied(&first));
        assert_eq!(second.child(exec.act()).go(), Some(0));
        assert_eq!(first.child(connect(port)).go(), Some(libc::EPERM));
        assert_eq!(second.child(connect(port)).go(), Some(0));
    }
    assert_eq!(third.child(exec.act()).go(), denied(&third));
    for (world, allowed, count) in [
        (&mut first, false, 6),
        (&mut second, true, 6),
        (&mut third, false, 1),
    ] {
        let events = world.events();
        assert_eq!(events.len(), count);
        for (seq, event) in (0..).zip(&events) {
            assert_eq!(event.header.seq, seq, "{event:?}");
            assert_eq!(seat::slot(event.header.seat), world.agent.place().slot);
            assert_eq!(event.header.decision == 0, allowed, "{event:?}");
        }
    }
}

/// Has other tables decide for a world's agent.
fn replace(world: &mut World, tables: &Tables, observed: bool) {
    let plan = AgentPlan {
        observed,
        ..AgentPlan::new(tables)
    };
    let held = LockedHosts::wait().unwrap();
    (world.agent, _) = world.agent.replace(held, &plan, |_| Ok(())).unwrap();
}

#[test]
fn a_policy_is_replaced_by_one_word() {
    mount_bpf().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (strict, open) = (
        tables(&ruled("deny", "deny")),
        tables(&ruled("allow", "allow")),
    );
    let mut world = World::new(&strict);
    let mut neighbour = world.beside(&AgentPlan::new(&strict));
    let exec = Exec::new(TRUE, &["true"]);
    let says = |world: &World| {
        (
            world.child(exec.act()).go(),
            world.child(connect(port)).go(),
        )
    };
    let (no, yes) = ((denied(&world), Some(libc::EPERM)), (Some(0), Some(0)));
    assert_eq!(says(&world), no);
    let mut generations = vec![world.agent.generation().unwrap()];
    for _ in 0..8 {
        replace(&mut world, &open, false);
        assert_eq!(says(&world), yes);
        generations.push(world.agent.generation().unwrap());
        replace(&mut world, &strict, true);
        assert_eq!(says(&world), yes, "only observed");
        replace(&mut world, &strict, false);
        assert_eq!(says(&world), no);
        generations.push(world.agent.generation().unwrap());
        assert_eq!(says(&neighbour), no);
    }
    // What is left is used again, but never what decides for another.
    let theirs = neighbour.agent.generation().unwrap();
    assert!(!generations.contains(&theirs), "{generations:?}, {theirs}");
    generations.sort_unstable();
    generations.dedup();
    assert!(generations.len() <= 3, "{generations:?}");

    // What fails before the word changes everything as it was.
    let kept = world.agent.generation().unwrap();
    let failed = world
        .agent
        .replace(LockedHosts::wait().unwrap(), &AgentPlan::new(&open), |_| {
            Err(KernelError::MalformedBtf)
        });
    assert!(failed.is_err());
    assert_eq!(says(&world), no);
    assert_eq!(world.agent.generation().unwrap(), kept);

    // Events say which of them decided, and none is missing.
    let events = world.events();
    for (seq, event) in (0..).zip(&events) {
        assert_eq!(event.header.seq, seq, "{event:?}");
        let generation = seat::generation(event.header.seat);
        assert!(generations.contains(&generation), "{event:?}");
    }
    assert_eq!(neighbour.events().len(), 16);
}

/// An agent that fills its buffer denies itself.
#[test]
fn a_flood_is_the_agents_own() {
    let open = tables(&ruled("allow", "allow"));
    let mut flooded = World::new(&open);
    let mut other = flooded.beside(&AgentPlan {
        ring_bytes: 1 << 12,
        ..AgentPlan::new(&open)
    });
    std::mem::swap(&mut flooded, &mut other);
    let exec = Exec::new(TRUE, &["true"]);
    let mut ran = 0;
    let mut refused = 0;
    for _ in 0..40 {
        match flooded.child(exec.act()).go() {
            Some(0) => ran += 1,
            _ => refused += 1,
        }
    }
    assert!(ran > 0 && refused > 0, "{ran} ran, {refused} did not");
    assert_eq!(flooded.agent.state().unwrap().lost, refused);
    assert_eq!(other.child(exec.act()).go(), Some(0));
    assert_eq!(other.agent.state().unwrap().lost, 0);
    assert_eq!(flooded.events().len(), ran);
    assert_eq!(flooded.child(exec.act()).go(), Some(0), "room again");
}

/// The slot of an agent that has ended goes to another: nothing of the old one is the new one's.
#[test]
fn a_slot_that_is_used_again_is_another_agents() {
    let (strict, open) = (
        tables(&ruled("deny", "deny")),
        tables(&ruled("allow", "allow")),
    );
    let old = World::new(&open);
    let witness = old.beside(&AgentPlan::new(&strict));
    let exec = Exec::new(TRUE, &["true"]);
    let before = Stray::of(&old, "exec /usr/bin/true");
    let after = Stray::of(&old, "exec /usr/bin/true");
    let idle = Stray::of(&old, "exit 0");
    assert_eq!(before.go(), None, "who has left its cgroup starts nothing");
    let place = old.agent.place();
    old.agent.free().unwrap();
    assert_eq!(after.go(), None, "nor who has left an agent that is gone");
    assert_eq!(idle.go(), Some(0), "what starts nothing is left alone");

    let mut new = witness.beside(&AgentPlan::new(&open));
    assert_eq!(new.agent.place().slot, place.slot);
    assert_ne!(new.agent.place().tenure, place.tenure);
    assert!(new.events().is_empty(), "events of the old agent");
    // Freeing what is another's by now does nothing.
    old.agent.free().unwrap();
    assert_eq!(new.child(exec.act()).go(), Some(0));
    let [event] = &new.events()[..] else {
        panic!("one event");
    };
    assert!(matches!(event.body, Body::Exec(_)));
    assert_eq!((event.header.seq, event.header.cause), (0, CAUSE_RULE));
    assert_eq!(witness.child(exec.act()).go(), denied(&witness));
    // The old agent's cgroup is nobody's: what runs there is not judged by the new one's policy.
    assert_eq!(old.child(exec.act()).go(), Some(0), "no agent any more");
    assert!(new.events().is_empty());
}

/// One that carries the mark of an agent that is gone is not taken for the next one's.
#[test]
fn a_mark_of_an_agent_that_is_gone_is_nobodys() {
    let open = tables(&ruled("allow", "allow"));
    let old = World::new(&open);
    let stray = Stray::of(&old, "exec /usr/bin/true");
    let place = old.agent.place();
    old.agent.free().unwrap();
    let mut new = old.beside(&AgentPlan::new(&open));
    assert_eq!(new.agent.place().slot, place.slot);
    assert_eq!(stray.go(), None, "it was killed at its exec");
    assert!(new.events().is_empty(), "{:?}", new.events());
}
