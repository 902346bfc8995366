//! Addresses and sockets: where somebody wants to, what the rules say of it, and what becomes of it.

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::{bindings::bpf_sock_addr, maps::lpm_trie::Key};
use enforcer_common::{
    address,
    event::{
        CAUSE_DEFAULT, CAUSE_FAMILY, CAUSE_INTERNAL, CAUSE_LISTENER, CAUSE_RULE, ConnectTail,
        Header, KIND_CONNECT, STAGE_CGROUP, STAGE_LSM, VERDICT_ALLOWED, VERDICT_ERRNO,
    },
    limits::Thing,
    rule::{ALLOW, CONNECT_KEY_BITS, ConnectKey, DENY, judged_protocol},
    seat::{self, SlotState},
};

use crate::{
    event::{Actor, Told, count, output, write_header},
    judge::{
        facts::Judgement,
        gate::{self, Action, Passed, Stage},
        grant::connect_granted,
        listener,
    },
    maps::{CONNECTS, POLICIES, network, offset, seat_of, slot_state},
    task::{self, forgotten, read_kernel_or_zero, unproven},
};

pub const AF_INET: u32 = 2;
pub const AF_INET6: u32 = 10;
pub const SOCK_DGRAM: u32 = 2;
pub const IPPROTO_TCP: u32 = 6;

/// Returned by a program on a cgroup: it may go on.
pub const PASS: i32 = 1;
/// Returned by a program on a cgroup: it fails with EPERM.
pub const REFUSE: i32 = 0;

/// An event of a connect or a socket.
#[repr(C)]
pub struct NetEvent {
    /// Header.
    pub header: Header,
    /// What was connected to.
    pub tail: ConnectTail,
}

/// Whose a socket is that a program on an agent's cgroup runs for: the agent's of whoever uses it, else of whoever made
/// it. It may have been handed to a process outside.
#[inline(always)]
pub fn seat_of_socket(sock: u64) -> Option<u32> {
    match socket_seat(sock) {
        NO_SEAT => None,
        seat => Some(seat),
    }
}

/// No agent's: all bits are set in no seat.
const NO_SEAT: u32 = u32::MAX;

/// See [`seat_of_socket`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn socket_seat(sock: u64) -> u32 {
    let slot = task::slot_by_cgroup()
        .or_else(|| task::slot_of_cgroup(read_kernel_or_zero::<u64>(sock + offset!(sock_cgroup))));
    slot.and_then(seat_of).unwrap_or(NO_SEAT)
}

/// An IPv4 address (network order in memory) as the trie knows it.
#[inline(always)]
pub fn v4_address(ip: u32) -> [u8; 16] {
    address::normalise(address::from_v4(ip.to_ne_bytes()))
}

/// An IPv6 address (network order in memory) as the trie knows it.
#[inline(always)]
pub fn v6_address(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are sixteen plain bytes.
    address::normalise(unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) })
}

/// Where a connect or a datagram goes.
#[repr(C)]
pub struct Aim {
    /// The address, as the trie knows it.
    pub address: [u8; 16],
    /// Whose it is.
    pub seat: u32,
    /// Port, 0 for none.
    pub port: u32,
    /// Protocol of the socket.
    pub protocol: u32,
    /// Family of the socket.
    pub family: u32,
    /// Type of the socket.
    pub socket_type: u32,
    /// Zero.
    pub reserved: u32,
}

impl Aim {
    /// What it is to the breaker.
    #[inline(always)]
    pub fn thing(&self) -> Thing {
        Thing::address(&self.address, self.protocol, self.port)
    }

    /// Writes what an event says of it, and of the program of a task.
    ///
    /// # Safety
    ///
    /// `tail` is valid to write.
    #[inline(always)]
    pub unsafe fn describe(&self, tail: *mut ConnectTail, task: u64) {
        // SAFETY: by contract.
        unsafe {
            (*tail).address = self.address;
            (*tail).port = self.port;
            (*tail).protocol = self.protocol;
            (*tail).family = self.family;
            (*tail).socket_type = self.socket_type;
            task::program_of(task, ptr::addr_of_mut!((*tail).program).cast());
        }
    }
}

/// Judges a connect or a datagram to an address, and does what follows.
#[inline(always)]
pub fn judge<const CONNECT: bool>(
    context: *mut bpf_sock_addr,
    address: [u8; 16],
    port: u16,
    protocol: u32,
    family: u32,
    socket_type: u32,
    start: u64,
) -> i32 {
    // SAFETY: the verifier turns this into a read of the context.
    let sock = forgotten(unsafe { (*context).__bindgen_anon_1.sk } as u64);
    let Some(seat) = seat_of_socket(sock) else {
        return REFUSE;
    };
    let aim = Aim {
        address,
        seat,
        port: u32::from(port),
        protocol: judged_protocol(protocol),
        family,
        socket_type,
        reserved: 0,
    };
    let mut judgement = weigh(&aim);
    if CONNECT {
        let decision = by_listener(context, &aim, judgement.decision);
        if decision != ALLOW {
            judgement = Judgement {
                decision,
                cause: CAUSE_LISTENER,
                rank: 0,
            };
        }
    }
    if unproven(settle(&aim, judgement.packed(), start)) == 0 {
        REFUSE
    } else {
        PASS
    }
}

/// What becomes of a connect or a datagram that was judged: recorded, and passed, or refused (0).
///
/// A global function, as all that no context is needed for: the verifier walks it once for a program, whatever is known
/// where it is called.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn settle(aim: *const Aim, judgement: u64, start: u64) -> u32 {
    // SAFETY: null, or an `Aim` of the caller's.
    let Some(aim) = (unsafe { aim.as_ref() }) else {
        return 0;
    };
    let seat = aim.seat;
    let Some(state) = slot_state(seat) else {
        return 0;
    };
    let mut approval = 0;
    let Passed { judgement, tripped } = gate::pass(
        Judgement::unpacked(judgement),
        (seat, state),
        Action::Connect,
        Stage::Last,
        || {
            approval = connect_granted(aim, 1);
            approval != 0
        },
        || aim.thing(),
    );
    let what = KIND_CONNECT | STAGE_CGROUP << 16;
    let recorded = record(aim, what, judgement, (approval, tripped), start);
    let passes = judgement.permits() && recorded;
    if passes {
        gate::gone_on(judgement, seat, state);
    }
    u32::from(passes || seat::observed(seat))
}

/// What the policy says of an allowed connect to this machine because of who listens there; else [`ALLOW`].
#[inline(never)]
fn by_listener(context: *mut bpf_sock_addr, aim: &Aim, decision: u32) -> u32 {
    if decision != ALLOW || aim.protocol != IPPROTO_TCP || !address::is_loopback(&aim.address) {
        return ALLOW;
    }
    let Some(header) = POLICIES.get(seat::generation(aim.seat)) else {
        return ALLOW;
    };
    let port = aim.port as u16;
    if header.outside_tcp == ALLOW || names_port(aim.seat, aim.address, port) {
        return ALLOW;
    }
    let sock = listener::of_tcp(context, &aim.address, port);
    if sock != 0 && listener::is_outside(sock, aim.seat) {
        return header.outside_tcp;
    }
    ALLOW
}

/// Whether a rule names the TCP port for the address.
#[inline(always)]
fn names_port(seat: u32, address: [u8; 16], port: u16) -> bool {
    let Some(connects) = CONNECTS.get(seat::generation(seat)) else {
        return false;
    };
    let mut key = Key::new(
        CONNECT_KEY_BITS + 128,
        ConnectKey {
            protocol: 0,
            port: port.to_be(),
            address,
        },
    );
    let any = network(connects, &key).rank != 0;
    key.data.protocol = (IPPROTO_TCP as u16).to_be();
    any || network(connects, &key).rank != 0
}

/// Whether a connect is refused before the cgroup's program sees it, if that does.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn refuses(aim: *const Aim, start: u64) -> u32 {
    // SAFETY: null, or an `Aim` of the caller's.
    let Some(aim) = (unsafe { aim.as_ref() }) else {
        return 1;
    };
    let judgement = if aim.family == AF_INET || aim.family == AF_INET6 {
        weigh(aim)
    } else {
        Judgement {
            decision: DENY,
            cause: CAUSE_FAMILY,
            rank: 0,
        }
    };
    let Some(state) = slot_state(aim.seat) else {
        return 1;
    };
    // The cgroup program behind this one uses the grant up. (It does not run for a socket from outside the cgroup: that grant
    // lasts until it expires.)
    let Passed { judgement, tripped } = gate::pass(
        judgement,
        (aim.seat, state),
        Action::Connect,
        Stage::Early,
        || connect_granted(aim, 0) != 0,
        || aim.thing(),
    );
    if judgement.permits() {
        // The cgroup program behind this one takes from the rates and records the allowance.
        return 0;
    }
    record(
        aim,
        KIND_CONNECT | STAGE_LSM << 16,
        judgement,
        (0, tripped),
        start,
    );
    1
}

/// The strictest rule over the four forms of protocol and port.
#[inline(always)]
pub fn weigh(aim: &Aim) -> Judgement {
    Judgement::unpacked(weigh_address(aim))
}

/// See [`weigh`]; a packed [`Judgement`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weigh_address(aim: *const Aim) -> u64 {
    let internal = Judgement {
        decision: DENY,
        cause: CAUSE_INTERNAL,
        rank: 0,
    };
    // SAFETY: null, or an `Aim` of the caller's.
    let Some(aim) = (unsafe { aim.as_ref() }) else {
        return internal.packed();
    };
    let Some(header) = POLICIES.get(seat::generation(aim.seat)) else {
        return internal.packed();
    };
    let Some(connects) = CONNECTS.get(seat::generation(aim.seat)) else {
        return internal.packed();
    };
    let mut key = Key::new(
        CONNECT_KEY_BITS + 128,
        ConnectKey {
            protocol: 0,
            port: 0,
            address: aim.address,
        },
    );
    let mut rank = 0;
    let mut decision = header.connect_default;
    let mut form = 0u32;
    while form < 4 {
        key.data.protocol = if form & 1 != 0 {
            (aim.protocol as u16).to_be()
        } else {
            0
        };
        key.data.port = if form & 2 != 0 {
            (aim.port as u16).to_be()
        } else {
            0
        };
        let value = network(connects, &key);
        if value.rank > rank {
            rank = value.rank;
            decision = value.decision;
        }
        form += 1;
    }
    Judgement {
        decision,
        cause: if rank == 0 { CAUSE_DEFAULT } else { CAUSE_RULE },
        rank,
    }
    .packed()
}

/// Writes the event of a connect or a socket and counts it; false when there was no room. `what` is the kind and, in the upper
/// half, the stage; then come the number of the approved request and the denials in a row if this one opened the breaker.
#[inline(always)]
pub fn record(
    aim: &Aim,
    what: u32,
    judgement: Judgement,
    (approval, tripped): (u64, u64),
    start: u64,
) -> bool {
    let what = u64::from(what) | tripped << 32;
    write_event(aim, judgement.packed(), approval, start, what) != 0
}

/// See [`record`]; the denials in a row are in the upper half of `what`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn write_event(
    aim: *const Aim,
    judgement: u64,
    approval: u64,
    start: u64,
    what: u64,
) -> u32 {
    // SAFETY: null, or an `Aim` of the caller's.
    let Some(aim) = (unsafe { aim.as_ref() }) else {
        return 0;
    };
    let seat = aim.seat;
    let Some(state) = slot_state(seat) else {
        return 0;
    };
    let told = || {
        let judgement = Judgement::unpacked(judgement);
        Told {
            kind: what as u32 & 0xffff,
            stage: what as u32 >> 16,
            verdict: if judgement.permits() || seat::observed(seat) {
                VERDICT_ALLOWED
            } else {
                VERDICT_ERRNO
            },
            judgement,
            start: Some(start),
            approval,
            tripped: what >> 32,
            flags: 0,
        }
    };
    let task = task::current_address();
    u32::from(send(aim, state, (Actor::Current, task), told))
}

/// Writes an event of what somebody aimed at, and of the program of a task, and counts it; false when there was no room.
/// What it tells is asked late: the stack has no room to keep it.
#[inline(always)]
pub fn send(
    aim: &Aim,
    state: *mut SlotState,
    (actor, task): (Actor, u64),
    told: impl FnOnce() -> Told,
) -> bool {
    let mut room = MaybeUninit::<NetEvent>::uninit();
    let event = room.as_mut_ptr();
    // SAFETY: room on the stack, all of which is written.
    let told = unsafe {
        aim.describe(ptr::addr_of_mut!((*event).tail), task);
        let told = told();
        let header = ptr::addr_of_mut!((*event).header);
        write_header(header, aim.seat, state, actor, &told);
        told
    };
    let recorded = output(aim.seat, state, event.cast(), size_of::<NetEvent>() as u64);
    // SAFETY: fields of a map value.
    count(unsafe {
        if told.verdict == VERDICT_ALLOWED && recorded {
            ptr::addr_of_mut!((*state).connect_allowed)
        } else {
            ptr::addr_of_mut!((*state).connect_denied)
        }
    });
    recorded
}
