use super::*;
use crate::{Waiting, parse, parse_all};

fn with(sections: &str) -> String {
    format!("{{\"version\": \"2\", \"connect\": {{}},\n{sections}}}")
}

const ASKS: &str = r#""exec": {"rules": [{"id": "p", "decision": "ask", "glob": ["git push*"]}]}"#;

#[test]
fn the_section_becomes_the_model_and_has_defaults() {
    let given = with(&format!(
        "{ASKS}, \"approvals\": {{\"mode\": \"hold\", \"notify\": [\"/bin/mail\", \"kim\"], \"timeout_s\": 5, \"approvers\": [\"kim\", \"%ops\", \"kim\"],\n\
         \"rate\": \"2/10s\", \"max_pending\": 7}}"
    ));
    let parsed = parse(&given).unwrap();
    assert_eq!(parsed.warnings, []);
    assert_eq!(
        parsed.policy.approvals,
        Approvals {
            mode: Waiting::Hold,
            notify: vec!["/bin/mail".to_owned(), "kim".to_owned()],
            timeout: Duration::from_secs(5),
            approvers: Some(vec!["kim".to_owned(), "%ops".to_owned()]),
            rate: (2, Duration::from_secs(10)),
            max_pending: 7,
        }
    );
    let defaults = Approvals {
        mode: Waiting::Auto,
        notify: Vec::new(),
        timeout: Duration::from_mins(5),
        approvers: None,
        rate: (30, Duration::from_mins(1)),
        max_pending: 100,
    };
    for text in [with(ASKS), with(&format!("{ASKS}, \"approvals\": {{}}"))] {
        assert_eq!(parse(&text).unwrap().policy.approvals, defaults);
    }
}

#[test]
fn faults_of_the_section_are_placed() {
    let text = with(&format!(
        "{ASKS}, \"approvals\": {{\"timeout_s\": 0,\n\"approvers\": [\"\", \"%\", \"a b\", \"%%x\", \"ok\"],\n\
         \"rate\": \"30\",\n\"max_pending\": 0, \"notify\": [\"mail\"]}}"
    ));
    let said: Vec<(String, usize)> = parse_all(&text)
        .unwrap_err()
        .iter()
        .map(|error| (error.place.path.to_string(), error.place.line))
        .collect();
    let wanted = [
        ("approvals.notify", 5),
        ("approvals.timeout_s", 2),
        ("approvals.max_pending", 5),
        ("approvals.rate", 4),
        ("approvals.approvers[0]", 3),
        ("approvals.approvers[1]", 3),
        ("approvals.approvers[2]", 3),
        ("approvals.approvers[3]", 3),
    ];
    assert_eq!(said, wanted.map(|(path, line)| (path.to_owned(), line)));
    let week = with(r#""exec": {}, "approvals": {"timeout_s": 604801}"#);
    assert!(parse(&week).unwrap_err().what.contains("604801"));
}

#[test]
fn an_ask_that_nobody_can_answer_is_said_at_load() {
    let nobody = parse(&with(&format!(
        "{ASKS},\n\"approvals\": {{\"approvers\": []}}"
    )))
    .unwrap();
    assert_eq!(nobody.warnings.len(), 1);
    assert_eq!(
        nobody.warnings[0].to_string(),
        "line 3, column 15: approvals.approvers: rule \"p\" asks, but `approvers` is empty: nobody can answer, so \
         whatever is asked is denied"
    );
    let silent = parse(&with(r#""exec": {}, "approvals": {"approvers": []}"#)).unwrap();
    assert_eq!(silent.warnings, []);
    for default in ["default", "fileless", "loader"] {
        let text = with(&format!(
            "\"exec\": {{\"{default}\": \"ask\"}}, \"approvals\": {{\"approvers\": []}}"
        ));
        let warning = parse(&text).unwrap().warnings.remove(0);
        assert!(
            warning.text.contains(&format!("`exec.{default}` asks")),
            "{warning}"
        );
    }
}

#[test]
fn the_agents_own_user_is_nobody() {
    let of = |approvals: &str| {
        let text = with(&format!("{ASKS}, \"approvals\": {{{approvals}}}"));
        parse(&text).unwrap().policy
    };
    let default = of("");
    assert_eq!(unanswerable(&default, None), None);
    assert_eq!(unanswerable(&default, Some("agent")), None);
    let why = unanswerable(&default, Some("root")).unwrap();
    assert!(why.contains("the only approver is \"root\""), "{why}");
    let kim = of(r#""approvers": ["kim"]"#);
    assert!(unanswerable(&kim, Some("kim")).is_some());
    assert_eq!(unanswerable(&kim, Some("root")), None);
    let ops = of(r#""approvers": ["kim", "%kim"]"#);
    assert_eq!(unanswerable(&ops, Some("kim")), None);
    let quiet = parse(&with(r#""exec": {}"#)).unwrap().policy;
    assert_eq!(unanswerable(&quiet, Some("root")), None);
}

#[test]
fn allow_rules_of_high_risk_can_ask() {
    let asks_of = |exec: &str, connect: &str| {
        let text = format!(
            r#"{{"version":"2","exec":{{"default":"deny","rules":[{exec}]}},"connect":{{"default":"deny","rules":[{connect}]}}}}"#
        );
        asks(&crate::parse(&text).unwrap().policy)
    };
    let exec =
        |risk: &str| format!(r#"{{"id":"x","decision":"allow","risk":"{risk}","glob":["x"]}}"#);
    assert!(asks_of(&exec("HIGH"), "").exec);
    assert!(asks_of(&exec("CRITICAL"), "").exec);
    assert!(!asks_of(&exec("MEDIUM"), "").exec);
    let connect = |risk: &str, what: &str| {
        format!(r#"{{"id":"c","decision":"allow","risk":"{risk}",{what}}}"#)
    };
    assert!(asks_of("", &connect("CRITICAL", r#""hosts":["10.0.0.1"]"#)).connect);
    assert!(!asks_of("", &connect("HIGH", r#""hosts":["10.0.0.1"]"#)).connect);
    assert!(asks_of("", &connect("CRITICAL", r#""unix":["/x"]"#)).unix);
}
