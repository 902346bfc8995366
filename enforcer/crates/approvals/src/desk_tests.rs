use std::sync::mpsc::{Receiver, TryRecvError};

use super::*;
use crate::RequestRate;
use crate::trial::{at, connect, db, desk, exec, exec_request, scratch, waiter};

const YES: PersonAnswer = PersonAnswer::Approve {
    scope: Scope::Once,
    lasting: None,
};

fn yes(scope: Scope, lasting: Option<u64>) -> PersonAnswer {
    PersonAnswer::Approve {
        scope,
        lasting: lasting.map(Duration::from_secs),
    }
}

/// Asks; gives the id, the waiter's name and what it will be told.
fn wait(desk: &mut Desk, asked: Asked, now: Timestamp) -> (String, WaiterId, Receiver<Answer>) {
    let (waiter, told) = waiter();
    match desk.ask(asked, waiter, now) {
        Asking::Waiting { id, waiter, .. } => {
            assert_eq!(told.try_recv(), Err(TryRecvError::Empty), "told too early");
            (id, waiter, told)
        }
        other => panic!("does not wait: {other:?}"),
    }
}

fn refused(desk: &mut Desk, asked: Asked, now: Timestamp) -> String {
    let (waiter, told) = waiter();
    match desk.ask(asked, waiter, now) {
        Asking::Refused(answer) => {
            assert_eq!(told.try_recv().unwrap(), answer);
            match answer.ending {
                Ending::Refused(why) => why,
                other => panic!("{other:?}"),
            }
        }
        other => panic!("not refused: {other:?}"),
    }
}

fn ending(told: &Receiver<Answer>) -> Ending {
    let answer = told.try_recv().unwrap();
    // Once only: the waiter is gone.
    assert_eq!(told.try_recv(), Err(TryRecvError::Disconnected));
    answer.ending
}

fn approved(scope: Scope) -> Ending {
    Ending::Approved {
        approver: "kim".to_owned(),
        reason: "fine".to_owned(),
        scope,
    }
}

#[test]
fn an_approval_reaches_the_waiter_and_the_record() {
    let scratch = scratch();
    let mut desk = desk(&scratch, RequestLimits::default());
    let (id, _, told) = wait(&mut desk, exec(&["git", "push"]), at(0));
    assert_eq!(
        desk.answer(&id, &YES, "kim", "fine", at(7)).unwrap(),
        std::slice::from_ref(&id)
    );
    assert_eq!(ending(&told), approved(Scope::Once));
    let record = desk.record(&id).unwrap();
    assert_eq!(record.state, RequestState::Approved);
    assert_eq!(record.outcome.approver.as_deref(), Some("kim"));
    assert_eq!(record.outcome.answer_reason.as_deref(), Some("fine"));
    assert_eq!(record.outcome.answered_at, Some(at(7)));
    assert_eq!(record.outcome.scope.as_deref(), Some("once"));
    // Once is once.
    wait(&mut desk, exec(&["git", "push"]), at(8));
}

#[test]
fn a_denial_reaches_the_waiter_and_a_second_answer_is_too_late() {
    let scratch = scratch();
    let mut desk = desk(&scratch, RequestLimits::default());
    let (id, _, told) = wait(&mut desk, exec(&["git", "push"]), at(0));
    // The start of an id is enough.
    desk.answer(&id[..8], &PersonAnswer::Deny, "kim", "no", at(1))
        .unwrap();
    assert_eq!(
        ending(&told),
        Ending::Denied {
            approver: "kim".to_owned(),
            reason: "no".to_owned()
        }
    );
    let error = desk.answer(&id, &YES, "ann", "yes", at(2)).unwrap_err();
    assert!(
        matches!(&error, ApprovalsError::Ended { how, .. } if how.contains("denied by kim")),
        "{error}"
    );
    assert_eq!(desk.record(&id).unwrap().state, RequestState::Denied);
}

type Change = fn(&mut enforcer_decide::approval::ExecRequest);

#[test]
fn identical_requests_share_one_answer_and_others_do_not() {
    let scratch = scratch();
    let mut desk = desk(&scratch, RequestLimits::default());
    let (id, _, first) = wait(&mut desk, exec(&["git", "push"]), at(0));
    let mut same = exec(&["git", "push"]);
    same.pid = 5000;
    let (waiter, second) = waiter();
    assert!(matches!(
        desk.ask(same, waiter, at(1)),
        Asking::Waiting { id: other, shared: true, .. } if other == id
    ));
    assert_eq!(desk.record(&id).unwrap().waiting, 2);

    let mut variants = vec![exec(&["git", "push", "-f"]), exec(&["git", "push"])];
    variants[1].uid = 1001;
    let changes: [Change; 7] = [
        |exec| exec.cwd.inode += 1,
        |exec| exec.cwd.path.push(b'x'),
        |exec| exec.file.inode += 1,
        |exec| exec.file.changed.1 += 1,
        |exec| exec.file.sha256[0] ^= 1,
        |exec| exec.path.insert(0, b'/'),
        // The words run together are not the same words.
        |exec| exec.argv = vec![b"git push".to_vec()],
    ];
    for change in changes {
        let mut variant = exec(&["git", "push"]);
        change(exec_request(&mut variant));
        variants.push(variant);
    }
    for variant in variants {
        let (other, _, _told) = wait(&mut desk, variant, at(1));
        assert_ne!(other, id);
    }
    desk.answer(&id, &YES, "kim", "fine", at(2)).unwrap();
    assert_eq!(ending(&first), approved(Scope::Once));
    assert_eq!(ending(&second), approved(Scope::Once));
}

#[test]
fn what_nobody_answers_expires_as_denied() {
    let scratch = scratch();
    let mut desk = desk(&scratch, RequestLimits::default());
    let (id, _, told) = wait(&mut desk, exec(&["git", "push"]), at(0));
    assert_eq!(desk.next_deadline(), Some(at(300)));
    desk.expire(at(299));
    assert_eq!(told.try_recv(), Err(TryRecvError::Empty));
    // An answer at the last moment is one too late: it ends what has expired first.
    let error = desk.answer(&id, &YES, "kim", "fine", at(300)).unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    assert_eq!(ending(&told), Ending::Expired(Duration::from_mins(5)));
    assert_eq!(desk.record(&id).unwrap().state, RequestState::Expired);
    assert_eq!(desk.next_deadline(), None);
}

#[test]
fn the_last_waiter_that_goes_takes_the_request_with_it() {
    let scratch = scratch();
    let mut desk = desk(&scratch, RequestLimits::default());
    let (id, one, first) = wait(&mut desk, exec(&["git", "push"]), at(0));
    let (_, two, second) = wait(&mut desk, exec(&["git", "push"]), at(0));
    desk.cancel(one, at(1));
    assert_eq!(ending(&first), Ending::Cancelled);
    assert_eq!(desk.record(&id).unwrap().state, RequestState::Pending);
    desk.cancel(two, at(2));
    assert_eq!(ending(&second), Ending::Cancelled);
    assert_eq!(desk.record(&id).unwrap().state, RequestState::Cancelled);
    // Going twice, or after the end, is nothing.
    desk.cancel(two, at(3));
    assert!(desk.answer(&id, &YES, "kim", "fine", at(3)).is_err());
}

#[test]
fn a_session_covers_exactly_the_same_until_its_time_is_up() {
    let scratch = scratch();
    let mut desk = desk(&scratch, RequestLimits::default());
    let (id, _, told) = wait(&mut desk, exec(&["git", "push"]), at(0));
    desk.answer(&id, &yes(Scope::Session, Some(60)), "kim", "fine", at(10))
        .unwrap();
    assert_eq!(ending(&told), approved(Scope::Session));
    let (waiter, told) = waiter();
    let asking = desk.ask(exec(&["git", "push"]), waiter, at(69));
    assert!(matches!(&asking, Asking::Granted(answer) if answer.request == id));
    assert_eq!(ending(&told), approved(Scope::Session));
    wait(&mut desk, exec(&["git", "push", "-f"]), at(69));
    let mut other = exec(&["git", "push"]);
    other.uid = 0;
    wait(&mut desk, other, at(69));
    wait(&mut desk, exec(&["git", "push"]), at(70));
}

#[test]
fn a_rule_covers_all_it_asks_about_also_what_waits_already() {
    let scratch = scratch();
    let mut desk = desk(&scratch, RequestLimits::default());
    let (id, _, _told) = wait(&mut desk, exec(&["git", "push"]), at(0));
    let (sibling, _, waiting) = wait(&mut desk, exec(&["git", "push", "-f"]), at(0));
    let mut foreign = exec(&["rm", "x"]);
    foreign.rule = Some("rm".to_owned());
    let (_, _, foreign_told) = wait(&mut desk, foreign, at(0));
    let ended = desk
        .answer(&id, &yes(Scope::Rule, None), "kim", "fine", at(1))
        .unwrap();
    assert_eq!(ended, [id, sibling.clone()]);
    assert_eq!(ending(&waiting), approved(Scope::Rule));
    assert_eq!(desk.record(&sibling).unwrap().state, RequestState::Approved);
    assert_eq!(foreign_told.try_recv(), Err(TryRecvError::Empty));
    let (waiter, _told) = waiter();
    assert!(matches!(
        desk.ask(exec(&["git", "push", "--tags"]), waiter, at(100_000)),
        Asking::Granted(_)
    ));
}

#[test]
fn answers_that_do_not_fit_change_nothing() {
    let scratch = scratch();
    let mut desk = desk(&scratch, RequestLimits::default());
    let mut by_default = exec(&["git", "push"]);
    by_default.rule = None;
    let (id, _, told) = wait(&mut desk, by_default, at(0));
    for (verdict, word) in [
        (yes(Scope::Once, Some(60)), "does not last"),
        (yes(Scope::Rule, None), "not by a rule"),
        (yes(Scope::Session, Some(u64::MAX)), "too long"),
    ] {
        let error = desk.answer(&id, &verdict, "kim", "", at(1)).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(matches!(
        desk.answer("abc", &YES, "kim", "", at(1)),
        Err(ApprovalsError::ShortId(_))
    ));
    assert!(matches!(
        desk.answer("not-an-id", &YES, "kim", "", at(1)),
        Err(ApprovalsError::NotFound(_))
    ));
    assert_eq!(told.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(desk.record(&id).unwrap().state, RequestState::Pending);
}

#[test]
fn a_flood_is_refused_and_says_so() {
    let scratch = scratch();
    let mut desk = desk(
        &scratch,
        RequestLimits {
            rate: RequestRate {
                count: 2,
                window: Duration::from_mins(1),
            },
            ..RequestLimits::default()
        },
    );
    let first = wait(&mut desk, exec(&["git", "1"]), at(0));
    let second = wait(&mut desk, exec(&["git", "2"]), at(30));
    let why = refused(&mut desk, exec(&["git", "3"]), at(59));
    assert!(why.contains("more than 2 in 1 min"), "{why}");
    // Sharing is not new, and an answer makes no room: it is the asking that is bounded.
    wait(&mut desk, exec(&["git", "2"]), at(59));
    desk.answer(&first.0, &PersonAnswer::Deny, "kim", "", at(59))
        .unwrap();
    refused(&mut desk, exec(&["git", "3"]), at(59));
    // The window slides: the first is a minute old, the second is not.
    wait(&mut desk, exec(&["git", "3"]), at(60));
    refused(&mut desk, exec(&["git", "4"]), at(61));
    drop(second);
}

#[test]
fn so_many_pending_and_no_more() {
    let scratch = scratch();
    let mut desk = desk(
        &scratch,
        RequestLimits {
            max_pending: 1,
            ..RequestLimits::default()
        },
    );
    let (id, _, _told) = wait(&mut desk, exec(&["git", "1"]), at(0));
    let why = refused(&mut desk, exec(&["git", "2"]), at(0));
    assert!(why.contains("1 are pending"), "{why}");
    desk.answer(&id, &YES, "kim", "", at(0)).unwrap();
    wait(&mut desk, exec(&["git", "2"]), at(0));
}

#[test]
fn what_is_too_long_for_a_person_is_refused() {
    let scratch = scratch();
    let mut desk = desk(&scratch, RequestLimits::default());
    let long = "x".repeat(record::MAX_REQUEST_TEXT);
    let why = refused(&mut desk, exec(&["git", &long]), at(0));
    assert!(why.contains("too much"), "{why}");
}

#[test]
fn the_most_dangerous_comes_first_then_the_oldest() {
    let scratch = scratch();
    let mut desk = desk(&scratch, RequestLimits::default());
    let mut ids = Vec::new();
    let mut held = Vec::new();
    for (risk, n) in [
        Risk::Low,
        Risk::High,
        Risk::Critical,
        Risk::Medium,
        Risk::High,
    ]
    .into_iter()
    .zip(0..)
    {
        let mut asked = exec(&["git", &n.to_string()]);
        asked.risk = risk;
        let (id, _, told) = wait(&mut desk, asked, at(n));
        ids.push(id);
        held.push(told);
    }
    let order = [2, 1, 4, 3, 0].map(|n: usize| ids[n].clone());
    assert_eq!(desk.order(), order);
    let listed: Vec<String> = desk.list().unwrap().into_iter().map(|r| r.id).collect();
    assert_eq!(listed, order);
}

#[test]
fn the_end_denies_what_is_pending() {
    let scratch = scratch();
    let mut desk = desk(&scratch, RequestLimits::default());
    let (id, _, told) = wait(&mut desk, connect("192.0.2.1", 443), at(0));
    desk.close_all(at(1));
    assert_eq!(ending(&told), lost());
    let record = desk.record(&id).unwrap();
    assert_eq!(record.state, RequestState::Denied);
    assert_eq!(record.outcome.answer_reason.as_deref(), Some(ABANDONED));
}

#[test]
fn a_desk_that_breaks_down_denies() {
    let scratch = scratch();
    let mut desk = desk(&scratch, RequestLimits::default());
    let (id, _, told) = wait(&mut desk, exec(&["git", "push"]), at(0));
    drop(desk);
    let answer = told.try_recv().unwrap();
    assert_eq!(answer.request, id);
    assert!(matches!(answer.ending, Ending::Refused(_)));
}

#[test]
fn what_cannot_be_put_on_record_is_not_approved() {
    let scratch = scratch();
    let mut desk = desk(&scratch, RequestLimits::default());
    let (id, _, told) = wait(&mut desk, exec(&["git", "push"]), at(0));
    let damage = rusqlite::Connection::open(db(&scratch)).unwrap();
    damage.execute_batch("DROP TABLE request").unwrap();
    assert!(desk.answer(&id, &YES, "kim", "fine", at(1)).is_err());
    assert_eq!(told.try_recv(), Err(TryRecvError::Empty));
    let why = refused(&mut desk, exec(&["git", "pull"]), at(1));
    assert!(why.contains("database"), "{why}");
    desk.expire(at(300));
    assert_eq!(ending(&told), Ending::Expired(Duration::from_mins(5)));
}

#[test]
fn a_request_that_another_process_gave_up_is_not_approved() {
    let scratch = scratch();
    let mut desk = desk(&scratch, RequestLimits::default());
    let (id, _, told) = wait(&mut desk, exec(&["git", "push"]), at(0));
    Store::open(&db(&scratch))
        .unwrap()
        .abandon(crate::trial::INSTANCE, at(1))
        .unwrap();
    assert!(matches!(
        desk.answer(&id, &YES, "kim", "fine", at(2)),
        Err(ApprovalsError::Ended { .. })
    ));
    assert_eq!(ending(&told), lost());
}

#[test]
fn secrets_and_tricks_with_text_do_not_reach_the_record() {
    let scratch = scratch();
    let mut desk = desk(&scratch, RequestLimits::default());
    let mut asked = exec(&[
        "curl",
        "-H",
        "Authorization: Bearer abcdefghijklmnopqrstuvwxyz012345",
        "\u{202e}txt.exe\u{3164}\x1b[2K",
    ]);
    exec_request(&mut asked).argv[0] = b"ls".to_vec();
    let (id, _, _told) = wait(&mut desk, asked, at(0));
    let record = desk.record(&id).unwrap();
    let text = serde_json::to_string(&record).unwrap();
    assert!(!text.contains("abcdefghijklmnopqrstuvwxyz"), "{text}");
    assert!(
        !text.contains('\u{202e}') && !text.contains('\x1b'),
        "{text}"
    );
    assert!(record.command.contains("txt.exe\\u{3164}"), "{text}");
    // What runs, not what the caller calls it.
    assert!(record.command.starts_with("/usr/bin/curl "), "{text}");
    assert_eq!(record.argv[0], "ls");
    assert!(record.unprintable);
    assert_eq!(record.sha256.as_deref(), Some("ab".repeat(32).as_str()));
}

#[test]
fn those_who_watch_are_told_of_the_beginning_and_the_end() {
    let scratch = scratch();
    let mut desk = desk(&scratch, RequestLimits::default());
    let (id, waiter, _told) = wait(&mut desk, exec(&["git", "push"]), at(0));
    desk.cancel(waiter, at(1));
    let events = desk.take_events();
    assert!(matches!(&events[0], DeskEvent::New { request } if request.id == id));
    assert!(matches!(
        &events[1],
        DeskEvent::Ended { id: ended, state: RequestState::Cancelled, .. } if *ended == id
    ));
    assert_eq!(events.len(), 2);
    assert_eq!(desk.take_events(), []);
}
