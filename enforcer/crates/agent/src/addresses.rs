//! Connects to addresses that the supervisor sees before the kernel judges them.

use std::{net::IpAddr, os::fd::OwnedFd, sync::mpsc::Sender};

use super::{
    account::CallOutcome,
    error::Result,
    held::{self, HeldCall, Message},
    paths::socket_of,
    supervisor::Shared,
    wanted::{Wanted, Wish},
};
use enforcer_common::limits::ActionClass;
use enforcer_decide::{Outcome, approval::ConnectRequest};
use enforcer_policy::{ConnectAction, Decision, Waiting, model::Protocol};
use enforcer_seccomp::{ConnectCall, Notification, descriptor, target};

impl Shared {
    /// Tells of an address that is denied, which the kernel refuses and records: who is refused may end at once, so the
    /// reason goes first. Asks about one that is asked about.
    pub(super) fn judge_inet(
        &self,
        notification: &Notification,
        call: &ConnectCall,
        (address, port): (IpAddr, u16),
        holder: &Sender<Message>,
    ) -> Result<()> {
        let Notification { id, tid, .. } = *notification;
        let who = target::who(tid).unwrap_or_default();
        let socket = socket_of(who, call);
        let Some((socket, protocol)) = socket
            .and_then(|socket| descriptor::protocol(&socket).map(|protocol| (socket, protocol)))
            .ok()
        else {
            self.calls.go_on(id);
            return Ok(());
        };
        let to = ConnectRequest {
            address: address.to_canonical(),
            port,
            protocol,
        };
        let action = ConnectAction::new(to.address, port, protocol);
        let outcome = self.inet_outcome(&action);
        // Each echo is judged in the kernel, and none could wait.
        let asks = outcome.decision == Decision::Ask
            && self.ruling.first.asks_connect
            && action.protocol != Protocol::Icmp.number();
        if !asks {
            if outcome.decision != Decision::Allow && self.calls.is_valid(id) {
                self.account
                    .tell(&CallOutcome::refused(who, Wanted::Connect(to), &outcome));
            }
            self.calls.go_on(id);
            return Ok(());
        }
        if let Some(limited) = self.limited(tid, ActionClass::Connect, &outcome) {
            return self.refuse(
                id,
                &CallOutcome::refused(who, Wanted::Connect(to), &limited),
            );
        }
        let held = HeldCall {
            id,
            tid,
            who,
            outcome,
            own: false,
            later: self.fails_meanwhile(&socket),
            wish: Wish::Connect(to),
        };
        if self.calls.is_valid(id) {
            held::send(holder, held)?;
        }
        Ok(())
    }

    /// Whether a connect that is asked about fails at once, and may be tried again: the thread of a socket that does not
    /// block has other things to do than to wait.
    pub(super) fn fails_meanwhile(&self, socket: &OwnedFd) -> bool {
        match self.ruling.waiting {
            Waiting::Hold => false,
            Waiting::Retry => true,
            Waiting::Auto => descriptor::is_non_blocking(socket),
        }
    }

    /// What the rules say of an address; where they allow it, whose the listener is counts too.
    fn inet_outcome(&self, action: &ConnectAction) -> Outcome {
        let by_rules = self.ruling.engine.connect(action);
        if by_rules.decision != Decision::Allow {
            return by_rules;
        }
        let listeners = &self.sockets.listeners;
        let is_outside = |action| listeners.is_outside_tcp(action).unwrap_or(false);
        match self.ruling.engine.connect_outside(action) {
            // What cannot be told here the kernel sees.
            Some(outside) if is_outside(action) => outside,
            _ => by_rules,
        }
    }
}
