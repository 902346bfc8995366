//! The forbidden program, reached by other programs that start it and by other names for it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use enforcer_tests::{
    Attempts, Outcomes, Session, Trail, forbidding, loosening, open, probe, program, root,
};

/// A session with the forbidden program; its path is `$VICTIM`, its directory `$BIN`.
fn session() -> Session {
    let session = Session::new(&open());
    let victim = session.place(probe!("victim"), "bin/forbidden");
    let ways = session.place(probe!("ways"), "bin/ways");
    let directory = victim.parent().unwrap().to_owned();
    session
        .variable("VICTIM", victim)
        .variable("WAYS", ways)
        .variable("BIN", directory)
}

/// Every attempt left a denial of its own, made by the forbidding rule in the strongest way the kernel has.
fn assert_recorded(attempts: &Attempts, session: &Session, outcomes: &Outcomes) {
    let trail: &Trail = &outcomes.ended.trail;
    trail.assert_whole();
    for name in attempts.names() {
        let denials = trail.denied_with_word(name);
        assert!(
            !denials.is_empty(),
            "{name}: no denial in\n{}",
            trail.shown()
        );
        for line in denials {
            // What a script's first line adds to the arguments is not there yet when LSM programs look.
            if !LATE.contains(&name) {
                line.assert_denied_exec(session.denial());
            }
            assert_eq!(line.rule(), "forbidden", "{name}: {line:?}");
        }
    }
}

/// Attempts that only the second judgement can see.
const LATE: [&str; 2] = ["env-interpreter", "env-split-interpreter"];

/// As they are written; each ends with the tag, so that its line in the trail is known.
fn launchers() -> Attempts {
    Attempts::new()
        .with("plain", "$VICTIM $TAG")
        .with("search", "PATH=$BIN:$PATH; forbidden $TAG")
        .with("exec", "exec $VICTIM $TAG")
        .with("substitution", "echo $($VICTIM $TAG)")
        .with("background", "$VICTIM $TAG & wait")
        .with("pipe", "true | $VICTIM $TAG | cat")
        .with("nested-shells", "sh -c 'bash -c \"sh -c \\\"$VICTIM $TAG\\\"\"'")
        .with("env", "env $VICTIM $TAG")
        .with("env-clean", "env -i MARK=$MARK $VICTIM $TAG")
        .with("env-split", "env -S \"$VICTIM $TAG\"")
        .with("nohup", "nohup $VICTIM $TAG")
        .with("timeout", "timeout 60 $VICTIM $TAG")
        .with("nice", "nice -n 5 $VICTIM $TAG")
        .with("stdbuf", "stdbuf -o0 $VICTIM $TAG")
        .with("setsid", "setsid -w $VICTIM $TAG")
        .with("xargs", "echo $TAG | xargs $VICTIM")
        .with("xargs-replace", "echo $VICTIM | xargs -I @ env @ $TAG")
        .with("xargs-many", "echo $TAG 1 2 3 | xargs -n 1 -P 4 $VICTIM $TAG")
        .with("find-exec", "touch $TAG; find . -name $TAG -exec $VICTIM {} \\;")
        .with("find-exec-plus", "touch $TAG; find . -name $TAG -exec $VICTIM {} +")
        .with("find-execdir", "touch $TAG; PATH=$BIN:/usr/bin:/bin find . -name $TAG -execdir $VICTIM {} \\;")
        .with("awk", "awk \"BEGIN { system(\\\"$VICTIM $TAG\\\") }\"")
        .with("sed", "echo | sed \"1e $VICTIM $TAG\"")
        .with("make", "printf 'all:\\n\\t%s %s\\n' $VICTIM $TAG >m; make -f m")
        .with("git-alias", "HOME=. git -c alias.x=\"!$VICTIM $TAG\" x")
        .with("tar", "tar cf /dev/null --checkpoint=1 --checkpoint-action=exec=\"$VICTIM $TAG\" /etc/passwd")
        .with("python-exec", "/usr/bin/python3 -c 'import os; v = os.environ; os.execv(v[\"VICTIM\"], [\"x\", v[\"TAG\"]])'")
        .with("python-subprocess", "/usr/bin/python3 -c 'import os, subprocess as s; v = os.environ; s.run([v[\"VICTIM\"], v[\"TAG\"]])'")
        .with("busybox-sh", "busybox sh -c \"$VICTIM $TAG\"")
        .with("busybox-xargs", "echo $TAG | busybox xargs $VICTIM")
        .with("no-shebang", "printf '%s %s\\n' $VICTIM $TAG >s; chmod +x s; ./s")
        .with("orphan", "sh -c \"(sleep 0.3; $VICTIM $TAG) &\"; sleep 1")
        .with("session-orphan", "setsid sh -c \"(sleep 0.3; $VICTIM $TAG) &\"; sleep 1")
}

#[test]
fn launchers_do_not_hide_what_they_start() {
    if !root() {
        return;
    }
    let session = session();
    let attempts = launchers();
    let outcomes = attempts.prove(&session, &forbidding());
    assert_recorded(&attempts, &session, &outcomes);
}

#[test]
fn launchers_do_not_hide_what_they_start_when_denied_execs_are_killed() {
    if !root() {
        return;
    }
    let session = session().on_deny_kill();
    let attempts = launchers();
    let outcomes = attempts.prove(&session, &forbidding());
    assert_recorded(&attempts, &session, &outcomes);
    assert_eq!(outcomes.status("exec"), 137);
}

#[test]
fn other_names_of_the_file_are_seen_through() {
    if !root() {
        return;
    }
    let session = session();
    let attempts = Attempts::new()
        .with("symlink", "ln -s $VICTIM harmless; ./harmless $TAG")
        .with(
            "symlink-chain",
            "ln -s $VICTIM a; ln -s a b; ln -s b c; ./c $TAG",
        )
        .with("symlink-directory", "ln -s $BIN d; ./d/forbidden $TAG")
        .with(
            "symlink-relative",
            "ln -s $VICTIM harmless; cd /; ${MARK%/marks/*}/places/$TAG/harmless $TAG",
        )
        .with(
            "copy-of-that-name",
            "cp $VICTIM forbidden; ./forbidden $TAG",
        )
        .with(
            "hard-link-of-that-name",
            "cp $VICTIM own; ln own forbidden; ./forbidden $TAG",
        )
        .with(
            "symlink-to-hard-link",
            "cp $VICTIM own; ln own forbidden; ln -s forbidden harmless; ./harmless $TAG",
        )
        .with(
            "renamed-to-it",
            "cp $VICTIM own; mv own forbidden; ./forbidden $TAG",
        )
        .with("dots", "$BIN/../bin/./forbidden $TAG")
        .with("slashes", "/$BIN//forbidden $TAG")
        .with("from-root", "/proc/self/root$VICTIM $TAG")
        .with(
            "working-directory",
            "cd $BIN; /proc/self/cwd/forbidden $TAG",
        )
        .with("argv0-forged", "bash -c 'exec -a harmless $VICTIM $TAG'")
        .with("argv0-empty", "$WAYS empty-argv0 $VICTIM $TAG")
        .with("argv0-long", "$WAYS long-argv0 $VICTIM $TAG")
        .with("argv0-dash", "bash -c 'exec -l $VICTIM $TAG'")
        // A program of many names does what argv[0] says.
        .with(
            "argv0-its-name",
            "cp $VICTIM own; bash -c 'exec -a forbidden ./own $TAG'",
        )
        .with(
            "argv0-its-path",
            "cp $VICTIM own; bash -c 'exec -a /x/y/forbidden ./own $TAG'",
        );
    let outcomes = attempts.prove(&session, &forbidding());
    let trail = &outcomes.ended.trail;
    trail.assert_whole();
    for name in attempts.names() {
        let denials = trail.denied_with_word(name);
        assert!(
            !denials.is_empty(),
            "{name}: no denial in\n{}",
            trail.shown()
        );
        for line in denials {
            assert_eq!(line.rule(), "forbidden", "{name}: {line:?}");
            // The caller's longest words are not looked at twice.
            if name != "argv0-long" {
                line.assert_denied_exec(session.denial());
            }
        }
    }
}

#[test]
fn scripts_are_judged_by_their_name_and_by_their_interpreter() {
    if !root() {
        return;
    }
    let session = session();
    let attempts = Attempts::new()
        .with("interpreter", "printf '#!%s\\n' $VICTIM >s; chmod +x s; ./s $TAG")
        .with("interpreter-argument", "printf '#!%s -x\\n' $VICTIM >s; chmod +x s; ./s $TAG")
        .with("interpreter-spaces", "printf '#! \\t%s  -x  \\n' $VICTIM >s; chmod +x s; ./s $TAG")
        .with("interpreter-link", "ln -s $VICTIM i; printf '#!%s/i\\n' $PWD >s; chmod +x s; ./s $TAG")
        .with("interpreter-nested", "printf '#!%s\\n' $VICTIM >a; printf '#!%s/a -y\\n' $PWD >b; printf '#!%s/b\\n' $PWD >s; chmod +x a b s; ./s $TAG")
        .with("env-interpreter", "PATH=$BIN:$PATH; printf '#!/usr/bin/env forbidden\\n' >s; chmod +x s; ./s $TAG")
        .with("env-split-interpreter", "PATH=$BIN:$PATH; printf '#!/usr/bin/env -S forbidden -a -b\\n' >s; chmod +x s; ./s $TAG")
        .with("script-name", "printf '#!/bin/sh\\nprintf x >>$MARK\\n' >forbidden; chmod +x forbidden; ./forbidden $TAG")
        .with("script-name-argument", "printf '#!/bin/sh -e\\nprintf x >>$MARK\\n' >forbidden; chmod +x forbidden; ./forbidden $TAG")
        .with("script-name-nested", "printf '#!/bin/sh\\nprintf x >>$MARK\\n' >a; printf '#!%s/a\\n' $PWD >forbidden; chmod +x a forbidden; ./forbidden $TAG")
        .with("script-inside-nested", "printf '#!/bin/sh\\nprintf x >>$MARK\\n' >forbidden; printf '#!%s/forbidden\\n' $PWD >s; chmod +x s forbidden; ./s $TAG")
        .with("script-link", "printf '#!/bin/sh\\nprintf x >>$MARK\\n' >own; chmod +x own; ln -s own forbidden; ./forbidden $TAG");
    let outcomes = attempts.prove(&session, &forbidding());
    assert_recorded(&attempts, &session, &outcomes);
}

#[test]
fn the_kernels_ways_to_start_a_program() {
    if !root() {
        return;
    }
    let session = session();
    let mut attempts = Attempts::new();
    for way in [
        "fork",
        "vfork",
        "clone-vm",
        "clone-parent",
        "posix-spawn",
        "thread",
        "double-fork",
        "execveat-directory",
    ] {
        attempts = attempts.with(way, "$WAYS $TAG $VICTIM $TAG");
    }
    // One of the ways needs a hatch open.
    let policy = loosening(forbidding(), &["clone-parent"]);
    let outcomes = attempts.prove(&session, &policy);
    let trail = &outcomes.ended.trail;
    trail.assert_whole();
    for name in attempts.names() {
        let [line] = trail.denied_with_word(name)[..] else {
            panic!("{name}: not one denial in\n{}", trail.shown());
        };
        assert_eq!(line.rule(), "forbidden", "{line:?}");
        line.assert_denied_exec(session.denial());
    }
}

#[test]
fn busybox_applets_have_rules_of_their_own() {
    if !root() {
        return;
    }
    if program("busybox").is_none() {
        enforcer_tests::skip("no busybox");
        return;
    }
    let session = session();
    let attempts = Attempts::new()
        .with("applet", "busybox touch $MARK; echo x >>$MARK")
        .with(
            "applet-path",
            "ln -s /usr/bin/busybox touch; ./touch $MARK; test -e $MARK && echo x >>$MARK",
        );
    let policy = serde_json::json!({"version": "2", "exec": {"default": "allow", "rules": [
        {"id": "applets", "decision": "deny", "glob": ["busybox *", "busybox"]}]}});
    session.set_policy(&policy);
    let outcomes = attempts.run(&session);
    assert_eq!(outcomes.ran("applet-path"), 0);
    let trail = &outcomes.ended.trail;
    for text in ["busybox touch", "/touch "] {
        // A shell that is refused may look in the next directory, which can be the same one by another name.
        let lines: Vec<_> = trail
            .denials()
            .filter(|line| line.command().contains(text))
            .collect();
        assert!(!lines.is_empty(), "{text}: {}", trail.shown());
        for line in lines {
            assert_eq!(line.rule(), "applets");
            line.assert_denied_exec(session.denial());
        }
    }
}
