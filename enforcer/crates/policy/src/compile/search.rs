//! Regular expressions of rules: parsed, and split at a literal program name where they have one.

use regex_syntax::hir::{Hir, HirKind, Look, LookSet};

/// A regex rule's expression, as the automata take it.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// The program's name, if only texts of this one program can match.
    pub(super) head: Option<Vec<u8>>,
    /// The expression: over the text after the name if there is one, else over the whole text. It begins
    /// where the text begins.
    pub(super) hir: Hir,
    /// Whether a match can begin anywhere.
    pub(super) floats: bool,
    /// Whether branches were left together that could stand alone ([`apart`]).
    pub(super) joined: bool,
}

/// Parses the text of an expression: bytes, ASCII classes, `.` without line feeds.
pub(super) fn parse(text: &str) -> Result<Hir, String> {
    regex_syntax::ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .build()
        .parse(text)
        .map_err(|error| error.to_string())
}

/// Any bytes, as few as possible.
fn anything() -> Hir {
    Hir::repetition(regex_syntax::hir::Repetition {
        min: 0,
        max: None,
        greedy: false,
        sub: Box::new(Hir::dot(regex_syntax::hir::Dot::AnyByte)),
    })
}

/// Splits an expression into alternatives by program.
pub(super) fn split(hir: &Hir) -> Vec<Search> {
    if let HirKind::Capture(group) = hir.kind() {
        return split(&group.sub);
    }
    if let HirKind::Alternation(branches) = hir.kind() {
        return branches.iter().flat_map(split).collect();
    }
    if let HirKind::Concat(parts) = hir.kind()
        && let [first, second, rest @ ..] = parts.as_slice()
        && *first.kind() == HirKind::Look(Look::Start)
    {
        if let Some(branches) = branches(second) {
            return by_branch(first, branches, rest);
        }
        if let HirKind::Literal(literal) = second.kind()
            && let Some(search) = headed(&literal.0, rest)
        {
            return vec![search];
        }
    }
    vec![whole(hir)]
}

/// An expression that is left as it is.
fn whole(hir: &Hir) -> Search {
    let floats = !hir.properties().look_set_prefix().contains(Look::Start);
    let hir = if floats {
        Hir::concat(vec![anything(), hir.clone()])
    } else {
        hir.clone()
    };
    Search {
        head: None,
        hir,
        floats,
        joined: false,
    }
}

/// Splits `first (branches) rest`. Branches that name no program stay together: what follows them is one part of one
/// automaton then, not of an automaton each that would only be put together again.
fn by_branch(first: &Hir, branches: &[Hir], rest: &[Hir]) -> Vec<Search> {
    let of = |branch: Hir| Hir::concat([&[first.clone(), branch], rest].concat());
    // Whether a literal without a space can be a program's whole name.
    let ends = bounded(rest);
    let cannot_be_named = |branch: &Hir| match branch.kind() {
        HirKind::Literal(literal) => !ends && !literal.0.contains(&b' '),
        _ => false,
    };
    let mut searches = Vec::new();
    let mut nameless = Vec::new();
    for branch in branches {
        if cannot_be_named(branch) {
            nameless.push(branch.clone());
            continue;
        }
        let found = split(&of(branch.clone()));
        if found.iter().all(|search| search.head.is_none()) {
            nameless.push(branch.clone());
        } else {
            searches.extend(found);
        }
    }
    if !nameless.is_empty() {
        searches.push(Search {
            joined: true,
            ..whole(&of(Hir::alternation(nameless)))
        });
    }
    searches
}

/// The branches at the begin of an expression, each as an expression of its own: where the whole is too large, these stand
/// for it.
pub(super) fn apart(hir: &Hir) -> Vec<Hir> {
    if let HirKind::Concat(parts) = hir.kind()
        && let [first, second, rest @ ..] = parts.as_slice()
        && *first.kind() == HirKind::Look(Look::Start)
        && let Some(branches) = branches(second)
    {
        let of = |branch: &Hir| Hir::concat([&[first.clone(), branch.clone()], rest].concat());
        return branches.iter().flat_map(|it| apart(&of(it))).collect();
    }
    vec![hir.clone()]
}

/// The branches of a group such as `(a|b)`.
fn branches(hir: &Hir) -> Option<&[Hir]> {
    match hir.kind() {
        HirKind::Capture(group) => branches(&group.sub),
        HirKind::Alternation(branches) => Some(branches),
        _ => None,
    }
}

/// The split of `^literal rest` if the literal holds the program's whole name.
fn headed(literal: &[u8], rest: &[Hir]) -> Option<Search> {
    let (name, behind) = match literal.iter().position(|byte| *byte == b' ') {
        Some(space) => literal.split_at(space),
        None => (literal, &[][..]),
    };
    if name.contains(&0) {
        return None;
    }
    let mut parts = rest.to_vec();
    if !behind.is_empty() {
        parts.insert(0, Hir::literal(behind));
    }
    let hir = Hir::concat(parts.clone());
    // Without a literal space, the name must end where the literal does. Assertions that look back would see
    // the wrong byte there, so only the end of the text may be asserted.
    let only_end = hir
        .properties()
        .look_set()
        .subtract(LookSet::singleton(Look::End))
        .is_empty();
    if behind.is_empty() && !(only_end && bounded(&parts)) {
        return None;
    }
    Some(Search {
        head: Some(name.to_vec()),
        hir,
        floats: false,
        joined: false,
    })
}

/// Whether every match of the parts, in order, begins with a space or is the end of the text.
fn bounded(parts: &[Hir]) -> bool {
    let Some((first, rest)) = parts.split_first() else {
        return false;
    };
    let followed = |hir: &Hir| bounded(&[std::slice::from_ref(hir), rest].concat());
    match first.kind() {
        HirKind::Empty => bounded(rest),
        HirKind::Literal(literal) => literal.0.first() == Some(&b' '),
        HirKind::Look(look) => *look == Look::End,
        HirKind::Class(_) => false,
        HirKind::Capture(group) => followed(&group.sub),
        HirKind::Concat(inner) => bounded(&[inner, rest].concat()),
        HirKind::Alternation(branches) => branches.iter().all(followed),
        HirKind::Repetition(repetition) => {
            followed(&repetition.sub) && (repetition.min > 0 || bounded(rest))
        }
    }
}

/// How many unbounded repetitions an expression has before its last part: what makes automata grow together.
pub(super) fn weight(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => 0,
        HirKind::Repetition(repetition) => {
            let own = match repetition.max {
                None => 1,
                Some(max) => max as usize / 4,
            };
            own + weight(&repetition.sub)
        }
        HirKind::Capture(group) => weight(&group.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().map(weight).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(text: &str) -> Vec<Option<String>> {
        let name = |search: &Search| {
            let head = search.head.clone()?;
            Some(String::from_utf8(head).unwrap())
        };
        split(&parse(text).unwrap()).iter().map(name).collect()
    }

    #[test]
    fn branches_that_name_no_program_stay_together() {
        assert_eq!(heads("^(?:tee|rm|mv)[ /=]x"), [None]);
        assert_eq!(
            heads("^(?:tee|rm) x"),
            [Some("tee".into()), Some("rm".into())]
        );
        assert_eq!(heads("^(?:tee |rm|mv)[ /=]x"), [Some("tee".into()), None]);
        let nested = "^(?:(?:tee|rm)|mv|cp)[ /=]x";
        assert_eq!(heads(nested), [None]);
        assert_eq!(apart(&split(&parse(nested).unwrap())[0].hir).len(), 4);
        assert_eq!(
            heads("^tee x|^rm[/=]x|^mv[/=]x"),
            [Some("tee".into()), None]
        );
    }

    #[test]
    fn what_stays_together_matches_what_its_branches_match() {
        let text = "^(?:tee |rm|mv|[cd]p|ab*)(?:[ /=]| -[a-z]+)x(?: |$)";
        let whole = regex::bytes::Regex::new(text).unwrap();
        let searches = split(&parse(text).unwrap());
        let found = |line: &str| {
            searches.iter().any(|search| {
                let head = search
                    .head
                    .as_ref()
                    .map_or("", |head| std::str::from_utf8(head).unwrap());
                line.strip_prefix(head).is_some_and(|rest| {
                    // What stands behind a name begins there.
                    let rest_of =
                        regex::bytes::Regex::new(&format!("^(?:{})", search.hir)).unwrap();
                    rest_of.is_match(rest.as_bytes())
                })
            })
        };
        for line in [
            "tee  x", "tee /x y", "tee x", "rm/x", "rm -rx", "rm -r", "mv=x", "cp x", "dp=xx",
            "abbb/x", "b/x", "a -ax z",
        ] {
            assert_eq!(found(line), whole.is_match(line.as_bytes()), "{line}");
        }
    }
}
