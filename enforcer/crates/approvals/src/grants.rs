//! Approvals that outlast their request.

use std::rc::Rc;

use jiff::Timestamp;

use enforcer_decide::approval::{Answer, Asked, Request};

/// Two requests are the same if everything here is: the run and the agent are the desk's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    agent: String,
    uid: u32,
    request: Request,
}

impl Key {
    pub fn of(asked: &Asked) -> Self {
        Self {
            agent: asked.agent.clone(),
            uid: asked.uid,
            request: asked.request.clone(),
        }
    }

    fn is_of(&self, asked: &Asked) -> bool {
        self.uid == asked.uid && self.agent == asked.agent && self.request == asked.request
    }
}

/// How far an approval reaches.
#[derive(Debug)]
pub(super) enum Reach {
    /// This action and no other.
    Exactly(Rc<Key>),
    /// What this rule asks about.
    Rule(String),
}

#[derive(Debug)]
struct Grant {
    reach: Reach,
    until: Option<Timestamp>,
    answer: Answer,
}

/// The approvals that hold on.
#[derive(Debug, Default)]
pub(super) struct Grants(Vec<Grant>);

impl Grants {
    /// Keeps an approval, to the end of the desk or until a moment.
    pub fn add(&mut self, reach: Reach, until: Option<Timestamp>, answer: Answer) {
        self.0.push(Grant {
            reach,
            until,
            answer,
        });
    }

    /// The answer that covers a command of which only its rule, its words and its directory are known.
    pub fn covering_words(
        &mut self,
        rule: Option<&str>,
        words: Option<&[String]>,
        cwd: Option<&str>,
        now: Timestamp,
    ) -> Option<Answer> {
        self.0
            .retain(|grant| grant.until.is_none_or(|until| now < until));
        let same = |request: &Request| match (request, words, cwd) {
            (Request::Exec(exec), Some(words), Some(cwd)) => {
                exec.cwd.path == cwd.as_bytes()
                    && exec.argv.iter().eq(words.iter().map(String::as_bytes))
            }
            _ => false,
        };
        self.0
            .iter()
            .find(|grant| match &grant.reach {
                Reach::Exactly(key) => same(&key.request),
                Reach::Rule(approved) => rule == Some(approved.as_str()),
            })
            .map(|grant| grant.answer.clone())
    }

    /// The answer that covers an action; forgets those whose time is up.
    pub fn covering(&mut self, asked: &Asked, now: Timestamp) -> Option<Answer> {
        self.0
            .retain(|grant| grant.until.is_none_or(|until| now < until));
        self.0
            .iter()
            .find(|grant| match &grant.reach {
                Reach::Exactly(key) => key.is_of(asked),
                Reach::Rule(rule) => asked.rule.as_ref() == Some(rule),
            })
            .map(|grant| grant.answer.clone())
    }
}
