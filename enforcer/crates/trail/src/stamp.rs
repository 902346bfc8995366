//! What a writer puts on every record: whose it is. And what it takes out of it: personal data.

use enforcer_decide::{Principal, principal::DEFAULT_USER};
use enforcer_redact::{
    Masking,
    masking::{mask, mask_value},
};

use super::Record;

/// Parameters that are this program's own words, or say who decided and for whom: they are not masked.
const OWN: [&str; 13] = [
    "rule",
    "decision",
    "verdict",
    "stage",
    "risk",
    "approval",
    "approval_state",
    "approval_scope",
    "approver",
    "protocol",
    "user",
    "tenant",
    "mode",
];

/// Whose records a writer writes, and how personal data is shown in them.
#[derive(Clone, Debug)]
pub struct Stamp {
    user: String,
    tenant: Option<String>,
    masking: Masking,
    observed: bool,
}

impl Stamp {
    /// Labels as they can be shown; `None` for a user stands for one that nobody named.
    pub fn new(user: Option<&str>, tenant: Option<&str>, masking: Masking) -> Self {
        let shown = |label: &str| enforcer_redact::text(label.as_bytes());
        Self {
            user: shown(user.unwrap_or(DEFAULT_USER)),
            tenant: tenant.map(shown),
            masking,
            observed: false,
        }
    }

    /// The labels of a principal.
    pub fn of(principal: &Principal, masking: Masking) -> Self {
        Self::new(Some(&principal.user), principal.tenant.as_deref(), masking)
    }

    /// For records of a run that only observes.
    #[must_use]
    pub fn observed(self, observed: bool) -> Self {
        Self { observed, ..self }
    }

    /// The record as it is written. What names a user or tenant of its own keeps it.
    pub(super) fn put_on(&self, record: &Record) -> Record {
        let mut record = record.clone();
        if self.masking != Masking::Off {
            record.reason = mask(&record.reason, self.masking).into_owned();
            for (key, value) in &mut record.parameters {
                if !OWN.contains(&key.as_str()) {
                    mask_value(value, self.masking);
                }
            }
        }
        let parameters = &mut record.parameters;
        if self.observed {
            parameters.insert("observed".into(), true.into());
        }
        if !parameters.contains_key("user") {
            parameters.insert("user".into(), self.user.as_str().into());
        }
        if let Some(tenant) = &self.tenant
            && !parameters.contains_key("tenant")
        {
            parameters.insert("tenant".into(), tenant.as_str().into());
        }
        record
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::Event;

    fn written(stamp: &Stamp, parameters: &Value) -> Value {
        let record = Record::tool_call(
            jiff::Timestamp::UNIX_EPOCH,
            Event::Denial,
            "coder",
            "Bash",
            "Asked for by kim@example.com",
            true,
            parameters.as_object().unwrap_or(&Map::new()),
        );
        let mut line = Vec::new();
        stamp.put_on(&record).write_line(&mut line).unwrap();
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn labels_stand_last_in_the_parameters() {
        let stamp = Stamp::new(Some("kim"), Some("acme\u{1b}[31m"), Masking::Off).observed(true);
        let line = written(&stamp, &json!({"command": "ls"}));
        let keys: Vec<_> = line["parameters"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["command", "observed", "user", "tenant"]);
        assert_eq!(line["parameters"]["tenant"], "acme");
        assert_eq!(line["reason"], "Asked for by kim@example.com");
        let line = written(&Stamp::new(None, None, Masking::Off), &json!({}));
        assert_eq!(line["parameters"], json!({"user": "default_user"}));
    }

    #[test]
    fn every_string_is_masked_but_the_records_own_words() {
        let stamp = Stamp::new(
            Some("kim@example.com"),
            Some("5551234567"),
            Masking::Standard,
        );
        let line = written(
            &stamp,
            &json!({
                "tool_input": {"to": ["lee@example.com"], "note": {"ssn": "123-45-6789"}},
                "pid": 1_234_567_890,
                "rule": "never 555-123-4567",
                "seq": 123_456_789,
            }),
        );
        assert_eq!(line["reason"], "Asked for by ***@***.com");
        assert_eq!(line["timestamp"], "1970-01-01T00:00:00.000000+00:00");
        assert_eq!(
            line["parameters"],
            json!({
                "tool_input": {"to": ["***@***.com"], "note": {"ssn": "***-**-6789"}},
                "pid": 1_234_567_890,
                "rule": "never 555-123-4567",
                "seq": 123_456_789,
                "user": "kim@example.com",
                "tenant": "5551234567",
            })
        );
    }
}
