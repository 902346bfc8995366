//! The kernel's part: a host is found or loaded, what of it is in force is held against what was asked for, and the agent
//! gets a slot that governs its cgroup. Nothing of the agent runs yet, and this process has one thread.

use super::{
    compiled,
    enforcement::{AgentUser, Basis, Enforcement, Machine},
    error::Result,
    first::FirstJudgement,
    hosts,
    plan::RunPlan,
    scene::Scene,
    terms::Proven,
};
use enforcer_kernel::{
    agent::{Agent, AgentPlan},
    grants::Grants,
    host::{Host, LockedHosts},
    limits::Limiter,
};
use enforcer_launch::{
    AgentCgroup, CgroupRoot, Connector, DEFAULT_PIDS_MAX, LandlockDomain, OwnProgram,
    StderrNotifier,
};
use enforcer_seccomp::SyscallGroups;

/// A host that the agent can join, its lock held: nobody takes a slot or the host away meanwhile.
pub struct Joined {
    host: Host,
    held: LockedHosts,
    cgroup: AgentCgroup,
    basis: Basis,
    first: FirstJudgement,
    enforcement: Enforcement,
    own: Result<OwnProgram, String>,
}

impl Joined {
    /// Limits the agent's cgroup, finds the host of this build, or loads, tests and pins it, chooses the first judgements
    /// by what is in force, and says what that comes to.
    ///
    /// # Errors
    ///
    /// The kernel lacks something, or less is in force than must be.
    pub fn find(
        plan: &RunPlan<'_>,
        proven: &mut Proven,
        cgroups: &CgroupRoot,
        cgroup: AgentCgroup,
        scene: &Scene,
    ) -> Result<Self> {
        let RunPlan {
            options,
            command,
            terms,
        } = plan;
        let governing = options.governing;
        let own = OwnProgram::find(&command.identity, &scene.state().socket());
        let who = AgentUser::of(&command.identity, &own);
        let process_limit = cgroup.limit_pids(DEFAULT_PIDS_MAX);
        let domain = LandlockDomain::probe(false);
        let held = LockedHosts::wait()?;
        let host =
            hosts::find_or_load(&held, cgroups, cgroup.name(), proven.types.take(), &domain)?;
        let machine = Machine {
            in_force: hosts::in_force(&host),
            domain,
            process_limit,
        };
        let mut basis = Basis::new(machine, governing, !options.reports.quiet);
        basis.who = who;
        basis.open = compiled::loosened(
            &terms.policy.parsed,
            &terms.policy.path,
            SyscallGroups::shipped()?,
            basis.machine.in_force.tracing(),
        )?;
        let policy = proven.engine.policy();
        let first = FirstJudgement::choose(policy, basis.means);
        let enforcement = basis.enforcement(policy, first, governing.observe, &terms.untrusted);
        enforcement.suffices(governing.require)?;
        Ok(Self {
            host,
            held,
            cgroup,
            basis,
            first,
            enforcement,
            own,
        })
    }

    /// Takes a slot, puts the policy there and has it govern the cgroup: from here on whatever is in that is judged.
    /// The connector and the notifier are started beside it: they are forked, so before there are threads, and the
    /// connector is on its way while the kernel puts the tables into their places.
    ///
    /// # Errors
    ///
    /// There is no slot left, the kernel refuses something, or a process cannot be had.
    pub fn govern(
        self,
        plan: &RunPlan<'_>,
        proven: &Proven,
        scene: &mut Scene,
    ) -> Result<(GovernedAgent, Host)> {
        let RunPlan {
            options,
            command,
            terms,
        } = plan;
        let Self {
            host,
            held,
            cgroup,
            basis,
            first,
            enforcement,
            own,
        } = self;
        let connector = (first.connector)
            .then(|| Connector::prepare(&command.identity, &cgroup))
            .transpose()?;
        let wanted = AgentPlan {
            user: Some(&terms.principal.user),
            changer: Some(&terms.ground.changer),
            observed: options.governing.observe,
            kills: options.governing.kills(),
            ring_bytes: proven.engine.policy().event_buffer,
            shared: true,
            ..AgentPlan::new(proven.engine.tables())
        };
        let agent = scene.take_slot(&host, held, &wanted)?;
        host.govern(&agent, cgroup.open()?, cgroup.id())?;
        let slot = Slot {
            grants: agent.grants()?,
            limiter: agent.limiter()?,
            agent,
        };
        let connector = if let Some(connector) = connector {
            let connector = connector.serves()?;
            (slot.agent).set_connector(connector.pid().as_raw().unsigned_abs())?;
            Some(connector)
        } else {
            None
        };
        let notifier = if basis.means.tells {
            Some(StderrNotifier::start(&command.identity, &cgroup)?)
        } else {
            None
        };
        scene.enforced_by(enforcement.clone())?;
        let governed = GovernedAgent {
            cgroup,
            basis,
            first,
            enforcement,
            own,
            slot,
            servants: Servants {
                connector,
                notifier,
            },
        };
        Ok((governed, host))
    }
}

/// An agent whose policy is in force.
#[derive(Debug)]
pub struct GovernedAgent {
    /// Where it will run.
    pub cgroup: AgentCgroup,
    /// What does not change of how it is enforced.
    pub basis: Basis,
    /// Where execs and connects are judged first.
    pub first: FirstJudgement,
    /// What is in force for it.
    pub enforcement: Enforcement,
    /// The launcher's own program and socket, or why this program is to the agent's hooks like any other.
    pub own: Result<OwnProgram, String>,
    /// Where the agent is in the kernel.
    pub slot: Slot,
    /// Who works for it.
    pub servants: Servants,
}

/// An agent's slot.
#[derive(Debug)]
pub struct Slot {
    /// The agent there.
    pub agent: Agent,
    /// Where approvals go for the kernel to know them.
    pub grants: Grants,
    /// The breaker and the rates.
    pub limiter: Limiter,
}

/// Processes of the launcher's with the agent's rights.
#[derive(Debug)]
pub struct Servants {
    /// Who connects to the paths of unix sockets.
    pub connector: Option<Connector>,
    /// Who tells processes of denials; nobody if nothing is to be told.
    pub notifier: Option<StderrNotifier>,
}
