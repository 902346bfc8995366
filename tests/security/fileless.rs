//! Programs that have no name of their own: in memory, deleted, behind a descriptor, behind the loader.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use enforcer_tests::{Attempts, Session, forbidding, open, probe, root};

/// `$OWN` is a program that no rule names.
fn session() -> Session {
    let session = Session::new(&open());
    let own = session.place(probe!("victim"), "bin/harmless");
    let victim = session.place(probe!("victim"), "bin/forbidden");
    let ways = session.place(probe!("ways"), "bin/ways");
    session
        .variable("OWN", own)
        .variable("VICTIM", victim)
        .variable("WAYS", ways)
}

#[test]
fn programs_without_a_name_are_denied() {
    if !root() {
        return;
    }
    let session = session();
    let mut attempts = Attempts::new();
    for way in [
        "memfd",
        "memfd-proc",
        "memfd-script",
        "memfd-script-proc",
        "link-to-fd",
        "tmpfile",
        "deleted",
        "deleted-via-link",
        "fexecve",
        "execveat-fd",
        "execveat-path-fd",
        "proc-self-fd",
        "proc-pid-fd",
        "proc-thread-self-fd",
        "proc-task-fd",
        "dev-fd",
        "dev-stdin",
    ] {
        attempts = attempts.with(way, "$WAYS $TAG $OWN $TAG");
    }
    let attempts = attempts
        .with("shell-fd", "exec 3<$OWN; /proc/self/fd/3 $TAG")
        .with("shell-dev-fd", "exec 3<$OWN; /dev/fd/3 $TAG")
        .with("script-in-fd", "printf '#!/bin/sh\\nprintf x >>$MARK\\n' >s; exec 3<s; chmod +x s; /proc/self/fd/3 $TAG");
    let outcomes = attempts.prove(&session, &forbidding());
    let trail = &outcomes.ended.trail;
    trail.assert_whole();
    for name in attempts.names() {
        let [line] = trail.denied_with_word(name)[..] else {
            panic!("{name}: not one denial in\n{}", trail.shown());
        };
        line.assert_denied_exec(session.denial());
        assert!(line.reason().contains("[fileless]"), "{name}: {line:?}");
    }
}

#[test]
fn the_loader_starts_nothing() {
    if !root() {
        return;
    }
    let session = session();
    // Where this machine has it; its name is the same everywhere.
    let loader = "/lib64/ld-linux-x86-64.so.2";
    assert!(std::path::Path::new(loader).exists());
    let attempts = Attempts::new()
        .with("loader", format!("{loader} $OWN $TAG"))
        .with(
            "loader-option",
            format!("{loader} --inhibit-cache $OWN $TAG"),
        )
        .with("loader-argv0", format!("{loader} --argv0 ls $OWN $TAG"))
        .with("loader-forbidden", format!("{loader} $VICTIM $TAG"))
        .with("loader-link", format!("ln -s {loader} ls; ./ls $OWN $TAG"))
        .with("loader-env", format!("env {loader} $OWN $TAG"))
        .with(
            "loader-interpreter",
            format!("printf '#!{loader} %s\\n' $OWN >s; chmod +x s; ./s $TAG"),
        )
        .with("loader-real", format!("$(readlink -f {loader}) $OWN $TAG"));
    let outcomes = attempts.prove(&session, &forbidding());
    let trail = &outcomes.ended.trail;
    trail.assert_whole();
    for name in attempts.names() {
        let [line] = trail.denied_with_word(name)[..] else {
            panic!("{name}: not one denial in\n{}", trail.shown());
        };
        line.assert_denied_exec(session.denial());
        assert_eq!(line.rule(), "loader", "{line:?}");
    }
}

#[test]
fn a_policy_may_allow_them() {
    if !root() {
        return;
    }
    let session = session();
    // The first half of `prove`, said on its own: `fileless` and `loader` are settings, not fixed.
    let outcomes = Attempts::new()
        .with("memfd", "$WAYS memfd $OWN")
        .with("forbidden", "$WAYS execveat-fd $VICTIM")
        .run(&session);
    assert_eq!((outcomes.ran("memfd"), outcomes.ran("forbidden")), (1, 1));
    // But the file's own name still counts.
    let mut policy = forbidding();
    policy["exec"]["fileless"] = "allow".into();
    session.set_policy(&policy);
    let outcomes = Attempts::new()
        .with("memfd", "$WAYS memfd $OWN")
        .with("script", "$WAYS memfd-script $OWN")
        .with("script-proc", "$WAYS memfd-script-proc $OWN")
        .with("forbidden", "$WAYS execveat-fd $VICTIM")
        .with("forbidden-script", "$WAYS memfd-script $VICTIM")
        .run(&session);
    let ran = |name| outcomes.ran(name);
    assert_eq!((ran("memfd"), ran("script"), ran("script-proc")), (1, 1, 1));
    assert_eq!((ran("forbidden"), ran("forbidden-script")), (0, 0));
}

#[test]
fn a_fileless_program_is_denied_also_where_its_name_is_allowed() {
    if !root() {
        return;
    }
    let session = session();
    let policy = serde_json::json!({"version": "2", "exec": {"default": "allow", "rules": [
        {"id": "anything", "decision": "allow", "glob": ["*"]}]}});
    session.set_policy(&policy);
    let outcomes = Attempts::new()
        .with("memfd", "$WAYS memfd $OWN")
        .with("fd", "$WAYS fexecve $OWN")
        .run(&session);
    assert_eq!((outcomes.ran("memfd"), outcomes.ran("fd")), (0, 0));
}

#[test]
fn a_policy_may_allow_descriptors_of_files_that_have_a_name_and_nothing_else() {
    if !root() {
        return;
    }
    let session = session();
    let mut policy = forbidding();
    policy["exec"]["descriptor"] = "allow".into();
    session.set_policy(&policy);
    let outcomes = Attempts::new()
        .with("proc-self-fd", "$WAYS proc-self-fd $OWN")
        .with("execveat-fd", "$WAYS execveat-fd $OWN")
        .with("memfd", "$WAYS memfd $OWN")
        .with("memfd-proc", "$WAYS memfd-proc $OWN")
        .with("deleted", "$WAYS deleted $OWN")
        .with("forbidden", "$WAYS proc-self-fd $VICTIM")
        .run(&session);
    for (name, ran) in [
        ("proc-self-fd", 1),
        ("execveat-fd", 1),
        ("memfd", 0),
        ("memfd-proc", 0),
        ("deleted", 0),
        ("forbidden", 0),
    ] {
        let shown = outcomes.ended.trail.shown();
        assert_eq!(outcomes.ran(name), ran, "{name}: {shown}");
    }
}
