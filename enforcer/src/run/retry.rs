//! Actions that fail while a person is asked about them, and go through when they are tried again after the approval
//! (`approvals.mode: retry`; else connects of sockets that may not wait).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
    time::{Duration, Instant},
};

use super::{
    held::{Held, Message, Refusals},
    supervisor::Shared,
};
use crate::{
    audit::Verdict,
    decide::approval::{Answer, Ending, Subject},
    seccomp::descriptor,
};

/// How long a denial holds for the same action: a program that tries it again by itself asks nobody anew.
const DENIED: Duration = Duration::from_secs(30);
/// Most answers that are kept.
const KEPT: usize = 1024;

/// What is known of actions that were asked about.
#[derive(Debug, Default)]
pub struct Retries(HashMap<Subject, Retry>);

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
    fn wait(&mut self, subject: Subject, id: &str) {
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
        self.0.insert(subject, retry);
    }

    /// Notes an answer; an approval holds for `holds`.
    fn answer(&mut self, subject: Subject, answer: Answer, holds: Duration) {
        self.sweep();
        let (holds, uncounted) = match answer.ending {
            Ending::Approved { .. } => (holds, false),
            Ending::Denied { .. } | Ending::Expired(_) => (DENIED, true),
            Ending::Cancelled | Ending::Refused(_) => {
                self.0.remove(&subject);
                return;
            }
        };
        let until = Some(Instant::now() + holds);
        self.0.insert(
            subject,
            Retry {
                answer,
                until,
                uncounted,
            },
        );
    }

    /// What becomes of a new try. An approval is used up by it.
    fn tried(&mut self, subject: &Subject) -> Known {
        self.sweep();
        let Some(retry) = self.0.get_mut(subject) else {
            return Known::Nothing;
        };
        let answer = retry.answer.clone();
        if matches!(answer.ending, Ending::Approved { .. }) {
            self.0.remove(subject);
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
        held: Held,
        sender: &Sender<Message>,
        refusals: &Refusals,
        retries: &mut Retries,
        number: u64,
    ) -> anyhow::Result<()> {
        // The launcher: the request outlives whoever made it.
        let asked = Self::subject(&held)
            .and_then(|subject| Ok((subject, descriptor::process(std::process::id())?)));
        let (subject, process) = match asked {
            Ok(asked) => asked,
            Err(error) => return self.refuse_unreadable(&held, &error),
        };
        if let Some(answer) = refusals.find(held.who.tgid, &subject) {
            return self.refuse_held(&held, &answer, None);
        }
        match retries.tried(&subject) {
            Known::Nothing => {}
            Known::Approved(answer) => return self.settle(held, &subject, answer, number),
            Known::Refused(answer, counts) => {
                let tripped = if counts {
                    self.count_denial(&held, &answer)
                } else {
                    None
                };
                return self.refuse_held(&held, &answer, tripped);
            }
        }
        let asked = self.asked(&held, &subject);
        // Whoever is first: the desk that has to wait for a person, or its answer.
        let held = Arc::new(Mutex::new(Some(held)));
        let take =
            |held: &Mutex<Option<Held>>| held.lock().unwrap_or_else(PoisonError::into_inner).take();
        let waiting = {
            let (held, subject, sender) = (Arc::clone(&held), subject.clone(), sender.clone());
            move |id: &str| {
                if let Some(held) = take(&held) {
                    let later = Message::Later(Box::new(held), Box::new(subject), id.to_owned());
                    let _ = sender.send(later);
                }
            }
        };
        let sender = sender.clone();
        self.with.desk.ask(asked, process, waiting, move |answer| {
            let subject = Box::new(subject);
            let message = match take(&held) {
                Some(held) => Message::Answered(Box::new(held), subject, answer),
                None => Message::AnsweredLater(subject, answer),
            };
            // Without a receiver the run has ended.
            let _ = sender.send(message);
        });
        Ok(())
    }

    /// Has a call fail that somebody is asked about now.
    pub(super) fn refuse_for_now(
        &self,
        held: &Held,
        subject: &Subject,
        id: &str,
        retries: &mut Retries,
        refusals: &mut Refusals,
    ) -> anyhow::Result<()> {
        retries.wait(subject.clone(), id);
        let Known::Refused(answer, _) = retries.tried(subject) else {
            return Ok(());
        };
        refusals.remember(held.who.tgid, subject, &answer);
        self.tell_asked(held, id);
        let recorded = self.record_refusal(held, &answer, None, Verdict::Errno);
        self.refuse(held.id, libc::EPERM);
        recorded
    }

    /// Keeps an answer for the next try.
    pub(super) fn keep_answer(&self, subject: Subject, answer: Answer, retries: &mut Retries) {
        retries.answer(subject, answer, self.with.timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::approval::Scope;

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

    fn subject(name: &str) -> Subject {
        Subject::Unix(name.as_bytes().to_vec())
    }

    const LONG: Duration = Duration::from_mins(5);

    #[test]
    fn an_approval_is_for_one_more_try_of_the_same() {
        let mut retries = Retries::default();
        assert_eq!(retries.tried(&subject("/x")), Known::Nothing);
        retries.wait(subject("/x"), "3f2a-11");
        let Known::Refused(answer, false) = retries.tried(&subject("/x")) else {
            panic!("{retries:?}");
        };
        assert!(matches!(answer.ending, Ending::Refused(why) if why.contains("approve 3f2a`")));
        retries.answer(subject("/x"), approved(), LONG);
        assert_eq!(retries.tried(&subject("/y")), Known::Nothing);
        assert_eq!(retries.tried(&subject("/x")), Known::Approved(approved()));
        assert_eq!(retries.tried(&subject("/x")), Known::Nothing);
    }

    #[test]
    fn a_denial_counts_once_and_holds_for_a_while() {
        let mut retries = Retries::default();
        retries.wait(subject("/x"), "1");
        retries.answer(subject("/x"), denied(), LONG);
        assert_eq!(
            retries.tried(&subject("/x")),
            Known::Refused(denied(), true)
        );
        assert_eq!(
            retries.tried(&subject("/x")),
            Known::Refused(denied(), false)
        );
    }

    #[test]
    fn an_approval_does_not_hold_for_ever() {
        let mut retries = Retries::default();
        retries.answer(subject("/x"), approved(), Duration::ZERO);
        assert_eq!(retries.tried(&subject("/x")), Known::Nothing);
    }

    #[test]
    fn what_was_put_to_nobody_is_forgotten() {
        let mut retries = Retries::default();
        retries.wait(subject("/x"), "1");
        let cancelled = Answer {
            request: "1".to_owned(),
            ending: Ending::Cancelled,
        };
        retries.answer(subject("/x"), cancelled, LONG);
        assert_eq!(retries.tried(&subject("/x")), Known::Nothing);
    }
}
