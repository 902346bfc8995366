//! The filter that asks: it stops chosen system calls until the supervisor has answered.
//!
//! It stands behind the filter of refused calls. The kernel takes the strictest answer of all filters, so what
//! is refused there is never asked about here.

use super::filter::BpfProgram;

/// Which system calls the supervisor is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notified {
    /// `execve` and `execveat`.
    pub exec: bool,
    /// `connect`.
    pub connect: bool,
    /// `sendto` with an address.
    pub sendto: bool,
}

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e; // AUDIT_ARCH_X86_64, linux/audit.h
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7; // AUDIT_ARCH_AARCH64

/// The bit of an x32 call's number (asm/unistd.h); other architectures have no numbers so high.
const X32_BIT: u32 = 0x4000_0000;

// Offsets in `struct seccomp_data` (linux/seccomp.h), both architectures little-endian.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIFTH_LOW: u32 = 16 + 4 * 8;
const FIFTH_HIGH: u32 = FIFTH_LOW + 4;

/// Where an instruction jumps to, before offsets are known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Next,
    Allow,
    Notify,
    Kill,
}

/// An instruction: what it is, its constant, and where it goes on equal (or greater) and otherwise.
type Line = (u32, u32, To, To);

/// Builds the filter. Calls by a foreign ABI kill the process, as the other filter has it.
pub fn notify_filter(calls: Notified) -> BpfProgram {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    let number = |call: libc::c_long| call.cast_unsigned() as u32;
    let mut lines: Vec<Line> = vec![
        (LOAD, ARCHITECTURE, To::Next, To::Next),
        (EQUAL, NATIVE, To::Next, To::Kill),
        (LOAD, NUMBER, To::Next, To::Next),
    ];
    if calls.exec {
        lines.push((EQUAL, number(libc::SYS_execve), To::Notify, To::Next));
        lines.push((EQUAL, number(libc::SYS_execveat), To::Notify, To::Next));
    }
    if calls.connect {
        lines.push((EQUAL, number(libc::SYS_connect), To::Notify, To::Next));
    }
    // -1 is what a tracer makes of a call that it skips.
    lines.push((EQUAL, u32::MAX, To::Allow, To::Next));
    lines.push((AT_LEAST, X32_BIT, To::Kill, To::Next));
    if calls.sendto {
        lines.push((EQUAL, number(libc::SYS_sendto), To::Next, To::Allow));
        lines.push((LOAD, FIFTH_LOW, To::Next, To::Next));
        lines.push((EQUAL, 0, To::Next, To::Notify));
        lines.push((LOAD, FIFTH_HIGH, To::Next, To::Next));
        lines.push((EQUAL, 0, To::Allow, To::Notify));
    }
    BpfProgram(assemble(&lines))
}

/// Turns jumps into offsets; the three endings stand last, what comes to the end is allowed.
fn assemble(lines: &[Line]) -> Vec<libc::sock_filter> {
    let end = lines.len();
    let mut program = Vec::with_capacity(end + 3);
    for (at, &(code, k, equal, other)) in lines.iter().enumerate() {
        // Fewer than twenty lines: every offset fits.
        let offset = |to| match to {
            To::Next => 0,
            To::Allow => (end - at - 1) as u8,
            To::Notify => (end - at) as u8,
            To::Kill => (end - at + 1) as u8,
        };
        program.push(libc::sock_filter {
            code: code as u16,
            jt: offset(equal),
            jf: offset(other),
            k,
        });
    }
    for answer in [
        libc::SECCOMP_RET_ALLOW,
        libc::SECCOMP_RET_USER_NOTIF,
        libc::SECCOMP_RET_KILL_PROCESS,
    ] {
        program.push(libc::sock_filter {
            code: (libc::BPF_RET | libc::BPF_K) as u16,
            jt: 0,
            jf: 0,
            k: answer,
        });
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would; the instructions that it uses are few.
    fn run(program: &BpfProgram, data: [u32; 16]) -> u32 {
        let mut at = 0;
        let mut accumulator = 0;
        loop {
            let line = program.instructions()[at];
            at += 1;
            let code = u32::from(line.code);
            let taken = if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
                accumulator = data[line.k as usize / 4];
                continue;
            } else if code == libc::BPF_JMP | libc::BPF_JEQ {
                accumulator == line.k
            } else if code == libc::BPF_JMP | libc::BPF_JGE {
                accumulator >= line.k
            } else {
                return line.k;
            };
            at += usize::from(if taken { line.jt } else { line.jf });
        }
    }

    fn call(number: libc::c_long, address: u64) -> [u32; 16] {
        let mut data = [7; 16];
        data[0] = number.cast_unsigned() as u32;
        data[1] = NATIVE;
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
        for (calls, number, address, expected) in [
            (all, libc::SYS_execve, 0, asked),
            (all, libc::SYS_execveat, 0, asked),
            (all, libc::SYS_connect, 0, asked),
            (all, libc::SYS_sendto, 0, allowed),
            (all, libc::SYS_sendto, 0x1000, asked),
            (all, libc::SYS_sendto, 0x7fff_0000_0000, asked),
            (all, libc::SYS_write, 0x1000, allowed),
            (all, -1, 0x1000, allowed),
            (Notified::default(), libc::SYS_execve, 0, allowed),
            (Notified::default(), libc::SYS_connect, 0, allowed),
            (Notified::default(), libc::SYS_sendto, 1, allowed),
        ] {
            let found = run(&notify_filter(calls), call(number, address));
            assert_eq!(found, expected, "{calls:?} {number} {address:#x}");
        }
    }

    #[test]
    fn a_foreign_abi_kills() {
        let program = notify_filter(Notified {
            exec: true,
            ..Notified::default()
        });
        let mut foreign = call(11, 0);
        foreign[1] = 0x4000_0003; // AUDIT_ARCH_I386
        assert_eq!(run(&program, foreign), libc::SECCOMP_RET_KILL_PROCESS);
        let x32 = call(0x4000_0000 + 520, 0);
        assert_eq!(run(&program, x32), libc::SECCOMP_RET_KILL_PROCESS);
    }
}
