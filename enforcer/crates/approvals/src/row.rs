//! A request as a row of the database.

use jiff::Timestamp;
use rusqlite::Row;

use super::ApprovalsError;
use enforcer_control::{
    RequestRecord, RequestState,
    record::{Conclusion, ParentText},
};

/// The tables.
pub(super) const SCHEMA: &str = "
CREATE TABLE request (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'denied', 'expired', 'cancelled')),
    agent TEXT NOT NULL,
    instance TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('exec', 'connect', 'unix')),
    risk TEXT NOT NULL,
    command TEXT NOT NULL,
    path TEXT,
    argv TEXT NOT NULL,
    cwd TEXT,
    file TEXT,
    sha256 TEXT,
    unprintable INTEGER NOT NULL,
    rule TEXT,
    reason TEXT NOT NULL,
    suggestion TEXT,
    pid INTEGER NOT NULL,
    ppid INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    parents TEXT NOT NULL,
    waiting INTEGER NOT NULL,
    asked_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    answered_at TEXT,
    approver TEXT,
    answer_reason TEXT,
    scope TEXT
) STRICT;
CREATE INDEX request_by_state ON request (state, instance);
CREATE INDEX request_by_time ON request (asked_at);
";

/// The columns, in the order in which they are written.
pub(super) const COLUMNS: &str = "id, state, agent, instance, kind, risk, command, path, argv, cwd, file, sha256, unprintable, \
     rule, reason, suggestion, pid, ppid, uid, parents, waiting, asked_at, expires_at, answered_at, approver, \
     answer_reason, scope";

/// Fixed width, so that text order is time order.
pub(super) fn time(at: Timestamp) -> String {
    format!("{at:.9}")
}

pub(super) fn read(row: &Row<'_>) -> Result<RequestRecord, ApprovalsError> {
    let id: String = row
        .get("id")
        .map_err(ApprovalsError::database("reading a request"))?;
    parse(row, &id).map_err(|why| ApprovalsError::Row { id, why })
}

fn parse(row: &Row<'_>, id: &str) -> Result<RequestRecord, String> {
    fn get<T: rusqlite::types::FromSql>(row: &Row<'_>, column: &str) -> Result<T, String> {
        row.get(column).map_err(|error| error.to_string())
    }
    let at = |text: String| -> Result<Timestamp, String> {
        text.parse().map_err(|error: jiff::Error| error.to_string())
    };
    let state: String = get(row, "state")?;
    let argv: String = get(row, "argv")?;
    let parents: String = get(row, "parents")?;
    let parents: Vec<ParentText> =
        serde_json::from_str(&parents).map_err(|error| error.to_string())?;
    Ok(RequestRecord {
        id: id.to_owned(),
        state: RequestState::from_word(&state).ok_or_else(|| format!("unknown state {state}"))?,
        agent: get(row, "agent")?,
        instance: get(row, "instance")?,
        kind: get(row, "kind")?,
        risk: get(row, "risk")?,
        command: get(row, "command")?,
        path: get(row, "path")?,
        argv: serde_json::from_str(&argv).map_err(|error| error.to_string())?,
        cwd: get(row, "cwd")?,
        file: get(row, "file")?,
        sha256: get(row, "sha256")?,
        unprintable: get(row, "unprintable")?,
        rule: get(row, "rule")?,
        reason: get(row, "reason")?,
        suggestion: get(row, "suggestion")?,
        pid: get(row, "pid")?,
        ppid: get(row, "ppid")?,
        uid: get(row, "uid")?,
        parents,
        waiting: get(row, "waiting")?,
        asked_at: at(get(row, "asked_at")?)?,
        expires_at: at(get(row, "expires_at")?)?,
        outcome: Conclusion {
            answered_at: get::<Option<String>>(row, "answered_at")?
                .map(at)
                .transpose()?,
            approver: get(row, "approver")?,
            answer_reason: get(row, "answer_reason")?,
            scope: get(row, "scope")?,
        },
    })
}
