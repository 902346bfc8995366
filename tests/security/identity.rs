//! Under a policy that denies by default: programs that pretend to be one that is allowed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use enforcer_tests::{Attempts, Denial, Level, Session, level, loosening, open, probe, root, skip};
use serde_json::{Value, json};

/// Denies by default; what the drivers need is allowed, `ls*` and `git push` too.
fn strict(session: &Session) -> Value {
    let own = session.directory().join("bin");
    let own = own.display();
    json!({"version": "2", "exec": {"default": "deny", "rules": [
        {"id": "tools", "decision": "allow", "glob": [
            "sh", "sh *", "bash *", "mkdir *", "cp *", "ln *", "chmod *", "env *", "printf *", "mv *", "true",
            format!("{own}/ways *"), format!("{own}/namespaces *")]},
        {"id": "list", "decision": "allow", "glob": ["ls*"]},
        {"id": "git", "decision": "allow", "glob": ["git *"]},
        {"id": "git-push", "decision": "allow", "glob": ["git push"]},
        {"id": "words", "decision": "allow", "argv": {"program": "git", "words": ["status"]}},
        {"id": "tool", "decision": "allow", "regex": ["^tool( |$)"]},
    ]}})
}

fn session() -> Session {
    let session = Session::new(&open());
    let victim = session.place(probe!("victim"), "elsewhere/victim");
    let ways = session.place(probe!("ways"), "bin/ways");
    let namespaces = session.place(probe!("namespaces"), "bin/namespaces");
    session
        .variable("VICTIM", victim)
        .variable("WAYS", ways)
        .variable("SPACES", namespaces)
}

/// What must be open for namespaces of the agent's own.
const SPACES: &[&str] = &["namespaces", "mount"];

/// How it is denied that a directory of another tree is taken for a trusted one: the supervisor goes by the path, the
/// kernel by the tree.
fn by_the_kernel(session: &Session) -> Denial {
    match level() {
        Level::Full => session.denial(),
        Level::Partial => Denial::Killed,
    }
}

/// Proves the attempts, each of which ends in a denial that no rule made.
fn prove(session: &Session, attempts: &Attempts, how: Denial) {
    let outcomes = attempts.prove(session, &loosening(strict(session), SPACES));
    let trail = &outcomes.ended.trail;
    trail.assert_whole();
    for name in attempts.names() {
        // A shell that is refused may look in the next directory of its path.
        let lines = trail.denied_with_word(name);
        assert!(!lines.is_empty(), "{name}: no denial in\n{}", trail.shown());
        for line in lines {
            line.assert_denied_exec(how);
            assert_eq!(
                (line.rule(), line.text("decision")),
                ("", "deny"),
                "{name}: {line:?}"
            );
        }
    }
}

#[test]
fn copies_and_links_are_not_the_allowed_program() {
    if !root() {
        return;
    }
    let session = session();
    prove(
        &session,
        &Attempts::new()
            .with("copy", "cp $VICTIM ls; ./ls $TAG")
            .with("copy-absolute", "cp $VICTIM ls; $PWD/ls $TAG")
            .with(
                "copy-in-path",
                "cp $VICTIM ls; PATH=$PWD:$PATH; hash -r; ls $TAG",
            )
            .with("symlink", "ln -s $VICTIM ls; ./ls $TAG")
            .with("hard-link", "cp $VICTIM a; ln a ls; ./ls $TAG")
            .with("renamed", "cp $VICTIM a; mv a ls; ./ls $TAG")
            .with("argv0", "bash -c 'exec -a ls $VICTIM $TAG'")
            .with("argv0-path", "bash -c 'exec -a /usr/bin/ls $VICTIM $TAG'")
            .with("bare-name", "cp $VICTIM git; $WAYS relative . git $TAG")
            .with("bare-glob", "cp $VICTIM ls; $WAYS relative . ls $TAG")
            .with("bare-regex", "cp $VICTIM tool; $WAYS relative . tool $TAG")
            .with("empty-path-entry", "cp $VICTIM git; PATH=; git $TAG")
            .with(
                "below",
                "mkdir lsdir; cp $VICTIM lsdir/evil; $WAYS relative . lsdir/evil $TAG",
            )
            .with(
                "below-dots",
                "mkdir ls; cp $VICTIM evil; $WAYS relative . ls/../evil $TAG",
            )
            .with("path-with-dots", "/usr/bin/../..$VICTIM $TAG")
            .with(
                "directory-of-a-name",
                "mkdir -p usr/bin; cp $VICTIM usr/bin/ls; ./usr/bin/ls $TAG",
            )
            .with("proc-root", "cp $VICTIM ls; /proc/self/cwd/ls $TAG")
            .with("space-in-name", "cp $VICTIM 'git push'; './git push' $TAG")
            .with(
                "bare-space",
                "cp $VICTIM 'git status'; $WAYS relative . 'git status' $TAG",
            )
            .with(
                "bare-glob-space",
                "cp $VICTIM 'ls x'; $WAYS relative . 'ls x' $TAG",
            )
            .with(
                "space-and-slash",
                "mkdir 'git x'; cp $VICTIM 'git x/y'; $WAYS relative . 'git x/y' $TAG",
            )
            .with("newline-in-name", "cp $VICTIM 'ls\nx'; ./ls?x $TAG")
            .with(
                "script",
                "printf '#!%s\\n' $VICTIM >ls; chmod +x ls; ./ls $TAG",
            ),
        session.denial(),
    );
}

#[test]
fn a_space_in_a_bare_name_without_arguments_is_no_subcommand() {
    if !root() {
        return;
    }
    let session = session();
    let attempts = Attempts::new()
        .with(
            "git-push",
            "cp $VICTIM 'git push'; $WAYS relative . 'git push'",
        )
        .with(
            "git-push-path",
            "cp $VICTIM 'git push'; PATH=$PWD; 'git push'",
        )
        .with(
            "git-status",
            "cp $VICTIM 'git status'; $WAYS relative . 'git status'",
        );
    let outcomes = attempts.prove(&session, &strict(&session));
    assert_eq!(outcomes.ended.trail.denials().count(), 3);
}

#[test]
fn the_allowed_programs_do_run() {
    if !root() {
        return;
    }
    let session = session();
    session.set_policy(&strict(&session));
    let ended = session.sh("ls /usr >/dev/null && /usr/bin/ls / >/dev/null && git --version");
    assert_eq!(ended.code(), 0, "{}", ended.trail.shown());
    assert!(ended.text().starts_with("git version"));
    assert_eq!(ended.trail.denials().count(), 0, "{}", ended.trail.shown());
}

/// Whether the session's user may make namespaces of its own here.
fn namespaces(session: &Session) -> bool {
    session.set_policy(&loosening(open(), SPACES));
    let possible = session.sh("$SPACES bind /usr /mnt /bin/true").code() == 0;
    if !possible {
        skip("this kernel gives the agent's user no namespaces");
    }
    possible
}

/// Puts the program over one that is allowed.
fn mounted_directory() -> Attempts {
    Attempts::new().with(
        "bind-directory",
        "mkdir d; cp $VICTIM d/ls; $SPACES bind d /usr/local/bin /usr/local/bin/ls $TAG",
    )
}

fn mounted_file() -> Attempts {
    Attempts::new().with(
        "bind-file",
        "$SPACES bind $VICTIM /usr/bin/ls /usr/bin/ls $TAG",
    )
}

/// Makes a directory the root in which another program has the name of one that is allowed.
fn roots() -> Attempts {
    Attempts::new().with(
        "chroot",
        "mkdir -p r/usr/bin r/lib/x86_64-linux-gnu r/lib64; cp $VICTIM r/usr/bin/ls; cp -L /lib64/ld-linux-x86-64.so.2 r/lib64; \
         cp -L /lib/x86_64-linux-gnu/libc.so.6 /lib/x86_64-linux-gnu/libgcc_s.so.1 r/lib/x86_64-linux-gnu; \
         $SPACES chroot $PWD/r /usr/bin/ls $TAG; test -e r/mark && printf x >$MARK",
    )
}

#[test]
fn a_mount_over_a_trusted_directory_is_not_trusted() {
    if !root() {
        return;
    }
    let session = session();
    if namespaces(&session) {
        // The agent owns the directory that it mounts, and the supervisor sees that. The file is root's.
        prove(&session, &mounted_directory(), session.denial());
        prove(&session, &mounted_file(), by_the_kernel(&session));
    }
}

#[test]
fn another_root_directory_is_not_trusted() {
    if !root() {
        return;
    }
    let session = session();
    if namespaces(&session) {
        let how = session.denial();
        prove(&session.variable("INSIDE", "/mark"), &roots(), how);
    }
}

#[test]
fn roots_own_mount_over_a_trusted_directory_is_not_trusted() {
    if !root() {
        return;
    }
    let session = session().as_root();
    if namespaces(&session) {
        prove(&session, &mounted_directory(), by_the_kernel(&session));
        prove(&session, &mounted_file(), by_the_kernel(&session));
    }
}

#[test]
fn roots_own_root_directory_is_not_trusted() {
    if !root() {
        return;
    }
    let session = session().as_root();
    if namespaces(&session) {
        let how = by_the_kernel(&session);
        prove(&session.variable("INSIDE", "/mark"), &roots(), how);
    }
}
