//! What serves an agent while it runs, from before it is let go until it has ended: the recorder, the desk, the supervisor.

use std::{path::PathBuf, sync::Arc};

use nix::unistd::Pid;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::{
    account::Account,
    announce::Start,
    breaker,
    calls::Calls,
    change::Followers,
    editions::{Edition, Editions},
    error::{AgentError, Result},
    first_process::FirstProcess,
    governed::{GovernedAgent, Servants},
    held::Approving,
    house::House,
    lines::UNNAMED,
    listeners::{Listeners, ToldListeners},
    own_line::Launched,
    paths::Sockets,
    plan::RunPlan,
    record::{EventSource, Recorder},
    refused::Refusals,
    ruling::{Ruling, Rulings},
    scene::Scene,
    serving::Serving,
    sight::Sight,
    steering::Steering,
    supervisor::{Supervised, Supervisor},
    tell::Telling,
    watch::{SupervisorLoop, supervise},
};
use enforcer_approvals::DeskHandle;
use enforcer_decide::Engine;
use enforcer_kernel::{agent::Agent, events::Feed, limits::Limiter};
use enforcer_launch::{AgentCgroup, ExecStops, Pending, Signals};
use enforcer_say::say;
use enforcer_seccomp::Listener;
use enforcer_trail::Stamp;

/// All that serves one agent.
pub struct AgentServices {
    agent: String,
    audit: PathBuf,
    cgroup: AgentCgroup,
    limiter: Limiter,
    pending: Pending,
    recorder: Recorder,
    telling: Arc<Telling>,
    connector: Option<(Agent, Pid)>,
    desk: Option<DeskHandle>,
    supervisor: Option<Supervisor>,
    /// Where it is heard that the supervisor cannot go on.
    failed: UnboundedReceiver<AgentError>,
}

impl AgentServices {
    /// Starts it. The agent's process, which still waits, prepares itself meanwhile, and hands out what its filters stop.
    ///
    /// # Errors
    ///
    /// A part of it cannot be had.
    pub fn start(
        plan: &RunPlan<'_>,
        house: &mut House,
        scene: &Scene,
        governed: GovernedAgent,
        mut process: FirstProcess,
        engine: Engine,
    ) -> Result<Self> {
        let RunPlan {
            options,
            command,
            terms,
        } = plan;
        let Steering {
            control,
            changing,
            desk,
        } = Steering::start(plan, scene, &governed, engine.policy())?;
        // The agent shares our standard error from here on.
        enforcer_say::from_a_thread();
        let recorder = recorder(plan, house, scene, &governed, process.feed, &engine)?;
        // Set once: there is nothing there yet.
        let _ = control.recorder.set(recorder.clone());
        // The desk has it; whoever gives up the trail must be the last to hold it.
        drop(control);
        let GovernedAgent {
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
        } = governed;
        let asker = desk.as_ref().map(DeskHandle::asker);
        let named = connector
            .as_ref()
            .map(|connector| (slot.agent.clone(), connector.pid()));
        let telling = Arc::new(Telling::new(notifier, asker.clone(), first.notified.exec));
        let audit = house.trail.path().to_owned();
        let principal = &terms.principal;
        let agent = principal.agent.as_deref().unwrap_or(UNNAMED).to_owned();
        if !options.reports.quiet {
            recorder.announce_trips();
            Start::new(plan, engine.policy(), &enforcement, (scene.id(), &audit)).announce();
        }
        let changer = terms.ground.changer.clone();
        let sight = Sight::of(&command.identity, &cgroup, engine.policy(), changer);
        let listeners = Listeners::new(sight.eyes.clone(), cgroup.clone());
        let (failures, failed) = mpsc::unbounded_channel();
        let mut followed = None;
        let supervisor = if let (Some(listener), Some(desk)) = (process.pending.listener()?, &asker)
        {
            let listener = Listener::new(listener)?;
            listener.set_sync_wake_up();
            let observed = options.governing.observe;
            let rulings = Rulings::new(Ruling::new(engine, &principal.user, first, observed));
            followed = Some(rulings.clone());
            Some(Supervisor::start(Supervised {
                calls: Calls::new(listener, failures),
                rulings,
                limiter: slot.limiter.clone(),
                account: Account {
                    recorder: recorder.clone(),
                    telling: Arc::clone(&telling),
                    cgroups: house.cgroups.clone(),
                    listeners: ToldListeners::default(),
                },
                approving: Approving {
                    desk: desk.clone(),
                    agent: agent.clone(),
                    grants: slot.grants,
                    stops: ExecStops::default(),
                },
                sockets: Sockets::new(connector, listeners),
                sight,
                launched: Launched::new(process.pid, own.ok()),
                refusals: Refusals::new(basis.open)?,
                serving: Serving::default(),
            })?)
        } else {
            // The kernel has the tables.
            drop(engine);
            None
        };
        if let Some(desk) = asker {
            changing.follow(Followers {
                recorder: recorder.clone(),
                desk,
                rulings: followed,
            });
        }
        Ok(Self {
            agent,
            audit,
            cgroup,
            limiter: slot.limiter,
            pending: process.pending,
            recorder,
            telling,
            connector: named,
            desk,
            supervisor,
            failed,
        })
    }

    /// Lets the agent go, records what it does until it has ended, ends what served it, and says what there was. Its exit
    /// status.
    ///
    /// # Errors
    ///
    /// The agent cannot be started, or what it does cannot be recorded or judged any more; its tree is gone then.
    pub fn until_ended(
        self,
        plan: &RunPlan<'_>,
        signals: &Signals,
        scene: &mut Scene,
    ) -> Result<u8> {
        let Self {
            agent,
            audit,
            cgroup,
            limiter,
            pending,
            recorder,
            telling,
            connector,
            desk,
            supervisor,
            failed,
        } = self;
        let keep = plan.options.governing.keep;
        let quiet = plan.options.reports.quiet;
        let watch = SupervisorLoop {
            signals,
            cgroup: &cgroup,
            keep,
            failures: failed,
            telling,
            connector,
        };
        let ended = supervise(pending, watch, &recorder);
        // The tree is gone, so the desk's answers find nobody; what was asked ends as cancelled, in the trail too.
        if let Some(desk) = desk {
            desk.shutdown();
        }
        if let Some(supervisor) = supervisor {
            supervisor.end();
        }
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => {
                recorder.abandon();
                return Err(error);
            }
        };
        if !quiet {
            recorder.summary(&audit);
            if let Some(line) = breaker::open_at_the_end(&limiter, &agent, recorder.observed()) {
                say!("{line}");
            }
        }
        if keep && !cgroup.is_empty()? {
            scene.keep();
            if !quiet {
                say!(
                    "enforcer: agent {} goes on under its policy; the next `enforcer run` writes its buffered events and takes it down once it is empty",
                    scene.id()
                );
            }
        }
        Ok(ended.code())
    }
}

/// Who writes the trail: by the words of what decides, what the kernel tells and what is answered before it is asked.
fn recorder(
    plan: &RunPlan<'_>,
    house: &mut House,
    scene: &Scene,
    governed: &GovernedAgent,
    feed: Feed,
    engine: &Engine,
) -> Result<Recorder> {
    let principal = &plan.terms.principal;
    let edition = Edition {
        wording: engine.wording().clone().for_user(&principal.user),
        stamp: Stamp::of(principal, engine.policy().masking),
    };
    let generation = governed.slot.agent.generation()?;
    Ok(Recorder::new(
        EventSource::new(feed, scene.state().tally()),
        Editions::new(generation, edition, plan.options.governing.observe),
        house.trail.start()?,
        principal.agent.clone(),
        governed.cgroup.id(),
    ))
}
