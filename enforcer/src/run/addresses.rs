//! Connects to addresses that the supervisor sees before the kernel judges them.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::mpsc::Sender,
};

use super::{
    held::{self, Held, Message, Wish},
    lines::Wanted,
    paths::socket_of,
    supervisor::Shared,
};
use crate::{
    decide::{ConnectAction, Decision, Outcome, approval::ConnectSubject},
    kernel::limits::Kind,
    policy::{Waiting, model::Protocol},
    seccomp::{ConnectCall, Notification, descriptor, target},
};

impl Shared {
    /// Tells of an address that is denied, which the kernel refuses and records: who is refused may end at once, so the
    /// reason goes first. Asks about one that is asked about.
    pub(super) fn judge_inet(
        &self,
        notification: &Notification,
        call: &ConnectCall,
        (address, port): (IpAddr, u16),
        holder: &Sender<Message>,
    ) -> anyhow::Result<()> {
        let Notification { id, tid, .. } = *notification;
        let who = target::who(tid).unwrap_or_default();
        let socket = socket_of(who, call);
        let Some((socket, protocol)) = socket
            .and_then(|socket| descriptor::protocol(&socket).map(|protocol| (socket, protocol)))
            .ok()
        else {
            self.go_on(id);
            return Ok(());
        };
        let address = address.to_canonical();
        let action = ConnectAction::new(address, port, protocol);
        let outcome = self.inet_outcome(&action);
        // Each echo is judged in the kernel, and none could wait.
        let asks = outcome.decision == Decision::Ask
            && self.with.first.asks_connect
            && action.protocol != Protocol::Icmp.number();
        if !asks {
            if outcome.decision != Decision::Allow && self.with.listener.is_valid(id) {
                let what = format!("connect {}", SocketAddr::new(address, port));
                let suggestion = outcome.suggestion.as_deref();
                self.tell_denial(who, what.as_bytes(), &outcome, suggestion);
            }
            self.go_on(id);
            return Ok(());
        }
        if let Some(limited) = self.limited(tid, Kind::Connect, &outcome) {
            return self.refuse_connect(
                id,
                who,
                Wanted::Connect {
                    address,
                    port,
                    protocol: protocol.into(),
                },
                &limited,
                None,
            );
        }
        let held = Held {
            id,
            tid,
            who,
            outcome,
            own: false,
            later: self.fails_meanwhile(&socket),
            wish: Wish::Connect(ConnectSubject {
                address,
                port,
                protocol,
            }),
        };
        if self.with.listener.is_valid(id) {
            held::send(holder, held)?;
        }
        Ok(())
    }

    /// Whether a connect that is asked about fails at once, and may be tried again: the thread of a socket that does not
    /// block has other things to do than to wait.
    pub(super) fn fails_meanwhile(&self, socket: &OwnedFd) -> bool {
        match self.with.waiting {
            Waiting::Hold => false,
            Waiting::Retry => true,
            Waiting::Auto => descriptor::is_non_blocking(socket),
        }
    }

    /// What the rules say of an address; where they allow it, whose the listener is counts too.
    fn inet_outcome(&self, action: &ConnectAction) -> Outcome {
        let by_rules = self.with.engine.connect(action);
        if by_rules.decision != Decision::Allow {
            return by_rules;
        }
        match self.with.engine.connect_outside(action) {
            // What cannot be told here the kernel sees.
            Some(outside) if self.with.listeners.is_outside_tcp(action).unwrap_or(false) => outside,
            _ => by_rules,
        }
    }
}
