//! `enforcer explain`: what a policy says of a command line, a command text, an address or a unix socket, without
//! running or contacting anything; and with `--last` why the last action was denied.

use std::{
    ffi::OsString,
    io::{self, BufRead, Write},
    net::IpAddr,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use crate::cli::error::{CliError, Context, refuse};
use enforcer_decide::{
    ByText, Engine, Explanation, Find, Matched, Mode, Outcome, Principal, admit,
    command_text::{self, TextOutcome},
    principal::TenantName,
};
use enforcer_files::{directories, on_disk::Finder};
use enforcer_hook::place;
use enforcer_launch::{Identity, OwnProgram};
use enforcer_policy::{
    Cause, ConnectAction, Decision, Parsed, Policy, Risk, UnixAction, capability::Capability,
    model::Protocol,
};
use enforcer_policy_files::{
    ground::Ground,
    policy_file,
    shipped::default_policy,
    table_cache::{self, TableCache},
};
use enforcer_say::say;

mod last;

/// Longest input line, in bytes; a longer one is an error line.
const LINE_MAX: u64 = 16 << 20;

/// Arguments of `enforcer explain`.
#[derive(Clone, Debug, clap::Args)]
pub struct ExplainArgs {
    /// The policy's file [default: that of `run`, /etc/enforcer/policies/coding-agent.json]
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// Judge JSON Lines from standard input: {"argv":[…]}, {"command":"shell text"}, {"host":…,"port":…} or
    /// {"unix":"/path"}, the first two also with "cwd"; one JSON decision a line comes back
    #[arg(long, conflicts_with_all = ["json", "command", "unix"])]
    pub stdin: bool,
    /// Judge a connect to the unix socket with this path, or `@` and an abstract name
    #[arg(long, value_name = "PATH", conflicts_with = "command")]
    pub unix: Option<OsString>,
    /// Say why the last action was denied: inside an agent its own, outside what the trail has
    #[arg(long, conflicts_with_all = ["stdin", "unix", "command"])]
    pub last: bool,
    /// How many denials, the newest last
    #[arg(short = 'n', value_name = "N", default_value_t = 1, requires = "last")]
    pub count: usize,
    /// The trail [default: /var/log/enforcer/audit.jsonl]
    #[arg(long, value_name = "FILE", requires = "last")]
    pub audit: Option<PathBuf>,
    /// Judge for the agent with this name; with --last, only denials of it
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Judge for an agent with this capability; can be repeated
    #[arg(long, value_name = "NAME", conflicts_with = "last")]
    pub capability: Vec<Capability>,
    /// Judge in this mode: everywhere, `subagent_only` or disabled
    #[arg(
        long,
        value_name = "MODE",
        default_value = "everywhere",
        conflicts_with = "last"
    )]
    pub mode: Mode,
    /// Judge for an agent of this tenant
    #[arg(long, value_name = "NAME", conflicts_with = "last")]
    pub tenant: Option<TenantName>,
    /// The working directory, where relative paths of programs begin [default: the current one]
    #[arg(long, value_name = "DIR", conflicts_with = "last")]
    pub cwd: Option<PathBuf>,
    /// Judge for an agent that runs as this user, as `run --user`; whose home `~` is, and whose programs are not trusted
    #[arg(long, value_name = "USER", conflicts_with = "last")]
    pub user: Option<String>,
    /// The command line to judge; it is not run
    #[arg(last = true, value_name = "CMD", required_unless_present_any = ["stdin", "unix", "last"])]
    pub command: Vec<OsString>,
}

/// Runs `enforcer explain`. The exit status is 0 whatever the decision is.
///
/// # Errors
///
/// The policy cannot be used, or standard input or output fails.
pub fn run(args: &ExplainArgs) -> Result<ExitCode, CliError> {
    let told = if args.last {
        last::run(args)
    } else {
        explain(args)
    };
    match told {
        Err(error) if error.reader_left() => Ok(ExitCode::FAILURE),
        told => told,
    }
}

fn explain(args: &ExplainArgs) -> Result<ExitCode, CliError> {
    let path = args.policy.clone().unwrap_or_else(|| {
        let path = default_policy();
        say!("enforcer: by the policy {}", path.display());
        path
    });
    let mut loaded = policy_file::load(&path, None)?;
    let identity = Identity::resolve(args.user.as_deref(), |name| std::env::var_os(name))?;
    let ground = Ground::of(&identity);
    let untrusted = ground.settle(&mut loaded.parsed.policy);
    if !args.stdin {
        for one in &untrusted {
            say!("enforcer: weaker: {one}");
        }
    }
    let find = finder(&loaded.parsed.policy, &ground, args.cwd.as_deref())?;
    let principal = Principal {
        agent: args.agent.as_deref().and_then(Principal::agent_name),
        tenant: args.tenant.clone().map(TenantName::into_string),
        capabilities: args.capability.iter().map(ToString::to_string).collect(),
        mode: args.mode,
        ..Principal::default()
    };
    let refused = admit(&principal, &loaded.parsed.policy).err();
    let listeners = loaded.parsed.policy.connect.outside.unix;
    let engine = engine(&loaded.parsed, &principal)?;
    // What `run` would know of this program.
    let engine = match OwnProgram::named() {
        Some(own) => engine.with_own(own),
        None => engine,
    };
    let refused = refused.map(|refusal| Explanation::from(Outcome::from(&refusal)));
    if args.stdin {
        stdin(
            &engine,
            Some(&find),
            refused.as_ref(),
            io::stdin().lock(),
            enforcer_say::out(),
        )
        .context("judging standard input")?;
    } else {
        let mut answer: ExplainLine = if let Some(refused) = refused {
            refused.into()
        } else if let Some(name) = &args.unix {
            let judged = judge_unix(&engine, name.as_bytes()).map_err(CliError::Refused)?;
            if judged.outcome.decision == Decision::Allow
                && judged.outcome.rule.is_none()
                && listeners != Decision::Allow
            {
                say!(
                    "enforcer: who listens there is seen when it is connected to: for a listener of the agent's own user \
                     outside the agent the decision is {listeners} (connect.outside_listeners)"
                );
            }
            judged.into()
        } else {
            let words = args.command.iter().cloned();
            let words: Vec<Vec<u8>> = words.map(OsString::into_vec).collect();
            judge_argv(&engine, &words, &find)
        };
        let place = answer.rule.as_deref();
        let place = place.and_then(|id| loaded.parsed.rule_place(id));
        answer.place = place.map(|place| place.in_file(&path.display().to_string()));
        write(&answer, args.json, enforcer_say::out()).context("the decision cannot be written")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The engine of a policy: from tables that an earlier start has kept, else compiled, and kept where that is ours to do.
fn engine(parsed: &Parsed, principal: &Principal) -> Result<Engine, CliError> {
    let root = if geteuid().is_root() {
        // Made, and said, by the first run.
        Some(PathBuf::from(directories::STATE.path)).filter(|state| state.is_dir())
    } else {
        place::root().ok()
    };
    let cache = TableCache::new(&parsed.sources().key(), root.as_deref());
    let policy = parsed.policy.clone();
    let capabilities = principal.capabilities_under(&policy);
    if let Some(tables) = cache.tables(&policy, &capabilities) {
        return Ok(Engine::with_tables(policy, capabilities, tables));
    }
    let engine = table_cache::compiled(&policy, &capabilities)?;
    cache.keep(&policy, &capabilities, engine.tables());
    Ok(engine)
}

/// Looks for programs from this directory, as a shell with our `PATH` would.
fn finder(policy: &Policy, ground: &Ground, cwd: Option<&Path>) -> Result<Finder, CliError> {
    let cwd = match cwd {
        Some(cwd) => {
            let unusable = || format!("the directory {} cannot be used", cwd.display());
            if !cwd.is_dir() {
                refuse!("{}: there is none", unusable());
            }
            Some(std::path::absolute(cwd).with_context(unusable)?)
        }
        None => std::env::current_dir().ok(),
    };
    let path = std::env::var_os("PATH");
    Ok(Finder::new(
        cwd,
        ground.home(),
        path.as_deref(),
        &policy.exec.trusted_dirs,
        ground.changer.clone(),
    ))
}

/// One line of input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    argv: Option<Vec<String>>,
    command: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
    unix: Option<String>,
    cwd: Option<PathBuf>,
}

/// One line of output.
#[derive(Debug, Serialize)]
pub struct ExplainLine {
    decision: Decision,
    rule: Option<String>,
    /// Where that rule stands: its file, line and key.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    reason: String,
    risk: Risk,
    suggestion: Option<String>,
    matched: Vec<Matched>,
    suggestions: Vec<String>,
    cause: Cause,
    /// Words of the simple command that decided, where more than one was judged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    part: Vec<String>,
    /// What was not understood, or is known only when it runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// Groups of system calls that will be refused to what is started.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused_syscalls: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl ExplainLine {
    /// The answer for a text, with every rule that matches the part that decided.
    fn of_text(engine: &Engine, text: TextOutcome) -> Self {
        let explanation = match &text.action {
            None => text.outcome.into(),
            Some(action) => engine
                .explain_outcome(action, text.outcome.clone())
                .unwrap_or_else(|_| text.outcome.into()),
        };
        Self {
            part: if text.parts.len() > 1 {
                text.part
            } else {
                Vec::new()
            },
            notes: text.notes,
            refused_syscalls: text.refused,
            ..Self::from(explanation)
        }
    }
}

impl From<Explanation> for ExplainLine {
    fn from(explanation: Explanation) -> Self {
        let Explanation {
            outcome,
            matched,
            suggestions,
        } = explanation;
        Self {
            decision: outcome.decision,
            cause: outcome.cause,
            rule: outcome.rule,
            place: None,
            reason: outcome.reason,
            risk: outcome.risk,
            suggestion: outcome.suggestion,
            matched,
            suggestions,
            part: Vec::new(),
            notes: Vec::new(),
            refused_syscalls: Vec::new(),
            error: None,
        }
    }
}

/// Judges the words of a command line, and what it starts in its turn.
pub fn judge_argv(engine: &Engine, words: &[Vec<u8>], find: &dyn Find) -> ExplainLine {
    ExplainLine::of_text(engine, command_text::judge_words_found(engine, words, find))
}

/// Judges a command text: the strictest thing that it does.
pub fn judge_command(engine: &Engine, text: &str, find: &dyn Find) -> ExplainLine {
    ExplainLine::of_text(engine, command_text::judge_found(engine, text, find))
}

/// Judges a connect. A host name cannot be judged yet: the answer is the policy's default, and says so.
///
/// # Errors
///
/// A protocol that is not `tcp` or `udp`.
pub fn judge_host(
    engine: &Engine,
    host: &str,
    port: u16,
    protocol: Option<&str>,
) -> Result<Explanation, String> {
    let protocol = match protocol.map(str::to_ascii_lowercase).as_deref() {
        None => Protocol::Tcp,
        Some(name) => Protocol::named(name)
            .ok_or_else(|| format!("protocol `{name}` is not known; write tcp, udp or icmp"))?,
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
        let action = ConnectAction::new(address, port, protocol.number());
        return Ok(engine.explain_connect(&action));
    }
    let decision = engine.policy().connect.default;
    Ok(Outcome {
        decision,
        cause: Cause::Default,
        rule: None,
        reason: format!(
            "Host names are not judged yet, only addresses: `{host}` gets the default ({decision})"
        ),
        risk: Risk::Medium,
        suggestion: Some("ask about the address that the name stands for".to_owned()),
        suggestions: vec!["ask about the address that the name stands for".to_owned()],
        security_risk: false,
    }
    .into())
}

/// Judges a connect to a unix socket. The name is taken as it is: links are not followed.
///
/// # Errors
///
/// A name that is neither an absolute path nor `@` and an abstract name.
pub fn judge_unix(engine: &Engine, name: &[u8]) -> Result<Explanation, String> {
    if !matches!(name.first(), Some(b'/' | b'@')) {
        return Err(format!(
            "`{}` names no unix socket; write an absolute path, or `@` and an abstract name",
            String::from_utf8_lossy(name)
        ));
    }
    Ok(engine.explain_unix(&UnixAction::new(name)))
}

/// Answers JSON Lines with JSON Lines, in order. A line that is not understood is a denial with an `error`. Programs are
/// looked for with `find`, if it is given. `refused` is the answer to whatever is asked, if the agent is not let in.
///
/// # Errors
///
/// Reading or writing failed.
pub fn stdin(
    engine: &Engine,
    find: Option<&Finder>,
    refused: Option<&Explanation>,
    mut input: impl BufRead,
    mut output: impl Write,
) -> std::io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = std::io::Read::take(&mut input, LINE_MAX);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            return output.flush();
        }
        let cut = line.len() as u64 == LINE_MAX && line.last() != Some(&b'\n');
        if cut {
            skip_line(&mut input)?;
        } else if line.trim_ascii().is_empty() {
            continue;
        }
        let answer = if cut {
            Err(format!("the line is longer than {LINE_MAX} bytes"))
        } else {
            answer(engine, find, refused, &line)
        };
        let answer = answer.unwrap_or_else(refusal);
        serde_json::to_writer(&mut output, &answer)?;
        output.write_all(b"\n")?;
        // Each answer goes out at once: the other side may be waiting for it.
        output.flush()?;
    }
}

/// Reads on to the end of a line.
fn skip_line(input: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

fn refusal(error: String) -> ExplainLine {
    ExplainLine {
        decision: Decision::Deny,
        cause: Cause::Unreadable,
        rule: None,
        place: None,
        reason: "The input line is not understood".to_owned(),
        risk: Risk::Medium,
        suggestion: None,
        matched: Vec::new(),
        suggestions: Vec::new(),
        part: Vec::new(),
        notes: Vec::new(),
        refused_syscalls: Vec::new(),
        error: Some(error),
    }
}

fn answer(
    engine: &Engine,
    find: Option<&Finder>,
    refused: Option<&Explanation>,
    line: &[u8],
) -> Result<ExplainLine, String> {
    let request: Request = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if request.host.is_none() && (request.port.is_some() || request.protocol.is_some()) {
        return Err("`port` and `protocol` belong to `host`".to_owned());
    }
    let find: Box<dyn Find> = match (find, request.cwd) {
        (_, Some(cwd)) if !cwd.is_absolute() => return Err("`cwd` is not absolute".to_owned()),
        (Some(find), Some(cwd)) => Box::new(find.at(cwd)),
        (Some(find), None) => Box::new(find.clone()),
        (None, _) => Box::new(ByText),
    };
    let answer: ExplainLine = match (request.argv, request.command, request.host, request.unix) {
        (Some(argv), None, None, None) => {
            if argv.is_empty() {
                return Err("`argv` is empty; give it the program at least".to_owned());
            }
            let words: Vec<Vec<u8>> = argv.into_iter().map(String::into_bytes).collect();
            judge_argv(engine, &words, &*find)
        }
        (None, Some(command), None, None) => judge_command(engine, &command, &*find),
        (None, None, Some(host), None) => {
            let port = request.port.ok_or("`port` is missing")?;
            judge_host(engine, &host, port, request.protocol.as_deref())?.into()
        }
        (None, None, None, Some(name)) => judge_unix(engine, name.as_bytes())?.into(),
        _ => return Err("give one of `argv`, `command`, `host`, `unix`".to_owned()),
    };
    Ok(refused.cloned().map_or(answer, ExplainLine::from))
}

/// Writes one decision, as JSON or for a person.
///
/// # Errors
///
/// Writing failed.
pub fn write(answer: &ExplainLine, json: bool, mut output: impl Write) -> std::io::Result<()> {
    if json {
        serde_json::to_writer(&mut output, answer)?;
        return output.write_all(b"\n");
    }
    writeln!(output, "{}: {}", answer.decision, answer.reason)?;
    if !answer.part.is_empty() {
        let part = shlex::try_join(answer.part.iter().map(String::as_str));
        writeln!(output, "  part: {}", part.unwrap_or_default())?;
    }
    if let Some(rule) = &answer.rule {
        writeln!(output, "  rule: {rule}")?;
    }
    if let Some(place) = &answer.place {
        writeln!(output, "  place: {place}")?;
    }
    writeln!(output, "  risk: {}", answer.risk)?;
    for rule in &answer.matched {
        if answer.matched.len() > 1 {
            writeln!(
                output,
                "  matches: {} {} ({})",
                rule.decision, rule.id, rule.risk
            )?;
        }
    }
    if let Some(suggestion) = &answer.suggestion {
        writeln!(output, "  instead: {suggestion}")?;
    }
    for more in &answer.suggestions {
        if answer.suggestion.as_ref() != Some(more) {
            writeln!(output, "  or: {more}")?;
        }
    }
    for note in &answer.notes {
        writeln!(output, "  note: {note}")?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
