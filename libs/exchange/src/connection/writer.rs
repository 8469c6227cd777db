//! What goes to a peer: gathered while more waits, written when nothing does, never by a timer.

use std::time::Duration;

use tokio::{io, sync::mpsc, time::sleep};

use super::{Connection, Outgoing, header};
use crate::{
    frame::{Header, Kind, TO_SENDER},
    link::Writer,
    outflow::Outflow,
};

impl Connection {
    /// Writes until the connection is finished; says something every `heartbeat`.
    pub(super) async fn write(
        &self,
        half: Writer,
        mut frames: mpsc::Receiver<Outgoing>,
        heartbeat: Duration,
    ) -> io::Result<()> {
        let mut out = Outflow::new(half);
        let mut written = 0u64;
        loop {
            for (header, body) in self.take_urgent(written) {
                out.put(&header.encode());
                out.put(&body);
            }
            if out.is_full() {
                out.flush().await?;
            }
            let next = match frames.try_recv() {
                Ok(next) => Some(next),
                Err(_) => {
                    out.flush().await?;
                    tokio::select! {
                        next = frames.recv() => next,
                        () = self.urgent.notified() => continue,
                        () = sleep(heartbeat) => {
                            out.put(&header(Kind::Ping, 0, 0).encode());
                            continue;
                        }
                    }
                }
            };
            written += 1;
            match next {
                Some(Outgoing::Frame(header, parts)) => {
                    out.put(&header.encode());
                    parts.into_iter().for_each(|part| out.share(part));
                }
                Some(Outgoing::Finish) | None => return out.finish().await,
            }
        }
    }

    /// What goes before the next frame of the queue.
    fn take_urgent(&self, written: u64) -> Vec<(Header, Vec<u8>)> {
        let mut state = self.state.lock();
        let due = state.farewells.iter().take_while(|(place, ..)| *place <= written).count();
        let farewells: Vec<_> = state.farewells.drain(..due).map(|(_, header, body)| (header, body)).collect();
        let grants = std::mem::take(&mut state.grants);
        let grants = grants.into_iter().map(|(channel, (opening, total))| {
            let header = Header { len: 8, flags: TO_SENDER, ..header(Kind::Credit, channel, opening) };
            (header, total.to_le_bytes().to_vec())
        });
        grants.chain(state.refusals.drain(..)).chain(farewells).collect()
    }
}
