//! Programs of every day that run a command on request (many from <https://gtfobins.github.io>), services that the agent
//! starts itself, and files that make another program run something: what they start is judged like all else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::process::Command;

use enforcer_tests::{Attempts, Session, forbidding, open, probe, program, root, skip};

fn session() -> Session {
    let session = Session::new(&open());
    let victim = session.place(probe!("victim"), "bin/forbidden");
    session.variable("VICTIM", victim).variable("TERM", "dumb")
}

/// The attempts whose program is here.
fn here(list: &[(&'static str, &str, &str)]) -> Attempts {
    list.iter()
        .filter(|(_, needs, _)| program(needs).is_some())
        .fold(Attempts::new(), |attempts, (name, _, script)| {
            {
                // Some of them ask the user's shell, which is no shell for such users.
                attempts.with(name, format!("export SHELL=/bin/sh HOME=$PWD\n{script}"))
            }
        })
}

/// Proves the attempts; each has left a denial.
fn prove(session: &Session, attempts: &Attempts) {
    let outcomes = attempts.prove(session, &forbidding());
    let trail = &outcomes.ended.trail;
    trail.assert_whole();
    for name in attempts.names() {
        let lines = trail.denied_with_word(name);
        assert!(!lines.is_empty(), "{name}: no denial in\n{}", trail.shown());
        for line in lines {
            assert_eq!(line.rule(), "forbidden", "{name}: {line:?}");
        }
    }
}

#[test]
fn programs_that_run_a_command_on_request() {
    if !root() {
        return;
    }
    let attempts = here(&[
        ("env-unset", "env", "env -u HOME MARK=$MARK $VICTIM $TAG"),
        (
            "awk-pipe",
            "awk",
            "awk -v c=\"$VICTIM $TAG\" 'BEGIN { print 1 | c }'",
        ),
        (
            "awk-getline",
            "awk",
            "awk -v c=\"$VICTIM $TAG\" 'BEGIN { c | getline }'",
        ),
        ("ed", "ed", "printf '!%s %s\\nq\\n' $VICTIM $TAG | ed -s"),
        ("chrt", "chrt", "chrt -o 0 $VICTIM $TAG"),
        (
            "find-ok",
            "find",
            "yes | find /etc/passwd -ok $VICTIM $TAG \\;",
        ),
        ("flock", "flock", "flock -u / $VICTIM $TAG"),
        (
            "gcc-wrapper",
            "gcc",
            "echo 'int main(void) { return 0; }' >a.c; gcc -wrapper $VICTIM,$TAG a.c",
        ),
        ("gdb", "gdb", "gdb -nx -batch -ex \"shell $VICTIM $TAG\""),
        (
            "git-ext",
            "git",
            "HOME=. git -c protocol.ext.allow=always ls-remote \"ext::$VICTIM $TAG\"",
        ),
        (
            "git-ssh",
            "git",
            "HOME=. GIT_SSH_COMMAND=\"$VICTIM $TAG\" git ls-remote ssh://nobody@127.0.0.1/x",
        ),
        (
            "git-editor",
            "git",
            "HOME=. git init -q .; HOME=. GIT_EDITOR=\"$VICTIM $TAG\" git -c user.name=a -c user.email=a commit --allow-empty",
        ),
        (
            "git-fsmonitor",
            "git",
            "HOME=. git init -q .; HOME=. git -c core.fsmonitor=\"$VICTIM $TAG\" status",
        ),
        (
            "git-filter",
            "git",
            "export HOME=.; git init -q .; echo '* filter=f' >.gitattributes; git config filter.f.clean \"$VICTIM $TAG\"; echo x >x; git add x",
        ),
        ("ionice", "ionice", "ionice -c 3 $VICTIM $TAG"),
        (
            "less",
            "less",
            "LESSOPEN=\"|$VICTIM $TAG %s\" less -f /etc/passwd </dev/null",
        ),
        (
            "make-shell",
            "make",
            "printf 'x := $(shell %s %s)\\nall:\\n' $VICTIM $TAG >m; make -f m",
        ),
        (
            "make-eval",
            "make",
            "make -s --eval=\"\\$(shell $VICTIM $TAG)\"",
        ),
        (
            "node",
            "node",
            "node -e 'require(\"child_process\").spawnSync(process.env.VICTIM, [process.env.TAG])'",
        ),
        (
            "node-exec",
            "node",
            "node -e 'require(\"child_process\").execSync(process.env.VICTIM + \" \" + process.env.TAG)'",
        ),
        ("perl", "perl", "perl -e 'exec $ENV{VICTIM}, $ENV{TAG}'"),
        (
            "perl-open",
            "perl",
            "perl -e 'open my $p, \"-|\", $ENV{VICTIM}, $ENV{TAG}; <$p>'",
        ),
        (
            "python-pty",
            "python3",
            "/usr/bin/python3 -c 'import os, pty; pty.spawn([os.environ[\"VICTIM\"], os.environ[\"TAG\"]])' </dev/null",
        ),
        (
            "python-ctypes",
            "python3",
            "/usr/bin/python3 -c 'import ctypes, os; ctypes.CDLL(None).system((os.environ[\"VICTIM\"] + \" \" + os.environ[\"TAG\"]).encode())'",
        ),
        (
            "run-parts",
            "run-parts",
            "mkdir p; ln -s $VICTIM p/forbidden; run-parts --arg=$TAG p",
        ),
        (
            "script",
            "script",
            "script -q -c \"$VICTIM $TAG\" /dev/null </dev/null",
        ),
        ("setarch", "setarch", "setarch -R $VICTIM $TAG"),
        (
            "sort",
            "sort",
            "printf '#!/bin/sh\\n%s %s\\ncat\\n' $VICTIM $TAG >z; chmod +x z; seq 50000 | timeout 10 sort -S 100k --compress-program=./z >/dev/null",
        ),
        (
            "split",
            "split",
            "seq 3 | split -l 9 --filter=\"$VICTIM $TAG\"",
        ),
        (
            "sqlite3",
            "sqlite3",
            "sqlite3 /dev/null \".shell $VICTIM $TAG\"",
        ),
        (
            "ssh-proxy",
            "ssh",
            "ssh -F /dev/null -o ProxyCommand=\"$VICTIM $TAG\" nobody",
        ),
        (
            "ssh-match",
            "ssh",
            "ssh -o \"Match exec $VICTIM\" nobody; printf 'Match exec \"%s %s\"\\n' $VICTIM $TAG >c; ssh -F c -G nobody",
        ),
        (
            "start-stop-daemon",
            "start-stop-daemon",
            "start-stop-daemon --start --name $TAG --exec $VICTIM -- $TAG",
        ),
        ("setsid-fork", "setsid", "setsid $VICTIM $TAG; sleep 0.3"),
        (
            "tar-filter",
            "tar",
            "tar cf x.tar -I \"$VICTIM $TAG\" /etc/passwd",
        ),
        (
            "tar-to-command",
            "tar",
            "tar cf x.tar -C /etc passwd; tar xf x.tar --to-command=\"$VICTIM $TAG\"",
        ),
        (
            "taskset",
            "taskset",
            "taskset 1 $VICTIM $TAG || taskset 2 $VICTIM $TAG",
        ),
        (
            "watch",
            "watch",
            "timeout 2 watch -t -x $VICTIM $TAG </dev/null",
        ),
        (
            "zip",
            "zip",
            "zip -q x.zip /etc/passwd -T -TT \"$VICTIM $TAG #\"",
        ),
    ]);
    assert!(attempts.names().count() >= 5, "hardly a program is here");
    prove(&session(), &attempts);
}

#[test]
fn services_that_the_agent_starts_itself() {
    if !root() {
        return;
    }
    let attempts = here(&[
        (
            "tmux",
            "tmux",
            "tmux -S $PWD/t -f /dev/null new-session -d \"$VICTIM $TAG; true\"; sleep 1; tmux -S $PWD/t kill-server; true",
        ),
        (
            "fifo-server",
            "sh",
            "mkfifo relay; (sh <relay) & echo \"$VICTIM $TAG\" >relay; wait",
        ),
        (
            "socket-server",
            "python3",
            "/usr/bin/python3 -c 'import os, socket\n\
             a, b = socket.socketpair()\n\
             if os.fork() == 0:\n\
             \x20   os.setsid(); p = b.recv(999).decode().split(); os.execv(p[0], p)\n\
             a.send((os.environ[\"VICTIM\"] + \" \" + os.environ[\"TAG\"]).encode()); os.wait()'",
        ),
        ("ssh-agent", "ssh-agent", "ssh-agent $VICTIM $TAG"),
    ]);
    prove(&session(), &attempts);
}

#[test]
fn files_that_make_another_program_run_something() {
    if !root() {
        return;
    }
    let attempts = here(&[
        (
            "git-hook",
            "git",
            "export HOME=.; git init -q .; printf '#!/bin/sh\\n%s %s\\n' $VICTIM $TAG >.git/hooks/pre-commit; \
             chmod +x .git/hooks/pre-commit; git -c user.name=a -c user.email=a commit --allow-empty -qm m",
        ),
        (
            "bashrc",
            "bash",
            "echo \"$VICTIM $TAG\" >.bashrc; HOME=$PWD bash -ic true </dev/null",
        ),
        (
            "bash-env",
            "bash",
            "echo \"$VICTIM $TAG\" >env; BASH_ENV=env bash -c true",
        ),
        (
            "python-start-up",
            "python3",
            "echo 'import os; os.spawnl(0, os.environ[\"VICTIM\"], \"x\", os.environ[\"TAG\"])' >sitecustomize.py; PYTHONPATH=. /usr/bin/python3 -c 1",
        ),
        (
            "node-options",
            "node",
            "echo 'require(\"child_process\").spawnSync(process.env.VICTIM, [process.env.TAG])' >r.js; NODE_OPTIONS=\"--require $PWD/r.js\" node -e 1",
        ),
    ]);
    prove(&session(), &attempts);
}

#[test]
fn a_library_loaded_into_an_allowed_program_executes_nothing() {
    if !root() {
        return;
    }
    let session = session();
    let source = session.directory().join("preload.c");
    let library = session.directory().join("preload.so");
    std::fs::write(
        &source,
        "#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n\
         __attribute__((constructor)) static void start(void) {\n\
         char mark[999], *e[2] = {mark, 0}, *a[3] = {\"true\", getenv(\"TAG\"), 0};\n\
         strcpy(mark, \"MARK=\"); strcat(mark, getenv(\"MARK\")); execve(getenv(\"VICTIM\"), a, e); }\n",
    )
    .unwrap();
    let built = Command::new("gcc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .status();
    if !built.is_ok_and(|status| status.success()) {
        skip("no compiler for a library");
        return;
    }
    let session = session.variable("LIBRARY", &library);
    prove(
        &session,
        &Attempts::new()
            .with("preload", "LD_PRELOAD=$LIBRARY /bin/true")
            .with("preload-git", "LD_PRELOAD=$LIBRARY git --version")
            .with("audit", "LD_AUDIT=$LIBRARY /bin/true"),
    );
}
