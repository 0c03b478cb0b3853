//! The requests about the lease, and which answer counts for which request.

use millrace_protocol::session::{Input, Output, Session};
use millrace_protocol::{Machine, Millis};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::message::control::LeaseReply;

use super::capacity::config;

/// Hands `input` in at `now`; returns how many renewals and releases the session sends.
fn requests(session: &mut Session, now: u64, input: Input) -> (usize, usize) {
    session.handle(Millis(now), input).unwrap();
    let mut sent = (0, 0);
    while let Some(output) = session.poll_output() {
        sent.0 += usize::from(matches!(output, Output::Renew(_)));
        sent.1 += usize::from(matches!(output, Output::Release(_)));
    }
    sent
}

#[test]
fn answer_to_a_renewal_that_arrives_after_the_publisher_left_is_not_taken_for_the_answer_to_the_release() {
    let mut session = Session::new(Millis(0), config());
    assert_eq!(requests(&mut session, 1_000, Input::Tick), (1, 0));
    let gone = Input::PublisherGone(CloseReason::NoUsableMedia, "no sequence header".into());
    assert_eq!(requests(&mut session, 1_001, gone), (0, 1), "the release is sent at once");
    requests(&mut session, 1_002, Input::Renewed(LeaseReply::Ok));
    assert_eq!(
        requests(&mut session, 2_001, Input::Tick),
        (0, 1),
        "the release is repeated until it is answered"
    );
    requests(&mut session, 2_002, Input::Released(LeaseReply::Ok));
    assert_eq!(requests(&mut session, 9_000, Input::Tick), (0, 0));
}
