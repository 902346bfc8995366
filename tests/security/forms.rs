//! Every way to name the program counts for a denial: its path as given, the path that it leads to, a script's own name.
//! And a trusted directory counts only while the agent cannot change what lies there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::{fs, os::unix::fs::chown};

use enforcer_tests::{Attempts, Denial, Session, forbidding, open, probe, root};
use serde_json::{Value, json};

/// A session with the forbidden program; its path is `$VICTIM`, its directory `$BIN`.
fn session() -> Session {
    let session = Session::new(&open());
    let victim = session.place(probe!("victim"), "bin/forbidden");
    let directory = victim.parent().unwrap().to_owned();
    session
        .variable("VICTIM", victim)
        .variable("BIN", directory)
}

/// Allows everything but what `rule` matches. The program lies in a trusted directory, or in one that is not.
fn denying(session: &Session, rule: &Value, trusted: bool) -> Value {
    let mut dirs = vec!["/usr/bin".to_owned(), "/bin".to_owned()];
    if trusted {
        dirs.push(session.directory().join("bin").display().to_string());
    }
    let mut rule = rule.clone();
    rule["id"] = "forbidden".into();
    rule["decision"] = "deny".into();
    json!({"version": "2", "connect": {"default": "allow"}, "exec": {"default": "allow", "trusted_dirs": dirs,
        "transparent": ["sh", "bash", "dash"], "rules": [rule]}})
}

/// Ways that all lead to the one file.
fn ways() -> Attempts {
    Attempts::new()
        .with("path", "$VICTIM $TAG")
        .with("name", "PATH=$BIN:$PATH; forbidden $TAG")
        .with("relative", "cd $BIN; ./forbidden $TAG")
        .with("dots", "$BIN/../bin/./forbidden $TAG")
        .with("link", "ln -s $VICTIM harmless; ./harmless $TAG")
        .with("linked-directory", "ln -s $BIN d; ./d/forbidden $TAG")
        .with("argv0", "bash -c 'exec -a harmless $VICTIM $TAG'")
        .with("from-root", "/proc/self/root$VICTIM $TAG")
        .with(
            "interpreter",
            "printf '#!%s\\n' $VICTIM >s; chmod +x s; ./s $TAG",
        )
}

/// The attempts are all denied by the rule.
fn denied_by_path(session: &Session, rule: &Value) {
    for trusted in [true, false] {
        let attempts = ways();
        let outcomes = attempts.prove(session, &denying(session, rule, trusted));
        let trail = &outcomes.ended.trail;
        trail.assert_whole();
        for name in attempts.names() {
            let lines = trail.denied_with_word(name);
            assert!(!lines.is_empty(), "{name}: no denial in\n{}", trail.shown());
            for line in lines {
                assert_eq!(line.rule(), "forbidden", "{name}: {line:?}");
                line.assert_denied_exec(session.denial());
            }
        }
    }
}

#[test]
fn a_path_in_an_argv_rule_denies_whatever_leads_there() {
    if root() {
        let session = session();
        let program = session.directory().join("bin/forbidden");
        denied_by_path(&session, &json!({"argv": {"program": program}}));
    }
}

#[test]
fn a_path_in_a_glob_denies_whatever_leads_there() {
    if root() {
        let session = session();
        // What begins with a wildcard would match the path in the arguments of `ln`, too.
        let directory = session.directory().display().to_string();
        denied_by_path(
            &session,
            &json!({"glob": [format!("{directory}/b?n/forbi*")]}),
        );
    }
}

#[test]
fn a_path_denies_also_where_only_the_second_judgement_sees_it() {
    if root() {
        let session = session().on_deny_kill();
        let directory = session.directory().display().to_string();
        denied_by_path(&session, &json!({"glob": [format!("{directory}/bin/f*")]}));
    }
}

#[test]
fn a_path_too_deep_to_read_is_denied() {
    if !root() {
        return;
    }
    // Below 42 directories of a hundred letters the path is longer than any path may be. Shells do not go there.
    let deep = "/usr/bin/python3 -c 'import os, shutil\nfor _ in range(42):\n    os.mkdir(\"0\" * 100)\n    os.chdir(\"0\" * 100)\n\
                shutil.copy(os.environ[\"VICTIM\"], \"x\")\nos.execv(\"./x\", [\"./x\", os.environ[\"TAG\"]])'";
    let session = session();
    let attempts = Attempts::new().with("deep", deep);
    session.set_policy(&denying(&session, &json!({"glob": ["/nowhere*"]}), true));
    let outcomes = attempts.run(&session);
    assert_eq!(outcomes.ran("deep"), 0);
    let line = outcomes.ended.trail.denied_exec("deep");
    line.assert_denied_exec(Denial::Killed);
}

#[test]
fn what_a_transparent_shell_is_told_stays_data_by_whatever_path() {
    if !root() {
        return;
    }
    let session = session();
    session.set_policy(&denying(
        &session,
        &json!({"regex": ["\\bforbidden\\b"]}),
        true,
    ));
    let ended = session.sh("sh -c 'true forbidden' || true; /bin/bash -c ': forbidden; echo said'");
    assert!(ended.text().contains("said"), "{}", ended.stderr);
    // The shell's own path is no data.
    session.set_policy(&denying(
        &session,
        &json!({"glob": ["*/bin/bash*", "*/bin/dash -i*"]}),
        true,
    ));
    let ended = session.sh("bash -c 'echo said'; dash -c 'echo other'");
    assert_eq!(ended.text().trim(), "other", "{}", ended.stderr);
}

#[test]
fn a_link_to_a_script_does_not_hide_the_scripts_name() {
    if !root() {
        return;
    }
    let session = session();
    let script = "printf '#!/bin/sh\\nprintf x >>$MARK\\n' >forbidden; chmod +x forbidden;";
    let attempts = Attempts::new()
        .with("script-link", format!("{script} ln -s forbidden harmless; ./harmless $TAG"))
        .with(
            "script-link-chain",
            format!("{script} ln -s forbidden a; ln -s $PWD/a b; ./b $TAG"),
        )
        .with(
            "script-link-env",
            "printf '#!/usr/bin/env sh\\nprintf x >>$MARK\\n' >forbidden; chmod +x forbidden; ln -s forbidden x; ./x $TAG",
        )
        .with("script-link-directory", format!("mkdir d; cd d; {script} cd ..; ln -s d e; ln -s e/forbidden x; ./x $TAG"));
    let outcomes = attempts.prove(&session, &forbidding());
    let trail = &outcomes.ended.trail;
    for name in attempts.names() {
        let lines = trail.denied_with_word(name);
        assert!(!lines.is_empty(), "{name}: no denial in\n{}", trail.shown());
        for line in lines {
            assert_eq!(line.rule(), "forbidden", "{name}: {line:?}");
            line.assert_denied_exec(session.denial());
        }
    }
}

#[test]
fn the_home_is_meant_by_tilde_and_by_its_variable() {
    if !root() {
        return;
    }
    let session = session().as_root();
    for pattern in [
        "cat ~/.enforcer-none*",
        "cat $HOME/.enforcer-none*",
        "cat ${HOME}/.enforcer-none*",
    ] {
        session.set_policy(&denying(&session, &json!({"glob": [pattern]}), true));
        let ended = session.sh("cat ~/.enforcer-none; cat /root/.enforcer-none-other; true");
        // A shell that is refused looks in the next directory of its path.
        let denied = ended.trail.denied_with_word(".enforcer-none").len();
        let other = ended.trail.denied_with_word(".enforcer-none-other").len();
        assert!(
            denied > 0 && other > 0,
            "{pattern}: {}",
            ended.trail.shown()
        );
    }
}

/// Allows the program in `bin` by its name, and nothing else that matters.
fn allowing(session: &Session, dirs: &[&str]) -> Value {
    let mut trusted = vec!["/usr/bin".to_owned(), "/bin".to_owned()];
    trusted.extend(
        dirs.iter()
            .map(|dir| session.directory().join(dir).display().to_string()),
    );
    json!({"version": "2", "connect": {"default": "allow"}, "exec": {"default": "deny", "trusted_dirs": trusted, "rules": [
        {"id": "tool", "decision": "allow", "glob": ["forbidden *", "sh *", "env *"]}]}})
}

#[test]
fn a_directory_that_the_agent_can_write_is_not_trusted() {
    if !root() {
        return;
    }
    let session = session();
    let victim = session.place(probe!("victim"), "work/bin/forbidden");
    chown(victim.parent().unwrap(), Some(session.uid()), None).unwrap();
    session.set_policy(&allowing(&session, &["bin", "work/bin"]));
    let session = session.variable("MARK", "/dev/null");
    let ended = session.sh("$VICTIM roots; work/bin/forbidden own; $PWD/bin/forbidden own");
    let said = format!("enforcer: weaker: {}", victim.parent().unwrap().display());
    assert!(ended.stderr.contains(&said), "{}", ended.stderr);
    assert!(!ended.stderr.contains(&format!(
        "weaker: {}",
        session.directory().join("bin").display()
    )));
    assert_eq!(
        ended.text().matches("victim ran").count(),
        1,
        "{}",
        ended.trail.shown()
    );
}

#[test]
fn a_program_that_the_agent_comes_to_own_is_trusted_no_longer() {
    if !root() {
        return;
    }
    for kill in [false, true] {
        let mut session = session().variable("MARK", "/dev/null");
        if kill {
            session = session.on_deny_kill();
        }
        session.set_policy(&allowing(&session, &["bin"]));
        let program = session.directory().join("bin/forbidden");
        assert!(session.sh("$VICTIM a").text().contains("victim ran"));
        chown(&program, Some(session.uid()), None).unwrap();
        let ended = session.sh("$VICTIM a");
        assert!(
            !ended.text().contains("victim ran"),
            "{}",
            ended.trail.shown()
        );
        let line = ended.trail.denials().next().unwrap();
        line.assert_denied_exec(session.denial());
        chown(&program, Some(0), None).unwrap();
        // The same of a directory above it, though the trusted one itself was root's at the start.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(session.directory().join("bin"), mode).unwrap();
        let ended = session.sh("$VICTIM a");
        assert!(
            !ended.text().contains("victim ran"),
            "{}",
            ended.trail.shown()
        );
    }
}
