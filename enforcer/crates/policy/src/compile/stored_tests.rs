use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{ExecAction, compile::compile_for, matcher::Matcher};

fn shipped() -> Policy {
    crate::parse(include_str!("../../../../../policies/coding-agent.json"))
        .unwrap()
        .policy
}

fn small() -> Policy {
    let text = r#"{"version":"2","exec":{"default":"ask","transparent":["sh"],"rules":[
        {"id":"a","decision":"allow","glob":["ls*"]},
        {"id":"d","decision":"deny","argv":{"program":"rm","flags_any":["-r"]}},
        {"id":"r","decision":"deny","regex":["secret"]}]},
        "connect":{"default":"allow","rules":[{"id":"c","decision":"deny","hosts":["10.0.0.0/8"]},
        {"id":"u","decision":"deny","unix":["/run/x*"]}]}}"#;
    crate::parse(text).unwrap().policy
}

fn compiled(policy: &Policy) -> Tables {
    compile_for(policy, &BTreeSet::new(), 7).unwrap()
}

/// What is read back judges as what was compiled does, whichever way it came.
#[test]
fn stored_tables_decide_as_compiled_ones() {
    for policy in [small(), shipped()] {
        let compiled = compiled(&policy);
        let bytes = compiled.to_bytes();
        let stored = Tables::from_bytes(&bytes, &policy).unwrap();
        assert_eq!(stored.to_bytes(), bytes);
        let [compiled, stored] = [compiled, stored].map(|tables| Matcher::new(Arc::new(tables)));
        let mut runner = proptest::test_runner::TestRunner::default();
        let word = prop_oneof![
            "(rm|ls|git|sudo|find|curl|sh|-r|-rf|--force|push|/|~|secret|-c)",
            "[ -~]{0,12}",
            ".{0,8}",
        ];
        let words = proptest::collection::vec(word, 1..7);
        runner
            .run(&words, |words| {
                let argv = words.into_iter().map(String::into_bytes).collect();
                let action = ExecAction::from_words(argv);
                prop_assert_eq!(compiled.exec(&action), stored.exec(&action));
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let policy = small();
    let bytes = compiled(&policy).to_bytes();
    for end in 0..bytes.len().min(3000) {
        assert!(Tables::from_bytes(&bytes[..end], &policy).is_err(), "{end}");
    }
    let longer = [bytes.as_slice(), b"x"].concat();
    assert_eq!(
        Tables::from_bytes(&longer, &policy).unwrap_err(),
        StoredError::Length
    );
    assert_eq!(
        Tables::from_bytes(b"enftbl00....", &policy).unwrap_err(),
        StoredError::Magic
    );
    let action = ExecAction::from_words(vec![b"rm".to_vec(), b"-r".to_vec()]);
    for at in 8..bytes.len().min(2000) {
        for flip in [1, 0x80, 0xff] {
            let mut bent = bytes.clone();
            bent[at] ^= flip;
            // Whatever comes of it: an error, or tables that can be walked.
            if let Ok(tables) = Tables::from_bytes(&bent, &policy) {
                let _ = Matcher::new(Arc::new(tables)).exec(&action);
            }
        }
    }
}

#[test]
fn a_known_text_gives_the_same_rules() {
    for text in [
        include_str!("../../../../../policies/coding-agent.json"),
        include_str!("../../../../../policies/strict.json"),
    ] {
        let full = crate::parse(text).unwrap();
        let known = crate::parse_known(full.text()).unwrap();
        let full = full.policy;
        let told = |policy: &Policy| {
            let rules = policy.exec.rules.iter();
            rules
                .map(|rule| format!("{} {:?} {:?}", rule.id, rule.decision, rule.matcher))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(&full), told(&known));
        assert_eq!(
            format!("{:?}", full.connect),
            format!("{:?}", known.connect)
        );
        assert_eq!(format!("{:?}", full.limits), format!("{:?}", known.limits));
    }
    assert!(crate::parse_known("{}").is_err());
    assert!(crate::parse_known("").is_err());
}
