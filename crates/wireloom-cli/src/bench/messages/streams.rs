//! Requests on a WebTransport stream each (profile M, appendix A.3).

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use tokio::task::JoinSet;
use wireloom::Session;

use super::framing::{Framing, Next};
use super::meter::{Meter, Schedule};
use super::stream::{encode, read_reply};
use super::{Error, Load};

/// Sends requests and counts their replies, until something fails.
pub(super) async fn run(session: Session, load: Rc<Load>, schedule: Schedule, meter: Rc<Meter>) -> Result<(), Error> {
    let schedule = Rc::new(RefCell::new(schedule));
    let mut slots = JoinSet::new();
    for slot in 0..load.in_flight {
        let (session, load, meter) = (session.clone(), load.clone(), meter.clone());
        slots.spawn_local(requests(session, slot, load, schedule.clone(), meter));
    }
    match slots.join_next().await {
        Some(ended) => ended?,
        None => Ok(()),
    }
}

async fn requests(
    session: Session,
    slot: usize,
    load: Rc<Load>,
    schedule: Rc<RefCell<Schedule>>,
    meter: Rc<Meter>,
) -> Result<(), Error> {
    let (mut message, mut out) = (Vec::new(), Vec::new());
    encode(slot, &load, &mut message)?;
    Framing::Lengths.push(&message, &mut out);
    loop {
        let due = schedule.borrow_mut().take(Instant::now());
        let Some(started) = due else {
            let next = schedule.borrow().next;
            tokio::time::sleep_until(next.into()).await;
            continue;
        };
        let (mut send, mut recv) = session.open_bi().await?;
        send.write_all(&out).await?;
        send.finish()?;
        let reply = recv.read_to_end(1 << 20).await?;
        let Next::Message(range) = Framing::Lengths.next(&reply)? else {
            return Err("a stream ended within its reply".into());
        };
        let (_, is_error) = read_reply(&reply[range])?;
        meter.reply(started, Instant::now(), is_error);
    }
}
