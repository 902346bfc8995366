//! Any bytes as a policy: it is refused with a place and a mend, or it compiles, or the tables say what does not fit.

#![no_main]

use enforcer::{
    decide::{Engine, ExecAction},
    policy::{self, findings::findings, validate},
};
use libfuzzer_sys::fuzz_target;

/// Most rules that are compiled; reading is tried with all.
const RULES_MAX: usize = 6;
/// Longest text that is compiled, bytes: long patterns take seconds, which says nothing new.
const BYTES_MAX: usize = 2_000;

fuzz_target!(|bytes: &[u8]| {
    let parsed = match policy::parse_bytes(bytes) {
        Ok(parsed) => parsed,
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in faults {
                let said = fault.in_file("policy.json");
                assert!(!said.contains('\n') && !fault.mend.is_empty(), "{said}");
            }
            return;
        }
    };
    let rules = parsed.policy.exec.rules.len() + parsed.policy.connect.rules.len();
    if rules > RULES_MAX || bytes.len() > BYTES_MAX {
        return;
    }
    let Ok(engine) = Engine::new(parsed.policy.clone(), 1) else {
        return;
    };
    // What the tables hold can be looked through.
    findings(&parsed).unwrap();
    for rule in &parsed.policy.exec.rules {
        for example in rule.examples.iter().chain(&rule.counter_examples) {
            if let Some(words) = validate::example_words(example) {
                let words = words.into_iter().map(String::into_bytes).collect();
                let action = ExecAction::from_words(words);
                let outcome = engine.exec(&action);
                assert!(!outcome.reason.is_empty());
            }
        }
    }
});
