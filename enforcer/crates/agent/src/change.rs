//! What is changed of an agent that runs: its policy, its capabilities, its rates, whether it is blocked at all.
//!
//! A change is made whole or not at all. All that may fail is done before the kernel goes over to the new tables, with one
//! word, the line in the trail last; the supervisor follows, so that for a moment the stricter of both holds.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use super::{
    breaker,
    change_line::{self, digest, record},
    compiled::{self, Compiled},
    editions::Edition,
    enforcement::{Basis, Enforcement},
    error::{AgentError, Result},
    first::FirstJudgement,
    lines::UNNAMED,
    options::OnDeny,
    own_terms::{Changes, RATES},
    record::Recorder,
    ruling::{Ruling, Rulings},
    state::{AgentRecord, AgentStateError, Decides, StateDirectory},
    tools::{Rates, ToolReports},
};
use enforcer_approvals::{Asker, Rules};
use enforcer_common::limits::RATE_MAX;
use enforcer_control::{AgentChange, AgentChanged, AgentControl, AgentCounts, Approvers, Counted};
use enforcer_decide::{Engine, Mode, Principal, admit, principal::UnknownMode};
use enforcer_files::directories;
use enforcer_kernel::{
    KernelError,
    agent::{Agent, AgentPlan},
    host::LockedHosts,
    limits::Limiter,
    memory::give_back_now,
};
use enforcer_policy::{
    Parsed, Policy,
    capability::{BadCapability, Capability},
};
use enforcer_policy_files::{ground::Ground, policy_file, shipped, table_cache::TableCache};
use enforcer_seccomp::SyscallGroups;
use enforcer_trail::{Record, Stamp};

/// Why an agent cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The line that tells of the change.
    #[error("the trail cannot be written")]
    Unwritten(#[source] Box<AgentError>),
    /// It was not made, and what later starts go by could not be put back.
    #[error("its state names a policy that does not decide ({more})")]
    StateAhead {
        /// Why it could not.
        more: String,
        /// Why the change was not made.
        source: Box<AgentError>,
    },
    /// Who has to follow a change is not there yet.
    #[error("the run is only just starting; try again")]
    JustStarting,
    /// The agent may have put the file there.
    #[error(
        "the agent has uid 0: since it was started it could have put another file in the place of {}; stop it, look at the file, and start it again, or run it as an ordinary user (--user)",
        .0.display()
    )]
    Replaceable(PathBuf),
    /// The filter would have to be stricter.
    #[error(
        "{}: it refuses system calls of the groups {groups}, which the running agent may use: its filter can be made no stricter; stop the agent and start it with this policy",
        path.display()
    )]
    Shuts {
        /// The policy.
        path: PathBuf,
        /// The groups, a comma between.
        groups: String,
    },
    /// A word is no mode.
    #[error(transparent)]
    Mode(UnknownMode),
    /// A word names no capability.
    #[error(transparent)]
    Capability(BadCapability),
    /// The policy gives a capability that is to be taken.
    #[error(
        "the policy gives `{0}` to this agent by its name; take it out of `capabilities` there, and reload"
    )]
    ByName(String),
    /// A word names no rate.
    #[error("there is no rate `{name}`; it is one of {}", RATES.join(", "))]
    NoRate {
        /// The word.
        name: String,
    },
    /// A word is no rate.
    #[error(
        "`{0}` is not a rate; write a count of at most {RATE_MAX} and a window of seconds, minutes, hours or days: 100/1h"
    )]
    BadRate(String),
}

/// What does not change of a run.
#[derive(Debug)]
pub struct Fixed {
    /// The run's id.
    pub id: String,
    /// Who the agent runs as, to files: the policy must not be theirs.
    pub uid: u32,
    /// What a policy means here.
    pub ground: Ground,
    /// What it is enforced by.
    pub basis: Basis,
    /// The first judgements that it was started with.
    pub first: FirstJudgement,
    /// Bytes of its event buffer.
    pub event_buffer: u32,
}

/// How it is governed now.
#[derive(Debug)]
struct Now {
    agent: Agent,
    principal: Principal,
    facts: AgentRecord,
}

/// Changes a run's agent.
#[derive(Debug)]
pub struct Changing {
    fixed: Fixed,
    limiter: Limiter,
    tools: Arc<ToolReports>,
    /// What follows the kernel; it comes while the run starts.
    followers: OnceLock<Followers>,
    now: Mutex<Now>,
}

/// Who has to follow a change.
#[derive(Debug)]
pub struct Followers {
    /// Who writes the trail.
    pub recorder: Recorder,
    /// The desk.
    pub desk: Asker,
    /// The supervisor, if there is one.
    pub rulings: Option<Rulings>,
}

/// What is about to decide.
struct Next {
    engine: Engine,
    /// Whether other agents may have the same tables.
    shared: bool,
    principal: Principal,
    decides: Decides,
    enforcement: Enforcement,
    observed: bool,
    approvers: Approvers,
    notes: Vec<String>,
}

impl Next {
    /// Whether all stays as it is.
    fn is_as(&self, now: &Now) -> bool {
        let (next, before) = (&self.decides, &now.facts.decides);
        next.policy_path == before.policy_path
            && next.policy_text == before.policy_text
            && self.principal == now.principal
            && self.observed == now.facts.observed
            && self.decides.changes == now.facts.decides.changes
            && self.decides.capabilities == now.facts.decides.capabilities
    }
}

impl Changing {
    /// For an agent that has a slot.
    pub fn new(
        fixed: Fixed,
        (agent, limiter): (Agent, Limiter),
        tools: Arc<ToolReports>,
        (principal, facts): (Principal, AgentRecord),
    ) -> Self {
        Self {
            fixed,
            limiter,
            tools,
            followers: OnceLock::new(),
            now: Mutex::new(Now {
                agent,
                principal,
                facts,
            }),
        }
    }

    /// Who follows a change. Before, none is made.
    pub fn follow(&self, followers: Followers) {
        // Set once: there is nothing there yet.
        let _ = self.followers.set(followers);
    }

    fn make(&self, change: &AgentChange, by: &str) -> Result<AgentChanged> {
        let followers = self.followers.get().ok_or(ChangeError::JustStarting)?;
        // It is replaced at the end: whoever panicked has left what was.
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.next(change, &now)?;
        let read = change.reload || change.policy.is_some();
        let notes = std::mem::take(&mut next.notes);
        let same = next.is_as(&now);
        if same && !read {
            let mut same = self.governed(&now.facts, &now.principal);
            same.changed = false;
            same.generation = now.agent.generation()?;
            same.notes = notes;
            return Ok(same);
        }
        let turned = self.turn(followers, &now, &next, |changed, facts| {
            record(
                (&now.facts, &now.principal),
                (facts, &next.principal),
                changed,
                read,
                by,
            )
        });
        let (agent, limiter, facts) = turned?;
        // The kernel goes by it from here on: nothing below can fail.
        let other_policy = facts.decides.policy_text != now.facts.decides.policy_text;
        if now.facts.observed && !facts.observed {
            // What was only observed is held against nobody.
            self.limiter.reset();
        }
        self.limiter.become_as(&limiter);
        let mut changed = self.governed(&facts, &next.principal);
        changed.changed = !same;
        changed.notes = notes;
        let policy = next.engine.policy();
        self.tools.replace_rates(Rates {
            limits: policy.limits,
            user: next.principal.user.clone(),
        });
        followers.desk.replace_rules(Rules {
            approvers: next.approvers,
            limits: compiled::limits(&policy.approvals),
            notify: policy.approvals.notify.clone(),
            forget: other_policy,
        });
        if let Some(rulings) = &followers.rulings {
            let first = self.first(policy);
            rulings.replace(Ruling::new(
                next.engine,
                &next.principal.user,
                first,
                facts.observed,
            ));
        }
        followers
            .recorder
            .go_over(changed.generation, facts.observed);
        *now = Now {
            agent,
            principal: next.principal,
            facts,
        };
        drop(now);
        give_back_now();
        Ok(changed)
    }

    /// What the first judgements are under a policy.
    fn first(&self, policy: &Policy) -> FirstJudgement {
        FirstJudgement::choose(policy, self.fixed.basis.means).within(self.fixed.first)
    }

    /// What a change comes to. Nothing is changed yet.
    fn next(&self, change: &AgentChange, now: &Now) -> Result<Next> {
        let mut notes = Vec::new();
        let decides = &now.facts.decides;
        let path = change.policy.clone();
        let path = path.unwrap_or_else(|| decides.policy_path.clone());
        let state = Path::new(directories::STATE.path);
        let (mut parsed, cache) = if change.reload || change.policy.is_some() {
            self.is_out_of_reach(&path)?;
            let (loaded, cache) = policy_file::load_kept(&path, Some(self.fixed.uid), state)?;
            let parsed = loaded.parsed;
            let file = path.display().to_string();
            notes.extend(parsed.warnings.iter().map(|it| it.in_file(&file)));
            (parsed, cache)
        } else {
            let text = &decides.policy_text;
            let parsed = enforcer_policy::parse(text).map_err(AgentStateError::Policy)?;
            let cache = TableCache::new(&parsed.sources().key(), Some(state));
            (parsed, cache)
        };
        let untrusted = self.fixed.ground.settle(&mut parsed.policy);
        notes.extend(untrusted.iter().map(ToString::to_string));
        self.keeps_groups(&parsed, &path, &mut notes)?;
        let principal = principal(change, &now.principal, &parsed.policy, &mut notes)?;
        let mut changes = decides.changes.clone();
        changes.change_rates(change, &mut notes)?;
        changes.refused = admit(&principal, &parsed.policy)
            .err()
            .map(|refusal| (refusal.to_string(), refusal.suggestion()));
        let observed = change.observe.unwrap_or(now.facts.observed);
        if let Some((reason, _)) = &changes.refused {
            let comes = if observed { "would be" } else { "is" };
            notes.push(format!(
                "all that it does {comes} denied from now on: {reason}"
            ));
        }
        let Compiled { engine, fresh, .. } = compiled::compile(&parsed, &path, &principal, &cache)?;
        if fresh {
            cache.keep_proven(engine.policy(), engine.capabilities(), engine.tables());
        }
        let shared = changes == Changes::default();
        let engine = if shared {
            engine
        } else {
            let mut policy = parsed.policy.clone();
            changes.apply(&mut policy);
            compiled::compiled(&parsed, &policy, &path, &principal)?
        };
        let policy = engine.policy();
        if policy.event_buffer != self.fixed.event_buffer {
            notes.push(
                "the event buffer has its new size when the agent is started anew".to_owned(),
            );
        }
        let not_held = self.fixed.first.not_held(policy, self.fixed.basis.keep);
        // Who is only observed is denied nothing.
        let not_held = not_held.filter(|_| !observed);
        notes.extend(not_held.map(|weakness| weakness.to_string()));
        let read = change.reload || change.policy.is_some();
        if read && !self.fixed.basis.means.tells && self.first(policy).asks {
            notes.push(
                "what the policy asks about waits for an answer, and neither the agent nor its launcher's terminal is told so: the run is --quiet (`enforcer approvals watch` shows what waits)"
                    .to_owned(),
            );
        }
        if let Some(observe) = change.observe
            && observe == now.facts.observed
        {
            let how = if observe { "only observed" } else { "blocked" };
            notes.push(format!("it is {how} already"));
        }
        let first = self.first(policy);
        let basis = &self.fixed.basis;
        Ok(Next {
            approvers: Approvers::resolve(policy.approvals.approvers.as_deref())?,
            shared,
            decides: Decides {
                generation: None,
                policy_path: path,
                policy_text: parsed.text().to_owned(),
                capabilities: engine.capabilities().clone(),
                seed: engine.tables().header.seed,
                changes,
            },
            enforcement: basis.enforcement(policy, first, observed, &untrusted),
            observed,
            principal,
            engine,
            notes,
        })
    }

    /// Refuses any file that an agent with uid 0 could have put there while it runs: it can rename what belongs to root.
    fn is_out_of_reach(&self, path: &Path) -> Result<()> {
        if self.fixed.uid == 0 && !shipped::is_built_in(path) {
            return Err(ChangeError::Replaceable(path.to_owned()).into());
        }
        Ok(())
    }

    /// Refuses a policy that shuts a group of system calls which the run's filter leaves open: that cannot be changed.
    fn keeps_groups(&self, parsed: &Parsed, path: &Path, notes: &mut Vec<String>) -> Result<()> {
        let open = compiled::loosened(
            parsed,
            path,
            SyscallGroups::shipped()?,
            self.fixed.basis.machine.in_force.tracing(),
        )?;
        let without = |these: &[String], those: &[String]| -> Vec<String> {
            let only = these.iter().filter(|name| !those.contains(name));
            only.cloned().collect()
        };
        let shut = without(&self.fixed.basis.open, &open);
        if !shut.is_empty() {
            return Err(ChangeError::Shuts {
                path: path.to_owned(),
                groups: shut.join(", "),
            }
            .into());
        }
        let opened = without(&open, &self.fixed.basis.open);
        if !opened.is_empty() {
            notes.push(format!(
                "system calls of the groups {} stay refused until the agent is started anew",
                opened.join(", ")
            ));
        }
        Ok(())
    }

    /// Has the kernel go over to it. On record for later starts, and in the trail by the line that `record` makes, before it
    /// decides.
    fn turn(
        &self,
        followers: &Followers,
        now: &Now,
        next: &Next,
        record: impl FnOnce(&AgentChanged, &AgentRecord) -> Record,
    ) -> Result<(Agent, Limiter, AgentRecord)> {
        let principal = &next.principal;
        let mut facts = AgentRecord {
            observed: next.observed,
            enforcement: Some(next.enforcement.clone()),
            before: Some(Decides {
                generation: Some(now.agent.generation()?),
                ..now.facts.decides.clone()
            }),
            decides: next.decides.clone(),
            ..now.facts.clone()
        };
        let plan = AgentPlan {
            user: Some(&principal.user),
            observed: next.observed,
            kills: self.fixed.basis.means.on_deny == OnDeny::Kill,
            shared: next.shared,
            ..AgentPlan::new(next.engine.tables())
        };
        let edition = Edition {
            wording: next.engine.wording().clone().for_user(&principal.user),
            stamp: Stamp::of(principal, next.engine.policy().masking),
        };
        let id = &self.fixed.id;
        let turned = now
            .agent
            .replace(LockedHosts::wait()?, &plan, |generation| {
                let fail = |error: AgentError| KernelError::NotNoted(error.whole());
                followers
                    .recorder
                    .expect_policy(generation, edition)
                    .map_err(fail)?;
                facts.decides.generation = Some(generation);
                StateDirectory::rewrite(id, &facts, principal).map_err(fail)?;
                let record = record(&self.governed(&facts, principal), &facts);
                let told = followers
                    .recorder
                    .announce(generation, facts.observed, &record);
                told.map_err(|error| fail(ChangeError::Unwritten(Box::new(error)).into()))
            });
        match turned {
            Ok((agent, limiter)) => Ok((agent, limiter, facts)),
            Err(error) => {
                let error = AgentError::from(error);
                // What was written before decides.
                match StateDirectory::rewrite(id, &now.facts, &now.principal) {
                    Ok(()) => Err(error),
                    Err(more) => Err(ChangeError::StateAhead {
                        more: more.whole(),
                        source: Box::new(error),
                    }
                    .into()),
                }
            }
        }
    }

    /// How it is governed, for whoever has changed it.
    fn governed(&self, facts: &AgentRecord, principal: &Principal) -> AgentChanged {
        AgentChanged {
            changed: true,
            agent: facts.agent.as_deref().unwrap_or(UNNAMED).to_owned(),
            id: self.fixed.id.clone(),
            policy: facts.decides.policy_path.clone(),
            policy_sha256: digest(&facts.decides.policy_text),
            generation: facts.decides.generation.unwrap_or_default(),
            governed: change_line::governed(facts.observed).to_owned(),
            mode: principal.mode.as_str().to_owned(),
            capabilities: facts.decides.capabilities.iter().cloned().collect(),
            rates: breaker::rates(&self.limiter),
            notes: Vec::new(),
        }
    }
}

impl AgentControl for Changing {
    fn counts(&self) -> Option<AgentCounts> {
        let counts = self.followers.get()?.recorder.counts();
        let counted = |all: u64, denied: u64| Counted {
            allowed: all.saturating_sub(denied),
            denied,
        };
        Some(AgentCounts {
            execs: counted(counts.execs, counts.execs_denied),
            connects: counted(counts.connects, counts.connects_denied),
            observed: counts.observed,
        })
    }

    fn change(&self, change: &AgentChange, by: &str) -> Result<AgentChanged, String> {
        self.make(change, by).map_err(|error| error.whole())
    }
}

/// Who the agent is by a change.
fn principal(
    change: &AgentChange,
    before: &Principal,
    policy: &Policy,
    notes: &mut Vec<String>,
) -> Result<Principal> {
    let mut principal = before.clone();
    if let Some(word) = &change.mode {
        let mode: Mode = word.parse().map_err(ChangeError::Mode)?;
        if mode == principal.mode {
            notes.push(format!("its mode is {mode} already"));
        }
        principal.mode = mode;
    }
    let name = |text: &str| {
        let name: Capability = text.parse().map_err(ChangeError::Capability)?;
        Ok::<_, AgentError>(name.into_string())
    };
    let had = principal.capabilities_under(policy);
    for capability in &change.grant {
        let capability = name(capability)?;
        if principal.capabilities.contains(&capability) {
            notes.push(format!("it has the capability `{capability}` already"));
        } else if had.contains(&capability) {
            notes.push(format!(
                "the policy gives `{capability}` to this agent by its name; from now on it has it under every policy"
            ));
        }
        principal.capabilities.insert(capability);
    }
    for capability in &change.revoke {
        let capability = name(capability)?;
        let own = principal.capabilities.remove(&capability);
        if principal.capabilities_under(policy).contains(&capability) {
            return Err(ChangeError::ByName(capability).into());
        }
        if !own {
            notes.push(format!("it had no capability `{capability}`"));
        }
    }
    Ok(principal)
}
