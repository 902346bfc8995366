//! Unix sockets, by their names.
//!
//! Where the kernel loads LSM programs the name that the peer is bound to is judged: no link leads around it. Else
//! the address of the call is judged on the cgroup's hooks for unix sockets (Linux 6.7 and later): abstract names say
//! all, a path can be a link, so one process alone may connect to paths, the launcher's connector.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use enforcer_common::{
    event::{
        CAUSE_CONNECTOR, CAUSE_DEFAULT, CAUSE_HOOK, CAUSE_INTERNAL, CAUSE_LISTENER, CAUSE_RULE,
        CAUSE_UNREADABLE, CAUSE_UNSEEN, Header, KIND_UNIX, STAGE_CGROUP, STAGE_LSM, UNIX_NAME_MAX,
        UnixTail, VERDICT_ALLOWED, VERDICT_ERRNO,
    },
    limits::Thing,
    rule::{ALLOW, ASK, DENY},
    seat::{self, SlotState},
};

use super::EPERM;
use crate::{
    event::{Actor, Told, count, now, output, pid, write_header},
    judge::{
        facts::Judgement,
        gate::{self, Action, Passed, Stage},
        listener,
        net::{PASS, REFUSE, seat_of_socket},
        own::is_launchers_socket,
        walk::judge_name,
    },
    maps::{POLICIES, PROFILES, offset, slot_state},
    scan::masked,
    scratch::{Scratch, UNIX_NAME_ROOM, claim_scratch, release_scratch},
    task::{self, Membership, read_kernel, unproven},
};

/// Bytes of a `sockaddr_un` before the name.
const FAMILY_BYTES: u32 = 2;
/// Longer than any name and all ones.
const NAME_MASK: u32 = UNIX_NAME_ROOM as u32 - 1;
/// Bytes that `/var/run/` has more than `/run/`, which it is a link to.
const VAR_BYTES: u32 = 4;

const _: () = assert!(UNIX_NAME_MAX < UNIX_NAME_ROOM && UNIX_NAME_ROOM.is_power_of_two());

/// The name is the one that the peer is bound to.
const BOUND: u32 = 0;
/// A connect to the name of the call.
pub const CONNECT: u32 = 1;
/// A datagram to the name of the call.
pub const SEND: u32 = 2;

/// What is wanted of a socket.
#[repr(C)]
struct Wanted {
    /// Who wants it.
    sock: u64,
    /// The peer, if it is known.
    other: u64,
    /// Where the `sockaddr_un` lies in the kernel.
    address: u64,
    /// Whose it is.
    seat: u32,
    /// Bytes of the address.
    length: u32,
    /// [`BOUND`], [`CONNECT`] or [`SEND`].
    way: u32,
    /// Whether an allowance is no news.
    silent: u32,
}

impl Wanted {
    /// What it is to the breaker.
    #[inline(always)]
    fn thing(&self) -> Thing {
        if self.way == BOUND {
            Thing::socket(self.other)
        } else {
            Thing::NONE
        }
    }
}

/// Judges the name that `other` is bound to.
#[inline(always)]
pub fn bound_peer(sock: u64, other: u64, record_allowed: bool) -> i32 {
    let seat = match task::membership() {
        Membership::Outside => return 0,
        Membership::Inside(seat) | Membership::Escaped(seat) => seat,
        Membership::Orphaned => return -EPERM,
    };
    let Some(address) = read_kernel::<u64>(other + offset!(unix_address)) else {
        return -EPERM;
    };
    // A socket without a name is one end of a pair, or one that connected to us.
    if address == 0 {
        return 0;
    }
    let length = read_kernel::<u32>(address + offset!(unix_address_length)).unwrap_or(0);
    let name = address + offset!(unix_address_name);
    let wanted = Wanted {
        sock,
        other,
        address: name,
        seat,
        length,
        way: BOUND,
        silent: u32::from(!record_allowed),
    };
    if unproven(settle_unix(&wanted)) == 0 {
        -EPERM
    } else {
        0
    }
}

/// Judges the address of the call. The context's fields are those of addresses of the internet; the kernel's own
/// structure behind it has the rest.
#[inline(always)]
pub fn called(context: u64, way: u32) -> i32 {
    let (Some(sock), Some(address), Some(length)) = (
        read_kernel::<u64>(context + offset!(sock_address_sock)),
        read_kernel::<u64>(context + offset!(sock_address_user)),
        read_kernel::<u32>(context + offset!(sock_address_length)),
    ) else {
        return REFUSE;
    };
    let Some(seat) = seat_of_socket(sock) else {
        return REFUSE;
    };
    let wanted = Wanted {
        sock,
        other: 0,
        address,
        seat,
        length,
        way,
        silent: 0,
    };
    if unproven(settle_unix(&wanted)) == 0 {
        REFUSE
    } else {
        PASS
    }
}

/// Judges what is wanted, and records it; whether it may be reached. A global function: the verifier walks it once,
/// whatever is known where it is called.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn settle_unix(wanted: *const Wanted) -> u32 {
    // SAFETY: null, or a `Wanted` of the caller's.
    let Some(wanted) = (unsafe { wanted.as_ref() }) else {
        return 0;
    };
    let seat = wanted.seat;
    let start = now();
    if wanted.length <= FAMILY_BYTES {
        // No name: the kernel refuses it, or (a bound peer) there is nothing to judge.
        return 1;
    }
    let Some(state) = slot_state(seat) else {
        return 0;
    };
    let Some(scratch) = claim_scratch() else {
        return 0;
    };
    let judgement = weigh(wanted, scratch).forgotten();
    // SAFETY: claimed scratch memory.
    let silent = judgement.decision == ALLOW
        && (wanted.silent != 0
            || unsafe { ptr::read_volatile(ptr::addr_of!((*scratch).unix_silent)) } != 0);
    let mut passes = silent;
    if !silent {
        // The only stage, and so the last one. What is asked about is approved by the launcher, which makes the connect.
        let Passed { judgement, tripped } = gate::pass(
            judgement,
            (seat, state),
            Action::Connect,
            Stage::Last,
            || false,
            || wanted.thing(),
        );
        let recorded = record(wanted, state, scratch, judgement, tripped, start);
        passes = judgement.decision == ALLOW && recorded;
        if passes {
            gate::gone_on(judgement, seat, state);
        }
    }
    release_scratch(scratch);
    u32::from(passes || seat::observed(seat))
}

/// Whether the current process is the launcher's connector; and whether connects are left to it: while the agent is only
/// observed the supervisor lets each call go on.
#[inline(always)]
fn connector(seat: u32) -> (bool, bool) {
    let Some(profile) = PROFILES.get_ptr(seat::slot(seat)) else {
        return (false, false);
    };
    // SAFETY: a field of a map value.
    let connector = unsafe { (*profile).connector };
    (
        connector != 0 && connector == pid(),
        connector != 0 && !seat::observed(seat),
    )
}

#[inline(always)]
fn weigh(wanted: &Wanted, scratch: *mut Scratch) -> Judgement {
    let Wanted {
        other,
        seat,
        length,
        way,
        ..
    } = *wanted;
    let name = wanted.address + u64::from(FAMILY_BYTES);
    let because = |cause| Judgement {
        decision: DENY,
        cause,
        rank: 0,
    };
    let Some(header) = POLICIES.get_ptr(seat::generation(seat)) else {
        return because(CAUSE_INTERNAL);
    };
    // SAFETY: map values; lengths are masked below the room of each array.
    unsafe {
        (*scratch).unreadable = 0;
        (*scratch).unix_silent = 0;
        (*scratch).unix.tail.name_len = 0;
        let length = length - FAMILY_BYTES;
        if length > UNIX_NAME_MAX as u32 {
            return because(CAUSE_UNREADABLE);
        }
        let length = masked(scratch, length, NAME_MASK);
        let text = ptr::addr_of_mut!((*scratch).text).cast::<u8>();
        if bpf_probe_read_kernel(text.cast(), length, name as *const c_void) != 0 {
            return because(CAUSE_UNREADABLE);
        }
        // A path ends at its NUL, or where the address ends.
        *text.add(length as usize) = 0;
        let path = ptr::addr_of_mut!((*scratch).path).cast::<u8>();
        let abstract_name = *text == 0;
        let mut skip = 0;
        if abstract_name {
            bpf_probe_read_kernel(path.cast(), length, text.cast());
            *path = b'@';
            (*scratch).path_len = length;
        } else {
            let read = bpf_probe_read_kernel_str(path.cast(), UNIX_NAME_ROOM as u32, text.cast());
            if read <= 1 {
                return because(CAUSE_UNREADABLE);
            }
            (*scratch).path_len = read as u32 - 1;
            if is_var_run(path) {
                skip = VAR_BYTES;
            }
        }
        let from = masked(scratch, skip, VAR_BYTES | 3);
        let length = masked(scratch, (*scratch).path_len.wrapping_sub(from), NAME_MASK);
        let source = path.add(from as usize);
        bpf_probe_read_kernel(text.cast(), length, source.cast());
        let kept = ptr::addr_of_mut!((*scratch).unix.name).cast::<u8>();
        bpf_probe_read_kernel(kept.cast(), length, source.cast());
        (*scratch).unix.tail.name_len = length;

        let absolute = *text == b'/';
        let rank = judge_name(scratch, seat, length);
        if (*scratch).unreadable != 0 {
            return because(CAUSE_INTERNAL);
        }
        let judgement = if rank == 0 {
            Judgement {
                decision: (*header).unix_default,
                cause: CAUSE_DEFAULT,
                rank,
            }
        } else {
            Judgement {
                decision: if rank >= (*header).unix_deny_from {
                    DENY
                } else if rank >= (*header).unix_ask_from {
                    ASK
                } else {
                    ALLOW
                },
                cause: CAUSE_RULE,
                rank,
            }
        };
        if way == BOUND
            && !abstract_name
            && judgement.decision == ALLOW
            && is_launchers_socket(scratch, seat, length) != 0
        {
            return Judgement {
                cause: CAUSE_HOOK,
                ..judgement
            };
        }
        // Where no rule speaks, it matters whose the socket is.
        let open = rank == 0 && judgement.decision == ALLOW && (*header).outside_unix != ALLOW;
        let judgement = if open && way == BOUND && listener::is_outside(other, seat) {
            Judgement {
                decision: (*header).outside_unix,
                cause: CAUSE_LISTENER,
                rank,
            }
        } else {
            judgement
        };
        let (is_connector, exists) = connector(seat);
        if abstract_name && way != BOUND {
            // The launcher sees whose it is, and makes the connect.
            return if !open || way == CONNECT && !exists {
                judgement
            } else if way == CONNECT && is_connector {
                (*scratch).unix_silent = 1;
                Judgement {
                    decision: ALLOW,
                    cause: CAUSE_CONNECTOR,
                    rank: 0,
                }
            } else {
                because(CAUSE_UNSEEN)
            };
        }
        if way == BOUND && !(is_connector && judgement.decision == ASK) {
            return judgement;
        }
        // From here on the name is a path, which may be a link to another socket.
        if way != SEND {
            if is_connector {
                // It was judged, and is recorded, by the launcher.
                (*scratch).unix_silent = 1;
                return Judgement {
                    decision: ALLOW,
                    cause: CAUSE_CONNECTOR,
                    rank: 0,
                };
            }
            if exists && judgement.decision != DENY {
                return because(CAUSE_CONNECTOR);
            }
            return judgement;
        }
        // Without any rule there is none to get around.
        let ruled = rank != 0 && absolute || (*header).unix.count == 0;
        if judgement.decision == ALLOW && !ruled {
            return because(CAUSE_CONNECTOR);
        }
        judgement
    }
}

/// Whether a path starts with `/var/run/`.
///
/// # Safety
///
/// At least nine bytes may be read.
#[inline(always)]
unsafe fn is_var_run(path: *const u8) -> bool {
    const PREFIX: [u8; 9] = *b"/var/run/";
    let mut at = 0;
    let mut differs = 0;
    while at < PREFIX.len() {
        // SAFETY: by contract.
        differs |= unsafe { *path.add(at) } ^ PREFIX[at];
        at += 1;
    }
    differs == 0
}

/// Writes the event and counts it; false when there was no room.
#[inline(always)]
fn record(
    wanted: &Wanted,
    state: *mut SlotState,
    scratch: *mut Scratch,
    judgement: Judgement,
    tripped: u64,
    start: u64,
) -> bool {
    let seat = wanted.seat;
    let stage = if wanted.way == BOUND {
        STAGE_LSM
    } else {
        STAGE_CGROUP
    };
    let allowed = judgement.decision == ALLOW || seat::observed(seat);
    // SAFETY: map values; the length is masked.
    unsafe {
        let event = ptr::addr_of_mut!((*scratch).unix);
        task::program_of(
            task::current_address(),
            ptr::addr_of_mut!((*event).tail.program).cast(),
        );
        (*event).tail.socket_type =
            u32::from(read_kernel::<u16>(wanted.sock + offset!(sock_type)).unwrap_or(0));
        let told = Told {
            kind: KIND_UNIX,
            stage,
            verdict: if allowed {
                VERDICT_ALLOWED
            } else {
                VERDICT_ERRNO
            },
            judgement,
            start: Some(start),
            approval: 0,
            tripped,
            flags: 0,
        };
        let header = ptr::addr_of_mut!((*event).header);
        write_header(header, seat, state, Actor::Current, &told);
        let name_len = masked(scratch, (*event).tail.name_len, NAME_MASK);
        let recorded = output(
            seat,
            state,
            event.cast(),
            (size_of::<Header>() + size_of::<UnixTail>()) as u64 + u64::from(name_len),
        );
        count(if allowed && recorded {
            ptr::addr_of_mut!((*state).connect_allowed)
        } else {
            ptr::addr_of_mut!((*state).connect_denied)
        });
        recorded
    }
}
