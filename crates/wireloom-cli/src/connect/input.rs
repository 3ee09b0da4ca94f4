//! Standard input, as it comes or a line at a time.

use std::io::{self, BufRead, ErrorKind, Read};

use tokio::sync::mpsc;

/// What is read at a time at most, in bytes. No datagram is as large.
const PIECE: usize = 64 * 1024;

/// Pieces that are read ahead of the network.
const AHEAD: usize = 16;

/// Pieces of standard input.
pub(super) struct Input(mpsc::Receiver<io::Result<Vec<u8>>>);

impl Input {
    /// Whatever there is, and from a terminal a line.
    pub(super) fn pieces() -> Self {
        Self::read(|input, piece| {
            piece.resize(PIECE, 0);
            let length = input.read(piece)?;
            piece.truncate(length);
            Ok(())
        })
    }

    /// Lines with their line feeds; of one that fits into no datagram, the beginning.
    pub(super) fn lines() -> Self {
        Self::read(|input, line| input.take(PIECE as u64).read_until(b'\n', line).map(drop))
    }

    /// Reads on a thread of its own: reading a terminal cannot be cancelled, and must not keep the program from ending.
    fn read(next: impl Fn(&mut io::StdinLock<'_>, &mut Vec<u8>) -> io::Result<()> + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel(AHEAD);
        std::thread::spawn(move || {
            let mut input = io::stdin().lock();
            loop {
                let mut piece = Vec::new();
                let read = match next(&mut input, &mut piece) {
                    Ok(()) if piece.is_empty() => return,
                    Ok(()) => Ok(piece),
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let is_last = read.is_err();
                if sender.blocking_send(read).is_err() || is_last {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// The next piece; `None` at the end of the input. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        self.0.recv().await
    }
}
