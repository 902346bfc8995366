//! A policy that asks about one program, and a session with that program.

use std::{fs, path::PathBuf};

use enforcer_tests::{Session, open, probe};
use serde_json::{Value, json};

/// What the rule says.
pub const REASON: &str = "It is asked about";
/// What it proposes.
pub const INSTEAD: &str = "leave it";

/// Asks about the program `asked`, allows the rest; `approvals` is the section of that name.
pub fn asking(approvals: Value) -> Value {
    let mut policy = open();
    policy["exec"]["rules"] = json!([{
        "id": "asks", "decision": "ask", "risk": "HIGH", "justification": REASON, "suggestion": INSTEAD,
        "argv": {"program": "asked"},
    }]);
    policy["approvals"] = approvals;
    policy
}

/// A session with the program `$ASKED`, which leaves one `g` in [`marks`] each time that it really runs, and
/// `$FINE`, the same program that nobody is asked about.
pub fn session(policy: &Value) -> Session {
    let session = Session::new(policy);
    let asked = session.place(probe!("shout"), "bin/asked");
    let fine = session.place(probe!("shout"), "bin/fine");
    let asks = session.place(probe!("asks"), "bin/asks");
    let (mark, fine_mark) = (mark(&session), session.work().join("fine-mark"));
    let session = session
        .variable("ASKED", asked)
        .variable("FINE", fine)
        .variable("ASKS", asks)
        .variable("FINE_MARK", fine_mark);
    session.variable("MARK", mark)
}

fn mark(session: &Session) -> PathBuf {
    session.work().join("mark")
}

/// How often the program ran.
pub fn marks(session: &Session) -> usize {
    let marks = fs::read(mark(session)).unwrap_or_default();
    assert!(
        !marks.contains(&b'b'),
        "a forbidden program ran: {}",
        String::from_utf8_lossy(&marks)
    );
    marks.len()
}

/// Gives the command a sign: an empty file in its directory.
pub fn sign(session: &Session, name: &str) {
    fs::write(session.work().join(name), "").unwrap();
}
