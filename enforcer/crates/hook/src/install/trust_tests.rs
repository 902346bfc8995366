use serde_json::json;

use super::*;

const FILE: &str = "/home/kim/proj/.codex/hooks.json";
/// Said by Codex 0.171.0 of the hook in [`settings`] (`codex app-server`, method `hooks/list`).
const SAID: &str = "sha256:6e614d600f16099b127fda8c2a08c9d731de4842242ece5b50a3eac2a13a68e7";

fn settings(command: &str) -> Value {
    json!({"hooks": {"PreToolUse": [{"matcher": "*", "hooks": [
        {"type": "command", "command": command, "timeout": 30}]}]}})
}

fn trusts(command: &str) -> Vec<Trust> {
    of(&settings(command), FILE, Some(command))
}

#[test]
fn the_hash_is_the_one_that_codex_has() {
    let found = trusts("/opt/agt/bin/enforcer hook --format codex");
    assert_eq!(found[0].key, format!("{FILE}:pre_tool_use:0:0"));
    assert_eq!(found[0].hash.as_deref(), Some(SAID));
    // Order of members and defaults that are spelled out change nothing; the command, matcher and patience do.
    let same = json!({"hooks": [{"async": false, "statusMessage": null, "timeout": 30, "type": "command",
        "command": "/opt/agt/bin/enforcer hook --format codex"}], "matcher": "*"});
    let hash_of = |group: &Value| hash(group, &group["hooks"][0]);
    assert_eq!(hash_of(&same).as_deref(), Some(SAID));
    for (pointer, value) in [
        ("/matcher", json!("Bash")),
        ("/hooks/0/timeout", json!(31)),
        ("/hooks/0/command", json!("/opt/agt/bin/enforcer hook")),
    ] {
        let mut other = same.clone();
        *other.pointer_mut(pointer).unwrap() = value;
        assert_ne!(hash_of(&other).as_deref(), Some(SAID), "{pointer}");
    }
    // A definition with members of a later format is not guessed at.
    let mut later = same;
    later["hooks"][0]["environment"] = json!("x");
    assert_eq!(hash_of(&later), None);
}

#[test]
fn only_our_own_hooks_are_trusted() {
    let mut all = settings("/usr/bin/enforcer hook --format codex");
    let groups = all["hooks"]["PreToolUse"].as_array_mut().unwrap();
    groups.insert(
        0,
        json!({"hooks": [{"type": "command", "command": "/tmp/enforcer-hook"},
        {"type": "command", "command": "/usr/bin/enforcer hook --format codex"}]}),
    );
    groups.push(json!({"hooks": [{"type": "command", "command": "sh -c 'enforcer hook'"}]}));
    // What only looks like ours.
    for command in [
        "/tmp/enforcer hook",
        "/usr/bin/enforcer hook --format codex; id",
        "/usr/bin/enforcer hook  --format codex",
    ] {
        groups.push(json!({"hooks": [{"type": "command", "command": command}]}));
    }
    all["hooks"]["Stop"] =
        json!([{"hooks": [{"type": "command", "command": "/usr/bin/enforcer hook"}]}]);
    let found = of(&all, FILE, Some("/usr/bin/enforcer hook --format codex"));
    let keys: Vec<String> = found.into_iter().map(|trust| trust.key).collect();
    assert_eq!(
        keys,
        [
            format!("{FILE}:pre_tool_use:0:1"),
            format!("{FILE}:pre_tool_use:1:0")
        ]
    );
    assert_eq!(of(&all, FILE, None).len(), 5);
}

#[test]
fn trust_goes_in_and_comes_out_to_the_byte() {
    let here = trusts("/usr/bin/enforcer hook --format codex --policy '/p/ä \"x\".json'");
    for before in [
        "",
        "model = \"x\" # mine",
        "# top\nmodel = \"x\"\n\n[projects.\"/p\"] # why\ntrust_level = 'trusted'   \n",
        "a=1\n\n\n",
        "\n",
        "[hooks]\n[[hooks.Stop]]\nhooks=[]\n[hooks.state]\n# kept\n[hooks.state.\"/x:stop:0:0\"]\ntrusted_hash = \"sha256:0\"\n",
        "a = \"\"\"\n[hooks.state]\n\"\"\"\r\n[b]\r\n",
    ] {
        let with = write(before, &[], &here).unwrap();
        assert!(with.starts_with(before), "{with}");
        assert_eq!(
            standing(&with, &here[0]),
            Ok(TrustStatus::Trusted),
            "{with}"
        );
        assert_eq!(write(&with, &here, &here).unwrap(), with, "twice is once");
        assert_eq!(write(&with, &here, &[]).unwrap(), before);
        // What has come behind it stays.
        let more = format!("{with}\n[later]\nx = 1 # y\n");
        let without = write(&more, &here, &[]).unwrap();
        assert!(without.ends_with("[later]\nx = 1 # y\n"), "{without}");
        assert!(!without.contains("pre_tool_use"), "{without}");
    }
}

#[test]
fn trust_stands_where_a_header_cannot_add_to_it() {
    let here = trusts("/usr/bin/enforcer hook");
    for before in [
        "hooks = { state = { \"/x:stop:0:0\" = { enabled = true } } } # c\n",
        "hooks.state.x.enabled = true\n",
        "[hooks]\nstate = {}\n",
    ] {
        let with = write(before, &[], &here).unwrap();
        assert_eq!(
            standing(&with, &here[0]),
            Ok(TrustStatus::Trusted),
            "{with}"
        );
        let without = write(&with, &here, &[]).unwrap();
        assert!(
            without.parse::<DocumentMut>().is_ok() && !without.contains("pre_tool_use"),
            "{without}"
        );
    }
}

#[test]
fn another_definition_gets_another_trust_in_the_same_place() {
    let (old, new) = (
        trusts("/usr/bin/enforcer hook --policy /a"),
        trusts("/usr/bin/enforcer hook --policy /b"),
    );
    let text = write("# top\n", &[], &old).unwrap() + "enabled = false # off\n[z]\n";
    assert_eq!(standing(&text, &old[0]), Ok(TrustStatus::Off));
    let text = write(&text, &old, &new).unwrap();
    assert_eq!(standing(&text, &new[0]), Ok(TrustStatus::Trusted), "{text}");
    assert_eq!(standing(&text, &old[0]), Ok(TrustStatus::Modified));
    assert!(text.starts_with("# top\n") && text.ends_with("[z]\n"));
    assert_eq!(text.matches("trusted_hash").count(), 1);
    // A place that is no longer ours loses the trust that it had for us.
    let mut moved = new.clone();
    moved[0].key = format!("{FILE}:pre_tool_use:1:0");
    let text = write(&text, &new, &moved).unwrap();
    assert_eq!(standing(&text, &new[0]), Ok(TrustStatus::Untrusted));
    assert_eq!(standing(&text, &moved[0]), Ok(TrustStatus::Trusted));
}

#[test]
fn settings_that_are_no_toml_are_left_alone_with_the_place() {
    let here = trusts("/usr/bin/enforcer hook");
    let said = write("a = 1\nb = \n", &[], &here).unwrap_err();
    assert!(said.contains("line 2"), "{said}");
    for text in ["hooks = 5\n", "[hooks]\nstate = \"x\"\n"] {
        assert!(write(text, &[], &here).is_err(), "{text}");
        assert_eq!(standing(text, &here[0]), Ok(TrustStatus::Untrusted));
    }
}
