//! Actions that fail while a person is asked about them, and go through when they are tried again after the approval
//! (`approvals.mode: retry`; else connects of sockets that may not wait).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
    time::{Duration, Instant},
};

use super::{
    error::Result,
    held::{HeldCall, Message},
    lately::RefusedLately,
    supervisor::Shared,
    wanted::Put,
};
use enforcer_decide::approval::{Answer, Ending, Request};

/// How long a denial holds for the same action: a program that tries it again by itself asks nobody anew.
const DENIED: Duration = Duration::from_secs(30);
/// Most answers that are kept.
const KEPT: usize = 1024;

/// What is known of actions that were asked about.
#[derive(Debug, Default)]
pub struct Retries(HashMap<Request, Retry>);

#[derive(Debug)]
struct Retry {
    answer: Answer,
    /// Until when it holds; `None` while nobody has answered.
    until: Option<Instant>,
    /// A denial that has not been counted.
    uncounted: bool,
}

/// What a new try is told.
#[derive(Debug, PartialEq, Eq)]
enum Known {
    /// Nobody has been asked.
    Nothing,
    /// It was approved: this try goes through.
    Approved(Answer),
    /// It was denied, or nobody has answered yet; whether the denial counts now.
    Refused(Answer, bool),
}

impl Retries {
    /// Notes that somebody is asked.
    fn wait(&mut self, request: Request, id: &str) {
        self.sweep();
        let short = id.split('-').next().unwrap_or(id);
        let waits = format!("it waits for `enforcer approvals approve {short}`; then try again");
        let retry = Retry {
            answer: Answer {
                request: id.to_owned(),
                ending: Ending::Refused(waits),
            },
            until: None,
            uncounted: false,
        };
        self.0.insert(request, retry);
    }

    /// Notes an answer; an approval holds for `holds`.
    fn answer(&mut self, request: Request, answer: Answer, holds: Duration) {
        self.sweep();
        let (holds, uncounted) = match answer.ending {
            Ending::Approved { .. } => (holds, false),
            Ending::Denied { .. } | Ending::Expired(_) => (DENIED, true),
            Ending::Cancelled | Ending::Refused(_) => {
                self.0.remove(&request);
                return;
            }
        };
        let until = Some(Instant::now() + holds);
        self.0.insert(
            request,
            Retry {
                answer,
                until,
                uncounted,
            },
        );
    }

    /// What becomes of a new try. An approval is used up by it.
    fn tried(&mut self, request: &Request) -> Known {
        self.sweep();
        let Some(retry) = self.0.get_mut(request) else {
            return Known::Nothing;
        };
        let answer = retry.answer.clone();
        if matches!(answer.ending, Ending::Approved { .. }) {
            self.0.remove(request);
            return Known::Approved(answer);
        }
        Known::Refused(answer, std::mem::take(&mut retry.uncounted))
    }

    fn sweep(&mut self) {
        let now = Instant::now();
        self.0
            .retain(|_, retry| retry.until.is_none_or(|until| until > now));
        // The desk keeps what is pending below its own limit.
        while self.0.len() >= KEPT {
            let Some(any) = self.0.keys().next().cloned() else {
                return;
            };
            self.0.remove(&any);
        }
    }
}

impl Shared {
    /// Puts a call to the desk whose caller does not wait.
    pub(super) fn ask_for_later(
        self: &Arc<Self>,
        held: HeldCall,
        sender: &Sender<Message>,
        refusals: &RefusedLately,
        retries: &mut Retries,
        number: u64,
    ) -> Result<()> {
        // The launcher: the request outlives whoever made it.
        let Some((put, process)) = self.put(held, |_| std::process::id())? else {
            return Ok(());
        };
        if let Some(answer) = refusals.find(&put) {
            return self.refuse_held(&put.held, &answer, None);
        }
        match retries.tried(&put.request) {
            Known::Nothing => {}
            Known::Approved(answer) => return self.settle(put, answer, number),
            Known::Refused(answer, counts) => {
                let tripped = if counts {
                    self.count_denial(&put.held, &answer)
                } else {
                    None
                };
                return self.refuse_held(&put.held, &answer, tripped);
            }
        }
        let asked = self.asked(&put);
        let request = put.request.clone();
        // Whoever is first: the desk that has to wait for a person, or its answer.
        let put = Arc::new(Mutex::new(Some(put)));
        let take =
            |put: &Mutex<Option<Put>>| put.lock().unwrap_or_else(PoisonError::into_inner).take();
        let waiting = {
            let (put, sender) = (Arc::clone(&put), sender.clone());
            move |id: &str| {
                if let Some(put) = take(&put) {
                    let _ = sender.send(Message::Later(Box::new(put), id.to_owned()));
                }
            }
        };
        let sender = sender.clone();
        self.approving
            .desk
            .ask(asked, process, waiting, move |answer| {
                let message = match take(&put) {
                    Some(put) => Message::Answered(Box::new(put), answer),
                    None => Message::AnsweredLater(Box::new(request), answer),
                };
                // Without a receiver the run has ended.
                let _ = sender.send(message);
            });
        Ok(())
    }

    /// Has a call fail that somebody is asked about now.
    pub(super) fn refuse_for_now(
        &self,
        put: &Put,
        id: &str,
        retries: &mut Retries,
        refusals: &mut RefusedLately,
    ) -> Result<()> {
        retries.wait(put.request.clone(), id);
        let Known::Refused(answer, _) = retries.tried(&put.request) else {
            return Ok(());
        };
        refusals.remember(put, &answer);
        self.tell_asked(&put.held, id);
        self.refuse_held(&put.held, &answer, None)
    }

    /// Keeps an answer for the next try.
    pub(super) fn keep_answer(&self, request: Request, answer: Answer, retries: &mut Retries) {
        retries.answer(request, answer, self.ruling.timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enforcer_decide::approval::Scope;

    fn approved() -> Answer {
        Answer {
            request: "1".to_owned(),
            ending: Ending::Approved {
                approver: "kim".to_owned(),
                reason: String::new(),
                scope: Scope::Once,
            },
        }
    }

    fn denied() -> Answer {
        Answer {
            request: "1".to_owned(),
            ending: Ending::Denied {
                approver: "kim".to_owned(),
                reason: String::new(),
            },
        }
    }

    fn request(name: &str) -> Request {
        Request::Unix(name.as_bytes().to_vec())
    }

    const LONG: Duration = Duration::from_mins(5);

    #[test]
    fn an_approval_is_for_one_more_try_of_the_same() {
        let mut retries = Retries::default();
        assert_eq!(retries.tried(&request("/x")), Known::Nothing);
        retries.wait(request("/x"), "3f2a-11");
        let Known::Refused(answer, false) = retries.tried(&request("/x")) else {
            panic!("{retries:?}");
        };
        assert!(matches!(answer.ending, Ending::Refused(why) if why.contains("approve 3f2a`")));
        retries.answer(request("/x"), approved(), LONG);
        assert_eq!(retries.tried(&request("/y")), Known::Nothing);
        assert_eq!(retries.tried(&request("/x")), Known::Approved(approved()));
        assert_eq!(retries.tried(&request("/x")), Known::Nothing);
    }

    #[test]
    fn a_denial_counts_once_and_holds_for_a_while() {
        let mut retries = Retries::default();
        retries.wait(request("/x"), "1");
        retries.answer(request("/x"), denied(), LONG);
        assert_eq!(
            retries.tried(&request("/x")),
            Known::Refused(denied(), true)
        );
        assert_eq!(
            retries.tried(&request("/x")),
            Known::Refused(denied(), false)
        );
    }

    #[test]
    fn an_approval_does_not_hold_for_ever() {
        let mut retries = Retries::default();
        retries.answer(request("/x"), approved(), Duration::ZERO);
        assert_eq!(retries.tried(&request("/x")), Known::Nothing);
    }

    #[test]
    fn what_was_put_to_nobody_is_forgotten() {
        let mut retries = Retries::default();
        retries.wait(request("/x"), "1");
        let cancelled = Answer {
            request: "1".to_owned(),
            ending: Ending::Cancelled,
        };
        retries.answer(request("/x"), cancelled, LONG);
        assert_eq!(retries.tried(&request("/x")), Known::Nothing);
    }
}
