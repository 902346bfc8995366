//! What is carried along while a text is walked.

use std::collections::{HashMap, HashSet};

use tree_sitter::Node;

use super::{
    NESTING_MAX, PARTS_BYTES_MAX, PARTS_MAX, Part, PartKind, Refused, Script, TEXT_MAX, TEXTS_MAX,
    TREE_DEPTH_MAX, Word, expand::Atom, fallback, rewrite::rewritten, runaway, simple::base_name,
    stdin::Input, tree, variables::Variables, wrappers,
};

/// What reading a text costs, however short it is, in bytes.
const TEXT_COST: usize = 64;

/// The walk's state.
#[derive(Debug)]
pub(super) struct State {
    pub script: Script,
    pub variables: Variables,
    /// `$1` and on; `None` if they are known only when it runs.
    pub positional: Option<Vec<Word>>,
    /// Bodies of the functions that the text defines.
    pub functions: HashMap<String, String>,
    /// Where the text began, if that is known.
    pub base: Option<String>,
    /// Directories that the text may have gone to; an empty one is where it began.
    pub places: Vec<String>,
    /// Aliases that the text defines.
    pub aliases: HashMap<String, String>,
    /// Functions and aliases that are being called.
    pub called: HashSet<String>,
    /// What the process substitutions of the text write, by their source.
    pub streams: HashMap<String, Input>,
    /// What the files that the text writes hold.
    pub files: HashMap<String, Input>,
    /// Files that redirections opened for writing.
    pub opened: Vec<String>,
    /// Whether this is another reading of a part that stands already.
    reading: bool,
    /// How many branches stand around: what happens in one perhaps does not happen.
    pub branches: usize,
    /// Texts inside one another.
    nesting: usize,
    /// Nodes inside one another, over all texts.
    depth: usize,
    /// Bytes of text read so far.
    bytes: usize,
    /// Bytes in the words of all parts.
    parts_bytes: usize,
    /// Atoms that braces may still be worked out over.
    pub atoms_left: usize,
    /// What descriptors opened by `exec` read from.
    pub descriptors: Vec<Input>,
    /// What the command whose words are being read gets from its standard input.
    pub feeding: Input,
    /// Words behind a redirection of the command with this node.
    pub behind: Option<(usize, Vec<Vec<Atom>>)>,
}

impl State {
    /// At the start of a text. `positional` as in the field.
    pub fn new(positional: Option<Vec<Word>>) -> Self {
        Self {
            script: Script::default(),
            variables: Variables::default(),
            positional,
            functions: HashMap::new(),
            base: None,
            places: vec![String::new()],
            aliases: HashMap::new(),
            called: HashSet::new(),
            streams: HashMap::new(),
            files: HashMap::new(),
            opened: Vec::new(),
            reading: false,
            branches: 0,
            nesting: 0,
            depth: 0,
            bytes: 0,
            parts_bytes: 0,
            atoms_left: TEXTS_MAX,
            descriptors: Vec::new(),
            feeding: Input::Inherited,
            behind: None,
        }
    }

    /// Says why the text is not looked into any further.
    pub fn refuse(&mut self, why: Refused) {
        self.script.refused.get_or_insert(why);
    }

    /// Adds a part.
    pub fn part(&mut self, kind: PartKind, words: Vec<Word>) {
        self.parts_bytes += words.iter().map(|word| word.text.len()).sum::<usize>();
        if self.script.parts.len() >= PARTS_MAX || self.parts_bytes > PARTS_BYTES_MAX {
            return self.refuse(Refused::Parts);
        }
        let own = kind;
        let words = as_files(kind, words);
        let kind = if self.reading {
            PartKind::Reading
        } else {
            kind
        };
        if self
            .script
            .parts
            .last()
            .is_none_or(|last| last.kind != kind || last.words != words)
        {
            self.script.parts.push(Part {
                kind,
                words: words.clone(),
            });
        }
        if !self.reading {
            self.placed(own, &words);
        }
    }

    /// Does something as another reading of the last part.
    pub fn reading(&mut self, what: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.reading, true);
        what(self);
        self.reading = outer;
    }

    /// Does something one node deeper.
    pub fn deeper<T: Default>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        if self.depth >= TREE_DEPTH_MAX {
            self.refuse(Refused::Deep);
            return T::default();
        }
        self.depth += 1;
        let result = what(self);
        self.depth -= 1;
        result
    }

    /// Does something one text deeper.
    pub fn nested<T: Default>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        if self.nesting >= NESTING_MAX {
            self.refuse(Refused::Nested);
            return T::default();
        }
        self.nesting += 1;
        let result = self.deeper(what);
        self.nesting -= 1;
        result
    }

    /// Whether so many more bytes may be read.
    pub fn affords(&mut self, length: usize) -> bool {
        self.bytes += length + TEXT_COST;
        if length > TEXT_MAX || self.bytes > TEXTS_MAX {
            self.refuse(Refused::Long);
        }
        length <= TEXT_MAX && self.bytes <= TEXTS_MAX
    }

    /// Reads a text; what it writes comes back.
    pub fn text(&mut self, text: &str, input: &Input) -> Input {
        // What is refused is not looked into any further.
        if self.script.refused.is_some() || !self.affords(text.len()) {
            return Input::new(None, "");
        }
        let read = rewritten(text).and_then(|text| Ok((tree::read(&text.text)?, text)));
        let (tree, rewritten) = match read {
            Ok(read) => read,
            Err(refused) => {
                self.refuse(refused);
                return Input::new(None, "");
            }
        };
        let text = rewritten.text.as_str();
        let root = tree.root_node();
        let output = self.sequence(text, root, input);
        if runaway::found(text, root) {
            self.part(PartKind::Builtin, vec![Word::literal(runaway::NAME)]);
        }
        let from = match (root.has_error(), rewritten.closed) {
            (true, _) => Some(broken_from(text, root)),
            (false, false) => Some(0),
            (false, true) => None,
        };
        let broken = from.map(|from| text.get(from..).unwrap_or(text));
        let unread = rewritten.unread.iter().map(String::as_str);
        for broken in broken.into_iter().chain(unread) {
            self.broken(broken, input);
        }
        output
    }

    /// Text whose syntax is broken.
    fn broken(&mut self, text: &str, input: &Input) {
        self.script.broken = true;
        let commands = self.split(text, false);
        let other = self.split(text, true);
        let other = if other == commands { Vec::new() } else { other };
        for words in commands.into_iter().chain(other) {
            self.split_command(words, input);
        }
    }

    /// A command of broken text, with the assignments before it.
    fn split_command(&mut self, mut words: Vec<Word>, input: &Input) {
        let settings = words
            .iter()
            .take_while(|word| wrappers::assigns(&word.text))
            .count();
        if settings > 0 && settings < words.len() {
            let env = std::iter::once(Word::literal("env"));
            self.part(PartKind::Assigned, env.chain(words.clone()).collect());
            words.drain(..settings);
        }
        self.simple(words, input);
    }

    /// Splits a text at operators alone. `returns`: double quotes go on behind substitutions.
    pub fn split(&mut self, text: &str, returns: bool) -> Vec<Vec<Word>> {
        fallback::split(text, self.atoms_left, returns).unwrap_or_else(|| {
            self.refuse(Refused::Braces);
            Vec::new()
        })
    }

    /// The result.
    pub fn into_script(self) -> Script {
        self.script
    }
}

/// Programs that take their operands for files and put no home directory in.
const FILE_TOOLS: [&str; 24] = [
    "cat", "chmod", "chown", "chgrp", "cp", "du", "file", "find", "head", "install", "ln", "ls",
    "mkdir", "mv", "rm", "rmdir", "shred", "stat", "tail", "tee", "touch", "truncate", "unlink",
    "wc",
];

/// The words of a part. A quoted `~` is a file of that name to programs that ask nobody else.
fn as_files(kind: PartKind, mut words: Vec<Word>) -> Vec<Word> {
    let name = words.first().map_or("", |word| base_name(&word.text));
    if kind == PartKind::Program && FILE_TOOLS.contains(&name) {
        for word in words.iter_mut().skip(1).filter(|word| word.tilde) {
            *word = Word {
                text: format!("./{}", word.text),
                rest: format!("./{}", word.rest),
                tilde: false,
                ..word.clone()
            };
        }
    }
    words
}

/// Where the statement begins in which the syntax breaks first.
fn broken_from(text: &str, root: Node<'_>) -> usize {
    // Its children are no statements, but what is left of some.
    if root.is_error() {
        return 0;
    }
    let mut start = 0;
    let mut end = 0;
    for child in tree::children(root) {
        let between = text.get(end..child.start_byte()).unwrap_or_default();
        if between.contains('\n') || matches!(child.kind(), ";" | "&" | ";;") {
            start = child.start_byte();
        }
        if child.has_error() || child.is_missing() {
            return start;
        }
        end = child.end_byte();
    }
    0
}
