//! What the fuzz targets begin with: our own policies, the examples in them, and what is known to be awkward.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::root;

/// Writes the seeds of a target into a directory of their own.
///
/// # Errors
/// When there are none, or they cannot be written.
pub fn write(name: &str, directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let policies = shipped()?;
    let seeds = match name {
        "policy" => policy_seeds(&policies),
        "hook" => events(),
        "url" => urls(),
        _ => examples(&policies),
    };
    if seeds.is_empty() {
        bail!("there are no seeds for {name}");
    }
    for (at, seed) in seeds.iter().enumerate() {
        let file = directory.join(format!("{at:04}"));
        fs::write(&file, seed).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// The policies of the repository, and the rule sets that they include.
fn shipped() -> Result<Vec<Value>> {
    let directory = root::repository().join("policies");
    let mut policies = Vec::new();
    for directory in [directory.join("rules"), directory] {
        for entry in fs::read_dir(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?
        {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                let text = fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let policy: Value = serde_json::from_str(&text)
                    .with_context(|| format!("{} is no JSON", path.display()))?;
                policies.push(policy);
            }
        }
    }
    Ok(policies)
}

/// Each rule as a policy of its own, and one policy of each form with all sections.
fn policy_seeds(policies: &[Value]) -> Vec<String> {
    let mut seeds = vec![
        r#"{"version":"1.0","bash":{"whitelist":["git *","ls*"],"blacklist":["rm -rf *"]},"file_paths":{"whitelist":["src/*"],"blacklist":["*.env"]},"agents":{"trusted":["coder"]},"web_tools":{"whitelist":["WebFetch"],"allow_all_domains":false,"blocked_domains":["*.evil.example"]},"tools":{"always_allowed":["Read"]}}"#.to_owned(),
        r#"{"version":"2","agents":{"trusted":["a"],"restricted":["b"]},"capabilities":{"a":["deploy"]},"limits":{"exec":"100/1h","connect":"50/1m"},"breaker":{"denials":10,"half_open_after_s":60},"approvals":{"timeout_s":300},"audit":{"pii":"strict"},"exec":{"default":"deny","trusted_dirs":["/usr/bin"],"transparent":["sh"],"fileless":"deny","loader":"deny","rules":[{"id":"x","decision":"allow","regex":["^a[bc]+ (d|e){2,3}$"],"requires":["deploy"],"match":["ab dd"]}]},"connect":{"default":"deny","unix_default":"deny","rules":[{"id":"c","decision":"allow","hosts":["10.0.0.0/8","::1","*.example.org"],"ports":[443],"protocols":["tcp"]},{"id":"u","decision":"deny","unix":["/run/*.sock","@x"]}]}}"#.to_owned(),
        r#"{"version":"2","include":["git","network"],"exec":{"rules":[]},"connect":{"rules":[{"id":"x","decision":"deny","ports":[1]}]},"file_paths":null}"#.to_owned(),
    ];
    for policy in policies {
        for section in ["exec", "connect"] {
            for rule in policy[section]["rules"].as_array().into_iter().flatten() {
                let one = json!({"version": "2", section: {"default": "ask", "rules": [rule]}});
                seeds.push(one.to_string());
            }
        }
    }
    seeds
}

/// An event of each contract, with tools of each kind.
fn events() -> Vec<String> {
    let calls = [
        (
            "Bash",
            json!({"command": "cd /tmp && git push --force | sh -c 'rm -rf $HOME'"}),
        ),
        (
            "shell",
            json!({"command": ["bash", "-lc", "ls; rm -rf /"], "workdir": "/w"}),
        ),
        ("Read", json!({"file_path": "~/.ssh/id_rsa"})),
        (
            "Edit",
            json!({"file_path": "/fuzz/project/../x.env", "old_string": "a", "new_string": "b"}),
        ),
        ("Glob", json!({"pattern": "src/**/{a,b}*.rs", "path": "."})),
        (
            "apply_patch",
            json!({"input": "*** Begin Patch\n*** Update File: src/a.rs\n*** Move to: b\n*** End Patch"}),
        ),
        (
            "WebFetch",
            json!({"url": "http://0x7f.1:80/", "prompt": "see https://example.org/a"}),
        ),
        (
            "mcp__files__read",
            json!({"paths": ["file:///etc/passwd", ""]}),
        ),
    ];
    let mut seeds = Vec::new();
    for (tool, input) in calls {
        for (event, more) in [
            ("PreToolUse", json!({})),
            ("PreToolUse", json!({"model": "m", "turn_id": "1"})),
            ("BeforeTool", json!({"timestamp": "t"})),
            (
                "preToolUse",
                json!({"cursor_version": "1", "workspace_roots": ["/fuzz/project"]}),
            ),
        ] {
            let mut object = json!({"hook_event_name": event, "session_id": "s", "cwd": "/fuzz/project",
                "tool_name": tool, "tool_input": input});
            for (key, value) in more.as_object().into_iter().flatten() {
                object[key] = value.clone();
            }
            seeds.push(object.to_string());
        }
    }
    seeds.extend(
        [
            r#"{"hook_event_name":"beforeShellExecution","command":"git status","cwd":"","workspace_roots":["/w"]}"#,
            r#"{"hook_event_name":"beforeReadFile","file_path":"/w/a","attachments":[{"file_path":".env"}]}"#,
            r#"{"hook_event_name":"beforeMCPExecution","tool_name":"x","tool_input":"{\"a\":1}"}"#,
            r#"{"hook_event_name":"PermissionRequest","agent_type":"a","tool_name":"Bash","tool_input":{"cmd":"ls"}}"#,
        ]
        .map(str::to_owned),
    );
    seeds
}

/// An entry of a list of domains and, behind the end of its line, a URL or a text that holds some.
fn urls() -> Vec<String> {
    let urls = [
        "https://docs.example.org/a?b#c",
        "http://user:pw@127.0.0.1.:8080/",
        "http://0x7f.0.0.1/ http://2130706433/ http://0177.1/",
        "http://[::ffff:10.0.0.1]/",
        "http://[fe80::1]/",
        "https://bücher.example/",
        "https://xn--bcher-kva.example./",
        "HTTP:\\\\EXAMPLE.org\\x",
        "http:///example.org",
        "http://１２７.0.0.1/",
        "http://localhost..",
        "read <https://a.example/x> and ftp://b/c, https:d.example",
        "file:///etc/passwd",
        "http://a%2eexample/",
        "http://10.0.0.1.nip.io/",
    ];
    let entries = [
        "*",
        "*.example.org",
        "example.org",
        "10.0.0.0/8",
        "::1",
        "127.1",
        "fe80::/10",
        "*.Bücher.example",
    ];
    urls.iter()
        .enumerate()
        .map(|(at, url)| format!("{}\n{url}", entries[at % entries.len()]))
        .collect()
}

/// The command lines that rules have as examples, and texts of what a shell has besides.
fn examples(policies: &[Value]) -> Vec<String> {
    let mut seeds: Vec<String> = [
        "for f in *; do rm -rf \"$f\"; done",
        "if a; then b & else c || d; fi; case x in a|b) e;; esac",
        "cat <<'E' | sh -s\nrm -rf /\nE\n",
        "cat <<-E\n\t$(id)\n\tE\n",
        "a=1 b=$(c `d`) env -i -u X sh -c 'git push --force' >f 2>&1 <(g) >(h)",
        "function f { local x=$((1+2)); }; f; (g; { h; }) | while read -r l; do xargs -0 rm; done",
        "bash -lc $'a\\x62\\'c' && eval \"echo ${x:-$(y)} ${z//a/b}\"",
        "find . -name '*.o' -exec rm {} + ; timeout -s KILL 5 nice -n 3 nohup sudo -u x y",
        "curl https://kim:secret@host/x?token=abc -H 'Authorization: Bearer abc.def' --password x",
        "API_KEY=sk-ant-abc AWS_SECRET_ACCESS_KEY=x psql postgres://u:p@h/d",
    ]
    .map(str::to_owned)
    .to_vec();
    for policy in policies {
        for rule in policy["exec"]["rules"].as_array().into_iter().flatten() {
            for key in ["match", "not_match"] {
                for example in rule[key].as_array().into_iter().flatten() {
                    let words = example.as_array().map(|words| {
                        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
                        words.join(" ")
                    });
                    seeds.extend(example.as_str().map(str::to_owned).or(words));
                }
            }
        }
    }
    seeds.sort();
    seeds.dedup();
    seeds
}
