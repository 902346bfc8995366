//! One pattern of a rule, put where it belongs: to its program or to what is shared, whole or what of it is left.

use std::rc::Rc;

use enforcer_common::rule::HEAD_NAME_MAX;
use regex_syntax::hir::Hir;

use super::{
    super::{
        CompileError, RuleRef,
        argv::{self, Reading},
        automaton::{Alphabet, Automaton, Failure},
        danger,
        glob::Glob,
        group::{BUDGETS, Item},
        search,
        union::{all, without},
    },
    BAD_WORD, Compiler, LIMIT, List, SIMPLER,
};
use crate::{Risk, model::ArgvPattern};

impl Compiler<'_> {
    pub(super) fn glob(&mut self, rank: u16, text: &str, allow: bool) -> Result<(), CompileError> {
        let glob = Glob::parse(text);
        let head = glob.head().filter(|name| name.len() <= HEAD_NAME_MAX);
        let expression = match head {
            Some(_) => glob.after_head(),
            None => glob.whole(allow),
        };
        let piece = self
            .groups
            .expressions
            .add(expression)
            .map_err(|error| self.wrong(rank, text, &error, SIMPLER))?;
        let item = Item {
            rank,
            pieces: vec![piece],
            weight: glob.stars(),
            text: text.to_owned(),
        };
        let list = match head {
            None if glob.floats() => List::Floating,
            _ => List::Anchored,
        };
        self.put(head.map(String::into_bytes), list, item)
    }

    pub(super) fn regex(&mut self, rank: u16, text: &str) -> Result<(), CompileError> {
        let hir = search::parse(text).map_err(|error| {
            let mend = "correct it; classes are ASCII, write `(?u:...)` for Unicode ones";
            self.wrong(rank, text, &error, mend)
        })?;
        for search in search::split(&hir) {
            let head = search.head.filter(|name| name.len() <= HEAD_NAME_MAX);
            let list = match head {
                None if search.floats => List::Floating,
                _ => List::Anchored,
            };
            for hir in self.small(search.hir, search.joined) {
                let item = Item {
                    rank,
                    weight: search::weight(&hir),
                    pieces: vec![self.groups.expressions.add_hir(hir)],
                    text: text.to_owned(),
                };
                self.put(head.clone(), list, item)?;
            }
        }
        Ok(())
    }

    /// An expression whole if it has room among others in a small group, else the branches that were left together in it:
    /// these find places one by one.
    fn small(&mut self, whole: Hir, joined: bool) -> Vec<Hir> {
        if joined {
            let piece = self.groups.expressions.add_hir(whole.clone());
            let [small, _] = BUDGETS;
            let automaton = self.groups.part(piece, Alphabet::Text);
            if !automaton.is_ok_and(|automaton| automaton.fits(small)) {
                return search::apart(&whole);
            }
        }
        vec![whole]
    }

    pub(super) fn argv(
        &mut self,
        rank: u16,
        program: &str,
        pattern: &ArgvPattern,
        strict: bool,
        text: &str,
    ) -> Result<(), CompileError> {
        let words = pattern.words.iter().flatten();
        let flags = [
            &pattern.flags_any,
            &pattern.flags_all,
            &pattern.flags_none,
            &pattern.flags_bare,
            &pattern.args_any,
        ];
        let flags = flags.into_iter().flatten();
        if let Some(bad) = words.chain(flags).find(|word| word.contains('\0')) {
            return Err(self.wrong(rank, bad, "a word cannot contain a NUL byte", BAD_WORD));
        }
        if program.is_empty() || program.contains('\0') {
            let why = "a program's name cannot be empty or contain a NUL byte";
            return Err(self.wrong(rank, program, why, BAD_WORD));
        }
        // Names are looked up to their first space, whatever the rule.
        let space = program.find(' ').unwrap_or(program.len());
        let (name, behind) = if space > HEAD_NAME_MAX {
            ("", program)
        } else {
            program.split_at(space)
        };
        let known = self.known.get(program).filter(|known| known.rules > 1);
        let reading = match known {
            _ if strict => Reading::Strict,
            Some(known) => Reading::Known(&known.words),
            None => Reading::Any,
        };
        let mut lines = vec![argv::pieces(pattern, behind, reading)];
        if let Reading::Known(words) = reading
            && let Some(line) = argv::ambiguous(pattern, behind, words)
        {
            lines.push(vec![line]);
        }
        let lifted = match argv::lifted(pattern, behind) {
            Some(lifted) if !strict => Some(self.lifted(rank, text, lifted)?),
            _ => None,
        };
        for line in lines {
            let mut pieces = Vec::new();
            for piece in line {
                pieces.push(self.expression(rank, text, piece)?);
            }
            if let Some(lifted) = &lifted {
                pieces = vec![self.without(rank, text, &pieces, lifted)?];
            }
            let item = Item {
                rank,
                weight: pieces.len() - 1,
                pieces,
                text: text.to_owned(),
            };
            let head = (space <= HEAD_NAME_MAX).then(|| name.as_bytes().to_vec());
            self.put(head, List::Words, item)?;
        }
        Ok(())
    }

    fn expression(
        &mut self,
        rank: u16,
        text: &str,
        expression: String,
    ) -> Result<usize, CompileError> {
        self.groups
            .expressions
            .add(expression)
            .map_err(|error| self.wrong(rank, text, &error, SIMPLER))
    }

    /// The automaton of the lines that a rule is lifted from: what the first expression matches and the second
    /// does not.
    fn lifted(
        &mut self,
        rank: u16,
        text: &str,
        [harmless, back]: [String; 2],
    ) -> Result<Rc<Automaton>, CompileError> {
        let pieces = [
            self.expression(rank, text, harmless)?,
            self.expression(rank, text, back)?,
        ];
        let [harmless, back] = pieces.map(|piece| self.groups.part(piece, Alphabet::Exact));
        let built = harmless.and_then(|harmless| without(&harmless, &*back?, LIMIT));
        built
            .map(Rc::new)
            .map_err(|failure| self.failed(rank, text, failure))
    }

    /// What all pieces match and `lifted` does not, as one piece.
    fn without(
        &mut self,
        rank: u16,
        text: &str,
        pieces: &[usize],
        lifted: &Automaton,
    ) -> Result<usize, CompileError> {
        let parts: Result<Vec<_>, _> = pieces
            .iter()
            .map(|piece| self.groups.part(*piece, Alphabet::Exact))
            .collect();
        let left = parts
            .and_then(|parts| all(&parts, LIMIT))
            .and_then(|whole| without(&whole, lifted, LIMIT))
            .map_err(|failure| self.failed(rank, text, failure))?;
        Ok(self.groups.add_automaton(Alphabet::Exact, Rc::new(left)))
    }

    fn failed(&self, rank: u16, text: &str, failure: Failure) -> CompileError {
        let why = match failure {
            Failure::TooLarge => "its automaton is larger than a table segment holds".to_owned(),
            Failure::Unsupported(why) => why,
        };
        self.wrong(rank, text, &why, SIMPLER)
    }

    /// The lines that the rule with this rank is lifted from by its `unless`: whole words. Were a space within a word the end
    /// of one there, a word could pose as several, and what it says would not be what the program reads.
    fn unless(&mut self, rank: u16) -> Result<Option<Rc<Automaton>>, CompileError> {
        let Some(at) = self.ranks.refs[usize::from(rank)].rule() else {
            return Ok(None);
        };
        let unless = &self.exec.rules[at].unless;
        if unless.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.lifts.get(&at) {
            return Ok(Some(Rc::clone(known)));
        }
        let joined: Vec<String> = unless.iter().map(|text| format!("(?:{text})")).collect();
        let whole = format!(r"\A(?:{})\z", joined.join("|"));
        let made = search::parse(&whole)
            .map_err(Failure::Unsupported)
            .and_then(|hir| Automaton::of(&hir, Alphabet::Exact, LIMIT))
            .map(Automaton::by_words)
            .map(Rc::new)
            .map_err(|failure| self.failed(rank, &joined.join("|"), failure))?;
        self.lifts.insert(at, Rc::clone(&made));
        Ok(Some(made))
    }

    /// What a pattern matches behind a program's name and `unless` does not.
    fn lift(
        &mut self,
        alphabet: Alphabet,
        item: &mut Item,
        name: &[u8],
        unless: &Automaton,
    ) -> Result<(), CompileError> {
        let whole = self.groups.whole(alphabet, &item.pieces);
        let left = whole
            .and_then(|whole| without(&whole.ending(), &unless.after(name), LIMIT))
            .map_err(|failure| self.failed(item.rank, &item.text, failure))?;
        item.pieces = vec![self.groups.add_automaton(alphabet, Rc::new(left))];
        Ok(())
    }

    /// Whether it stands for the dangerous part of a rule.
    pub(super) fn splits(&self, of: RuleRef) -> bool {
        matches!(of, RuleRef::Raised(at) if self.exec.rules[at].risk == Risk::High)
    }

    /// Puts a pattern to its program, or to what is shared. Of a rule that asks about what is dangerous only, what
    /// the pattern matches and is dangerous.
    fn put(
        &mut self,
        head: Option<Vec<u8>>,
        list: List,
        mut item: Item,
    ) -> Result<(), CompileError> {
        if let Some(unless) = self.unless(item.rank)? {
            let name = head.as_deref().unwrap_or_default();
            self.lift(list.alphabet(), &mut item, name, &unless)?;
        }
        if self.splits(self.ranks.refs[usize::from(item.rank)]) {
            let name = head.as_deref().unwrap_or_default();
            let found = self
                .dangerous(list.alphabet(), &item, name)
                .map_err(|failure| {
                    let why = match failure {
                        Failure::TooLarge => {
                            "what it matches and is dangerous needs a larger automaton than a table segment holds"
                                .to_owned()
                        }
                        Failure::Unsupported(why) => why,
                    };
                    self.wrong(item.rank, &item.text, &why, SIMPLER)
                })?;
            match found {
                Some(piece) => item.pieces = piece,
                None => return Ok(()),
            }
        }
        let lists = match head {
            Some(name) => self.heads.entry(name).or_default(),
            None => &mut self.shared,
        };
        match list {
            List::Anchored => lists.anchored.push(item),
            List::Floating => lists.floating.push(item),
            List::Words => lists.words.push(item),
        }
        Ok(())
    }

    /// The expressions of what a pattern matches and is dangerous behind this program's name; nothing if there is no
    /// such text.
    fn dangerous(
        &mut self,
        alphabet: Alphabet,
        item: &Item,
        name: &[u8],
    ) -> Result<Option<Vec<usize>>, Failure> {
        let danger = danger::automaton(alphabet)?;
        let Some(danger) = danger.behind(name) else {
            return Ok(Some(item.pieces.clone()));
        };
        // Most names are like any other to it: equal patterns behind them have one automaton.
        let key = (alphabet, item.pieces.clone(), danger.start);
        if let Some(known) = self.within.get(&key) {
            return Ok(known.clone());
        }
        let rule = self.groups.whole(alphabet, &item.pieces)?;
        let found = danger::within(&rule, &danger)?;
        let pieces = if found.is_nothing() {
            None
        } else {
            Some(vec![self.groups.add_automaton(alphabet, found)])
        };
        self.within.insert(key, pieces.clone());
        Ok(pieces)
    }
}
