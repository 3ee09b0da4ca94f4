//! Standard input, a line at a time.

use std::io::BufRead;

use tokio::sync::mpsc;

/// Lines that are read ahead of the network.
const AHEAD: usize = 64;

/// Lines of standard input, with their line feeds.
pub(super) struct Lines(mpsc::Receiver<Vec<u8>>);

impl Lines {
    /// Reads on a thread of its own: reading a terminal cannot be cancelled, and must not keep the program from ending.
    pub(super) fn of_stdin() -> Self {
        let (sender, receiver) = mpsc::channel(AHEAD);
        std::thread::spawn(move || {
            let mut input = std::io::stdin().lock();
            loop {
                let mut line = Vec::new();
                match input.read_until(b'\n', &mut line) {
                    Ok(1..) if sender.blocking_send(line).is_ok() => {}
                    _ => return,
                }
            }
        });
        Self(receiver)
    }

    /// The next line; `None` at the end of the input. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        self.0.recv().await
    }
}
