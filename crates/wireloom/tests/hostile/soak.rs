//! What `cargo xtask soak` does on a large scale, with counts instead of figures.

use tokio::runtime::Handle;

use crate::common::raw::{connect, int, wt_uni};
use crate::common::within;
use crate::support::hostile;

/// An idle session is its handler's task, an idle stream none.
#[tokio::test]
async fn idle_streams_have_no_tasks() {
    hostile(async |f| {
        let raw = f.raw().await;
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        let mut sessions = Vec::new();
        for _ in 0..10 {
            sessions.push(within(raw.session("/idle")).await);
        }
        assert_eq!(tasks(), before + 10);
        let mut streams = Vec::new();
        for (send, _) in &sessions {
            for _ in 0..50 {
                streams.push(raw.uni(&wt_uni(u64::from(send.id()), b"idle")).await);
            }
        }
        within(raw.assert_alive()).await;
        assert_eq!(tasks(), before + 10);
    })
    .await;
}

#[tokio::test]
async fn floods_leave_nothing_behind() {
    hostile(async |f| {
        // Streams with half a header each.
        let raw = f.raw().await;
        let mut streams = Vec::new();
        for _ in 0..500 {
            streams.push(within(raw.uni(&[0x40])).await);
        }
        f.assert_undisturbed().await;
        drop((streams, raw));

        // Datagrams for sessions that will never be.
        let raw = f.raw().await;
        for _ in 0..10_000 {
            let datagram = [int(12_345), vec![7; 64]].concat();
            raw.conn.send_datagram_wait(datagram.into()).await.unwrap();
        }
        f.assert_undisturbed().await;
        within(raw.assert_alive()).await;
        drop(raw);

        // CONNECT and reset, below what closes the connection.
        let raw = f.raw().await;
        for _ in 0..10 {
            let mut batch = Vec::new();
            for _ in 0..40 {
                batch.push(raw.bi(&connect("/wt"), false).await);
            }
            for (send, _) in &mut batch {
                send.reset(0x10cu32.into()).unwrap();
            }
            for (_send, recv) in batch {
                // Accepted, refused with 429 or reset, as it comes.
                let _ = within(try_answer(recv)).await;
            }
        }
        within(raw.assert_alive()).await;
    })
    .await;
}

/// As `answer`, however it ends.
async fn try_answer(mut recv: quinn::RecvStream) -> Option<usize> {
    recv.read_to_end(1 << 20).await.ok().map(|bytes| bytes.len())
}
