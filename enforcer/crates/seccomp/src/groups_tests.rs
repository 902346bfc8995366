use std::collections::BTreeSet;

use super::*;

fn shipped() -> &'static SyscallGroups {
    SyscallGroups::shipped().unwrap()
}

/// Arguments for which all the conditions hold, or `None` where one does not once `broken`.
fn arguments(when: &[Condition], broken: bool) -> Option<[u64; 6]> {
    let mut arguments = [0; 6];
    for condition in when {
        let value = match (&condition.test, broken) {
            (Test::OneOf(values) | Test::AnyBit(values), false) | (Test::NoneOf(values), true) => {
                u64::from(values[0])
            }
            (Test::NoneOf(values), false) => u64::from(values[values.len() - 1]) + 1,
            (Test::OneOf(_) | Test::AnyBit(_), true) => 0,
        };
        arguments[condition.argument as usize] = value;
    }
    (!broken || !when.is_empty()).then_some(arguments)
}

/// The errno of a call in a child process, after `filter` has been loaded there; 0 when it succeeded.
fn errno_of(filter: Option<&BpfProgram>, number: i32, arguments: [u64; 6]) -> i32 {
    let program = filter.map(|filter| libc::sock_fprog {
        len: filter.instructions().len() as libc::c_ushort,
        filter: filter.instructions().as_ptr().cast_mut(),
    });
    // SAFETY: the child makes system calls only, on memory that exists before the fork.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0);
        if child == 0 {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            if let Some(program) = &program
                && libc::syscall(
                    libc::SYS_seccomp,
                    libc::SECCOMP_SET_MODE_FILTER,
                    0,
                    std::ptr::from_ref(program),
                ) < 0
            {
                libc::_exit(255);
            }
            let [first, second, third, rest @ ..] = arguments;
            let result = libc::syscall(
                number.into(),
                first,
                second,
                third,
                rest[0],
                rest[1],
                rest[2],
            );
            libc::_exit(if result < 0 {
                *libc::__errno_location()
            } else {
                0
            });
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert!(libc::WIFEXITED(status), "{number}: {status:x}");
        let errno = libc::WEXITSTATUS(status);
        assert_ne!(errno, 255, "the filter was not taken");
        errno
    }
}

#[test]
fn every_group_says_why_and_names_what_libseccomp_knows() {
    let mut names = BTreeSet::new();
    for group in shipped().groups() {
        assert!(names.insert(&group.name), "{} twice", group.name);
        assert!(
            group.why.len() > 40 && !group.why.ends_with('.'),
            "{}",
            group.name
        );
        assert!(!group.refusals.is_empty(), "{}", group.name);
        for refusal in &group.refusals {
            assert!(!refusal.calls.is_empty(), "{}", group.name);
        }
    }
}

#[test]
fn every_refusal_gets_its_errno_from_the_filter() {
    let filter = shipped().filter(&[]).unwrap();
    let root = nix::unistd::geteuid().is_root();
    let mut told_apart = 0;
    for (group, refusal, call) in every_call() {
        let Some(number) = call.number else { continue };
        let bad = arguments(&refusal.when, false).unwrap();
        assert_eq!(
            errno_of(Some(&filter), number, bad),
            refusal.errno,
            "{}: {}",
            group.name,
            call.name
        );
        assert_eq!(
            shipped()
                .refused(&[], number, &bad)
                .unwrap()
                .map(|refused| (refused.group, refused.errno)),
            Some((group.name.as_str(), refusal.errno))
        );
        // Root may: so the kernel itself says something else, if only that the arguments are nonsense.
        let open = [group.name.clone()];
        let loosened = shipped().filter(&open).unwrap();
        told_apart += usize::from(errno_of(Some(&loosened), number, bad) != refusal.errno);
        // What the conditions let through is not refused by this refusal.
        if let Some(good) = arguments(&refusal.when, true) {
            assert_ne!(
                errno_of(Some(&filter), number, good),
                refusal.errno,
                "{}: {}",
                group.name,
                call.name
            );
            let refused = shipped().refused(&[], number, &good).unwrap();
            assert!(refused.is_none_or(|refused| refused.group != group.name));
        }
    }
    if root {
        let all = every_call().count();
        // A few calls answer root like everybody here: what the kernel was built without, or io_uring switched off.
        assert!(told_apart * 10 >= all * 7, "{told_apart} of {all}");
    }
}

fn every_call() -> impl Iterator<
    Item = (
        &'static SyscallGroup,
        &'static SyscallRule,
        &'static NamedCall,
    ),
> {
    shipped().groups().iter().flat_map(|group| {
        group
            .refusals
            .iter()
            .flat_map(move |refusal| refusal.calls.iter().map(move |call| (group, refusal, call)))
    })
}

#[test]
fn no_rule_is_redundant() {
    let instructions = |groups: &SyscallGroups| {
        let program = groups.filter(&[]).unwrap();
        program
            .instructions()
            .iter()
            .map(|one| (one.code, one.jt, one.jf, one.k))
            .collect::<Vec<_>>()
    };
    let whole = instructions(shipped());
    assert!((50..4096).contains(&whole.len()), "{}", whole.len());
    for (g, group) in shipped().groups().iter().enumerate() {
        for (r, refusal) in group.refusals.iter().enumerate() {
            for (c, call) in refusal.calls.iter().enumerate() {
                let mut less = shipped().clone();
                less.groups[g].refusals[r].calls.remove(c);
                let differs = call.number.is_none() || instructions(&less) != whole;
                assert!(differs, "{}: {} is refused twice", group.name, call.name);
            }
        }
    }
}

#[test]
fn a_name_that_is_no_group_is_refused_with_the_known_ones() {
    let error = shipped().filter(&["ptrase".to_owned()]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("`ptrase`") && text.contains("ptrace, bpf"),
        "{text}"
    );
}

#[test]
fn nobody_is_asked_about_what_is_refused_and_judged_both() {
    let judged = ["execve", "execveat", "connect", "sendto"];
    assert!(every_call().all(|(_, _, call)| !judged.contains(&call.name.as_str())));
}

#[test]
fn with_a_listener_what_is_recorded_waits_for_its_answer() {
    let calls = Notified {
        connect: true,
        ..Notified::default()
    };
    let filter = shipped().filter_with_listener(&[], calls).unwrap();
    let mut silent = 0;
    for (group, refusal, call) in every_call() {
        let Some(number) = call.number else { continue };
        let bad = arguments(&refusal.when, false).unwrap();
        // Nobody listens: the kernel says ENOSYS. What is not worth a line keeps its errno.
        let expected = if refusal.record {
            libc::ENOSYS
        } else {
            silent += 1;
            refusal.errno
        };
        let errno = errno_of(Some(&filter), number, bad);
        assert_eq!(errno, expected, "{}: {}", group.name, call.name);
    }
    assert!(silent >= 3, "{silent}");
    for (number, errno) in [(libc::SYS_connect, libc::ENOSYS), (libc::SYS_getpid, 0)] {
        let found = errno_of(Some(&filter), number as i32, [0; 6]);
        assert_eq!(found, errno, "{number}");
    }
    let loose = ["ptrace".to_owned()];
    let filter = shipped().filter_with_listener(&loose, calls).unwrap();
    let ptrace = i32::try_from(libc::SYS_ptrace).unwrap();
    let errno = errno_of(Some(&filter), ptrace, [u64::MAX; 6]);
    assert_ne!(errno, libc::ENOSYS);
}

/// Runs a filter as the kernel would; the instructions that libseccomp uses are few.
fn run(program: &BpfProgram, data: [u32; 16]) -> u32 {
    let mut at = 0;
    let mut accumulator = 0;
    loop {
        let line = program.instructions()[at];
        at += 1;
        let code = u32::from(line.code);
        let taken = match code & 7 {
            libc::BPF_LD => {
                assert_eq!(code, libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
                accumulator = data[line.k as usize / 4];
                continue;
            }
            libc::BPF_ALU => {
                assert_eq!(code, libc::BPF_ALU | libc::BPF_AND | libc::BPF_K);
                accumulator &= line.k;
                continue;
            }
            libc::BPF_RET => return line.k,
            libc::BPF_JMP => match code & 0xf0 {
                libc::BPF_JA => {
                    at += line.k as usize;
                    continue;
                }
                libc::BPF_JEQ => accumulator == line.k,
                libc::BPF_JGE => accumulator >= line.k,
                libc::BPF_JGT => accumulator > line.k,
                libc::BPF_JSET => accumulator & line.k != 0,
                other => panic!("jump {other:#x}"),
            },
            other => panic!("class {other}"),
        };
        at += usize::from(if taken { line.jt } else { line.jf });
    }
}

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e; // AUDIT_ARCH_X86_64, linux/audit.h
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7; // AUDIT_ARCH_AARCH64

/// `struct seccomp_data` (linux/seccomp.h) of a call whose arguments are all 7 but for an address as the fifth.
fn seccomp_data(number: libc::c_long, address: u64) -> [u32; 16] {
    let mut data = [0; 16];
    data[0] = number.cast_unsigned() as u32;
    data[1] = NATIVE;
    for argument in 0..6 {
        data[4 + 2 * argument] = 7;
    }
    data[12] = address as u32;
    data[13] = (address >> 32) as u32;
    data
}

#[test]
fn what_is_chosen_is_asked_about_and_nothing_else() {
    let all = Notified {
        exec: true,
        connect: true,
        sendto: true,
    };
    let asked = libc::SECCOMP_RET_USER_NOTIF;
    let allowed = libc::SECCOMP_RET_ALLOW;
    let silent = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    for (calls, number, address, expected) in [
        (all, libc::SYS_execve, 0, asked),
        (all, libc::SYS_execveat, 0, asked),
        (all, libc::SYS_connect, 0, asked),
        (all, libc::SYS_sendto, 0, allowed),
        (all, libc::SYS_sendto, 0x1000, asked),
        (all, libc::SYS_sendto, 0x7fff_0000_0000, asked),
        (all, libc::SYS_write, 0x1000, allowed),
        (all, libc::SYS_ptrace, 0, asked),
        (all, libc::SYS_clone3, 0, silent),
        // What a tracer makes of a call that it skips.
        (all, -1, 0x1000, allowed),
        (Notified::default(), libc::SYS_execve, 0, allowed),
        (Notified::default(), libc::SYS_connect, 0, allowed),
        (Notified::default(), libc::SYS_sendto, 1, allowed),
        (Notified::default(), libc::SYS_ptrace, 0, asked),
    ] {
        let filter = shipped().filter_with_listener(&[], calls).unwrap();
        let found = run(&filter, seccomp_data(number, address));
        assert_eq!(found, expected, "{calls:?} {number} {address:#x}");
    }
}

#[test]
fn a_foreign_abi_kills() {
    let with = shipped()
        .filter_with_listener(&[], Notified::default())
        .unwrap();
    for program in [with, shipped().filter(&[]).unwrap()] {
        let mut foreign = seccomp_data(11, 0);
        foreign[1] = 0x4000_0003; // AUDIT_ARCH_I386
        assert_eq!(run(&program, foreign), libc::SECCOMP_RET_KILL_PROCESS);
        if cfg!(target_arch = "x86_64") {
            let x32 = seccomp_data(0x4000_0000 + 520, 0);
            assert_eq!(run(&program, x32), libc::SECCOMP_RET_KILL_PROCESS);
        }
    }
}

#[test]
fn malformed_tables_are_refused() {
    let group = |refuse: &str| {
        SyscallGroups::parse(&format!(
            r#"{{"groups": [{{"name": "n", "why": "w", "refuse": [{refuse}]}}]}}"#
        ))
    };
    group(r#"{"syscalls": ["socket"], "errno": "EPERM", "record": false}"#).unwrap();
    for (refuse, what) in [
        (
            r#"{"syscalls": ["sokcet"], "errno": "EPERM", "record": false}"#,
            "`sokcet`",
        ),
        (
            r#"{"syscalls": ["socket"], "errno": "EPREM", "record": false}"#,
            "`EPREM`",
        ),
        (r#"{"syscalls": ["socket"], "errno": "EPERM"}"#, "record"),
        (
            r#"{"syscalls": ["socket"], "errno": "EPERM", "record": false, "x": 1}"#,
            "`x`",
        ),
        (
            r#"{"syscalls": ["socket"], "errno": "EPERM", "record": false, "when": [{"argument": 6, "one_of": [1]}]}"#,
            "argument 6",
        ),
        (
            r#"{"syscalls": ["socket"], "errno": "EPERM", "record": false, "when": [{"argument": 0}]}"#,
            "one_of",
        ),
        (
            r#"{"syscalls": ["socket"], "errno": "EPERM", "record": false, "when": [{"argument": 0, "one_of": []}]}"#,
            "empty",
        ),
        (
            r#"{"syscalls": ["socket"], "errno": "EPERM", "record": false, "when": [{"argument": 0, "one_of": ["AF_X"]}]}"#,
            "`AF_X`",
        ),
    ] {
        let error = group(refuse).unwrap_err();
        assert!(error.contains(what), "{refuse}: {error}");
    }
}
