//! The self-test is not taken in: what is loaded and attached and does not refuse is seen.

use std::{thread::sleep, time::Duration};

use enforcer_agent::{InForce, Level, selftest};
use enforcer_kernel::instance::{Instance, UNIX_HOOKS, UnixJudgement};
use enforcer_launch::LandlockDomain;

use crate::world::{LEVEL, Place};

/// How long the kernel may take to detach what was dropped: it leaves that to a worker.
const DETACHING: Duration = Duration::from_millis(500);
/// How often that is waited for.
const WAITS: u32 = 20;

/// The self-test, with programs that never run.
fn without(instance: &mut Instance, silent: &[&'static str]) -> anyhow::Result<InForce> {
    for _ in 0..WAITS {
        sleep(DETACHING);
        let place = Place::new();
        instance.silence(silent);
        let seen = selftest::prove(instance, &place.0, &LandlockDomain::probe(false));
        match seen {
            // Refused, by the LSM program of the attempt before, where only the kill should be in force.
            Err(error)
                if error.to_string().contains("was not killed")
                    && !silent.contains(&"exec_committed") => {}
            seen => return Ok(seen?),
        }
    }
    anyhow::bail!("the LSM program stays")
}

#[test]
fn what_does_not_refuse_is_not_in_force() {
    let mut instance = Instance::load(LEVEL).unwrap();
    let whole = without(&mut instance, &[]).unwrap();
    println!("in force: {whole:?}");
    // What every kernel has must refuse.
    for name in [
        "connect4",
        "connect6",
        "sendmsg4",
        "sendmsg6",
        "sock_create",
    ] {
        // An LSM program of the attempt before may still refuse for it: that passes.
        let mut tries = 0;
        let error = loop {
            tries += 1;
            match without(&mut instance, &[name]) {
                Err(error) => break Some(error.to_string()),
                // Without such sockets there is nothing to refuse.
                Ok(_) if name.ends_with('6') => break None,
                Ok(seen) => assert!(tries < WAITS, "{name}: {seen:?}"),
            }
        };
        if let Some(error) = error {
            assert!(error.contains("was not stopped"), "{name}: {error}");
        }
    }
    // What stands beside it is not counted.
    for name in whole.programs() {
        let seen = without(&mut instance, &[*name]).unwrap();
        assert!(!seen.has(name), "{name}: {seen:?}");
        assert_eq!(
            seen.level() == Level::Full,
            seen.has("exec_check"),
            "{name}"
        );
        if name.starts_with("unix") {
            let expected = if whole.unix() == UnixJudgement::Bound && seen.has(UNIX_HOOKS[0]) {
                UnixJudgement::Called
            } else {
                UnixJudgement::Absent
            };
            assert_eq!(seen.unix(), expected, "{name}");
        }
    }
    assert_eq!(
        without(&mut instance, &[]).unwrap(),
        whole,
        "and it comes back"
    );
    // The kill is the guarantee. It stays detached.
    let error = without(&mut instance, &["exec_committed"]).unwrap_err();
    assert!(error.to_string().contains("was not killed"), "{error}");
}
