//! Who is at the other end of the control socket.

use std::fs;

use super::{Approvers, approvers};

/// What a peer may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Answers, lists, watches.
    Approver(String),
    /// Root that is not an approver: lists and watches.
    Onlooker,
    /// The agent's own user or one of its processes: asks why it was denied, nothing else.
    Agent,
    /// Nothing.
    Stranger,
}

/// Whom the desk belongs to.
#[derive(Clone, Debug)]
pub struct PeerGuard {
    /// Who may answer.
    pub approvers: Approvers,
    /// The agent's user.
    pub agent_uid: u32,
    /// The agent's cgroup as `/proc/PID/cgroup` names it in the v2 hierarchy (cgroups(7)).
    pub agent_cgroup: String,
}

impl PeerGuard {
    /// The role of the process that made a connection. Called as soon as the connection is there, and again before an
    /// answer counts.
    pub fn role(&self, uid: u32, pid: Option<i32>) -> Role {
        if uid == self.agent_uid && uid != 0 {
            return Role::Agent;
        }
        // For an agent that is root the cgroup is all that tells it from the operator: who cannot be looked at is
        // taken for the agent.
        let text = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).ok());
        let inside = |cgroup: &str| text.as_deref().is_none_or(|text| is_inside(text, cgroup));
        if inside(&self.agent_cgroup) {
            Role::Agent
        } else if self.agents().is_some_and(inside) {
            Role::Stranger
        } else if self.approvers.allows(uid) {
            Role::Approver(approvers::name(uid))
        } else if uid == 0 {
            Role::Onlooker
        } else {
            Role::Stranger
        }
    }

    /// The cgroup below which all agents are: another agent, whoever it runs as, is no person.
    fn agents(&self) -> Option<&str> {
        let (agents, _) = self.agent_cgroup.trim_end_matches('/').rsplit_once('/')?;
        (!agents.is_empty()).then_some(agents)
    }
}

/// Whether the text of a `/proc/PID/cgroup` names the agent's cgroup or one below it. A text without a v2 line says
/// nothing and counts as inside.
fn is_inside(text: &str, agent: &str) -> bool {
    let agent = agent.trim_end_matches('/');
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .is_none_or(|path| {
            // The kernel marks a cgroup that is gone: its processes are still there.
            let path = path.strip_suffix(" (deleted)").unwrap_or(path);
            path.strip_prefix(agent)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_and_those_below_are_inside() {
        let agent = "/enforcer/ab12";
        for (path, inside) in [
            ("/enforcer/ab12", true),
            ("/enforcer/ab12/child", true),
            ("/enforcer/ab12/child (deleted)", true),
            ("/enforcer/ab12 (deleted)", true),
            ("/enforcer/ab123", false),
            ("/enforcer", false),
            ("/", false),
        ] {
            let text = format!("4:memory:/x\n0::{path}\n");
            assert_eq!(is_inside(&text, agent), inside, "{path}");
        }
        assert!(is_inside("4:memory:/x\n", agent), "no v2 line");
    }

    #[test]
    fn root_outside_answers_and_root_inside_does_not() {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::"));
        let mut guard = PeerGuard {
            approvers: Approvers::resolve(None).unwrap(),
            agent_uid: 0,
            agent_cgroup: "/enforcer/somewhere-else".to_owned(),
        };
        let pid = i32::try_from(std::process::id()).unwrap();
        assert_eq!(guard.role(0, Some(pid)), Role::Approver("root".to_owned()));
        own.unwrap().clone_into(&mut guard.agent_cgroup);
        assert_eq!(guard.role(0, Some(pid)), Role::Agent);
        // A process that is gone cannot be looked at.
        assert_eq!(guard.role(0, None), Role::Agent);
    }

    #[test]
    fn another_agent_is_no_person() {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::"));
        let guard = PeerGuard {
            approvers: Approvers::resolve(None).unwrap(),
            agent_uid: 65534,
            agent_cgroup: format!("{}/somewhere-else", own.unwrap().trim_end_matches('/')),
        };
        let pid = i32::try_from(std::process::id()).unwrap();
        let alone = guard.agents().is_none();
        // In the root of the hierarchy everybody would be an agent.
        let expected = if alone {
            Role::Approver("root".to_owned())
        } else {
            Role::Stranger
        };
        assert_eq!(guard.role(0, Some(pid)), expected);
    }

    #[test]
    fn the_agents_user_is_the_agent_wherever_it_is() {
        let guard = PeerGuard {
            approvers: Approvers::resolve(Some(&["nobody".to_owned()])).unwrap(),
            agent_uid: 65534,
            agent_cgroup: "/enforcer/somewhere-else".to_owned(),
        };
        let pid = i32::try_from(std::process::id()).unwrap();
        assert_eq!(guard.role(65534, Some(pid)), Role::Agent);
        assert_eq!(guard.role(1, Some(pid)), Role::Stranger);
    }

    #[test]
    fn root_that_is_no_approver_looks_on() {
        let guard = PeerGuard {
            approvers: Approvers::resolve(Some(&[])).unwrap(),
            agent_uid: 65534,
            agent_cgroup: "/enforcer/somewhere-else".to_owned(),
        };
        let pid = i32::try_from(std::process::id()).unwrap();
        assert_eq!(guard.role(0, Some(pid)), Role::Onlooker);
    }
}
