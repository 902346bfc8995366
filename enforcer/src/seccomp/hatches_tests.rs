use std::collections::BTreeSet;

use super::*;

fn shipped() -> &'static Hatches {
    Hatches::shipped().unwrap()
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

fn every_call() -> impl Iterator<Item = (&'static Group, &'static Refusal, &'static Call)> {
    shipped().groups().iter().flat_map(|group| {
        group
            .refusals
            .iter()
            .flat_map(move |refusal| refusal.calls.iter().map(move |call| (group, refusal, call)))
    })
}

#[test]
fn no_rule_is_redundant() {
    let instructions = |hatches: &Hatches| {
        let program = hatches.filter(&[]).unwrap();
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
fn with_a_listener_what_is_recorded_waits_for_its_answer() {
    let filter = shipped().filter_with_listener(&[], &["getppid"]).unwrap();
    let recorded = shipped().recorded_syscalls(&[]).unwrap();
    let ptrace = i32::try_from(libc::SYS_ptrace).unwrap();
    assert!(recorded.contains(&(ptrace, "ptrace")));
    assert!(
        recorded
            .iter()
            .all(|(number, _)| i64::from(*number) != libc::SYS_clone3)
    );
    // Nobody listens: the kernel says ENOSYS. What is not worth a line keeps its errno.
    for (number, errno) in [
        (libc::SYS_ptrace, libc::ENOSYS),
        (libc::SYS_getppid, libc::ENOSYS),
        (libc::SYS_io_uring_setup, libc::EPERM),
        (libc::SYS_getpid, 0),
    ] {
        assert_eq!(
            errno_of(Some(&filter), number as i32, [0; 6]),
            errno,
            "{number}"
        );
    }
    let loose = ["ptrace".to_owned()];
    let recorded = shipped().recorded_syscalls(&loose).unwrap();
    assert!(recorded.iter().all(|(_, group)| *group != "ptrace"));
    shipped()
        .filter_with_listener(&[], &["getpipid"])
        .unwrap_err();
}

#[test]
fn malformed_tables_are_refused() {
    let group = |refuse: &str| {
        Hatches::parse(&format!(
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
