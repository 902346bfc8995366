use serde_json::{Value, json};

use super::*;
use crate::in_force::Landlock;

const PLAIN: &str = r#"{"version": "2", "exec": {"default": "deny"}, "connect": {"default": "allow",
    "rules": [{"id": "all", "decision": "deny", "unix": ["*"]}]}}"#;
const ASKING: &str =
    r#"{"version": "2", "exec": {"default": "ask"}, "connect": {"default": "deny"}}"#;

const ALL: [&str; 6] = [
    "exec_check",
    "socket_connect",
    "unix_stream_connect",
    "unix_may_send",
    "ptrace_access_check",
    "task_kill",
];
const HOOKS: [&str; 2] = ["unix_connect", "unix_sendmsg"];
const BOTH: Landlock = Landlock {
    tracing: true,
    signals: true,
};
const ENFORCING: Governing = Governing {
    on_deny: OnDeny::Errno,
    require: None,
    observe: false,
    keep: false,
};

fn policy(text: &str) -> Policy {
    enforcer_policy::parse(text).unwrap().policy
}

fn machine(programs: &[&'static str], landlock: Landlock) -> Machine {
    Machine {
        in_force: InForce::new(programs.to_vec(), landlock),
        domain: LandlockDomain::probe(false),
        process_limit: PidsLimit::Set(64),
    }
}

fn under(basis: &Basis, text: &str, observed: bool) -> Enforcement {
    let policy = policy(text);
    let first = FirstJudgement::choose(&policy, basis.means);
    basis.enforcement(&policy, first, observed, &[])
}

fn governed(machine: Machine, governing: Governing, text: &str) -> Enforcement {
    under(
        &Basis::new(machine, governing, true),
        text,
        governing.observe,
    )
}

#[test]
fn where_all_is_in_force_nothing_is_weaker() {
    let whole = governed(machine(&ALL, BOTH), ENFORCING, PLAIN);
    assert_eq!(whole.level, Level::Full);
    assert_eq!(whole.execs, Execs::RefusedByLsm);
    assert_eq!(whole.unix_sockets, UnixSockets::ByBoundName);
    assert_eq!(whole.outside_sockets, OutsideSockets::RefusedByLsm);
    assert_eq!(
        whole.processes_outside.tracing,
        OutsideGuard::LsmAndLandlock
    );
    assert_eq!(whole.process_limit, Some(64));
    assert_eq!(whole.first_judgement, FirstJudge::LsmBehindSupervisor);
    assert_eq!(whole.weaknesses(), []);
    assert!(whole.suffices(Some(Level::Full)).is_ok());
}

#[test]
fn nothing_is_in_force_that_was_not_seen() {
    let none = governed(machine(&[], Landlock::default()), ENFORCING, PLAIN);
    assert_eq!(none.level, Level::Partial);
    assert_eq!(none.execs, Execs::RefusedBySupervisor);
    assert_eq!(none.unix_sockets, UnixSockets::BySupervisor);
    assert_eq!(none.outside_sockets, OutsideSockets::NotJudged);
    assert_eq!(none.processes_outside.level(), LandlockLevel::None);
    let [outside, Weakness::UnixBySupervisor] = none.weaknesses() else {
        panic!("{:?}", none.weaknesses());
    };
    let outside = outside.to_string();
    assert!(outside.contains("tracing is not refused, signals are not refused"));
    let domain = LandlockDomain::probe(false);
    assert!(domain.level == LandlockLevel::None || outside.ends_with("not seen"));
    assert!(none.suffices(Some(Level::Full)).is_err());
    assert!(none.suffices(Some(Level::Partial)).is_ok());
}

#[test]
fn one_mechanism_of_two_is_enough_for_processes_outside() {
    let tracing = Landlock {
        tracing: true,
        signals: false,
    };
    let seen = governed(
        machine(
            &[
                "exec_check",
                "task_kill",
                "unix_stream_connect",
                "unix_may_send",
            ],
            tracing,
        ),
        ENFORCING,
        PLAIN,
    );
    assert_eq!(seen.processes_outside.level(), LandlockLevel::Full);
    assert_eq!(seen.processes_outside.tracing, OutsideGuard::Landlock);
    assert_eq!(seen.processes_outside.signals, OutsideGuard::Lsm);
    // The level is full and says more than is there.
    assert_eq!(seen.weaknesses(), [Weakness::OutsideSockets]);
}

#[test]
fn who_is_killed_is_not_refused() {
    let kill = Governing {
        on_deny: OnDeny::Kill,
        ..ENFORCING
    };
    let killed = governed(machine(&ALL, BOTH), kill, PLAIN);
    assert_eq!(
        (killed.level, killed.execs),
        (Level::Partial, Execs::Killed)
    );
    assert_eq!(killed.first_judgement, FirstJudge::NobodyBehindSupervisor);
    assert!(killed.suffices(Some(Level::Full)).is_err());
}

#[test]
fn who_goes_on_alone_has_neither_supervisor_nor_connector() {
    let keep = Governing {
        keep: true,
        ..ENFORCING
    };
    let kept = governed(machine(&HOOKS, BOTH), keep, ASKING);
    assert_eq!(kept.execs, Execs::Killed);
    assert_eq!(kept.unix_sockets, UnixSockets::ByCalledName);
    assert_eq!(kept.first_judgement, FirstJudge::Nobody);
    assert!(
        kept.weaknesses()
            .contains(&Weakness::UnixByCallAlone { keep: true })
    );
    assert!(matches!(
        kept.weaknesses().last(),
        Some(Weakness::NotHeld { keep: true, .. })
    ));
    let not_judged = governed(machine(&[], BOTH), keep, PLAIN);
    assert_eq!(not_judged.weaknesses(), [Weakness::UnixNotJudged]);
}

#[test]
fn a_run_that_was_only_observed_gets_no_supervisor_when_it_is_blocked() {
    let observe = Governing {
        observe: true,
        ..ENFORCING
    };
    let basis = Basis::new(machine(&HOOKS, BOTH), observe, true);
    let observed = under(&basis, ASKING, true);
    assert!(observed.observed);
    assert_eq!(observed.weaknesses(), []);
    let blocked = under(&basis, ASKING, false);
    let [Weakness::UnixByCallAlone { keep: false }, held] = blocked.weaknesses() else {
        panic!("{:?}", blocked.weaknesses());
    };
    assert!(held.to_string().contains("denied for programs"), "{held}");
}

#[test]
fn what_a_policy_opens_is_weaker_as_far_as_it_is_open() {
    const OPENS: &str = r#"{"version": "2", "exec": {"default": "allow"}, "connect": {"default": "allow"},
        "syscalls": {"allow": [{"name": "bpf", "reason": "tests"}, {"name": "mount", "reason": "disks"}]},
        "approvals": {"approvers": []}}"#;
    let mut basis = Basis::plain(machine(&ALL, BOTH));
    basis.open = vec!["bpf".to_owned()];
    let opened = under(&basis, OPENS, false);
    let words: Vec<String> = opened
        .weaknesses()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        words[0],
        "the policy allows the system calls of `bpf`: tests"
    );
    assert!(!words.iter().any(|one| one.contains("disks")), "{words:?}");
}

#[test]
fn what_is_written_down_is_read_again_and_what_is_not_known_is_not_told() {
    #[derive(Deserialize)]
    struct Kept(#[serde(deserialize_with = "Enforcement::read_kept")] Option<Enforcement>);

    let mut limited = machine(&HOOKS, Landlock::default());
    limited.process_limit = PidsLimit::Unavailable("no controller".to_owned());
    let keep = Governing {
        keep: true,
        ..ENFORCING
    };
    let kept = governed(limited, keep, ASKING);
    let mut written = serde_json::to_value(&kept).unwrap();
    assert_eq!(written["level"], "partial");
    assert_eq!(written["unix_sockets"], "by_called_name");
    assert_eq!(written["process_limit"], Value::Null);
    assert_eq!(
        written["weaknesses"][0],
        json!({"kind": "no_process_limit", "why": "no controller",
            "text": "no limit on the number of processes: no controller"})
    );
    assert_eq!(written["weaknesses"][1]["tracing"], "none");
    let read = |value: &Value| serde_json::from_value::<Kept>(value.clone()).unwrap().0;
    assert_eq!(read(&written), Some(kept));
    written["weaknesses"][0]["kind"] = "of_tomorrow".into();
    assert_eq!(read(&written), None);
}
