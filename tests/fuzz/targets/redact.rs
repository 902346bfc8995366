//! Any bytes as what is written to the trail: what comes out is one printable line, and a line that is read again.

#![no_main]

use enforcer_decide::recorded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for text in [
        enforcer_redact::text(bytes),
        enforcer_redact::command(bytes),
        enforcer_redact::sanitise(bytes),
    ] {
        assert!(
            !text.chars().any(|c| c.is_control() && c != '\t'),
            "{text:?}"
        );
    }
    let command = enforcer_redact::command(bytes);
    let words = recorded::words(&command, &Default::default()).unwrap();
    assert_eq!(words.join(" "), command);
});
