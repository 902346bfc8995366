//! Any bytes as a policy: it is refused with a place and a mend, or it compiles, or the tables say what does not fit.

#![no_main]

use enforcer_decide::Engine;
use enforcer_policy::{ExecAction, findings::findings, validate};
use libfuzzer_sys::fuzz_target;

/// Most rules that are compiled; reading, checking and lowering are tried with all. Compiling takes a thousand times as
/// long as reading, and the automata of several patterns together multiply.
const RULES_MAX: usize = 1;
/// Longest text that is compiled, bytes.
const BYTES_MAX: usize = 220;
/// Of the texts that are small enough, one in so many is compiled, by its bytes, so that a crash comes again.
const COMPILED_OF: u32 = 16;

/// FNV-1a of the text.
fn digest(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

fuzz_target!(|bytes: &[u8]| {
    let parsed = match enforcer_policy::parse_bytes(bytes) {
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
    // What was read once (with what it includes) is read again without the checks, and is the same to all that is enforced.
    let known = enforcer_policy::parse_known(parsed.text()).unwrap();
    assert_eq!(known.exec.rules.len(), parsed.policy.exec.rules.len());
    assert_eq!(known.connect.rules, parsed.policy.connect.rules);
    if rules > RULES_MAX || parsed.text().len() > BYTES_MAX || digest(bytes) % COMPILED_OF != 0 {
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
