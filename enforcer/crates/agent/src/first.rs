//! Where the first judgement is made, the one that gives a clean errno and lets a person be asked. The last one is
//! the kernel's in any case.

use serde::{Deserialize, Serialize};

use super::{OnDeny, weakness::Weakness};
use enforcer_kernel::instance::UnixJudgement;
use enforcer_policy::{
    Policy,
    approvals::{self, Asks},
};
use enforcer_seccomp::Notified;

/// What first judgements can be made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Means {
    /// LSM programs refuse denied execs.
    pub lsm: bool,
    /// How the kernel judges unix sockets.
    pub unix: UnixJudgement,
    /// How execs are denied.
    pub on_deny: OnDeny,
    /// Nobody stands by ([`Governing::alone`](super::Governing::alone)).
    pub alone: bool,
    /// Whoever is denied something is told why. Who is denied a program may end at once, or is killed: its reason has to be
    /// there before.
    pub tells: bool,
}

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
    /// Chooses for a policy. Every policy can deny a program, by the built-in rules, the limits and the breaker.
    pub fn choose(policy: &Policy, means: Means) -> Self {
        let Means {
            lsm,
            unix,
            on_deny,
            alone,
            tells,
        } = means;
        let Asks {
            exec,
            connect,
            unix: unix_asks,
        } = approvals::asks(policy);
        // Who goes on when the launcher has ended has no supervisor: every exec would fail.
        let possible = !alone;
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

    /// The same, as far as it can be had in a run that was started with other ones: its filter, its supervisor and its
    /// connector are what they were. What is asked about and cannot be held for an answer is denied by the kernel.
    #[must_use]
    pub fn within(self, started: Self) -> Self {
        Self {
            notified: started.notified,
            refuses: started.refuses,
            asks: self.asks && started.supervised(),
            asks_connect: self.asks_connect && started.notified.connect,
            addresses: self.addresses && started.notified.connect,
            connector: started.connector,
            ..self
        }
    }

    /// What a policy asks about and cannot be held for an answer in a run that was started with these. `keep`: because it
    /// goes on without its launcher.
    pub fn not_held(self, policy: &Policy, keep: bool) -> Option<Weakness> {
        let Asks {
            exec,
            connect,
            unix,
        } = approvals::asks(policy);
        let Notified {
            exec: execs,
            connect: connects,
            sendto,
        } = self.notified;
        let what: Vec<String> = [
            (exec && !execs, "programs"),
            (connect && !connects, "addresses"),
            // Whoever connects a socket before it sends is asked about by that.
            (connect && connects && !sendto, "datagrams to addresses"),
            (unix && !self.connector, "unix sockets"),
        ]
        .into_iter()
        .filter(|(lacking, _)| *lacking)
        .map(|(_, what)| what.to_owned())
        .collect();
        (!what.is_empty()).then_some(Weakness::NotHeld { keep, what })
    }

    /// Whether there is a supervisor at all.
    pub fn supervised(self) -> bool {
        self.notified.exec || self.notified.connect || self.notified.sendto
    }

    /// Who judges execs first.
    pub fn judge(self) -> FirstJudge {
        match (self.lsm, self.notified.exec, self.refuses) {
            (true, false, _) => FirstJudge::Lsm,
            (true, true, _) => FirstJudge::LsmBehindSupervisor,
            (false, true, true) => FirstJudge::Supervisor,
            (false, true, false) => FirstJudge::NobodyBehindSupervisor,
            (false, false, _) => FirstJudge::Nobody,
        }
    }
}

/// Who judges execs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstJudge {
    /// An LSM program.
    Lsm,
    /// An LSM program, once the supervisor has told the reason, or what it held was answered.
    LsmBehindSupervisor,
    /// The supervisor.
    Supervisor,
    /// Nobody; the supervisor tells the reason, and holds what is asked about.
    NobodyBehindSupervisor,
    /// Nobody.
    Nobody,
}

impl FirstJudge {
    /// Whether the supervisor sees execs before the kernel carries them out: once it is gone, all of them fail.
    pub fn is_supervised(self) -> bool {
        !matches!(self, Self::Lsm | Self::Nobody)
    }

    /// In words, for the start line.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Lsm => "in the kernel (LSM)",
            Self::LsmBehindSupervisor => {
                "in the kernel (LSM); the seccomp supervisor tells the reason before, and holds what is asked about"
            }
            Self::Supervisor => "by the seccomp supervisor",
            Self::NobodyBehindSupervisor => {
                "none; the seccomp supervisor tells the reason before, and holds what is asked about"
            }
            Self::Nobody => "none",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        enforcer_policy::parse(text).unwrap().policy
    }

    const PLAIN: &str =
        r#"{"version": "2", "exec": {"default": "deny"}, "connect": {"default": "allow"}}"#;
    const ASKING: &str =
        r#"{"version": "2", "exec": {"default": "ask"}, "connect": {"default": "allow"}}"#;

    const FULL: Means = Means {
        lsm: true,
        unix: UnixJudgement::Bound,
        on_deny: OnDeny::Errno,
        alone: false,
        tells: true,
    };
    const PARTIAL: Means = Means {
        lsm: false,
        unix: UnixJudgement::Called,
        ..FULL
    };

    #[test]
    fn the_kernel_judges_alone_where_it_can_and_nothing_is_asked_or_told() {
        let choose = |tells| FirstJudgement::choose(&policy(PLAIN), Means { tells, ..FULL });
        assert!(!choose(false).supervised() && !choose(false).asks);
        let told = choose(true);
        assert!(told.notified.exec && !told.refuses && !told.asks);
    }

    #[test]
    fn what_is_asked_needs_the_supervisor_also_where_the_kernel_refuses() {
        let first = FirstJudgement::choose(&policy(ASKING), FULL);
        assert!(first.notified.exec && !first.refuses && first.asks);
        assert!(!first.notified.connect);
    }

    #[test]
    fn without_lsm_the_supervisor_refuses_unless_denied_execs_are_to_be_killed() {
        let choose = |on_deny| {
            let means = Means {
                on_deny,
                tells: false,
                ..PARTIAL
            };
            FirstJudgement::choose(&policy(PLAIN), means)
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
        let choose =
            |text: &str, tells| FirstJudgement::choose(&policy(text), Means { tells, ..FULL });
        let told = choose(METADATA, true);
        assert!(told.addresses && told.notified.connect && !told.asks_connect);
        assert!(!choose(METADATA, false).supervised());
        assert!(!choose(&open, true).notified.connect);
    }

    #[test]
    fn the_supervisor_judges_unix_sockets_where_the_kernel_does_not() {
        let choose = |lsm, unix| {
            let first = FirstJudgement::choose(&policy(PLAIN), Means { lsm, unix, ..FULL });
            first.connector && first.notified.connect
        };
        assert!(choose(false, UnixJudgement::Absent));
        assert!(choose(true, UnixJudgement::Absent));
        assert!(!choose(true, UnixJudgement::Bound));
    }

    #[test]
    fn only_what_is_not_held_is_said_to_be_denied() {
        const NET: &str =
            r#"{"version": "2", "exec": {"default": "ask"}, "connect": {"default": "ask"}}"#;
        let lacks = |started: &str, means| {
            let first = FirstJudgement::choose(&policy(started), means);
            match first.not_held(&policy(NET), false) {
                Some(Weakness::NotHeld { what, .. }) => what,
                _ => Vec::new(),
            }
        };
        let full = Means {
            tells: false,
            ..FULL
        };
        assert_eq!(lacks(PLAIN, full), ["programs", "addresses"]);
        assert_eq!(lacks(PLAIN, PARTIAL), ["datagrams to addresses"]);
        assert!(lacks(NET, full).is_empty());
    }

    #[test]
    fn who_outlives_the_launcher_is_not_supervised() {
        let means = Means {
            alone: true,
            ..PARTIAL
        };
        let first = FirstJudgement::choose(&policy(ASKING), means);
        assert!(!first.supervised() && !first.asks);
    }
}
