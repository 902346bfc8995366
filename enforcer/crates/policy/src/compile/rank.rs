//! Ranks: the order of strictness in which rules win.

use crate::Decision;

use super::{CompileError, RuleRef};

/// Rules in the order of their ranks, and where each decision begins.
#[derive(Debug)]
pub(super) struct Ranks {
    /// What each rank stands for.
    pub(super) refs: Vec<RuleRef>,
    /// First rank that asks.
    pub(super) ask_from: u32,
    /// First rank that denies.
    pub(super) deny_from: u32,
}

impl Ranks {
    /// Orders rules behind `reserved` ranks: allow, ask, deny; among equals the first of `rules` is highest.
    pub(super) fn new(reserved: Vec<RuleRef>, rules: &[(RuleRef, Decision)]) -> Self {
        let mut refs = reserved;
        let mut starts = [0; 3];
        for decision in [Decision::Allow, Decision::Ask, Decision::Deny] {
            starts[decision.number() as usize] = refs.len() as u32;
            refs.extend(
                rules
                    .iter()
                    .rev()
                    .filter(|(_, of)| *of == decision)
                    .map(|(rule, _)| *rule),
            );
        }
        Self {
            refs,
            ask_from: starts[Decision::Ask.number() as usize],
            deny_from: starts[Decision::Deny.number() as usize],
        }
    }

    /// That the tables, which store a rank in 16 bits, can hold them all.
    pub(super) fn fit(&self, section: &'static str) -> Result<(), CompileError> {
        let max = usize::from(u16::MAX);
        let count = self.refs.len();
        if count > max {
            return Err(CompileError::TooManyRules {
                section,
                count,
                max,
            });
        }
        Ok(())
    }
}
