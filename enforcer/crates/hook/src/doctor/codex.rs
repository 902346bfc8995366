//! Whether Codex trusts the hook: by what its user's settings say, and by its own word.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::{Finding, HookReport, ask};
use crate::install::{TrustStatus, codex_home, hindrances, standing, trust_of};

/// How long Codex may take to name its hooks.
const PATIENCE: Duration = Duration::from_secs(30);
/// How to trust a hook.
const TRUST: &str = "enforcer hook install codex writes the trust; or start codex in a terminal and trust it with /hooks";

/// Adds what keeps Codex from running the hooks of ours.
pub(super) fn trust(report: &mut HookReport) {
    if report.hooks.is_empty() {
        return;
    }
    let config = codex_home().map(|home| home.join("config.toml"));
    let text = config
        .as_deref()
        .and_then(|file| fs::read_to_string(file).ok())
        .unwrap_or_default();
    for hooked in &mut report.hooks {
        // Settings of the machine need no trust, and its requirements turn hooks on.
        if hooked.reach == "managed" {
            continue;
        }
        let settings: Value = fs::read_to_string(&hooked.file)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        for trust in trust_of(
            &settings,
            &hooked.file.to_string_lossy(),
            Some(&hooked.command),
        ) {
            let what = match standing(&text, &trust) {
                Ok(TrustStatus::Trusted) => continue,
                Ok(TrustStatus::Untrusted) => {
                    "nobody has trusted the hook, so Codex does not run it"
                }
                Ok(TrustStatus::Modified) => {
                    "the hook is not the one that was trusted, so Codex does not run it"
                }
                Ok(TrustStatus::Off) => "the hook is turned off in the user's config.toml",
                Err(_) => "the user's config.toml cannot be read, so Codex trusts nothing",
            };
            hooked.problems.push(Finding::new(what, TRUST));
        }
        for why in hindrances(&text, &hooked.file) {
            hooked.problems.push(Finding::new(why, TRUST));
        }
    }
    let Some(program) = report.program.clone() else {
        return;
    };
    let listed = match ask::safe(&program).and_then(|()| list(&program)) {
        Ok(listed) => listed,
        Err(why) => {
            report.notes.push(format!(
                "Codex was not asked which hooks it runs, so that was read from its settings alone: {why}"
            ));
            return;
        }
    };
    for hooked in &mut report.hooks {
        let own = listed.iter().find(|hook| {
            hook["command"] == hooked.command.as_str()
                && hook["sourcePath"].as_str().map(Path::new) == Some(&hooked.file)
        });
        let what = match own {
            None => {
                "Codex itself does not know this hook (`codex app-server`, hooks/list)".to_owned()
            }
            Some(hook) if hook["enabled"] != true => {
                "Codex itself says that it is turned off".to_owned()
            }
            Some(hook)
                if !["trusted", "managed"]
                    .contains(&hook["trustStatus"].as_str().unwrap_or("")) =>
            {
                format!("Codex itself says that it is {}", hook["trustStatus"])
            }
            Some(_) => continue,
        };
        if hooked.problems.is_empty() {
            hooked.problems.push(Finding::new(what, TRUST));
        }
    }
}

/// The hooks that Codex finds in this directory.
fn list(program: &Path) -> Result<Vec<Value>, String> {
    let cwd = env::current_dir().map_err(|error| error.to_string())?;
    let mut child = Command::new(program)
        .arg("app-server")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let lines = stdout.map(|stdout| BufReader::new(stdout).lines());
        let found = lines
            .into_iter()
            .flatten()
            .map_while(Result::ok)
            .find_map(|line| {
                let reply: Value = serde_json::from_str(&line).ok()?;
                (reply["id"] == 2).then_some(reply)
            });
        let _ = sender.send(found);
    });
    let asked = [
        json!({"id": 1, "method": "initialize",
            "params": {"clientInfo": {"name": "enforcer", "version": env!("CARGO_PKG_VERSION")}}}),
        json!({"method": "initialized"}),
        json!({"id": 2, "method": "hooks/list", "params": {"cwds": [cwd]}}),
    ];
    for line in asked {
        if let Some(stdin) = &mut stdin {
            let _ = writeln!(stdin, "{line}");
        }
    }
    let reply = receiver.recv_timeout(PATIENCE);
    // The end of its input ends it, also below a launcher that is killed.
    drop(stdin);
    ask::end(&mut child);
    let reply = reply
        .map_err(|_| format!("it gave no answer within {} s", PATIENCE.as_secs()))?
        .ok_or("it ended without an answer")?;
    let Some(data) = reply["result"]["data"].as_array() else {
        return Err(format!("it said {}", reply["error"]["message"]));
    };
    let hooks = data
        .iter()
        .flat_map(|of| of["hooks"].as_array().into_iter().flatten());
    Ok(hooks.cloned().collect())
}
