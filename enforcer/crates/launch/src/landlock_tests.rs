use std::io::Read;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::ExitStatus;
use crate::rig::Rig;

#[test]
fn what_a_kernel_gives_is_said_with_its_reason() {
    for (abi, level, word) in [
        (Err(libc::ENOSYS), LandlockLevel::None, "without Landlock"),
        (Err(libc::EOPNOTSUPP), LandlockLevel::None, "lsm="),
        (Ok(1), LandlockLevel::None, "renames"),
        (Ok(2), LandlockLevel::Partial, "6.12"),
        (Ok(5), LandlockLevel::Partial, "6.12"),
        (Ok(6), LandlockLevel::Full, "signalled"),
    ] {
        let domain = LandlockDomain::of(abi, false);
        assert_eq!(domain.level, level, "{abi:?}");
        assert!(domain.why.contains(word), "{}", domain.why);
    }
    assert!(LandlockDomain::of(Ok(6), true).why.contains("abstract"));
}

/// A process of the same user outside the agent, with a word in its memory and an open descriptor 7.
struct Outside(Child, String);

impl Outside {
    fn new(user: u32) -> Self {
        use std::os::unix::process::CommandExt;
        let mut child = Command::new("/usr/bin/perl")
            .args([
                "-e",
                "$| = 1; my $w = 'fine' x 4; open my $f, '<', '/etc/passwd'; \
                 printf \"%d %d\\n\", unpack('J', pack('P', $w)), fileno $f; \
                 while (1) { sleep 1; last if $w !~ /^fine/ }",
            ])
            .uid(user)
            .gid(user)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.as_mut().unwrap();
        let mut byte = [0];
        while byte[0] != b'\n' {
            assert_eq!(out.read(&mut byte).unwrap(), 1);
            line.push(char::from(byte[0]));
        }
        Self(child, line.trim().to_owned())
    }

    fn alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Each way into the process outside: its name and `0`, or the errno.
fn attack(rig: &Rig, outside: &Outside) -> String {
    let (address, fd) = outside.1.split_once(' ').unwrap();
    let pid = outside.0.id();
    // PTRACE_SEIZE, so that nothing is stopped; process_vm_writev of four bytes; pidfd_getfd.
    let (_, out) = rig.perl(&format!(
        "my ($p, $a, $f) = ({pid}, {address}, {fd}); my $w = 'evil'; \
         my $at = unpack('J', pack('P', $w)); \
         my ($l, $r) = (pack('JJ', $at, 4), pack('JJ', $a, 4)); \
         sub say1 {{ print \"$_[0]=\", ($_[1] ? 0 : $!+0), ' ' }} \
         say1('seize', syscall(101, 0x4206, $p, 0, 0) == 0); \
         say1('writev', syscall(311, $p, $l, 1, $r, 1, 0) == 4); \
         my $d = syscall(434, $p, 0); \
         say1('getfd', syscall(438, $d, $f, 0) >= 0); \
         if (open my $m, '+<', \"/proc/$p/mem\") {{ binmode $m; sysseek $m, $a, 0; say1('mem', syswrite($m, $w) == 4) }} \
         else {{ say1('mem', 0) }} \
         say1('environ', open(my $e, '<', \"/proc/$p/environ\")); \
         say1('pidfd', syscall(424, $d, 9, 0, 0) == 0); \
         say1('kill', kill(9, $p) == 1);"
    ));
    out
}

#[cfg(target_arch = "x86_64")]
#[test]
fn processes_outside_cannot_be_traced_nor_signalled() {
    for user in ["nobody", "root"] {
        let Some(mut rig) = Rig::new(&format!("domain-{user}"), user) else {
            return;
        };
        // So that it is the domain that refuses.
        rig.loosened = vec!["ptrace".to_owned()];
        let uid = rig.identity.uid;
        rig.domain = LandlockDomain::none("for comparison");
        let mut outside = Outside::new(uid);
        let said = attack(&rig, &outside);
        let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope")
            .is_ok_and(|scope| scope.trim() != "0");
        // Who has no capability cannot trace a root that has them all, but can signal it.
        if yama || uid == 0 {
            assert!(said.ends_with("pidfd=0 kill=0 "), "{user}: {said}");
        } else {
            assert_eq!(
                said, "seize=0 writev=0 getfd=0 mem=0 environ=0 pidfd=0 kill=0 ",
                "{user}"
            );
        }
        outside.0.wait().unwrap();

        rig.domain = LandlockDomain::probe(false);
        let mut outside = Outside::new(uid);
        let said = attack(&rig, &outside);
        match rig.domain.level {
            LandlockLevel::Full => {
                assert_eq!(
                    said, "seize=1 writev=1 getfd=1 mem=13 environ=13 pidfd=1 kill=1 ",
                    "{user}"
                );
                assert!(outside.alive());
            }
            LandlockLevel::Partial => assert_eq!(
                said, "seize=1 writev=1 getfd=1 mem=13 environ=13 pidfd=0 kill=0 ",
                "{user}"
            ),
            LandlockLevel::None => eprintln!("SKIPPED: {}", rig.domain.why),
        }
    }
}

#[test]
fn inside_the_domain_all_is_as_before() {
    for scopes in [true, false] {
        let Some(mut rig) = Rig::new(&format!("inside-{scopes}"), "nobody") else {
            return;
        };
        rig.domain = if scopes {
            LandlockDomain::probe(true)
        } else {
            // The domain of kernels before 6.12, which every later one takes too.
            LandlockDomain::of(abi().map(|abi| abi.min(ABI_SCOPES - 1)), false)
        };
        if rig.domain.level == LandlockLevel::None {
            eprintln!("SKIPPED: {}", rig.domain.why);
            return;
        }
        // Its own children can be signalled and looked into, files move between directories and file systems.
        let out = rig.sh(
            "mkdir a b; echo 1 >a/f; ln a/f b/hard; mv a/f b/f; mv b c; mkdir d; mv c d; cat d/c/f; \
             t=$(mktemp -d /dev/shm/domain-XXXXXX) && mv d $t && cat $t/d/c/hard && rm -r $t; \
             sleep 100 & kill -9 $!; wait $! 2>/dev/null; echo $?; \
             sleep 100 & readlink /proc/$!/exe >/dev/null && echo seen; kill %2 2>/dev/null || kill $!; wait; \
             mkfifo p && echo piped >p & sleep 0.1; cat p",
        );
        assert_eq!(
            out.lines().collect::<Vec<_>>(),
            ["1", "1", "137", "seen", "piped"],
            "{scopes}: {out}"
        );
        // The launcher still reaches it.
        let child = rig.start(&["/bin/sleep", "100"]);
        nix::sys::signal::kill(child.pid(), nix::sys::signal::Signal::SIGTERM).unwrap();
        let mut child = child;
        assert_eq!(child.wait().unwrap(), ExitStatus::Signal(libc::SIGTERM));
    }
}

#[test]
fn abstract_sockets_of_outside_are_reached_only_without_their_scope() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let Some(mut rig) = Rig::new("abstract", "nobody") else {
        return;
    };
    let name = format!("domain-{}", std::process::id());
    let _ear = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let dial = format!(
        "use Socket; socket(my $s, 1, 1, 0); print connect($s, pack('Sa*', 1, \"\\0{name}\")) ? 0 : $!+0"
    );
    rig.domain = LandlockDomain::probe(false);
    assert_eq!(rig.perl(&dial).1, "0");
    rig.domain = LandlockDomain::probe(true);
    if rig.domain.level == LandlockLevel::Full {
        assert_eq!(rig.perl(&dial).1, libc::EPERM.to_string());
    } else {
        eprintln!("SKIPPED: {}", rig.domain.why);
    }
}

#[test]
fn a_signal_to_all_reaches_nobody_outside() {
    let Some(mut rig) = Rig::new("kill-all", "nobody") else {
        return;
    };
    rig.domain = LandlockDomain::probe(false);
    if rig.domain.level != LandlockLevel::Full {
        eprintln!("SKIPPED: {}", rig.domain.why);
        return;
    }
    let mut outside = Outside::new(rig.identity.uid);
    // Without the domain it would also end what other tests run as this user.
    assert_eq!(
        rig.run(&["/usr/bin/perl", "-e", "kill 9, -1; exit 5"]),
        ExitStatus::Code(5)
    );
    assert!(outside.alive());
}
