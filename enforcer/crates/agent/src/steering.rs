//! Who is asked while an agent runs: the desk with its people, and what these may see and change of the run.

use std::sync::{Arc, OnceLock};

use super::{
    APPROVALS_DB,
    breaker::Control,
    change::{Changing, Fixed},
    compiled,
    error::Result,
    governed::GovernedAgent,
    lines::UNNAMED,
    plan::RunPlan,
    scene::Scene,
    tools::{Rates, ToolReports},
};
use enforcer_approvals::{DeskHandle, DeskSettings, serve};
use enforcer_control::Approvers;
use enforcer_policy::Policy;

/// The hands that steer a run.
pub struct Steering {
    /// Its breaker.
    pub control: Arc<Control>,
    /// How it is governed.
    pub changing: Arc<Changing>,
    /// Who asks people; nobody where the agent goes on by itself.
    pub desk: Option<DeskHandle>,
}

impl Steering {
    /// Opens the desk. Its thread is the launcher's first, so this comes behind all that is forked. The agent's process waits
    /// until the recorder and the supervisor are there, too; whoever else asks before that is told to try again.
    ///
    /// # Errors
    ///
    /// The desk cannot be opened.
    pub fn start(
        plan: &RunPlan<'_>,
        scene: &Scene,
        governed: &GovernedAgent,
        policy: &Policy,
    ) -> Result<Self> {
        let RunPlan {
            options,
            command,
            terms,
        } = plan;
        let identity = &command.identity;
        let GovernedAgent {
            cgroup,
            basis,
            first,
            slot,
            ..
        } = governed;
        let control = Arc::new(Control {
            id: scene.id().to_owned(),
            agent: (terms.principal.agent.as_deref())
                .unwrap_or(UNNAMED)
                .to_owned(),
            limiter: slot.limiter.clone(),
            recorder: OnceLock::new(),
        });
        let rates = Rates {
            limits: policy.limits,
            user: terms.principal.user.clone(),
        };
        let tools = Arc::new(ToolReports::new(control.clone(), rates));
        let fixed = Fixed {
            id: scene.id().to_owned(),
            uid: identity.uid,
            ground: terms.ground.clone(),
            basis: basis.clone(),
            first: *first,
            event_buffer: policy.event_buffer,
        };
        let changing = Arc::new(Changing::new(
            fixed,
            (slot.agent.clone(), slot.limiter.clone()),
            tools.clone(),
            (terms.principal.clone(), scene.facts().clone()),
        ));
        let desk = if options.governing.keep {
            None
        } else {
            Some(serve::start(DeskSettings {
                db: APPROVALS_DB.into(),
                instance: scene.id().to_owned(),
                socket: scene.state().socket(),
                approvers: Approvers::resolve(policy.approvals.approvers.as_deref())?,
                agent_uid: identity.uid,
                agent_gids: [&[identity.gid], identity.groups.as_slice()].concat(),
                agent_cgroup: cgroup.membership(),
                limits: compiled::limits(&policy.approvals),
                directory: options.reports.approvals.clone(),
                notify: policy.approvals.notify.clone(),
                tools: Some(tools),
                breaker: Some(control.clone()),
                agent: Some(changing.clone()),
            })?)
        };
        Ok(Self {
            control,
            changing,
            desk,
        })
    }
}
