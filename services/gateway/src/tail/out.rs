//! The way to a tail's reader: a buffer that is waited for, or not.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Slow;

/// How long a reader may take nothing at all while rows wait for it; then its tail ends, which gives its place to somebody else.
const STUCK_FOR: Duration = Duration::from_secs(30);

/// The way to the reader's connection.
pub(super) struct Out<P> {
    pub(super) send: mpsc::Sender<P>,
    pub(super) slow: Slow,
    pub(super) stop: CancellationToken,
    /// Since when there has been no room for rows that are not waited for.
    pub(super) full_since: Option<Instant>,
}

/// Whether there is room for rows.
pub(super) enum Room<'o, P> {
    Yes(mpsc::Permit<'o, P>),
    /// Not now.
    No,
    /// The reader is gone or stuck, or the service stops.
    Never,
}

impl<P> Out<P> {
    /// Hands over what is no row, which is waited for in any case; false if the reader is gone, is stuck, or the service stops.
    pub(super) async fn say(&mut self, part: P) -> bool {
        // Neither the token nor the end of the service is looked at while a reader is waited for: so that is not for ever.
        let room = self.stop.run_until_cancelled(timeout(STUCK_FOR, self.send.reserve())).await;
        let Some(Ok(Ok(room))) = room else { return false };
        room.send(part);
        true
    }

    /// Room for rows: waited for, where the log waits for its reader.
    pub(super) async fn room(&mut self) -> Room<'_, P> {
        if self.slow == Slow::Wait {
            let room = self.stop.run_until_cancelled(timeout(STUCK_FOR, self.send.reserve())).await;
            return match room {
                Some(Ok(Ok(room))) => Room::Yes(room),
                _ => Room::Never,
            };
        }
        match self.send.try_reserve() {
            Ok(room) => {
                self.full_since = None;
                Room::Yes(room)
            }
            Err(mpsc::error::TrySendError::Closed(())) => Room::Never,
            Err(mpsc::error::TrySendError::Full(())) => {
                let since = *self.full_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= STUCK_FOR { Room::Never } else { Room::No }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(slow: Slow) -> (Out<&'static str>, mpsc::Receiver<&'static str>) {
        let (send, receive) = mpsc::channel(1);
        (Out { send, slow, stop: CancellationToken::new(), full_since: None }, receive)
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_not_waited_for_for_ever() {
        let (mut out, mut receive) = out(Slow::Wait);
        assert!(out.say("row").await);
        let begun = Instant::now();
        assert!(!out.say("row").await, "it is stuck");
        assert_eq!(begun.elapsed(), STUCK_FOR);
        assert!(matches!(out.room().await, Room::Never), "rows too");
        assert_eq!(begun.elapsed(), STUCK_FOR * 2);
        let (handed, taken) = tokio::join!(out.say("row"), receive.recv());
        assert!(handed && taken.is_some(), "a slow one is waited for");
        let stop = out.stop.clone();
        let (handed, ()) = tokio::join!(out.say("row"), async { stop.cancel() });
        assert!(!handed, "the service stops");
        assert_eq!(begun.elapsed(), STUCK_FOR * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn rows_that_are_not_waited_for_find_room_or_none() {
        let (mut out, mut receive) = out(Slow::Drop);
        let begun = Instant::now();
        let Room::Yes(room) = out.room().await else { panic!("it is empty") };
        room.send("row");
        assert!(matches!(out.room().await, Room::No));
        tokio::time::advance(STUCK_FOR / 2).await;
        assert!(matches!(out.room().await, Room::No));
        assert_eq!(begun.elapsed(), STUCK_FOR / 2, "nothing was waited for");
        assert_eq!(receive.recv().await, Some("row"));
        assert!(matches!(out.room().await, Room::Yes(_)), "it takes some again");
        assert!(out.say("row").await);
        assert!(matches!(out.room().await, Room::No));
        tokio::time::advance(STUCK_FOR).await;
        assert!(matches!(out.room().await, Room::Never), "for so long it takes nothing at all");
        drop(receive);
        assert!(matches!(out.room().await, Room::Never));
    }
}
