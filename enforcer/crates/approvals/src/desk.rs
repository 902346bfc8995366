//! The state machine: who waits for what, and what an answer does. The clock is passed in; the only I/O is the
//! store's. Whatever fails denies.

use std::{cmp::Reverse, collections::HashMap, rc::Rc, time::Duration};

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    ApprovalsError, Store, Waiter, WaiterId,
    flood::{Recent, RequestLimits, after},
    grants::{Grants, Key, Reach},
    store::{ABANDONED, check_prefix},
};
use enforcer_control::{
    RequestRecord, RequestState,
    protocol::DeskEvent,
    record::{self, Conclusion, MAX_REQUEST_TEXT},
    words,
};
use enforcer_decide::approval::{Answer, Asked, Ending, Scope};
use enforcer_policy::Risk;

/// What comes of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asking {
    /// It waits for a person.
    Waiting {
        /// The request's id.
        id: String,
        /// The waiter, for [`Desk::cancel`].
        waiter: WaiterId,
        /// Others wait for exactly the same.
        shared: bool,
    },
    /// An earlier approval covers it; the waiter has been told.
    Granted(Answer),
    /// It is not put to anybody; the waiter has been told.
    Refused(Answer),
}

/// What a person says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PersonAnswer {
    /// Yes.
    Approve {
        /// How far it reaches.
        scope: Scope,
        /// How long it reaches; `None`: until the agent ends. Only for `session` and `rule`.
        lasting: Option<Duration>,
    },
    /// No.
    Deny,
}

#[derive(Debug)]
struct Pending {
    key: Rc<Key>,
    rule: Option<String>,
    risk: Risk,
    asked_at: Timestamp,
    expires_at: Timestamp,
    /// Processes that asked so far, also those that are gone.
    asked: u32,
    waiters: Vec<(WaiterId, Waiter)>,
}

/// The desk of one run of one agent.
#[derive(Debug)]
pub struct Desk {
    store: Store,
    instance: String,
    limits: RequestLimits,
    pending: HashMap<String, Pending>,
    by_key: HashMap<Rc<Key>, String>,
    by_waiter: HashMap<WaiterId, String>,
    grants: Grants,
    recent: Recent,
    next_waiter: u64,
    events: Vec<DeskEvent>,
}

impl Desk {
    /// A desk with nothing pending.
    pub fn new(store: Store, instance: &str, limits: RequestLimits) -> Self {
        Self {
            store,
            instance: instance.to_owned(),
            limits,
            pending: HashMap::new(),
            by_key: HashMap::new(),
            by_waiter: HashMap::new(),
            grants: Grants::default(),
            recent: Recent::default(),
            next_waiter: 0,
            events: Vec::new(),
        }
    }

    /// Goes by other limits from now on; with `forget` no earlier approval covers anything any more.
    pub fn replace_rules(&mut self, limits: RequestLimits, forget: bool) {
        self.limits = limits;
        if forget {
            self.grants = Grants::default();
        }
    }

    /// The earlier answer that covers a command which a hook knows by its words only: of its rule, or of exactly these
    /// words in this directory. The file is not compared: what runs then is judged once more.
    pub fn covering(
        &mut self,
        rule: Option<&str>,
        words: Option<&[String]>,
        cwd: Option<&str>,
        now: Timestamp,
    ) -> Option<Answer> {
        self.grants.covering_words(rule, words, cwd, now)
    }

    /// Puts an action to a person, unless an earlier approval covers it. The waiter is told the answer once, whatever
    /// happens; if it need not wait, before this returns.
    pub fn ask(&mut self, asked: Asked, mut waiter: Waiter, now: Timestamp) -> Asking {
        self.expire(now);
        if let Some(answer) = self.grants.covering(&asked, now) {
            waiter.tell(answer.clone());
            return Asking::Granted(answer);
        }
        let bytes = record::request_bytes(&asked.request);
        if bytes > MAX_REQUEST_TEXT {
            return refuse(
                waiter,
                format!(
                    "{bytes} bytes are too much for a person to judge (at most {MAX_REQUEST_TEXT})"
                ),
            );
        }
        let key = Key::of(&asked);
        if let Some(id) = self.by_key.get(&key).cloned() {
            return self.share(id, waiter);
        }
        if let Some(why) = self.too_many(now) {
            return refuse(waiter, why);
        }
        let Some(expires_at) = after(now, self.limits.timeout) else {
            return refuse(waiter, "the timeout lies beyond all time".to_owned());
        };
        let id = Uuid::new_v4().to_string();
        let record = RequestRecord::new(id.clone(), &self.instance, &asked, now, expires_at);
        if let Err(error) = self.store.insert(&record) {
            return refuse(waiter, error.to_string());
        }
        self.recent.add(now);
        waiter.request.clone_from(&id);
        let key = Rc::new(key);
        let number = self.number(&id);
        self.by_key.insert(Rc::clone(&key), id.clone());
        self.pending.insert(
            id.clone(),
            Pending {
                key,
                rule: asked.rule,
                risk: asked.risk,
                asked_at: now,
                expires_at,
                asked: 1,
                waiters: vec![(number, waiter)],
            },
        );
        self.events.push(DeskEvent::New {
            request: Box::new(record),
        });
        Asking::Waiting {
            id,
            waiter: number,
            shared: false,
        }
    }

    fn share(&mut self, id: String, mut waiter: Waiter) -> Asking {
        let number = self.number(&id);
        let Some(pending) = self.pending.get_mut(&id) else {
            self.by_waiter.remove(&number);
            return refuse(waiter, "the request has just ended".to_owned());
        };
        waiter.request.clone_from(&id);
        pending.asked = pending.asked.saturating_add(1);
        pending.waiters.push((number, waiter));
        if let Err(error) = self.store.set_waiting(&id, pending.asked) {
            // The count is only for the eye.
            tracing::warn!(%error, "the number of waiting processes is not kept");
        }
        Asking::Waiting {
            id,
            waiter: number,
            shared: true,
        }
    }

    fn number(&mut self, id: &str) -> WaiterId {
        self.next_waiter += 1;
        let number = WaiterId(self.next_waiter);
        self.by_waiter.insert(number, id.to_owned());
        number
    }

    fn too_many(&mut self, now: Timestamp) -> Option<String> {
        let rate = self.limits.rate;
        if self.recent.is_full(rate, now) {
            return Some(format!(
                "too many requests for approval: more than {} in {}",
                rate.count,
                words::duration(rate.window)
            ));
        }
        (self.pending.len() >= self.limits.max_pending).then(|| {
            format!(
                "too many requests for approval: {} are pending already",
                self.pending.len()
            )
        })
    }

    /// Answers a request, named by its id or the start of it. Gives the ids of all requests that the answer ended: an
    /// approval of a rule ends all that the rule asks about.
    ///
    /// # Errors
    ///
    /// There is no such request, it has ended already, the answer does not fit, or the store fails; then nothing has
    /// changed.
    pub fn answer(
        &mut self,
        id: &str,
        verdict: &PersonAnswer,
        approver: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<Vec<String>, ApprovalsError> {
        self.expire(now);
        let id = self.find(id)?;
        let (approver, reason) = (record::text(approver), record::text(reason));
        let Some(pending) = self.pending.get(&id) else {
            return Err(ApprovalsError::NotFound(id));
        };
        let (state, scope, grant) = match verdict {
            PersonAnswer::Deny => (RequestState::Denied, None, None),
            PersonAnswer::Approve { scope, lasting } => {
                let until = match lasting {
                    None => None,
                    Some(_) if *scope == Scope::Once => {
                        return Err(ApprovalsError::BadAnswer(
                            "an approval for once does not last; add --scope session or --scope rule".to_owned(),
                        ));
                    }
                    Some(time) => Some(after(now, *time).ok_or_else(|| {
                        ApprovalsError::BadAnswer("the time is too long".to_owned())
                    })?),
                };
                let reach = match scope {
                    Scope::Once => None,
                    Scope::Session => Some(Reach::Exactly(Rc::clone(&pending.key))),
                    Scope::Rule => Some(Reach::Rule(pending.rule.clone().ok_or_else(|| {
                        ApprovalsError::BadAnswer(format!(
                            "request {id} was asked by a default, not by a rule; use --scope once or --scope session"
                        ))
                    })?)),
                };
                (RequestState::Approved, Some(*scope), reach.zip(Some(until)))
            }
        };
        let ending = match scope {
            Some(scope) => Ending::Approved {
                approver: approver.clone(),
                reason: reason.clone(),
                scope,
            },
            None => Ending::Denied {
                approver: approver.clone(),
                reason: reason.clone(),
            },
        };
        let outcome = Conclusion {
            answered_at: Some(now),
            approver: Some(approver),
            answer_reason: Some(reason),
            scope: scope.map(|scope| scope.as_str().to_owned()),
        };
        // The store first: what is not on record is not approved.
        if !self.store.end(&id, state, &outcome)? {
            let how = self.how(&id);
            self.close(&id, RequestState::Denied, &outcome, &lost());
            return Err(ApprovalsError::Ended { id, how });
        }
        self.close(&id, state, &outcome, &ending);
        let mut ended = vec![id.clone()];
        if let Some((reach, until)) = grant {
            if let Reach::Rule(rule) = &reach {
                ended.extend(self.same_rule(&rule.clone(), &outcome, &ending));
            }
            self.grants.add(
                reach,
                until,
                Answer {
                    request: id,
                    ending,
                },
            );
        }
        Ok(ended)
    }

    /// Approves all that the rule asks about and that is pending; gives the ids.
    fn same_rule(&mut self, rule: &str, outcome: &Conclusion, ending: &Ending) -> Vec<String> {
        let mut ended = Vec::new();
        for id in self.order() {
            if self.pending.get(&id).and_then(|p| p.rule.as_deref()) != Some(rule) {
                continue;
            }
            match self.store.end(&id, RequestState::Approved, outcome) {
                Ok(true) => {
                    self.close(&id, RequestState::Approved, outcome, ending);
                    ended.push(id);
                }
                Ok(false) => self.close(&id, RequestState::Denied, outcome, &lost()),
                // It waits on, and a person can answer it by itself.
                Err(error) => tracing::warn!(%error, "a request of an approved rule stays pending"),
            }
        }
        ended
    }

    /// The pending request that a prefix names.
    fn find(&self, prefix: &str) -> Result<String, ApprovalsError> {
        check_prefix(prefix)?;
        let mut found = self.pending.keys().filter(|id| id.starts_with(prefix));
        match (found.next(), found.count()) {
            (Some(id), 0) => Ok(id.clone()),
            (Some(_), others) => Err(ApprovalsError::Ambiguous {
                prefix: prefix.to_owned(),
                count: others + 1,
            }),
            (None, _) => {
                let record = self.record(prefix)?;
                Err(ApprovalsError::Ended {
                    how: record.ending(),
                    id: record.id,
                })
            }
        }
    }

    /// Ends what nobody answered in time.
    pub fn expire(&mut self, now: Timestamp) {
        if self.next_deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        for id in self.order() {
            if self.pending.get(&id).is_some_and(|p| p.expires_at <= now) {
                let ending = Ending::Expired(self.limits.timeout);
                self.end(&id, RequestState::Expired, &at(now), &ending);
            }
        }
    }

    /// When [`Self::expire`] has something to do next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.pending.values().map(|p| p.expires_at).min()
    }

    /// A waiter's process is gone. The last one takes the request with it.
    pub fn cancel(&mut self, waiter: WaiterId, now: Timestamp) {
        let Some(id) = self.by_waiter.remove(&waiter) else {
            return;
        };
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        let Some(place) = pending.waiters.iter().position(|(w, _)| *w == waiter) else {
            return;
        };
        if pending.waiters.len() == 1 {
            self.end(&id, RequestState::Cancelled, &at(now), &Ending::Cancelled);
        } else {
            let (_, gone) = pending.waiters.remove(place);
            gone.tell(Answer {
                request: id,
                ending: Ending::Cancelled,
            });
        }
    }

    /// Denies all that is pending: the supervisor ends.
    pub fn close_all(&mut self, now: Timestamp) {
        let outcome = Conclusion {
            approver: Some("enforcer".to_owned()),
            answer_reason: Some(ABANDONED.to_owned()),
            ..at(now)
        };
        for id in self.order() {
            self.end(&id, RequestState::Denied, &outcome, &lost());
        }
    }

    /// The pending ids: the most dangerous first, among equals the oldest.
    pub fn order(&self) -> Vec<String> {
        let mut ids: Vec<_> = self
            .pending
            .iter()
            .map(|(id, p)| (Reverse(p.risk), p.asked_at, id))
            .collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, _, id)| id.clone()).collect()
    }

    /// The pending requests, in [`Self::order`].
    ///
    /// # Errors
    ///
    /// The store fails.
    pub fn list(&self) -> Result<Vec<RequestRecord>, ApprovalsError> {
        self.order()
            .iter()
            .filter_map(|id| self.store.get(id).transpose())
            .collect()
    }

    /// The newest requests of this run, pending or not, newest first.
    ///
    /// # Errors
    ///
    /// The store fails.
    pub fn history(&self, limit: u32) -> Result<Vec<RequestRecord>, ApprovalsError> {
        self.store.history_of(&self.instance, limit)
    }

    /// A request of this run, by its id or the start of it.
    ///
    /// # Errors
    ///
    /// There is none or more than one, or the store fails.
    pub fn record(&self, prefix: &str) -> Result<RequestRecord, ApprovalsError> {
        let record = self.store.find(prefix)?;
        if record.instance == self.instance {
            Ok(record)
        } else {
            Err(ApprovalsError::NotFound(prefix.to_owned()))
        }
    }

    /// Whether a request of any run is still pending, as far as the store knows.
    pub(super) fn is_pending_anywhere(&self, id: &str) -> bool {
        self.pending.contains_key(id)
            || self.store.get(id).is_ok_and(|found| {
                found.is_some_and(|record| record.state == RequestState::Pending)
            })
    }

    /// Whether a request is pending here.
    pub fn is_pending(&self, id: &str) -> bool {
        self.pending.contains_key(id)
    }

    /// What has happened since the last call.
    pub fn take_events(&mut self) -> Vec<DeskEvent> {
        std::mem::take(&mut self.events)
    }

    fn how(&self, id: &str) -> String {
        match self.store.get(id) {
            Ok(Some(record)) => record.ending(),
            Ok(None) => "its record is gone".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// Ends a request without approving it: also when the store fails, for the waiters must not wait on.
    fn end(&mut self, id: &str, state: RequestState, outcome: &Conclusion, ending: &Ending) {
        if let Err(error) = self.store.end(id, state, outcome) {
            tracing::warn!(%error, id, "the end of a request is not on record");
        }
        self.close(id, state, outcome, ending);
    }

    fn close(&mut self, id: &str, state: RequestState, outcome: &Conclusion, ending: &Ending) {
        let Some(pending) = self.pending.remove(id) else {
            return;
        };
        self.by_key.remove(&pending.key);
        for (number, waiter) in pending.waiters {
            self.by_waiter.remove(&number);
            waiter.tell(Answer {
                request: id.to_owned(),
                ending: ending.clone(),
            });
        }
        self.events.push(DeskEvent::Ended {
            id: id.to_owned(),
            state,
            outcome: outcome.clone(),
        });
    }
}

fn refuse(waiter: Waiter, why: String) -> Asking {
    let answer = Answer {
        request: String::new(),
        ending: Ending::Refused(why),
    };
    waiter.tell(answer.clone());
    Asking::Refused(answer)
}

fn lost() -> Ending {
    Ending::Denied {
        approver: "enforcer".to_owned(),
        reason: ABANDONED.to_owned(),
    }
}

fn at(now: Timestamp) -> Conclusion {
    Conclusion {
        answered_at: Some(now),
        ..Conclusion::default()
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod desk_tests;
