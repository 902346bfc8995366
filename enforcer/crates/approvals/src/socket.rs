//! What the control socket is asked, answered by the desk and by what stands behind it.

use std::time::Duration;

use tokio::task::spawn_blocking;

use super::{ApprovalsError, desk::PersonAnswer, serve::Shared};
use enforcer_control::{
    AgentChange, Reporter, RequestRecord, Role, Service,
    protocol::{self, DeskEvent, Operation, Reply, ReplyFault, ToolReport},
    server::{WatchLines, line},
};
use enforcer_policy::Decision;

/// Requests in a list of all.
const MAX_LIST: u32 = 1000;

/// Bytes of a command line in a list.
const MAX_LISTED: usize = 4096;

impl Service for Shared {
    fn role(&self, uid: u32, pid: Option<i32>) -> Role {
        self.guard.borrow().role(uid, pid)
    }

    async fn reply(&self, role: &Role, peer: Reporter, operation: Operation) -> Reply {
        match operation {
            Operation::Change { change: wanted, by } => change(self, role, peer, *wanted, by).await,
            operation => reply(self, role, peer, operation),
        }
    }

    fn watch(&self) -> Result<WatchLines, Box<Reply>> {
        let pending = self.at_desk(|desk, now| {
            desk.expire(now);
            desk.list()
        });
        let next = self.follow();
        let pending = pending.map_err(|error| Box::new(error.into()))?;
        let lines = pending.into_iter().map(|request| {
            let request = Box::new(request);
            line(&DeskEvent::New { request })
        });
        let lines: Result<Vec<String>, _> = lines.collect();
        let there =
            lines.map_err(|error| Box::new(Reply::fault(ReplyFault::Failed, error.to_string())))?;
        Ok(WatchLines { there, next })
    }
}

fn reply(shared: &Shared, role: &Role, reporter: Reporter, request: Operation) -> Reply {
    let answered = match (request, role) {
        (Operation::Tool { report }, Role::Agent) => tool(shared, reporter, &report),
        (Operation::Tool { .. }, _) => Err(ApprovalsError::refused(
            "only hooks inside the agent report tool calls".to_owned(),
        )),
        (Operation::Last, _) => Ok(Reply {
            denials: Some(shared.last_denials()),
            ..Reply::default()
        }),
        (Operation::Breaker { reset, by }, _) => breaker(shared, role, reset, by),
        (_, Role::Agent | Role::Stranger) => Err(ApprovalsError::refused(
            "the agent's own user and processes can neither see nor answer requests; another user must, outside the agent"
                .to_owned(),
        )),
        (Operation::List { all }, _) => shared.at_desk(|desk, now| {
            desk.expire(now);
            let records = if all { desk.history(MAX_LIST) } else { desk.list() };
            records.map(|records| listed(records.into_iter().map(brief).collect()))
        }),
        (Operation::Show { id }, _) => shared.at_desk(|desk, now| {
            desk.expire(now);
            desk.record(&id).map(|record| listed(vec![record]))
        }),
        (Operation::Answer { .. }, Role::Onlooker) => Err(ApprovalsError::refused(
            "root is not among the approvers of this agent's policy (`approvals.approvers`)".to_owned(),
        )),
        (
            Operation::Answer {
                id,
                approve,
                reason,
                scope,
                for_s,
                by,
            },
            Role::Approver(name),
        ) => verdict(approve, scope.as_deref(), for_s).and_then(|verdict| {
            let approver = full_name(name, by);
            let ended =
                shared.at_desk(|desk, now| desk.answer(&id, &verdict, &approver, &reason, now))?;
            Ok(Reply {
                ended: Some(ended),
                ..Reply::default()
            })
        }),
        (Operation::Counts, _) => Ok(Reply {
            counts: shared.agent.as_ref().and_then(|agent| agent.counts()),
            ..Reply::default()
        }),
        (Operation::Watch | Operation::Change { .. }, _) => {
            Err(ApprovalsError::refused("this is not asked for here".to_owned()))
        }
    };
    answered.unwrap_or_else(Reply::from)
}

/// Takes what a hook reports, with the approval that covers it, if there is one.
fn tool(shared: &Shared, reporter: Reporter, report: &ToolReport) -> Result<Reply, ApprovalsError> {
    let Some(tools) = &shared.tools else {
        return Err(ApprovalsError::refused(
            "this run takes no reports of hooks".to_owned(),
        ));
    };
    let approved = (report.decision == Decision::Ask && !report.refused)
        .then(|| {
            shared.at_desk(|desk, now| {
                desk.covering(
                    report.rule.as_deref(),
                    report.words.as_deref(),
                    report.cwd.as_deref(),
                    now,
                )
            })
        })
        .flatten();
    Ok(Reply {
        tool: Some(tools.tool(reporter, report, approved.as_ref())),
        ..Reply::default()
    })
}

/// Changes how the agent is governed. On a thread of its own: meanwhile requests are answered.
async fn change(
    shared: &Shared,
    role: &Role,
    peer: Reporter,
    wanted: AgentChange,
    by: Option<String>,
) -> Reply {
    // Who answers requests says yes or no within the policy; who changes that is root, whoever its approvers are.
    if !matches!(role, Role::Approver(_) | Role::Onlooker) || peer.uid != 0 {
        return Reply::fault(
            ReplyFault::Refused,
            "only root, outside every agent, can change how an agent is governed; use sudo",
        );
    }
    let Some(control) = shared.agent.clone() else {
        return Reply::fault(ReplyFault::Refused, "nothing can be changed of this run");
    };
    let by = full_name("root", by);
    match spawn_blocking(move || control.change(&wanted, &by)).await {
        Ok(Ok(changed)) => Reply {
            changed: Some(changed),
            ..Reply::default()
        },
        Ok(Err(why)) => Reply::fault(ReplyFault::Bad, why),
        Err(error) => Reply::fault(
            ReplyFault::Failed,
            format!("the change broke down: {error}; report this as a defect"),
        ),
    }
}

/// How the trail names who did something.
fn full_name(name: &str, by: Option<String>) -> String {
    match by {
        Some(by) if name == "root" => format!("root for {by}"),
        _ => name.to_owned(),
    }
}

/// Shows the breaker, or closes it.
fn breaker(
    shared: &Shared,
    role: &Role,
    reset: bool,
    by: Option<String>,
) -> Result<Reply, ApprovalsError> {
    let Some(control) = &shared.breaker else {
        return Err(ApprovalsError::NotFound("breaker".to_owned()));
    };
    let status = match role {
        Role::Stranger => return Err(ApprovalsError::refused("not your agent".to_owned())),
        _ if !reset => control.status(),
        Role::Approver(name) => control
            .reset(&full_name(name, by))
            .map_err(ApprovalsError::refused)?,
        Role::Onlooker => {
            return Err(ApprovalsError::refused(
                "root is not among the approvers of this agent's policy (`approvals.approvers`), who alone may close its breaker".to_owned(),
            ));
        }
        Role::Agent => {
            return Err(ApprovalsError::refused(
                "the agent's own user and processes cannot close its breaker; another user must, outside the agent"
                    .to_owned(),
            ));
        }
    };
    Ok(Reply {
        breaker: Some(status),
        ..Reply::default()
    })
}

fn verdict(
    approve: bool,
    scope: Option<&str>,
    for_s: Option<u64>,
) -> Result<PersonAnswer, ApprovalsError> {
    let bad = |text: &str| Err(ApprovalsError::BadAnswer(text.to_owned()));
    if !approve {
        if scope.is_some() || for_s.is_some() {
            return bad("a denial has no scope and no time");
        }
        return Ok(PersonAnswer::Deny);
    }
    let Some(scope) = protocol::scope(scope.unwrap_or("once")) else {
        return bad("unknown scope; it is once, session or rule");
    };
    Ok(PersonAnswer::Approve {
        scope,
        lasting: for_s.map(Duration::from_secs),
    })
}

fn listed(records: Vec<RequestRecord>) -> Reply {
    Reply {
        requests: Some(records),
        ..Reply::default()
    }
}

/// A request in a list: without what is long.
fn brief(mut record: RequestRecord) -> RequestRecord {
    if record.command.len() > MAX_LISTED {
        let end = record.command.floor_char_boundary(MAX_LISTED);
        record.command.truncate(end);
        record.command.push('…');
        record.argv.clear();
    }
    record
}
