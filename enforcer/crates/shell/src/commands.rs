//! The rewriting pass among commands: words, keywords, operators.

use super::{
    Refused,
    rewrite::{Frame, Rewriter},
    wrappers::assigns,
};

/// What commands stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// The text itself.
    Text,
    /// `$(…)`, `<(…)`.
    Substitution,
    /// `(…)`.
    Group,
    /// No commands, but the words of an array: `x=(…)`.
    Array,
}

/// What the next word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// A keyword, or what follows.
    Start,
    /// An assignment, or a command's name.
    Name,
    /// An argument.
    Argument,
    /// The name behind `for` or `select`, and the word behind that.
    Variable,
    Values,
    /// The name behind `function`.
    Function,
    /// The name behind `coproc`, or a command.
    Job,
}

/// How far a `case` is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Subject,
    Pattern,
    Body,
}

/// A word that is being read: where it is written, and whether no quote or expansion has stood in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    pub start: usize,
    pub plain: bool,
}

/// Commands that are being read.
#[derive(Debug)]
pub(super) struct Commands {
    holder: Holder,
    /// The frame with whose lines here documents begin.
    pub owner: usize,
    pub position: Position,
    /// The word that has begun.
    pub word: Option<Begun>,
    /// The next word is a redirection's target.
    pub target: bool,
    /// The command is a later stage of a pipeline.
    piped: bool,
    /// Inside `[[ … ]]`.
    condition: bool,
    cases: Vec<Case>,
    /// `time` and `coproc`, as written, which the grammar knows before simple commands alone.
    prefixes: Vec<std::ops::Range<usize>>,
}

impl Commands {
    pub fn new(holder: Holder, owner: usize) -> Self {
        Self {
            holder,
            owner,
            position: Position::Start,
            word: None,
            target: false,
            piped: false,
            condition: false,
            cases: Vec::new(),
            prefixes: Vec::new(),
        }
    }

    fn pattern(&self) -> bool {
        self.cases.last() == Some(&Case::Pattern)
    }

    /// A word that begins here, unless one has.
    fn begin(&mut self, start: usize, plain: bool) {
        let word = self.word.get_or_insert(Begun { start, plain: true });
        word.plain &= plain;
    }

    /// Another command.
    fn next(&mut self) {
        self.position = Position::Start;
        self.target = false;
        self.piped = false;
        self.prefixes.clear();
    }

    /// Whether the line ends a pipeline here. The grammar takes the next line for arguments of some.
    fn ends_pipeline(&mut self) -> bool {
        let arguments = matches!(self.position, Position::Name | Position::Argument);
        let ends = std::mem::take(&mut self.piped) && arguments && !self.target && !self.condition;
        ends && matches!(self.cases.last(), None | Some(Case::Body))
    }

    /// What the word that has ended means for those behind it. What is to be blank comes back.
    fn classify(&mut self, word: &[u8], begun: Begun) -> Blank {
        let range = begun.start..begun.start + word.len();
        if std::mem::take(&mut self.target) {
            if matches!(self.position, Position::Start | Position::Job) {
                self.position = Position::Name;
            }
            return Blank::Nothing;
        }
        let keyword: &[u8] = if begun.plain { word } else { b"" };
        if self.holder == Holder::Array {
            return Blank::Nothing;
        }
        if self.condition {
            if keyword == b"]]" {
                self.condition = false;
                self.position = Position::Start;
            }
            return Blank::Nothing;
        }
        match self.cases.last_mut() {
            Some(case @ Case::Subject) => {
                if self.position == Position::Argument && keyword == b"in" {
                    *case = Case::Pattern;
                }
                self.position = Position::Argument;
                return Blank::Nothing;
            }
            Some(Case::Pattern) => {
                if keyword == b"esac" {
                    self.cases.pop();
                    self.next();
                }
                return Blank::Nothing;
            }
            _ => {}
        }
        match self.position {
            Position::Start | Position::Job => return self.command(keyword, word, range),
            Position::Name if !assignment(word) => self.position = Position::Argument,
            Position::Variable => self.position = Position::Values,
            Position::Values if matches!(keyword, b"do" | b"{") => self.next(),
            Position::Values => self.position = Position::Argument,
            Position::Function => self.next(),
            Position::Name | Position::Argument => {}
        }
        Blank::Nothing
    }

    /// A word where a command may begin.
    fn command(&mut self, keyword: &[u8], word: &[u8], range: std::ops::Range<usize>) -> Blank {
        let job = self.position == Position::Job;
        self.position = match keyword {
            b"!" => {
                self.position = Position::Start;
                return Blank::Range(range);
            }
            b"time" | b"coproc" => {
                self.prefixes.push(range);
                self.position = if keyword == b"coproc" {
                    Position::Job
                } else {
                    Position::Start
                };
                return Blank::Nothing;
            }
            b"-p" | b"--" if !self.prefixes.is_empty() => {
                self.prefixes.push(range);
                return Blank::Nothing;
            }
            b"then" | b"else" | b"elif" | b"do" | b"}" | b"fi" | b"done" => Position::Start,
            b"esac" => {
                self.cases.pop();
                Position::Start
            }
            b"if" | b"while" | b"until" | b"{" => {
                self.position = Position::Start;
                return Blank::Prefixes;
            }
            b"case" => {
                self.cases.push(Case::Subject);
                self.position = Position::Name;
                return Blank::Prefixes;
            }
            b"for" | b"select" => {
                self.position = Position::Variable;
                return Blank::Prefixes;
            }
            b"[[" => {
                self.condition = true;
                self.position = Position::Argument;
                return Blank::Prefixes;
            }
            b"function" => Position::Function,
            _ if assignment(word) => Position::Name,
            _ if job => {
                // The job's name, if a compound command follows.
                self.prefixes.push(range);
                self.position = Position::Start;
                return Blank::Nothing;
            }
            _ => Position::Argument,
        };
        if self.position != Position::Start {
            self.prefixes.clear();
        }
        Blank::Nothing
    }
}

/// What the grammar need not see.
enum Blank {
    Nothing,
    Range(std::ops::Range<usize>),
    Prefixes,
}

/// Whether a word, as it is written, is an assignment.
fn assignment(word: &[u8]) -> bool {
    let Some(end) = word.iter().position(|byte| *byte == b'=') else {
        return false;
    };
    let name = word.get(..end).unwrap_or_default();
    let name = name.strip_suffix(b"+").unwrap_or(name);
    let name = match name.iter().position(|byte| *byte == b'[') {
        Some(subscript) if name.ends_with(b"]") => name.get(..subscript).unwrap_or_default(),
        _ => name,
    };
    let name = std::str::from_utf8(name).unwrap_or_default();
    assigns(&format!("{name}="))
}

impl Rewriter<'_> {
    pub fn top(&mut self) -> Option<&mut Commands> {
        match self.frames.last_mut() {
            Some(Frame::Commands(commands)) => Some(commands),
            _ => None,
        }
    }

    /// Ends the word that is being read, if one is.
    pub fn end_word(&mut self) {
        let Some(Frame::Commands(commands)) = self.frames.last_mut() else {
            return;
        };
        let Some(begun) = commands.word.take() else {
            return;
        };
        let word = self.out.get(begun.start..).unwrap_or_default();
        let blank = commands.classify(word, begun);
        self.blank(blank);
    }

    fn blank(&mut self, what: Blank) {
        let ranges = match what {
            Blank::Nothing => return,
            Blank::Range(range) => vec![range],
            Blank::Prefixes => self
                .top()
                .map(|commands| std::mem::take(&mut commands.prefixes))
                .unwrap_or_default(),
        };
        for range in ranges {
            if let Some(written) = self.out.get_mut(range) {
                written.fill(b' ');
            }
        }
    }

    /// A letter of a word, or what is one.
    pub fn letter(&mut self, plain: bool) {
        let written = self.out.len();
        if let Some(commands) = self.top() {
            commands.begin(written, plain);
        }
    }

    /// One step among commands.
    pub fn commands(&mut self) -> Result<(), Refused> {
        let byte = self.text.get(self.at).copied().unwrap_or_default();
        let Some(commands) = self.top() else {
            return Ok(());
        };
        let (word, condition) = (commands.word.is_some(), commands.condition);
        let pattern = commands.pattern();
        match byte {
            b' ' | b'\t' => {
                self.end_word();
                self.copy(self.at + 1);
            }
            b'\n' => return self.end_line(),
            b'#' if !word => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let end = rest.iter().position(|byte| *byte == b'\n');
                self.comment = end.is_none();
                self.end_pipeline();
                self.copy(end.map_or(self.text.len(), |end| self.at + end));
            }
            b'#' if matches!(self.out.last(), Some(b'\'' | b'"' | b')' | b'}')) => {
                // A comment to the grammar.
                self.letter(false);
                self.out.extend_from_slice(b"'#'");
                self.at += 1;
            }
            b'\'' => {
                self.letter(false);
                self.single();
            }
            b'"' => {
                self.letter(false);
                self.copy(self.at + 1);
                self.frames.push(Frame::Double);
            }
            b'\\' => self.escape(pattern || condition),
            b'$' | b'`' => {
                self.letter(false);
                return self.expansion(true);
            }
            b'(' | b')' | b'<' | b'>' | b'&' | b'|' | b';' if condition => {
                self.end_word();
                self.copy(self.at + 1);
            }
            b'(' => self.open(),
            b')' => self.close(),
            b'<' | b'>' => self.redirection(),
            b'&' if self.behind(b"&>").is_some() => {
                self.end_word();
                let _ = self.take(b"&>>") || self.take(b"&>");
                if let Some(commands) = self.top() {
                    commands.target = true;
                }
            }
            b'&' | b'|' | b';' => self.operator(),
            _ => {
                self.letter(true);
                self.copy(self.at + 1);
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), Refused> {
        self.end_word();
        self.end_pipeline();
        self.copy(self.at + 1);
        let Some(commands) = self.top() else {
            return Ok(());
        };
        let owner = commands.owner;
        let subject = commands.cases.last() == Some(&Case::Subject);
        if commands.holder != Holder::Array && !commands.condition && !subject {
            commands.next();
        }
        self.bodies(owner)
    }

    fn end_pipeline(&mut self) {
        if self.top().is_some_and(Commands::ends_pipeline) {
            self.out.push(b';');
        }
    }

    /// `\x` is `'x'`, but that the grammar knows it everywhere.
    fn escape(&mut self, verbatim: bool) {
        self.letter(false);
        let rest = self.text.get(self.at + 1..).unwrap_or_default();
        let width = rest
            .iter()
            .skip(1)
            .take_while(|byte| **byte & 0xc0 == 0x80)
            .count()
            + 1;
        if verbatim || rest.is_empty() {
            return self.copy(self.at + 1 + width);
        }
        let quote = if rest.first() == Some(&b'\'') {
            b'"'
        } else {
            b'\''
        };
        self.at += 1;
        self.out.push(quote);
        self.copy(self.at + width);
        self.out.push(quote);
    }

    fn open(&mut self) {
        let written = self.out.len();
        let arithmetic = self.behind(b"((").is_some() && !self.subshells.contains(&self.at);
        let Some(Frame::Commands(commands)) = self.frames.last_mut() else {
            return;
        };
        let owner = commands.owner;
        let last = self.out.last();
        // `!(ls)` negates a subshell.
        if commands.word.is_some() && commands.position == Position::Start && last == Some(&b'!') {
            self.end_word();
            return self.open();
        }
        if commands.pattern() {
            return self.copy(self.at + 1);
        }
        if commands.word.is_some() && matches!(last, Some(b'=' | b'@' | b'?' | b'*' | b'+' | b'!'))
            || commands.holder == Holder::Array
        {
            commands.begin(written, true);
            self.copy(self.at + 1);
            let array = Commands::new(Holder::Array, owner);
            return self.frames.push(Frame::Commands(array));
        }
        // A function's name, which is no keyword.
        if commands.word.is_some() {
            commands.position = Position::Argument;
            self.end_word();
        }
        let start = self.at;
        let Some(commands) = self.top() else { return };
        let begins = matches!(commands.position, Position::Start | Position::Job);
        let counts = commands.position == Position::Variable;
        commands.position = Position::Start;
        if begins {
            self.blank(Blank::Prefixes);
        }
        if arithmetic && (begins || counts) {
            self.take(b"((");
            return self.frames.push(Frame::Arithmetic {
                depth: 0,
                bracket: false,
                start,
                written,
            });
        }
        self.take(b"(");
        if self.behind(b"(").is_some() {
            self.out.push(b' ');
        }
        self.frames
            .push(Frame::Commands(Commands::new(Holder::Group, owner)));
    }

    fn close(&mut self) {
        self.end_word();
        self.copy(self.at + 1);
        let first = self.frames.len() == 1;
        let Some(commands) = self.top() else { return };
        if commands.pattern() {
            commands.cases.pop();
            commands.cases.push(Case::Body);
            return commands.next();
        }
        if first {
            return commands.next();
        }
        let holder = commands.holder;
        self.frames.pop();
        let level = self.frames.len();
        if holder == Holder::Substitution {
            self.forget(level);
        }
        if let Some(commands) = self.top().filter(|_| holder == Holder::Group) {
            commands.next();
        }
    }

    fn operator(&mut self) {
        self.end_word();
        let ends = [&b";;&"[..], b";;", b";&"];
        let ends = ends.iter().any(|end| self.take(end));
        let piped = self.behind(b"|").is_some() && self.behind(b"||").is_none();
        let rest = [&b"&&"[..], b"||", b"|&", b"&", b"|", b";"];
        let _ = ends || rest.iter().any(|operator| self.take(operator));
        let Some(commands) = self.top() else { return };
        if commands.holder == Holder::Array || commands.pattern() {
            return;
        }
        if ends && commands.cases.pop().is_some() {
            commands.cases.push(Case::Pattern);
        }
        commands.next();
        commands.piped = piped && !ends;
    }
}
