use std::os::unix::fs::symlink;

use super::*;

fn limited(limits: &str) -> Policy {
    let text = format!(
        r#"{{"version":"2","exec":{{"default":"allow"}},"connect":{{"default":"allow"}},"limits":{limits}}}"#
    );
    enforcer_policy::parse(&text).unwrap().policy
}

fn clocks(boot: &str, boottime_ms: u64, wall_ms: u64) -> Clocks {
    Clocks {
        boot: boot.to_owned(),
        boottime_ms,
        wall_ms,
    }
}

fn settle(memory: &mut Memory, policy: &Policy, decision: Decision, at: &Clocks) -> Settled {
    memory.settle(None, policy, Some(decision), CallClass::Exec, "ann", at)
}

const AS_JUDGED: Settled = Settled::AsJudged { trip: None };

#[test]
fn the_tenth_denial_trips_and_then_nothing_passes() {
    let policy = limited("{}");
    let mut memory = Memory::default();
    let at = clocks("a", 1000, 1000);
    for _ in 0..9 {
        assert_eq!(settle(&mut memory, &policy, Decision::Deny, &at), AS_JUDGED);
    }
    assert_eq!(
        settle(&mut memory, &policy, Decision::Deny, &at),
        Settled::AsJudged { trip: Some(10) }
    );
    for decision in [Decision::Allow, Decision::Ask, Decision::Deny] {
        assert_eq!(settle(&mut memory, &policy, decision, &at), Settled::Open);
    }
}

#[test]
fn an_allowance_resets_and_questions_count_nowhere() {
    let policy = limited("{}");
    let mut memory = Memory::default();
    let at = clocks("a", 1000, 1000);
    for _ in 0..3 {
        for _ in 0..9 {
            settle(&mut memory, &policy, Decision::Deny, &at);
            settle(&mut memory, &policy, Decision::Ask, &at);
            memory.settle(None, &policy, None, CallClass::Exec, "ann", &at);
        }
        assert_eq!(
            settle(&mut memory, &policy, Decision::Allow, &at),
            AS_JUDGED
        );
    }
}

#[test]
fn the_hundred_and_first_is_limited() {
    let policy = limited(r#"{"exec":"100/1h","per_user":{"exec":"150/1h"}}"#);
    let mut memory = Memory::default();
    let mut user = Memory::default();
    let at = clocks("a", 1000, 1000);
    let mut take = |memory: &mut Memory| {
        memory.settle(
            Some(&mut user),
            &policy,
            Some(Decision::Allow),
            CallClass::Exec,
            "ann",
            &at,
        )
    };
    for _ in 0..100 {
        assert_eq!(take(&mut memory), AS_JUDGED);
    }
    assert_eq!(
        take(&mut memory),
        Settled::Limited(
            Cause::Rate,
            "Rate limit exceeded: 100/100 calls per hour".to_owned()
        )
    );
    let mut other = Memory::default();
    for _ in 0..50 {
        assert_eq!(take(&mut other), AS_JUDGED);
    }
    assert_eq!(
        take(&mut other),
        Settled::Limited(
            Cause::UserRate,
            "Rate limit exceeded: 150/150 calls per hour (user ann)".to_owned()
        )
    );
    // What is limited is no denial, and takes nothing.
    assert_eq!((other.breaker.denials, other.exec.len()), (0, 50));
}

#[test]
fn clocks_that_are_set_change_nothing() {
    let policy = limited(r#"{"exec":"1/1h"}"#);
    let mut memory = Memory::default();
    let hour = 3_600_000;
    let allow = |memory: &mut Memory, at: Clocks| {
        settle(memory, &policy, Decision::Allow, &at) == AS_JUDGED
    };
    assert!(allow(&mut memory, clocks("a", 5000, 100 * hour)));
    // The wall clock is set back and forth; the boot time goes on.
    assert!(!allow(&mut memory, clocks("a", 6000, 0)));
    assert!(!allow(&mut memory, clocks("a", 7000, 900 * hour)));
    // The boot time itself seems to go back.
    assert!(!allow(&mut memory, clocks("a", 10, 900 * hour)));
    assert!(allow(&mut memory, clocks("a", 10 + hour, 900 * hour)));
    // After a reboot with a clock that was set back: what has passed since is not less than the new boot's time.
    assert!(!allow(&mut memory, clocks("b", 1000, 1)));
    assert!(allow(&mut memory, clocks("b", hour, 2)));
    // After a reboot with a good clock the time in between counts.
    assert!(allow(&mut memory, clocks("c", 1000, 2 * hour)));
}

#[test]
fn names_of_agents_are_names_of_files() {
    for (agent, name) in [
        (None, "unknown"),
        (Some("coder-1"), "coder-1"),
        (Some("../x"), "%2e%2e%2fx"),
        (Some("é"), "%c3%a9"),
        (Some("%user"), "%25user"),
    ] {
        assert_eq!(file_name(agent), name);
        assert_eq!(agent_of(name).as_deref(), Some(agent.unwrap_or(UNNAMED)));
    }
    assert_eq!(agent_of("%user"), None);
    let long = ["a".repeat(500), "a".repeat(501)].map(|name| file_name(Some(&name)));
    assert!(long[0].len() < 200 && long[0] != long[1]);
}

#[test]
fn a_state_that_is_not_ours_alone_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let states = States::open(scratch.path()).unwrap();
    let file = states.path(Some("a"));
    let said = |states: &States| states.hold(Some("a")).unwrap_err().to_string();
    fs::write(&file, "{\"version\":").unwrap();
    assert!(
        said(&states).contains("enforcer hook breaker reset a"),
        "{}",
        said(&states)
    );
    fs::write(
        &file,
        "{\"version\":2,\"clock\":{\"boot\":\"\",\"boottime_ms\":0,\"wall_ms\":0,\"now_ms\":0}}",
    )
    .unwrap();
    assert!(said(&states).contains("version 2"));
    assert!(states.reset("A").unwrap());
    assert!(!states.reset("a").unwrap());
    assert!(states.hold(Some("a")).is_ok());
    let _ = fs::remove_file(&file);
    symlink("/etc/passwd", &file).unwrap();
    assert!(said(&states).contains("symbolic link"));
    fs::remove_file(&file).unwrap();
    fs::write(&file, "").unwrap();
    let mut open = fs::metadata(&file).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o666);
    fs::set_permissions(&file, open).unwrap();
    assert!(said(&states).contains("written by others"));
}

#[test]
fn calls_at_the_same_time_count_exactly() {
    let scratch = tempfile::tempdir().unwrap();
    let states = States::open(scratch.path()).unwrap();
    let mut policy = limited("{}");
    policy.breaker.denials = Some(100_000);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let mut held = states.hold(Some("a")).unwrap();
                    held.settle(None, &policy, Some(Decision::Deny), CallClass::Exec, "ann")
                        .unwrap();
                    held.save().unwrap();
                }
            });
        }
    });
    let known = states.status(None, &policy.breaker).unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].agent.as_str(), known[0].denials), ("a", 200));
}

#[test]
fn an_open_breaker_stays_open_for_its_time_by_the_machines_clocks() {
    let scratch = tempfile::tempdir().unwrap();
    let states = States::open(scratch.path()).unwrap();
    let mut policy = limited("{}");
    policy.breaker.denials = Some(2);
    policy.breaker.half_open_after = Some(std::time::Duration::from_hours(1));
    let call = |decision| {
        let mut held = states.hold(None).unwrap();
        let settled = held.settle(None, &policy, Some(decision), CallClass::Exec, "ann");
        held.save().unwrap();
        settled.unwrap()
    };
    let denied = |trip| Settled::AsJudged { trip };
    assert_eq!(call(Decision::Deny), denied(None));
    assert_eq!(call(Decision::Deny), denied(Some(2)));
    assert_eq!(call(Decision::Allow), Settled::Open);
    assert_eq!(call(Decision::Deny), Settled::Open);
}
