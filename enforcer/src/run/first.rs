//! Where the first judgement is made, the one that gives a clean errno and lets a person be asked. The last one is
//! the kernel's in any case.

use super::OnDeny;
use crate::{
    kernel::instance::UnixJudgement,
    policy::{
        Policy,
        approvals::{self, Asks},
    },
    seccomp::Notified,
};

/// The first judgements of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each read alone"
)]
pub struct FirstJudgement {
    /// LSM programs refuse denied execs.
    pub lsm: bool,
    /// How the kernel judges unix sockets.
    pub unix: UnixJudgement,
    /// System calls that the supervisor sees before the kernel carries them out.
    pub notified: Notified,
    /// The supervisor refuses denied execs; else it holds what is asked and leaves the rest to the kernel.
    pub refuses: bool,
    /// Somebody can be asked.
    pub asks: bool,
    /// Connects to addresses are asked about.
    pub asks_connect: bool,
    /// The supervisor looks at connects to addresses: to ask about them, or to tell of their denial before it happens.
    pub addresses: bool,
    /// Who connects to the paths of unix sockets: the connector, once the supervisor has judged them.
    pub connector: bool,
}

impl FirstJudgement {
    /// Chooses for a policy and what is in force. `tells`: whoever is denied something is told why, and who is denied a
    /// program may end at once, or is killed: its reason has to be there before. Every policy can deny a program, by the
    /// built-in rules, the limits and the breaker.
    pub fn choose(
        policy: &Policy,
        lsm: bool,
        unix: UnixJudgement,
        on_deny: OnDeny,
        keep: bool,
        tells: bool,
    ) -> Self {
        let Asks {
            exec,
            connect,
            unix: unix_asks,
        } = approvals::asks(policy);
        // Who goes on when the launcher has ended has no supervisor: every exec would fail.
        let possible = !keep;
        let refuses = possible && !lsm && on_deny == OnDeny::Errno;
        let addresses = possible && (connect || tells && approvals::denies_addresses(policy));
        let connector = possible && (unix != UnixJudgement::Bound || unix_asks);
        Self {
            lsm,
            unix,
            notified: Notified {
                exec: refuses || possible && (exec || tells),
                connect: connector || addresses,
                sendto: possible && connect,
            },
            refuses,
            asks: possible && (exec || connect || unix_asks),
            asks_connect: possible && connect,
            addresses,
            connector,
        }
    }

    /// Whether there is a supervisor at all.
    pub fn supervised(self) -> bool {
        self.notified.exec || self.notified.connect || self.notified.sendto
    }

    /// What was chosen, for the start line.
    pub fn describe(self) -> &'static str {
        match (self.lsm, self.notified.exec, self.refuses) {
            (true, false, _) => "in the kernel (LSM)",
            (true, true, _) => {
                "in the kernel (LSM); the seccomp supervisor tells the reason before, and holds what is asked about"
            }
            (false, true, true) => "by the seccomp supervisor",
            (false, true, false) => {
                "none; the seccomp supervisor tells the reason before, and holds what is asked about"
            }
            (false, false, _) => "none",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        crate::policy::parse(text).unwrap().policy
    }

    const PLAIN: &str =
        r#"{"version": "2", "exec": {"default": "deny"}, "connect": {"default": "allow"}}"#;
    const ASKING: &str =
        r#"{"version": "2", "exec": {"default": "ask"}, "connect": {"default": "allow"}}"#;

    #[test]
    fn the_kernel_judges_alone_where_it_can_and_nothing_is_asked_or_told() {
        let choose = |tells| {
            let unix = UnixJudgement::Bound;
            FirstJudgement::choose(&policy(PLAIN), true, unix, OnDeny::Errno, false, tells)
        };
        assert!(!choose(false).supervised() && !choose(false).asks);
        let told = choose(true);
        assert!(told.notified.exec && !told.refuses && !told.asks);
    }

    #[test]
    fn what_is_asked_needs_the_supervisor_also_where_the_kernel_refuses() {
        let first = FirstJudgement::choose(
            &policy(ASKING),
            true,
            UnixJudgement::Bound,
            OnDeny::Errno,
            false,
            true,
        );
        assert!(first.notified.exec && !first.refuses && first.asks);
        assert!(!first.notified.connect);
    }

    #[test]
    fn without_lsm_the_supervisor_refuses_unless_denied_execs_are_to_be_killed() {
        let choose = |on_deny| {
            FirstJudgement::choose(
                &policy(PLAIN),
                false,
                UnixJudgement::Called,
                on_deny,
                false,
                false,
            )
        };
        assert!(choose(OnDeny::Errno).refuses);
        let kill = choose(OnDeny::Kill);
        assert!(!kill.notified.exec && kill.notified.connect && kill.connector);
    }

    #[test]
    fn the_supervisor_sees_connects_that_it_has_to_tell_of() {
        const METADATA: &str = r#"{"version": "2", "exec": {}, "connect": {"default": "allow",
            "outside_listeners": {"tcp": "allow", "unix": "allow"}, "rules": [
            {"id": "one", "decision": "deny", "hosts": ["169.254.169.254"]}]}}"#;
        let open = METADATA.replace("deny", "allow");
        let choose = |text: &str, tells| {
            let unix = UnixJudgement::Bound;
            FirstJudgement::choose(&policy(text), true, unix, OnDeny::Errno, false, tells)
        };
        let told = choose(METADATA, true);
        assert!(told.addresses && told.notified.connect && !told.asks_connect);
        assert!(!choose(METADATA, false).supervised());
        assert!(!choose(&open, true).notified.connect);
    }

    #[test]
    fn the_supervisor_judges_unix_sockets_where_the_kernel_does_not() {
        let choose = |lsm, unix| {
            let first =
                FirstJudgement::choose(&policy(PLAIN), lsm, unix, OnDeny::Errno, false, true);
            first.connector && first.notified.connect
        };
        assert!(choose(false, UnixJudgement::Absent));
        assert!(choose(true, UnixJudgement::Absent));
        assert!(!choose(true, UnixJudgement::Bound));
    }

    #[test]
    fn who_outlives_the_launcher_is_not_supervised() {
        let first = FirstJudgement::choose(
            &policy(ASKING),
            false,
            UnixJudgement::Called,
            OnDeny::Errno,
            true,
            true,
        );
        assert!(!first.supervised() && !first.asks);
    }
}
