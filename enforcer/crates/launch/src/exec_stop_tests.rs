use super::{Order, tracer::has_deadly};

#[test]
fn orders_cross_the_socket_whole() {
    for order in [Order::Stop, Order::Release, Order::Kill] {
        assert_eq!(Order::read(order.message(4711)), Some((order, 4711)));
    }
    assert_eq!(Order::read([0; 8]), None);
}

#[test]
fn a_signal_that_ends_a_new_program_is_told_from_others() {
    let status = |pending: &str, blocked: &str, ignored: &str| {
        format!(
            "Name:\tx\nSigPnd:\t0000000000000000\nShdPnd:\t{pending}\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\n"
        )
    };
    let none = "0000000000000000";
    let term = "0000000000004000";
    assert!(has_deadly(&status(term, none, none)));
    assert!(!has_deadly(&status(term, term, none)));
    assert!(!has_deadly(&status(term, none, term)));
    // SIGCHLD, SIGCONT and SIGTSTP.
    assert!(!has_deadly(&status("00000000000b0000", none, none)));
    assert!(!has_deadly(&status(none, none, none)));
    assert!(!has_deadly(""));
}
